"""The perceptual loss and its networks: what Gabor energies see, and that only the true VGG16 is taken."""

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from echopulse.errors import InputError
from echopulse.models.perceptual import GaborFeatures, Vgg16Features, vgg16_shapes
from echopulse.objectives.perceptual import perceptual_loss


def _noise(frames: int = 3, seed: int = 0, strength: float = 0.1) -> Tensor:
    noise = torch.randn(2, frames, 1, 64, 64, generator=torch.Generator().manual_seed(seed))
    return 0.5 + strength * noise


def _loss(video: Tensor, again: Tensor, change: bool = False) -> float:
    return float(perceptual_loss(GaborFeatures(), video, again, torch.tensor([0, 1]), change=change))


def test_texture_of_the_same_kind_is_close_and_none_is_far() -> None:
    """The opposite of the pixel error, which likes no texture twice as much as other texture."""
    video, other, smooth = _noise(), _noise(seed=1), torch.full((2, 3, 1, 64, 64), 0.5)
    assert _loss(video, video) == 0
    assert _loss(video, other) < 0.1 * _loss(video, smooth)
    assert (video - other).square().mean() > 1.5 * (video - smooth).square().mean()


def test_strength_is_compared_by_its_logarithm() -> None:
    network, chosen = GaborFeatures(floor=0.0), torch.tensor([0, 1])
    for strength in (0.05, 0.2):
        loss = perceptual_loss(network, _noise(strength=strength), _noise(strength=strength / 2), chosen)
        assert float(loss) == pytest.approx(math.log(2) ** 2, rel=0.05)


def test_texture_that_stands_still_is_found_by_its_change() -> None:
    video = _noise()
    still = video[:, :1].expand(-1, 3, -1, -1, -1)
    assert _loss(video, still) < 0.1 * _loss(video, still, change=True)


def test_each_filter_answers_its_own_wave_with_its_amplitude() -> None:
    features = GaborFeatures(scales=1, directions=2, floor=0.0)
    x = torch.arange(64)
    for row, wavelength in enumerate((3.0, 4.25)):
        picture = 0.2 * torch.cos(2 * math.pi * x / wavelength).expand(1, 1, 64, 64)
        energies = features(picture)[0].exp()[0, :, 2:-2, 2:-2].mean(dim=(1, 2))
        assert float(energies[2 * row]) == pytest.approx(0.2, rel=0.05)
        assert int(energies.argmax()) == 2 * row


def test_constant_brightness_is_no_texture() -> None:
    for energies in GaborFeatures(floor=0.0)(torch.full((1, 1, 64, 64), 0.7)):
        assert energies.exp().max() < 1e-3


def test_gradient_is_finite_where_nothing_is() -> None:
    again = torch.full((2, 1, 1, 32, 32), 0.5, requires_grad=True)
    perceptual_loss(GaborFeatures(), _noise(1)[..., :32, :32], again, torch.tensor([0, 0]), change=True).backward()
    assert again.grad is not None and torch.isfinite(again.grad).all()


@pytest.mark.parametrize("chosen", [[0, 2], [-1, 0]])
def test_frame_that_has_no_next_one_is_refused(chosen: list[int]) -> None:
    with pytest.raises(InputError, match="expected 0 to 1 of 3 frames"):
        perceptual_loss(GaborFeatures(), _noise(), _noise(), torch.tensor(chosen))


def test_other_weights_than_those_of_vgg16_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "vgg16.safetensors"
    with pytest.raises(InputError, match="no such file"):
        Vgg16Features(file)
    file.write_bytes(b"no weights")
    with pytest.raises(InputError, match="not a safetensors file"):
        Vgg16Features(file)
    save_file({"features.0.weight": torch.zeros(3)}, file)
    with pytest.raises(InputError, match="its 13 convolutions"):
        Vgg16Features(file)
    save_file({name: torch.zeros(shape) for name, shape in vgg16_shapes().items()}, file)
    with pytest.raises(InputError, match="SHA-256 begins with 25d244c5"):
        Vgg16Features(file)
