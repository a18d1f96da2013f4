"""Losses of the detail network against their definitions."""

import torch
from skimage.metrics import structural_similarity

from echopulse.objectives.detail import energy_score, structural_dissimilarity


def test_structural_dissimilarity_is_that_of_scikit_image() -> None:
    rng = torch.Generator().manual_seed(0)
    a = torch.rand(1, 1, 48, 48, generator=rng)
    b = (a + 0.2 * torch.randn(1, 1, 48, 48, generator=rng)).clamp(0, 1)
    _, every = structural_similarity(
        a[0, 0].numpy(), b[0, 0].numpy(), win_size=7, data_range=1.0, use_sample_covariance=False, full=True
    )
    assert abs(float(structural_dissimilarity(a, b)) - (1 - every[3:-3, 3:-3].mean())) < 1e-5
    assert abs(float(structural_dissimilarity(a, a))) < 1e-6


def test_energy_score_is_least_for_the_true_distribution() -> None:
    """Draws of the right strength and correlation beat the mean, weaker, stronger and rougher ones."""
    rng = torch.Generator().manual_seed(0)

    def texture(strength: float = 1.0, window: int = 5) -> torch.Tensor:
        white = torch.randn(400, 1, 24, 24, generator=rng)
        return strength * window * torch.nn.functional.avg_pool2d(white, window, 1, window // 2)

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
