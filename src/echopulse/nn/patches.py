"""Pixels to token features and back: plain patches (the paper) or a small convolutional pyramid."""

import math

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from echopulse.nn.activation import gelu_of_maps


class PixelPatches(nn.Module):
    """Non-overlapping square patches of pixels, as they are (Villegas 2022); the linear map comes after."""

    def __init__(self, channels: int, patch: int) -> None:
        super().__init__()
        self.patch, self.dim = patch, channels * patch * patch

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n gh gw d"]:
        """Cuts frames into patches."""
        return rearrange(x, "n c (gh p) (gw q) -> n gh gw (c p q)", p=self.patch, q=self.patch)


class PixelUnpatches(nn.Module):
    """Puts patches of pixels together; inverse of `PixelPatches`."""

    def __init__(self, channels: int, patch: int) -> None:
        super().__init__()
        self.patch, self.dim = patch, channels * patch * patch

    def forward(self, x: Float[Tensor, "n gh gw d"]) -> Float[Tensor, "n c h w"]:
        """Frames."""
        return rearrange(x, "n gh gw (c p q) -> n c (gh p) (gw q)", p=self.patch, q=self.patch)


class ConvPatches(nn.Module):
    """A pyramid of strided and residual convolutions to one feature per patch; sees over the patch border.

    Args:
        channels: picture channels.
        patch: total reduction, a power of two from 4 on; the first step reduces by 4.
        width: channels after the first step; doubled at each further one.
        depth: residual convolutions of a step.
    """

    def __init__(self, channels: int, patch: int, width: int, depth: int = 1) -> None:
        super().__init__()
        assert patch >= 4 and patch & (patch - 1) == 0
        self.stem = nn.Conv2d(channels, width, 4, stride=4)
        stages: list[nn.Module] = []
        while patch > 4:
            stages += [*_residuals(width, depth), nn.Conv2d(width, 2 * width, 2, stride=2)]
            width, patch = 2 * width, patch // 2
        self.stages = nn.Sequential(*stages, *_residuals(width, depth))
        self.dim = width

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n gh gw d"]:
        """One feature vector per patch."""
        x = self.stem(x.contiguous(memory_format=torch.channels_last))
        return rearrange(self.stages(x), "n d gh gw -> n gh gw d")


class ConvUnpatches(nn.Module):
    """Mirror of `ConvPatches`; the last steps see over the patch border, so there are no seams.

    Args:
        channels: picture channels.
        patch: total enlargement, a power of two from 4 on.
        width: channels at a quarter of the size.
        depth: residual convolutions of a step.
        details: residual convolutions at half the size, where fine texture is drawn.
    """

    def __init__(self, channels: int, patch: int, width: int, depth: int = 1, details: int = 0) -> None:
        super().__init__()
        assert patch >= 4 and patch & (patch - 1) == 0
        dim = width * patch // 4
        self.dim = dim
        stages = _residuals(dim, depth)
        while patch > 4:
            stages += [nn.Conv2d(dim, 2 * dim, 1), nn.PixelShuffle(2), *_residuals(dim // 2, depth)]
            dim, patch = dim // 2, patch // 2
        self.stages = nn.Sequential(*stages)
        half = dim // 2
        self.to_half = nn.Sequential(nn.Conv2d(dim, 4 * half, 1), nn.PixelShuffle(2), nn.GELU())
        self.details = nn.Sequential(*_residuals(half, details))
        self.to_pixels = nn.Sequential(nn.Conv2d(half, 4 * channels, 3, padding=1), nn.PixelShuffle(2))

    def forward(self, x: Float[Tensor, "n gh gw d"]) -> Float[Tensor, "n c h w"]:
        """Pixels from one feature vector per patch."""
        x = rearrange(x, "n gh gw d -> n d gh gw").contiguous(memory_format=torch.channels_last)
        return self.to_pixels(self.details(self.to_half(self.stages(x))))


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(math.gcd(8, width), width)
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(gelu_of_maps(self.first(self.norm(x))))


def _residuals(width: int, depth: int) -> list[nn.Module]:
    return [_Residual(width) for _ in range(depth)]
