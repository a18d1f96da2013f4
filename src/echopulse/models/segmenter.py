"""The chamber segmenter: a small U-Net that labels every pixel of one frame."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from echopulse.axes import MASK_CLASSES
from echopulse.errors import InputError
from echopulse.nn.unet import UNet
from echopulse.signals.ventricle import tidied

_FRAMES_AT_ONCE = 5


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


class ChamberSegmenter(UNet):
    """Grey picture to class scores; both sides are folded into 2×2 blocks, so nothing is computed at full size."""

    def __init__(self, config: SegmenterConfig) -> None:
        super().__init__(4, config.widths, 4 * len(MASK_CLASSES))
        self.config = config

    def forward(self, frames: Float[Tensor, "n 1 h w"]) -> Float[Tensor, "n k h w"]:
        """Scores of every class; `h` and `w` are multiples of `config.reduction`, grey levels in [0, 1]."""
        x = F.pixel_unshuffle(2 * frames - 1, 2).contiguous(memory_format=torch.channels_last)
        return F.pixel_shuffle(super().forward(x), 2)

    def label(self, frames: np.ndarray) -> np.ndarray:
        """Classes of every pixel of a clip, holes of the cavity filled and its crumbs taken away.

        Args:
            frames: uint8 (frames, height, width), of any size.

        Returns:
            uint8 (frames, height, width) of `axes.MASK_CLASSES`.
        """
        pieces = [scores.argmax(1).byte().numpy() for scores in self._scores(frames)]
        return tidied(np.concatenate([np.empty((0, *frames.shape[1:]), np.uint8), *pieces]))

    def doubt(self, frames: np.ndarray) -> np.ndarray:
        """How unclear the ventricle's border is in each frame: `Σ p (1 − p) / √(Σ p)` over all pixels.

        `p` is the probability that a pixel is cavity. It is small but along the border, so the sum grows with the
        border's length and with its width, and the quotient with its width alone.

        Args:
            frames: uint8 (frames, height, width), of any size.

        Returns:
            float64 (frames,), in pixels but for a factor of the cavity's shape; infinite where there is no cavity.
        """
        found = [np.empty(0)]
        for scores in self._scores(frames):
            p = scores.softmax(1)[:, MASK_CLASSES.index("lv_cavity")].double()
            unsure, area = (p * (1 - p)).sum((1, 2)), p.sum((1, 2))
            found.append(torch.where(area >= 1, unsure / area.sqrt(), torch.inf).numpy())
        return np.concatenate(found)

    def _scores(self, frames: np.ndarray) -> Iterator[Float[Tensor, "n k h w"]]:
        """Scores of frames of any size, a few at a time."""
        size, dtype = self.config.size, self.stem.weight.dtype
        height, width = frames.shape[1:]
        side = max(height, width)
        top, left = (side - height) // 2, (side - width) // 2
        pad = (left, side - width - left, top, side - height - top)
        for first in range(0, len(frames), _FRAMES_AT_ONCE):
            piece = torch.from_numpy(np.array(frames[first : first + _FRAMES_AT_ONCE]))[:, None].float() / 255
            piece = F.pad(piece, pad)
            with torch.inference_mode():
                if side != size:
                    piece = F.interpolate(piece, size=(size, size), mode="bilinear", antialias=True)
                scores = self(piece.to(dtype)).float()
                if side != size:
                    scores = F.interpolate(scores, size=(side, side), mode="bilinear")
            yield scores[:, :, top : top + height, left : left + width]
