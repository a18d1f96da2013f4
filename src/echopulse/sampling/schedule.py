"""Masking schedules and the confidence that decides what stays."""

import math
from functools import lru_cache

import torch
from jaxtyping import Bool, Float, Int
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


@lru_cache(maxsize=8)
def halton_rank(grid: tuple[int, int, int]) -> Int[Tensor, "t gh gw"]:
    """When each position's turn comes, 0 first: the Halton sequence spreads any first part of it evenly.

    Source: Besnier 2025 (arXiv 2503.17076), for pictures; here over time too, with bases 2 (time), 3 and 5.

    Args:
        grid: token frames, rows, columns.
    """
    rank = torch.full(grid, -1, dtype=torch.long)
    turn, count = 0, 0
    while count < rank.numel():
        place = tuple(int(_radical_inverse(turn, base) * size) for base, size in zip((2, 3, 5), grid, strict=True))
        if rank[place] < 0:
            rank[place] = count
            count += 1
        turn += 1
    return rank


def _radical_inverse(number: int, base: int) -> float:
    """The digits of a number mirrored at the point: the Halton sequence of a base, in [0, 1)."""
    value, scale = 0.0, 1.0
    while number:
        scale /= base
        value += scale * (number % base)
        number //= base
    return value
