"""Loss of the masked generative transformer."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from echopulse.models.quantizer import split_factors


def masked_code_loss(
    logits: Float[Tensor, "b t gh gw k"],
    codes: Int[Tensor, "b t gh gw"],
    hidden: Bool[Tensor, "b t gh gw"],
    factors: tuple[int, ...],
    num_hidden: Tensor | None = None,
) -> dict[str, Tensor]:
    """Cross-entropy of the hidden codes, `−Σ_{i∈M} log p(y_i | visible, ecg)` (paper eq. 7), summed over factors.

    Args:
        logits: factors side by side along the last axis.
        codes: the truth.
        hidden: which positions the loss is over.
        factors: sizes of the factors.
        num_hidden: count to divide by; over all ranks and accumulation steps where there are several.

    Returns:
        `cross_entropy` in nats a code (the loss) and `accuracy` of whole codes.
    """
    truth = split_factors(codes, factors)[hidden]
    total = num_hidden if num_hidden is not None else hidden.sum().clamp(min=1)
    loss, right = (
        logits.new_zeros((), dtype=torch.float32),
        torch.ones(truth.shape[0], dtype=torch.bool, device=logits.device),
    )
    for i, part in enumerate(logits[hidden].float().split(factors, dim=-1)):
        loss = loss + F.cross_entropy(part, truth[:, i], reduction="sum") / total
        right &= part.argmax(-1) == truth[:, i]
    return {"cross_entropy": loss, "accuracy": right.float().mean()}
