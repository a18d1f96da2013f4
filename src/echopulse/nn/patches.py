"""Pixels to token features and back: linear patches (the paper) or a small convolutional pyramid."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class LinearPatches(nn.Module):
    """Non-overlapping square patches, one linear map (Villegas 2022)."""

    def __init__(self, channels: int, patch: int, dim: int) -> None:
        super().__init__()
        self.patch, self.dim = patch, dim
        self.norm = nn.LayerNorm(channels * patch * patch)
        self.project = nn.Linear(channels * patch * patch, dim)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n gh gw d"]:
        """Cuts frames into patches and embeds them."""
        x = rearrange(x, "n c (gh p) (gw q) -> n gh gw (c p q)", p=self.patch, q=self.patch)
        return self.project(self.norm(x))


class LinearUnpatches(nn.Module):
    """One linear map from a token's features to its pixels."""

    def __init__(self, channels: int, patch: int, dim: int) -> None:
        super().__init__()
        self.patch, self.dim = patch, dim
        self.project = nn.Linear(dim, channels * patch * patch)

    def forward(self, x: Float[Tensor, "n gh gw d"]) -> Float[Tensor, "n c h w"]:
        """Pixels of every patch, put together."""
        return rearrange(self.project(x), "n gh gw (c p q) -> n c (gh p) (gw q)", p=self.patch, q=self.patch)


class ConvPatches(nn.Module):
    """A pyramid of strided and residual convolutions to one feature per patch; sees over the patch border.

    Args:
        channels: picture channels.
        patch: total reduction, a power of two from 4 on; the first step reduces by 4.
        width: channels after the first step; doubled at each further one.
    """

    def __init__(self, channels: int, patch: int, width: int) -> None:
        super().__init__()
        assert patch >= 4 and patch & (patch - 1) == 0
        self.stem = nn.Conv2d(channels, width, 4, stride=4)
        stages: list[nn.Module] = []
        while patch > 4:
            stages += [_Residual(width), nn.Conv2d(width, 2 * width, 2, stride=2)]
            width, patch = 2 * width, patch // 2
        self.stages = nn.Sequential(*stages, _Residual(width))
        self.dim = width

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n gh gw d"]:
        """One feature vector per patch."""
        x = self.stem(x.contiguous(memory_format=torch.channels_last))
        return rearrange(self.stages(x), "n d gh gw -> n gh gw d")


class ConvUnpatches(nn.Module):
    """Mirror of `ConvPatches`; the last steps see over the patch border, so there are no seams."""

    def __init__(self, channels: int, patch: int, width: int) -> None:
        super().__init__()
        assert patch >= 4 and patch & (patch - 1) == 0
        dim = width * patch // 4
        self.dim = dim
        stages: list[nn.Module] = [_Residual(dim)]
        while patch > 4:
            stages += [nn.Conv2d(dim, 2 * dim, 1), nn.PixelShuffle(2), _Residual(dim // 2)]
            dim, patch = dim // 2, patch // 2
        self.stages = nn.Sequential(*stages)
        half = dim // 2
        self.to_half = nn.Sequential(nn.Conv2d(dim, 4 * half, 1), nn.PixelShuffle(2), nn.GELU())
        self.to_pixels = nn.Sequential(nn.Conv2d(half, 4 * channels, 3, padding=1), nn.PixelShuffle(2))

    def forward(self, x: Float[Tensor, "n gh gw d"]) -> Float[Tensor, "n c h w"]:
        """Pixels from one feature vector per patch."""
        x = rearrange(x, "n gh gw d -> n d gh gw").contiguous(memory_format=torch.channels_last)
        return self.to_pixels(self.to_half(self.stages(x)))


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, width)
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.gelu(self.first(self.norm(x))))
