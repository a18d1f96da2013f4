"""Discrete codes behind one interface: lookup-free (LFQ) and finite scalar (FSQ) quantization.

A code is an integer made of digits; neighbouring digits are joined into *factors* that the generator predicts by one
softmax each. `factors` are the sizes of these softmaxes, most significant first; their product is the codebook size.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from echopulse.errors import InputError


@dataclass(frozen=True)
class QuantizerConfig:
    """Which quantizer, and its alphabet.

    Attributes:
        kind: `lfq` (the paper's) or `fsq`.
        levels: number of values of each dimension; LFQ has 2 everywhere.
        group: neighbouring dimensions that form one factor.
        entropy_weight: LFQ: weight of the entropy term.
        commitment_weight: LFQ: weight of the commitment term.
        diversity: LFQ: γ, weight of the batch entropy within the entropy term.
    """

    kind: Literal["lfq", "fsq"] = "lfq"
    levels: tuple[int, ...] = (2,) * 13
    group: int = 13
    entropy_weight: float = 0.1
    commitment_weight: float = 0.25
    diversity: float = 1.0

    def __post_init__(self) -> None:
        if not self.levels or min(self.levels) < 2 or math.prod(self.levels) > 2**24:
            raise InputError(f"quantizer levels {self.levels}: expected at least 2 each and at most 2^24 codes")
        if self.kind == "lfq" and set(self.levels) != {2}:
            raise InputError(f"LFQ levels are {self.levels}; expected 2 in every dimension (or kind = fsq)")
        if self.group < 1:
            raise InputError(f"quantizer group is {self.group}; expected 1 or more")

    @property
    def factors(self) -> tuple[int, ...]:
        """Sizes of the softmaxes that together name a code."""
        return tuple(math.prod(self.levels[i : i + self.group]) for i in range(0, len(self.levels), self.group))


class Quantizer(nn.Module):
    """Rounds each dimension of a projected feature to its levels, with a straight-through gradient.

    LFQ: `q = sign(z)` (Yu 2024). FSQ: `q = round(bounded z)` (Mentzer 2023). The code is the mixed-radix number of
    the digits, the first dimension most significant.

    Args:
        config: alphabet and loss weights.
        dim: width of the features before projection.
    """

    _levels: Tensor
    _radix: Tensor

    def __init__(self, config: QuantizerConfig, dim: int) -> None:
        super().__init__()
        self.config = config
        self.project_in = nn.Linear(dim, len(config.levels))
        self.project_out = nn.Linear(len(config.levels), dim)
        levels = torch.tensor(config.levels)
        radix = torch.tensor([math.prod(config.levels[i + 1 :]) for i in range(len(config.levels))])
        self.register_buffer("_levels", levels, persistent=False)
        self.register_buffer("_radix", radix, persistent=False)

    @property
    def codebook_size(self) -> int:
        """Number of codes."""
        return math.prod(self.config.levels)

    def forward(
        self, x: Float[Tensor, "... d"], quantize: bool = True
    ) -> tuple[Float[Tensor, "... d"], Int[Tensor, "..."], dict[str, Tensor]]:
        """Quantizes features.

        Args:
            x: features.
            quantize: False lets the bounded values through unrounded, to warm a cold network up.

        Returns:
            Features after quantization, codes, and the losses by name (already weighted).
        """
        z = F.linear(x.float(), self.project_in.weight.float(), self.project_in.bias.float()).float()
        bounded = torch.tanh(z) if self.config.kind == "fsq" else z
        value = self._round(bounded)
        through = bounded + (value - bounded).detach() if quantize else bounded
        losses = self._lfq_losses(z, value) if self.config.kind == "lfq" else {}
        return self.project_out(through.to(self.project_out.weight.dtype)), self._encode(value), losses

    def embed(self, codes: Int[Tensor, "..."]) -> Float[Tensor, "... d"]:
        """Features of given codes, as `forward` returns them."""
        return self.project_out(self._decode(codes).to(self.project_out.weight.dtype))

    def _round(self, bounded: Tensor) -> Tensor:
        """Nearest level of values in [-1, 1]; LFQ has the levels -1 and 1."""
        if self.config.kind == "lfq":
            return torch.where(bounded > 0, 1.0, -1.0)
        steps = self._levels - 1
        return torch.round((bounded + 1) / 2 * steps) / steps * 2 - 1

    def _encode(self, value: Tensor) -> Tensor:
        digits = torch.round((value + 1) / 2 * (self._levels - 1)).long()
        return (digits * self._radix).sum(-1)

    def _decode(self, codes: Tensor) -> Tensor:
        digits = codes.unsqueeze(-1) // self._radix % self._levels
        return digits.float() / (self._levels - 1) * 2 - 1

    def _lfq_losses(self, z: Tensor, value: Tensor) -> dict[str, Tensor]:
        """Entropy by bit (Zhao 2024: nearly free, where all 8192 codes cost more than the network) and commitment."""
        p = torch.sigmoid(4 * z.reshape(-1, z.shape[-1]))
        sample, batch = _binary_entropy(p).mean(), _binary_entropy(p.mean(0)).mean()
        return {
            "entropy": self.config.entropy_weight * (sample - self.config.diversity * batch),
            "commitment": self.config.commitment_weight * F.mse_loss(z, value.detach()),
        }


def split_factors(codes: Int[Tensor, "..."], factors: tuple[int, ...]) -> Int[Tensor, "... g"]:
    """The factors of each code, most significant first."""
    parts = []
    for size in reversed(factors):
        parts.append(codes % size)
        codes = codes // size
    return torch.stack(parts[::-1], dim=-1)


def join_factors(parts: Int[Tensor, "... g"], factors: tuple[int, ...]) -> Int[Tensor, "..."]:
    """The code of given factors; inverse of `split_factors`."""
    codes = torch.zeros_like(parts[..., 0])
    for i, size in enumerate(factors):
        codes = codes * size + parts[..., i]
    return codes


def _binary_entropy(p: Tensor) -> Tensor:
    p = p.clamp(1e-6, 1 - 1e-6)
    return -(p * p.log() + (1 - p) * (1 - p).log())
