"""Masking schedules and the confidence that decides what stays."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def cosine_share(progress: float) -> float:
    """Share of codes still hidden after `progress` in [0, 1] of the steps (Chang 2022, MaskGIT)."""
    return math.cos(math.pi / 2 * progress)


def keep_most_confident(
    confidence: Float[Tensor, "b n"], hidden: Bool[Tensor, "b n"], num_hidden: int
) -> Bool[Tensor, "b n"]:
    """Which positions stay hidden: the `num_hidden` least confident of those that were.

    Args:
        confidence: of the values just drawn.
        hidden: positions that were hidden before this step.
        num_hidden: how many stay hidden in each row; at least one is always revealed.
    """
    order = torch.where(hidden, confidence, torch.inf).argsort(dim=-1)
    rank = torch.empty_like(order).scatter_(-1, order, torch.arange(order.shape[-1]).expand_as(order))
    limit = torch.minimum(hidden.sum(-1, keepdim=True) - 1, torch.tensor(num_hidden))
    return hidden & (rank < limit)
