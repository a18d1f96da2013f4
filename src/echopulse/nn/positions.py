"""Where a token is: continuous position bias, depthwise position convolution, seconds as waves."""

import math
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class ContinuousPositionBias(nn.Module):
    """Attention bias from relative grid positions by a small network (Liu 2022, Swin v2), any grid size.

    Without gradients, the bias of a grid is computed once and kept until a weight changes.

    Args:
        heads: attention heads.
        axes: number of grid axes (2: rows and columns; 3: time too).
        width: hidden width.
        leak: slope of a leaky rectifier below zero; None for GELU.
    """

    def __init__(self, heads: int, axes: int, width: int = 64, *, leak: float | None = None) -> None:
        super().__init__()
        first, second = (nn.GELU() if leak is None else nn.LeakyReLU(leak) for _ in range(2))
        self.net = nn.Sequential(
            nn.Linear(axes, width), first, nn.Linear(width, width), second, nn.Linear(width, heads)
        )
        self._kept: tuple[Any, Tensor] | None = None

    def forward(self, grid: tuple[int, ...]) -> Float[Tensor, "h n n"]:
        """Bias between all pairs of positions of a grid, row-major."""
        if torch.is_grad_enabled() or any(p.is_inference() for p in self.parameters()):
            return self._bias(grid)
        state = (grid, [(p.data_ptr(), p._version, p.dtype) for p in self.parameters()])
        if self._kept is None or self._kept[0] != state:
            self._kept = state, self._bias(grid)
        return self._kept[1]

    def _bias(self, grid: tuple[int, ...]) -> Tensor:
        weight = next(self.net.parameters())
        axes = [torch.arange(size, device=weight.device) for size in grid]
        points = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, len(grid))
        delta = (points[:, None] - points[None, :]).to(weight.dtype)
        return rearrange(self.net(delta.sign() * torch.log1p(delta.abs())), "n m h -> h n m").contiguous()


class PositionConvolution(nn.Module):
    """Position-encoding generator: a 3×3×3 depthwise convolution (Chu 2021; Villegas 2022).

    Args:
        dim: width.
        causal: looks two time steps back; else one back and one ahead.
    """

    def __init__(self, dim: int, *, causal: bool = True) -> None:
        super().__init__()
        self._padding = (2, 0) if causal else (1, 1)
        self.conv = nn.Conv3d(dim, dim, 3, groups=dim)

    def forward(self, x: Float[Tensor, "b t gh gw d"]) -> Float[Tensor, "b t gh gw d"]:
        """What to add to the tokens.

        As three convolutions over pictures, one a time step back: three times as fast as one over the volume (CPU).
        """
        b, t, dim = x.shape[0], x.shape[1], x.shape[-1]
        frames = F.pad(x, (0, 0, 0, 0, 0, 0, *self._padding))
        out = self.conv.bias.view(dim, 1, 1)  # type: ignore[union-attr]
        for age, weight in enumerate(self.conv.weight.unbind(dim=2)):
            past = rearrange(frames[:, age : age + t], "b t gh gw d -> (b t) d gh gw")
            out = out + F.conv2d(past, weight, padding=1, groups=dim)
        return rearrange(out, "(b t) d gh gw -> b t gh gw d", b=b)


def time_waves(times_s: Float[Tensor, "... n"], width: int) -> Float[Tensor, "... n d"]:
    """Seconds as sines and cosines with periods from 0.08 to 10 s; the same function for frames and ECG patches."""
    half = width // 2
    octave = torch.arange(half, device=times_s.device, dtype=torch.float32) / max(half - 1, 1)
    angular = 2 * math.pi / (0.08 * (10 / 0.08) ** octave)
    angle = times_s.float().unsqueeze(-1) * angular
    return torch.cat([angle.sin(), angle.cos()], dim=-1)
