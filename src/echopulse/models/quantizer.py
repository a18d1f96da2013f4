"""Discrete codes behind one interface: lookup-free (LFQ), finite scalar (FSQ), spherical binary (BSQ) and vector (VQ).

A code is an integer made of digits; neighbouring digits are joined into *factors* that the generator predicts by one
softmax each. `factors` are the sizes of these softmaxes, most significant first; their product is the codebook size.
The losses of a quantizer are in `objectives.quantization`.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from echopulse.errors import InputError


@dataclass(frozen=True)
class QuantizerConfig:
    """Which quantizer, and its alphabet.

    Attributes:
        kind: `lfq` (the paper's), `fsq`, `bsq`, or `vq` (cosine similarity, as in the released network).
        levels: number of values of each dimension; LFQ and BSQ have 2 everywhere, VQ has its codebook size alone.
        group: neighbouring dimensions that form one factor.
        entropy_weight: LFQ, BSQ: weight of the entropy term.
        commitment_weight: LFQ, VQ: weight of the commitment term.
        diversity: LFQ, BSQ: γ, weight of the batch entropy within the entropy term.
        entropy_group: LFQ, BSQ: bits whose joint codes the batch entropy counts; 1 is nearly free, all bits are exact.
        code_dim: VQ: length of a code vector.
    """

    kind: Literal["lfq", "fsq", "bsq", "vq"] = "lfq"
    levels: tuple[int, ...] = (2,) * 13
    group: int = 13
    entropy_weight: float = 0.1
    commitment_weight: float = 0.25
    diversity: float = 1.0
    entropy_group: int = 1
    code_dim: int = 32

    def __post_init__(self) -> None:
        if not self.levels or min(self.levels) < 2 or math.prod(self.levels) > 2**24:
            raise InputError(f"quantizer levels {self.levels}: expected at least 2 each and at most 2^24 codes")
        if self.kind in ("lfq", "bsq") and set(self.levels) != {2}:
            raise InputError(
                f"{self.kind.upper()} levels are {self.levels}; expected 2 in every dimension (or kind = fsq)"
            )
        if self.kind == "vq" and len(self.levels) != 1:
            raise InputError(f"VQ levels are {self.levels}; expected one number, the codebook size")
        if self.group < 1 or self.code_dim < 1:
            raise InputError(f"quantizer group is {self.group}, code_dim {self.code_dim}; expected 1 or more")
        if not 1 <= self.entropy_group <= 16:
            raise InputError(f"quantizer entropy_group is {self.entropy_group}; expected 1 to 16 bits")

    @property
    def factors(self) -> tuple[int, ...]:
        """Sizes of the softmaxes that together name a code."""
        return tuple(math.prod(self.levels[i : i + self.group]) for i in range(0, len(self.levels), self.group))


class Quantized(NamedTuple):
    """What a quantizer gives.

    Attributes:
        features: after quantization, with a straight-through gradient.
        codes: integers.
        before: the value that was rounded: LFQ the projection, FSQ bounded to [-1, 1], BSQ and VQ of unit length.
        after: its rounded value; in VQ with the gradient of the codebook.
    """

    features: Float[Tensor, "... d"]
    codes: Int[Tensor, "..."]
    before: Float[Tensor, "... k"]
    after: Float[Tensor, "... k"]


class Quantizer(nn.Module):
    """Rounds each dimension of a projected feature to its levels, with a straight-through gradient.

    LFQ: `q = sign(z)` (Yu 2024). FSQ: `q = round(bounded z)` (Mentzer 2023). BSQ: `q = sign(u) / √L` of the L bits of
    `u = z / ‖z‖` (Zhao 2024). The code is the mixed-radix number of the digits, the first dimension most significant.

    Args:
        config: alphabet and loss weights.
        dim: width of the features before projection.
    """

    _levels: Tensor
    _radix: Tensor

    def __init__(self, config: QuantizerConfig, dim: int) -> None:
        super().__init__()
        assert config.kind != "vq"
        self.config = config
        self.project_in = nn.Linear(dim, len(config.levels))
        self.project_out = nn.Linear(len(config.levels), dim)
        levels = torch.tensor(config.levels)
        radix = torch.tensor([math.prod(config.levels[i + 1 :]) for i in range(len(config.levels))])
        self.register_buffer("_levels", levels, persistent=False)
        self.register_buffer("_radix", radix, persistent=False)
        self._length = len(config.levels) ** -0.5 if config.kind == "bsq" else 1.0

    @property
    def codebook_size(self) -> int:
        """Number of codes."""
        return math.prod(self.config.levels)

    @property
    def highest_digits(self) -> Int[Tensor, " k"]:
        """The largest value of each digit; the least is 0."""
        return self._levels - 1

    def forward(self, x: Float[Tensor, "... d"], quantize: bool = True) -> Quantized:
        """Quantizes features.

        Args:
            x: features.
            quantize: False lets the bounded values through unrounded, to warm a cold network up.
        """
        before = self._bound(_project(self.project_in, x))
        after = self._round(before)
        through = before + (after - before).detach() if quantize else before
        features = self.project_out(through.to(self.project_out.weight.dtype))
        codes = self.join_digits(self._to_digits(after).round().long())
        return Quantized(features, codes, before, after)

    def embed(self, codes: Int[Tensor, "..."]) -> Float[Tensor, "... d"]:
        """Features of given codes, as `forward` returns them."""
        return self.embed_digits(self.digits(codes).float())

    def digits(self, codes: Int[Tensor, "..."]) -> Int[Tensor, "... k"]:
        """The digits of codes, the most significant first."""
        return codes.unsqueeze(-1) // self._radix % self._levels

    def unrounded_digits(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... k"]:
        """The digits of features before they are rounded, from 0 to `highest_digits`."""
        digits = self._to_digits(self._bound(_project(self.project_in, x)))
        return digits.clamp(min=0).minimum(self.highest_digits)

    def join_digits(self, digits: Int[Tensor, "... k"]) -> Int[Tensor, "..."]:
        """The codes of given digits; inverse of `digits`."""
        return (digits * self._radix).sum(-1)

    def embed_digits(self, digits: Float[Tensor, "... k"]) -> Float[Tensor, "... d"]:
        """Features of digits, which need not be whole: between two levels lies what is between their features."""
        return self.project_out(self._to_values(digits).to(self.project_out.weight.dtype))

    def _bound(self, z: Tensor) -> Tensor:
        match self.config.kind:
            case "fsq":
                return torch.tanh(z)
            case "bsq":
                return F.normalize(z, dim=-1)
            case _:
                return z

    def _round(self, bounded: Tensor) -> Tensor:
        """Nearest level; LFQ and BSQ have one level on each side of zero."""
        if self.config.kind != "fsq":
            return torch.where(bounded > 0, self._length, -self._length)
        return self._to_values(self._to_digits(bounded).round())

    def _to_digits(self, values: Tensor) -> Tensor:
        """Where values lie on the scale of their digits, not rounded."""
        return (values / self._length + 1) / 2 * self.highest_digits

    def _to_values(self, digits: Tensor) -> Tensor:
        """Inverse of `_to_digits`."""
        return (digits / self.highest_digits * 2 - 1) * self._length


class VectorQuantizer(nn.Module):
    """Nearest vector of a learned codebook by cosine similarity (Yu 2022, ViT-VQGAN), with a straight-through gradient.

    Differs from the released network: the codebook learns by the gradient of `‖sg(z) − e‖²` (paper eq. 4) where that
    one used a moving average.

    Args:
        config: codebook size and code length.
        dim: width of the features before projection.
    """

    def __init__(self, config: QuantizerConfig, dim: int) -> None:
        super().__init__()
        assert config.kind == "vq"
        self.config = config
        self.project_in = nn.Linear(dim, config.code_dim)
        self.project_out = nn.Linear(config.code_dim, dim)
        self.codebook = nn.Parameter(F.normalize(torch.randn(config.levels[0], config.code_dim), dim=-1))

    @property
    def codebook_size(self) -> int:
        """Number of codes."""
        return self.config.levels[0]

    def forward(self, x: Float[Tensor, "... d"], quantize: bool = True) -> Quantized:
        """Quantizes features; see `Quantizer.forward`."""
        before = F.normalize(_project(self.project_in, x), dim=-1)
        codebook = F.normalize(self.codebook.float(), dim=-1)
        codes = (before.detach() @ codebook.detach().T).argmax(dim=-1)
        after = F.embedding(codes, codebook)
        through = before + (after - before).detach() if quantize else before
        return Quantized(self.project_out(through.to(self.project_out.weight.dtype)), codes, before, after)

    def embed(self, codes: Int[Tensor, "..."]) -> Float[Tensor, "... d"]:
        """Features of given codes, as `forward` returns them."""
        value = F.embedding(codes, F.normalize(self.codebook.float(), dim=-1))
        return self.project_out(value.to(self.project_out.weight.dtype))


def make_quantizer(config: QuantizerConfig, dim: int) -> Quantizer | VectorQuantizer:
    """The quantizer of a config, for features of width `dim`."""
    return VectorQuantizer(config, dim) if config.kind == "vq" else Quantizer(config, dim)


def _project(layer: nn.Linear, x: Tensor) -> Tensor:
    """The layer in float32, whatever the precision around it: a code must not hang on a rounding error."""
    with torch.autocast(x.device.type, enabled=False):
        return F.linear(x.float(), layer.weight.float(), layer.bias.float())


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
