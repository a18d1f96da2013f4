"""Losses over what was hidden: codes of the generator, patches of the ECG, and the critic's judgement of codes."""

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from echopulse.models.quantizer import split_factors


def masked_code_loss(
    logits: Float[Tensor, "b t gh gw k"],
    codes: Int[Tensor, "b t gh gw"],
    hidden: Bool[Tensor, "b t gh gw"],
    factors: tuple[int, ...],
) -> dict[str, Tensor]:
    """Cross-entropy of the hidden codes, `−Σ_{i∈M} log p(y_i | visible, ecg)` (paper eq. 7), summed over factors.

    Args:
        logits: factors side by side along the last axis.
        codes: the truth.
        hidden: which positions the loss is over.
        factors: sizes of the factors.

    Returns:
        `cross_entropy` in nats a hidden code (the loss) and `accuracy` of whole codes.
    """
    truth = split_factors(codes, factors)[hidden]
    loss = logits.new_zeros((), dtype=torch.float32)
    right = torch.ones(truth.shape[0], dtype=torch.bool, device=logits.device)
    for i, part in enumerate(logits[hidden].float().split(factors, dim=-1)):
        loss = loss + F.cross_entropy(part, truth[:, i], reduction="sum") / max(len(truth), 1)
        right &= part.argmax(-1) == truth[:, i]
    return {"cross_entropy": loss, "accuracy": right.float().mean()}


def masked_patch_loss(
    drawn: Float[Tensor, "b l p s"], ecg: Float[Tensor, "b l n"], hidden: Bool[Tensor, "b l p"]
) -> dict[str, Tensor]:
    """Squared error of the hidden patches, each normalised to zero mean and unit variance (He 2022; Na 2024).

    Args:
        drawn: patches as the autoencoder draws them.
        ecg: the truth.
        hidden: which patches the loss is over.

    Returns:
        `patch_error`: 1 where every patch is drawn as its mean.
    """
    truth = rearrange(ecg.float(), "b l (p s) -> b l p s", s=drawn.shape[-1])[hidden]
    truth = F.layer_norm(truth, truth.shape[-1:], eps=1e-4)
    return {"patch_error": F.mse_loss(drawn[hidden].float(), truth)}


def critic_loss(scores: Float[Tensor, "b t gh gw"], real: Bool[Tensor, "b t gh gw"]) -> dict[str, Tensor]:
    """Binary cross-entropy of the critic against `1[token was real]` (paper eq. 9–10; Lezama 2022).

    Args:
        scores: log-odds that a code is real.
        real: which codes are; the others were drawn by the generator.

    Returns:
        `critic_entropy` in nats a code (the loss), and the share of codes judged rightly, `accuracy`.
    """
    scores = scores.float()
    return {
        "critic_entropy": F.binary_cross_entropy_with_logits(scores, real.float()),
        "accuracy": ((scores > 0) == real).float().mean(),
    }
