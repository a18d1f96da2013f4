"""Adversarial loss of the tokenizer: hinge (paper eq. 5), weighted by the ratio of gradients (eq. 6)."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch import distributed as dist
from torch.nn import functional as F


def discriminator_loss(real: Float[Tensor, "..."], made: Float[Tensor, "..."]) -> dict[str, Tensor]:
    """Hinge loss of the discriminator, `E[max(0, 1 − D(x))] + E[max(0, 1 + D(x̂))]`, its two terms by name.

    Args:
        real: the discriminator's answer to originals.
        made: and to reconstructions.
    """
    return {
        "discriminator_real": F.relu(1 - real.float()).mean(),
        "discriminator_made": F.relu(1 + made.float()).mean(),
    }


def generator_loss(made: Float[Tensor, "..."]) -> Tensor:
    """What the tokenizer is asked for, `−E[D(x̂)]`."""
    return -made.float().mean()


def adaptive_weight(
    reference: Tensor, adversarial: Tensor, last_layer: Tensor, *, delta: float = 1e-4, largest: float = 1e4
) -> Tensor:
    """`λ = ‖∇ L_perc‖ / (‖∇ L_adv‖ + δ)`, gradients at the decoder's last layer (Esser 2021). Call on all ranks.

    Gradients are averaged over the processes before their norms are taken.

    Args:
        reference: the perceptual loss; the pixel loss where there is none.
        adversarial: `generator_loss`.
        last_layer: its weight.
        delta: keeps the ratio finite.
        largest: the ratio is clamped to this.

    Returns:
        The weight, detached.
    """
    norms = []
    for loss in (reference, adversarial):
        gradient = torch.autograd.grad(loss, last_layer, retain_graph=True)[0].float()
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(gradient)
            gradient = gradient / dist.get_world_size()
        norms.append(gradient.norm())
    return (norms[0] / (norms[1] + delta)).clamp(0, largest).detach()
