"""Losses of the quantizers (paper eq. 4): entropy of the bits, commitment, codebook; right on several processes."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch import distributed as dist
from torch.nn import functional as F

from echopulse.models.quantizer import Quantized, QuantizerConfig

_SHARPNESS = 4.0
"""Logit of a bit over its value: `p(q|z) ∝ exp(−‖z − q‖²)` gives `4 z` between −1 and 1."""


def quantizer_losses(
    config: QuantizerConfig, quantized: Quantized, valid: Bool[Tensor, "..."] | None = None
) -> dict[str, Tensor]:
    """The terms that a quantizer is trained with, weighted, by name. Call on all ranks.

    - LFQ: `entropy`, `E[H(p(q|z))] − γ·H(E[p(q|z)])` in nats a bit (Yu 2024), and `commitment`, `β·‖z − sg(q)‖²`.
    - BSQ: `entropy` alone (Zhao 2024: the sphere bounds the distance).
    - VQ: `codebook`, `‖sg(z) − e‖²`, and `commitment`, `β·‖z − sg(e)‖²`.
    - FSQ: none.

    The batch entropy is over the tokens of all processes; it counts the joint codes of `entropy_group` neighbouring
    bits (1: Zhao 2024, nearly free; all bits: exact).

    Args:
        config: weights.
        quantized: what the quantizer gave.
        valid: tokens that count; None for all.
    """
    before, after = quantized.before.flatten(0, -2), quantized.after.flatten(0, -2)
    mask = None if valid is None else valid.flatten()
    terms: dict[str, Tensor] = {}
    if config.kind in ("lfq", "bsq"):
        scale = _SHARPNESS * (before.shape[-1] ** 0.5 if config.kind == "bsq" else 1.0)
        terms["entropy"] = config.entropy_weight * _entropy(scale * before, mask, config)
    if config.kind == "vq":
        terms["codebook"] = _global_mean((before.detach() - after).square(), mask).sum()
        terms["commitment"] = config.commitment_weight * _global_mean((before - after.detach()).square(), mask).sum()
    if config.kind == "lfq":
        terms["commitment"] = config.commitment_weight * _global_mean((before - after.detach()).square(), mask).mean()
    return terms


def _entropy(logits: Float[Tensor, "n k"], mask: Tensor | None, config: QuantizerConfig) -> Tensor:
    sample = _binary_entropy(torch.sigmoid(logits), logits)
    batch = logits.new_zeros(())
    for bits in logits.split(config.entropy_group, dim=-1):
        p = _global_mean(_joint(torch.sigmoid(bits)), mask)
        batch = batch - (p * p.clamp(min=1e-12).log()).sum()
    return _global_mean(sample, mask).mean() - config.diversity * batch / logits.shape[-1]


def _joint(p: Float[Tensor, "n g"]) -> Float[Tensor, "n k"]:
    """Probabilities of all codes of independent bits, the first bit most significant."""
    codes = p.new_ones(len(p), 1)
    for bit in p.unbind(dim=-1):
        codes = (codes.unsqueeze(-1) * torch.stack([1 - bit, bit], dim=-1).unsqueeze(1)).flatten(1)
    return codes


def _binary_entropy(p: Tensor, logits: Tensor) -> Tensor:
    """`−p log p − (1−p) log(1−p)`, from logits so that it is finite everywhere."""
    return F.softplus(logits) - p * logits


def _global_mean(x: Float[Tensor, "n k"], mask: Tensor | None) -> Float[Tensor, " k"]:
    """Mean over the valid tokens of all processes.

    The value is the global mean on every process; the gradient is this process's share times the number of processes,
    so that the mean of all processes' gradients, as data-parallel training takes it, is that of the global mean.
    """
    total = x.sum(0) if mask is None else x[mask].sum(0)
    count = torch.tensor(float(len(x) if mask is None else int(mask.sum())), device=x.device)
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return total / count.clamp(min=1)
    sums = torch.cat([total.detach(), count.view(1)])
    dist.all_reduce(sums)
    own = total * dist.get_world_size() / sums[-1].clamp(min=1)
    return own + (sums[:-1] / sums[-1].clamp(min=1) - own).detach()
