"""Where a token is: continuous position bias, depthwise position convolution, seconds as waves."""

import math

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class ContinuousPositionBias(nn.Module):
    """Attention bias from relative grid positions by a small network (Liu 2022, Swin v2), any grid size.

    Args:
        heads: attention heads.
        axes: number of grid axes (2: rows and columns; 3: time too).
        width: hidden width.
    """

    def __init__(self, heads: int, axes: int, width: int = 64) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(axes, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, heads)
        )

    def forward(self, grid: tuple[int, ...]) -> Float[Tensor, "h n n"]:
        """Bias between all pairs of positions of a grid, row-major."""
        weight = next(self.net.parameters())
        axes = [torch.arange(size, device=weight.device) for size in grid]
        points = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, len(grid))
        delta = (points[:, None] - points[None, :]).to(weight.dtype)
        return rearrange(self.net(delta.sign() * torch.log1p(delta.abs())), "n m h -> h n m")


class PositionConvolution(nn.Module):
    """Position-encoding generator: a 3×3×3 depthwise convolution, causal in time (Chu 2021; Villegas 2022)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(dim, dim, 3, groups=dim)

    def forward(self, x: Float[Tensor, "b t gh gw d"]) -> Float[Tensor, "b t gh gw d"]:
        """What to add to the tokens."""
        x = rearrange(x, "b t gh gw d -> b d t gh gw")
        x = self.conv(F.pad(x, (1, 1, 1, 1, 2, 0)))
        return rearrange(x, "b d t gh gw -> b t gh gw d")


def time_waves(times_s: Float[Tensor, "... n"], width: int) -> Float[Tensor, "... n d"]:
    """Seconds as sines and cosines with periods from 0.08 to 10 s; the same function for frames and ECG patches."""
    half = width // 2
    octave = torch.arange(half, device=times_s.device, dtype=torch.float32) / max(half - 1, 1)
    angular = 2 * math.pi / (0.08 * (10 / 0.08) ** octave)
    angle = times_s.float().unsqueeze(-1) * angular
    return torch.cat([angle.sin(), angle.cos()], dim=-1)
