"""The chamber segmenter: a small U-Net that labels every pixel of one frame."""

from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from echopulse.axes import MASK_CLASSES
from echopulse.errors import InputError


@dataclass(frozen=True)
class SegmenterConfig:
    """Shape of the segmenter.

    Attributes:
        widths: channels at 1/2, 1/4, ... of the picture's side; multiples of 8.
        size: side of the square pictures that it was trained on, pixels.
    """

    widths: tuple[int, ...] = (32, 64, 96, 128)
    size: int = 128

    def __post_init__(self) -> None:
        if not self.widths or any(width < 8 or width % 8 for width in self.widths):
            raise InputError(f"segmenter widths are {self.widths}; expected multiples of 8")
        if self.size < 1 or self.size % self.reduction:
            raise InputError(f"segmenter size is {self.size}; expected a multiple of {self.reduction}")

    @property
    def reduction(self) -> int:
        """Side of the picture over side of the coarsest map."""
        return 2 ** len(self.widths)


class ChamberSegmenter(nn.Module):
    """Grey picture to class scores (Ronneberger 2015).

    Differs from the U-Net of the paper: pixels enter and scores leave as 2×2 blocks, so that nothing is computed at
    full resolution; steps are residual; skips are added and not concatenated.
    """

    def __init__(self, config: SegmenterConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.widths
        pairs = list(pairwise(widths))
        self.stem = nn.Conv2d(4, widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList(_Residual(width) for width in widths)
        self.downs = nn.ModuleList(nn.Conv2d(fine, coarse, 2, stride=2) for fine, coarse in pairs)
        self.ups = nn.ModuleList(nn.Conv2d(coarse, 4 * fine, 1) for fine, coarse in pairs)
        self.up_blocks = nn.ModuleList(_Residual(width) for width in widths[:-1])
        self.head = nn.Conv2d(widths[0], 4 * len(MASK_CLASSES), 3, padding=1)

    def forward(self, frames: Float[Tensor, "n 1 h w"]) -> Float[Tensor, "n k h w"]:
        """Scores of every class; `h` and `w` are multiples of `config.reduction`, grey levels in [0, 1]."""
        x = self.stem(F.pixel_unshuffle(2 * frames - 1, 2).contiguous(memory_format=torch.channels_last))
        skips = []
        for block, down in zip(self.down_blocks, self.downs, strict=False):
            x = block(x)
            skips.append(x)
            x = down(x)
        x = self.down_blocks[-1](x)
        for block, up in zip(reversed(self.up_blocks), reversed(self.ups), strict=True):
            x = block(F.pixel_shuffle(up(x), 2) + skips.pop())
        return F.pixel_shuffle(self.head(x), 2)


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, width)
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.gelu(self.first(F.gelu(self.norm(x)))))
