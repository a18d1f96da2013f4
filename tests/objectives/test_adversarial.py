"""Hinge losses and the adaptive weight, against the same written out by hand; what discriminators refuse."""

import pytest
import torch

from echopulse.errors import InputError
from echopulse.models.discriminator import DiscriminatorConfig, PatchDiscriminator
from echopulse.objectives.adversarial import adaptive_weight, discriminator_loss, generator_loss


def test_hinge_is_what_it_says() -> None:
    real, made = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-3.0, -0.5, 1.0])
    terms = discriminator_loss(real, made)
    assert float(terms["discriminator_real"]) == pytest.approx((0 + 0.5 + 2) / 3)
    assert float(terms["discriminator_made"]) == pytest.approx((0 + 0.5 + 2) / 3)
    assert float(generator_loss(made)) == pytest.approx((3 + 0.5 - 1) / 3)


def test_adaptive_weight_is_the_ratio_of_gradient_norms() -> None:
    layer = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
    weight = adaptive_weight((layer**2).sum(), 0.1 * layer.sum(), layer)
    assert float(weight) == pytest.approx(10 / (0.1 * 2**0.5 + 1e-4))
    assert not weight.requires_grad
    assert float(adaptive_weight((layer**2).sum(), 0 * layer.sum(), layer, largest=50.0)) == 50


@pytest.mark.parametrize("kind", ["image", "video"])
def test_discriminator_learns_to_tell_noise_from_ramps(kind: str) -> None:
    torch.manual_seed(0)
    network = PatchDiscriminator(DiscriminatorConfig(kind=kind, width=8))  # type: ignore[arg-type]
    ramps = torch.linspace(0, 1, 32).expand(2, 3, 1, 32, 32)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    losses = []
    for _ in range(15):
        terms = discriminator_loss(network(ramps), network(torch.rand(2, 3, 1, 32, 32)))
        loss = terms["discriminator_real"] + terms["discriminator_made"]
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.5 * losses[0]
    optimizer.zero_grad()
    network(ramps).square().mean().backward()
    assert all(p.grad is not None and p.grad.any() for p in network.parameters())


def test_video_discriminator_sees_motion_and_the_image_one_does_not() -> None:
    torch.manual_seed(0)
    video = torch.rand(1, 5, 1, 32, 32)
    for kind, differs in (("video", True), ("image", False)):
        network = PatchDiscriminator(DiscriminatorConfig(kind=kind, width=8)).eval()  # type: ignore[arg-type]
        first, swapped = network(video)[:, 0], network(video[:, [0, 2, 1, 3, 4]])[:, 0]
        assert torch.allclose(first, swapped, atol=1e-6) is not differs


def test_what_discriminators_refuse() -> None:
    video = PatchDiscriminator(DiscriminatorConfig(kind="video", width=8))
    with pytest.raises(InputError, match="clips of 1 frame"):
        video(torch.zeros(1, 1, 1, 32, 32))
    with pytest.raises(InputError, match="got 3 channels"):
        video(torch.zeros(1, 3, 3, 32, 32))
    with pytest.raises(InputError, match="width = 0"):
        DiscriminatorConfig(width=0)
    image = PatchDiscriminator(DiscriminatorConfig(kind="image", width=8))
    assert image(torch.zeros(1, 1, 1, 32, 32)).shape == (1, 1, 2, 2)
