"""The detail network: what codes leave out of a picture, carried along by the motion that they do hold.

Codes hold outlines and motion but hardly any speckle. Of one picture of a clip the detail is known: the one that a user
gave, or the first generated one, to which this network adds speckle. Speckle moves with the tissue, so any other frame
is that picture, displaced as the decoded frames say, wherever they say so; and new speckle elsewhere.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from echopulse.errors import InputError
from echopulse.models.checkpoints import find_network, load_network
from echopulse.nn.unet import UNet

_BLOCK = 4
"""Side of the blocks of pixels on which motion is estimated."""

_COARSE = 2
"""The same for speckle."""


@dataclass(frozen=True)
class DetailConfig:
    """Shape of the detail network.

    Attributes:
        motion_widths: channels of the motion estimate at 1/4, 1/8, ... of the picture's side; multiples of 8.
        speckle_widths: channels of the speckle at 1/2, 1/4, ...; multiples of 8.
        noise: channels of noise that speckle is made of; half of them are fixed to the tissue, half are of one frame.
    """

    motion_widths: tuple[int, ...] = (64, 96, 128)
    speckle_widths: tuple[int, ...] = (32, 48)
    noise: int = 4

    def __post_init__(self) -> None:
        for name, widths in (("motion", self.motion_widths), ("speckle", self.speckle_widths)):
            if not widths or any(width < 8 or width % 8 for width in widths):
                raise InputError(f"{name} widths are {widths}; expected multiples of 8")
        if self.noise < 2 or self.noise % 2:
            raise InputError(f"noise has {self.noise} channels; expected an even number")

    @property
    def reduction(self) -> int:
        """Sides of pictures are multiples of this."""
        return max(_BLOCK << (len(self.motion_widths) - 1), _COARSE << (len(self.speckle_widths) - 1))

    def check_size(self, height: int, width: int) -> None:
        """Raises an InputError for pictures of a size that the network cannot take."""
        if height % self.reduction or width % self.reduction:
            raise InputError(f"pictures are {height}x{width}; the detail network takes multiples of {self.reduction}")


class Carried(NamedTuple):
    """Frames made from a known picture, n of them.

    Attributes:
        pixels: the picture displaced where that explains the frame, the decoded frame elsewhere.
        moved: the picture displaced, everywhere.
        share: of the displaced picture in every pixel, 0 to 1.
        flow: pixels to the right and down from a place to where its tissue was in the known picture.
    """

    pixels: Float[Tensor, "n 1 h w"]
    moved: Float[Tensor, "n 1 h w"]
    share: Float[Tensor, "n 1 h w"]
    flow: Float[Tensor, "n 2 h w"]


class DetailNetwork(nn.Module):
    """Moves detail from a known picture to other frames of its clip, and makes speckle where there is none.

    Args:
        config: the shape.
    """

    def __init__(self, config: DetailConfig) -> None:
        super().__init__()
        self.config = config
        self.motion = UNet(3 * _BLOCK**2, config.motion_widths, 2 + _BLOCK**2)
        self.texture = UNet((2 + config.noise) * _COARSE**2 + 2, config.speckle_widths, _COARSE**2)
        for head in (self.motion.head, self.texture.head):  # begins with the decoded frame as it is
            for values in head.parameters():
                nn.init.zeros_(values)

    @classmethod
    def from_pretrained(cls, name: str | Path) -> "DetailNetwork":
        """A trained network, ready for inference.

        Args:
            name: its own folder, the folder of a training run, or any checkpoint (`find_network`).

        Raises:
            InputError: there is none.
        """
        return load_network(cls, DetailConfig, find_network(name, "detail"))

    def forward(
        self,
        decoded: Float[Tensor, "n 1 h w"],
        known: Float[Tensor, "n 1 h w"],
        known_decoded: Float[Tensor, "n 1 h w"],
        has_known: Bool[Tensor, " n"],
        material: Float[Tensor, "d n k h w"],
        fresh: Float[Tensor, "d n k h w"],
    ) -> tuple[Carried, Float[Tensor, "d n 1 h w"]]:
        """Frames with detail.

        Args:
            decoded: as the tokenizer decodes them, grey levels in [0, 1].
            known: the picture of the same clip whose detail is known.
            known_decoded: the same as the tokenizer decodes it.
            has_known: where not, the known picture is left aside.
            material: noise of variance 1 that sticks to the tissue, in the known picture's places; d draws.
            fresh: noise of these frames alone.

        Returns:
            What the known picture gives, and that with d draws of speckle.
        """
        motion = self.estimate(decoded, known, known_decoded)
        return self.compose(motion, decoded, known, has_known, material, fresh)

    def estimate(self, decoded: Tensor, known: Tensor, known_decoded: Tensor) -> Float[Tensor, "n m gh gw"]:
        """Where frames come from in the known picture: displacements of blocks, then scores of its share in pixels."""
        dtype = self.motion.stem.weight.dtype
        stack = torch.cat([F.pixel_unshuffle(2 * x - 1, _BLOCK) for x in (decoded, known, known_decoded)], dim=1)
        return self.motion(stack.to(dtype, memory_format=torch.channels_last)).float()

    def compose(
        self,
        motion: Float[Tensor, "n m gh gw"],
        decoded: Tensor,
        known: Tensor,
        has_known: Tensor,
        material: Tensor,
        fresh: Tensor,
    ) -> tuple[Carried, Float[Tensor, "d n 1 h w"]]:
        """Frames with detail from what `estimate` says; see `forward`."""
        carried = self._carry(motion, decoded, known, has_known)
        pixels, _, share, flow = (x.detach() for x in carried)
        drawn = [
            self._speckle(pixels, share, torch.cat([displaced(fixed, flow, "nearest"), free], dim=1))
            for fixed, free in zip(material, fresh, strict=True)
        ]
        return carried, torch.stack(drawn)

    def _carry(self, motion: Tensor, decoded: Tensor, known: Tensor, has_known: Tensor) -> Carried:
        there = has_known[:, None, None, None]
        flow = _BLOCK * F.interpolate(there * motion[:, :2], scale_factor=_BLOCK, mode="bilinear")
        share = there * F.pixel_shuffle(motion[:, 2:], _BLOCK).sigmoid()
        pixels = decoded.float()
        moved = displaced(known.float(), flow, "bicubic")
        return Carried(pixels + share * (moved - pixels), moved, share, flow)

    def _speckle(self, pixels: Tensor, share: Tensor, noise: Tensor) -> Tensor:
        dtype = self.texture.stem.weight.dtype
        stack = F.pixel_unshuffle(torch.cat([2 * pixels - 1, share, noise], dim=1), _COARSE)
        stack = torch.cat([stack, _places(stack)], dim=1)
        added = self.texture(stack.to(dtype, memory_format=torch.channels_last))
        return pixels + F.pixel_shuffle(added.float(), _COARSE)

    def draw_noise(self, n: int, height: int, width: int, generator: torch.Generator | None = None) -> Tensor:
        """Noise of one kind for n pictures, (n, noise / 2, height, width)."""
        return torch.randn(n, self.config.noise // 2, height, width, generator=generator)


def displaced(picture: Float[Tensor, "n c h w"], flow: Float[Tensor, "n 2 h w"], mode: str) -> Float[Tensor, "n c h w"]:
    """Every place gets what the picture has `flow` pixels to the right and below; borders are repeated."""
    height, width = flow.shape[-2:]
    rows = torch.arange(height, device=flow.device, dtype=flow.dtype)[:, None]
    columns = torch.arange(width, device=flow.device, dtype=flow.dtype)
    x = (2 * (columns + flow[:, 0]) + 1) / width - 1
    y = (2 * (rows + flow[:, 1]) + 1) / height - 1
    grid = torch.stack([x, y], dim=-1)
    return F.grid_sample(picture, grid, mode=mode, padding_mode="border", align_corners=False)


def _places(like: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 2 h w"]:
    """Row and column between −1 and 1: speckle is wider far from the probe."""
    n, _, height, width = like.shape
    rows = torch.linspace(-1, 1, height, device=like.device, dtype=like.dtype)[:, None].expand(-1, width)
    columns = torch.linspace(-1, 1, width, device=like.device, dtype=like.dtype).expand(height, -1)
    return torch.stack([rows, columns]).expand(n, -1, -1, -1)
