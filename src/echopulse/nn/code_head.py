"""Logits of a code's factors, each given the factors before it."""

from collections.abc import Callable
from itertools import accumulate

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

_ROWS = 64
"""Rows are padded to multiples of this: a CPU keeps a program for every number of rows that it has multiplied."""

FactorLogits = Callable[[int, Int[Tensor, "n i"]], Float[Tensor, "n f"]]
"""Logits of factor i, in rows, for the values of the i factors before it; asked for once for each factor, in turn."""


class CodeHead(nn.Linear):
    """`p(code | x) = Π_i p(factor_i | x, factors before i)`: a small network behind the usual linear layer.

    Without it factors are drawn as if they had nothing to do with each other, and a code of six digits is seldom one
    that the tokenizer would have chosen. The idea is that of a transformer over depth (Lee 2022, arXiv 2203.01941),
    without attention: few factors of few values need none.

    Args:
        width: of the features x.
        factors: sizes of the softmaxes.
        joint_width: of the network; 0: factors are independent given x.
    """

    def __init__(self, width: int, factors: tuple[int, ...], joint_width: int = 0) -> None:
        super().__init__(width, sum(factors))
        self._factors = factors
        self.joint = joint_width > 0 and len(factors) > 1
        if self.joint:
            self.feature = nn.Linear(width, joint_width)
            self.before = nn.ModuleList(nn.Embedding(size, joint_width) for size in factors[:-1])
            self.given = nn.ModuleList(nn.Linear(joint_width, size) for size in factors[1:])
            for layer in self.given:  # begins near the linear layer alone
                nn.init.normal_(layer.weight, std=0.01)  # type: ignore[arg-type]
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(  # type: ignore[override]
        self, x: Float[Tensor, "*n d"], factors: Int[Tensor, "*n g"] | None = None
    ) -> Float[Tensor, "*n k"]:
        """Logits of all factors side by side, for training.

        Args:
            x: features.
            factors: the true ones; each factor's logits see those before it. Needed where the head is joint.
        """
        logits = super().forward(x)
        if not self.joint:
            return logits
        assert factors is not None, "a joint head needs the factors that it may see"
        summed = accumulate(table(factors[..., i]) for i, table in enumerate(self.before))
        feature = self.feature(x)
        added = [layer(F.gelu(feature + seen)) for layer, seen in zip(self.given, summed, strict=True)]
        return logits + F.pad(torch.cat(added, dim=-1), (self._factors[0], 0))

    def one_by_one(self, x: Float[Tensor, "n d"]) -> FactorLogits:
        """What gives the logits of one factor after the other, for drawing."""
        n, more = len(x), -len(x) % _ROWS
        x = F.pad(x, (0, 0, 0, more))
        parts = super().forward(x).split(self._factors, dim=-1)
        feature = self.feature(x) if self.joint else None
        seen = torch.zeros((), dtype=x.dtype, device=x.device)

        def logits(i: int, before: Tensor) -> Tensor:
            nonlocal seen
            if feature is None or i == 0:
                return parts[i][:n]
            seen = seen + self.before[i - 1](F.pad(before[:, i - 1], (0, more)))
            return (parts[i] + self.given[i - 1](F.gelu(feature + seen)))[:n]

        return logits
