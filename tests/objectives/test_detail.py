"""Losses of the detail network against their definitions."""

import torch
from skimage.metrics import structural_similarity

from echopulse.objectives.detail import energy_score, spectral_error, structural_dissimilarity


def test_structural_dissimilarity_is_that_of_scikit_image() -> None:
    rng = torch.Generator().manual_seed(0)
    a = torch.rand(1, 1, 48, 48, generator=rng)
    b = (a + 0.2 * torch.randn(1, 1, 48, 48, generator=rng)).clamp(0, 1)
    _, every = structural_similarity(
        a[0, 0].numpy(), b[0, 0].numpy(), win_size=7, data_range=1.0, use_sample_covariance=False, full=True
    )
    assert abs(float(structural_dissimilarity(a, b)) - (1 - every[3:-3, 3:-3].mean())) < 1e-5
    assert abs(float(structural_dissimilarity(a, a))) < 1e-6


def grain(shape: tuple[int, ...], rng: torch.Generator, strength: float, window: int) -> torch.Tensor:
    """White noise averaged in square windows, of the same strength for any of them."""
    white = torch.randn(shape, generator=rng)
    return strength * window * torch.nn.functional.avg_pool2d(white, window, 1, window // 2)


def test_energy_score_is_least_for_the_true_distribution() -> None:
    """Draws of the right strength and correlation beat the mean, weaker, stronger and rougher ones."""
    rng = torch.Generator().manual_seed(0)

    def texture(strength: float = 1.0, window: int = 5) -> torch.Tensor:
        return grain((400, 1, 24, 24), rng, strength, window)

    true = texture()
    right = energy_score(true, texture(), texture())
    others = {"mean": (0.0, 5), "weak": (0.6, 5), "strong": (1.5, 5), "rough": (1.0, 1), "smooth": (1.0, 9)}
    for name, how in others.items():
        assert energy_score(true, texture(*how), texture(*how)) > right + 0.01, name


def test_energy_score_sees_whether_channels_belong_together() -> None:
    rng = torch.Generator().manual_seed(0)

    def pair(same: bool) -> torch.Tensor:
        first, second = torch.randn(2, 300, 1, 12, 12, generator=rng)
        return torch.cat([first, first if same else second], dim=1)

    true = pair(True)
    assert energy_score(true, pair(True), pair(True)) < energy_score(true, pair(False), pair(False)) - 0.01


def test_spectral_error_asks_for_power_not_for_places() -> None:
    """Another draw of the same texture costs next to nothing; less, more, finer and coarser grain all cost."""
    rng = torch.Generator().manual_seed(0)

    def texture(strength: float = 1.0, window: int = 3) -> torch.Tensor:
        return grain((60, 2, 32, 48), rng, strength, window)

    true = texture()
    assert spectral_error(true, true) == 0
    assert spectral_error(true, texture()) < 0.01
    for how in ((0.7, 3), (1.4, 3), (1.0, 1), (1.0, 5)):
        assert spectral_error(true, texture(*how)) > 0.3, how


def test_spectral_error_of_strength_is_the_square_of_its_logarithm() -> None:
    true = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    expected = torch.log(torch.tensor(4.0)).square()
    assert abs(float(spectral_error(true, 2 * true) - expected)) < 1e-3
    made = (2 * true).requires_grad_()
    spectral_error(true, made).backward()
    assert made.grad is not None
    assert bool((made.grad * made).sum() > 0)  # weaker is better


def test_pictures_too_small_for_a_spectrum_have_no_error_of_it() -> None:
    assert spectral_error(torch.zeros(1, 1, 12, 40), torch.ones(1, 1, 12, 40)) == 0
