"""Transformer blocks over token grids: spatial, causal temporal, and plain sequences."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from echopulse.nn.attention import Attention, FeedForward
from echopulse.nn.positions import ContinuousPositionBias, PositionConvolution


class Block(nn.Module):
    """Self-attention, optional cross-attention, feed-forward, each with a residual."""

    def __init__(self, dim: int, heads: int, head_dim: int, mult: float, context_dim: int | None = None) -> None:
        super().__init__()
        self.attention = Attention(dim, heads, head_dim)
        self.cross = Attention(dim, heads, head_dim, context_dim) if context_dim else None
        self.feed_forward = FeedForward(dim, mult)

    def forward(
        self,
        x: Float[Tensor, "b n d"],
        bias: Tensor | None = None,
        context: Float[Tensor, "b m c"] | None = None,
        context_mask: Tensor | None = None,
    ) -> Float[Tensor, "b n d"]:
        """Runs the block; `context_mask` broadcasts to (b, heads, n, m), True = may attend."""
        x = x + self.attention(x, bias=bias)
        if self.cross is not None:
            x = x + self.cross(x, context=context, bias=context_mask)
        return x + self.feed_forward(x)


class SpatialTransformer(nn.Module):
    """Full attention within each token frame, with a 2-D continuous position bias."""

    def __init__(self, dim: int, depth: int, heads: int, head_dim: int, mult: float) -> None:
        super().__init__()
        self.bias = ContinuousPositionBias(heads, axes=2)
        self.blocks = nn.ModuleList(Block(dim, heads, head_dim, mult) for _ in range(depth))

    def forward(self, x: Float[Tensor, "b t gh gw d"]) -> Float[Tensor, "b t gh gw d"]:
        """Mixes positions of one token frame; frames do not see each other."""
        b, _, gh, gw, _ = x.shape
        bias = self.bias((gh, gw))
        x = rearrange(x, "b t gh gw d -> (b t) (gh gw) d")
        for block in self.blocks:
            x = block(x, bias=bias)
        return rearrange(x, "(b t) (gh gw) d -> b t gh gw d", b=b, gh=gh)


class TemporalTransformer(nn.Module):
    """Causal attention over the token frames of each location, within a sliding window.

    A position convolution before each block tells where and when; there is no absolute position, so that
    a clip of any length can be streamed. Token frame `k` depends on frames `k − reach` to `k`.

    Args:
        window: token frames that one attention sees, itself included.
    """

    def __init__(self, dim: int, depth: int, heads: int, head_dim: int, mult: float, window: int) -> None:
        super().__init__()
        self.window = window
        self.positions = nn.ModuleList(PositionConvolution(dim) for _ in range(depth))
        self.blocks = nn.ModuleList(Block(dim, heads, head_dim, mult) for _ in range(depth))

    @property
    def reach(self) -> int:
        """How many earlier token frames an output depends on."""
        return len(self.blocks) * (self.window - 1 + 2)

    def forward(self, x: Float[Tensor, "b t gh gw d"]) -> Float[Tensor, "b t gh gw d"]:
        """Mixes each location with its own past."""
        b, t, gh = x.shape[:3]
        step = torch.arange(t, device=x.device)
        age = step[:, None] - step[None, :]
        mask = (age >= 0) & (age < self.window)
        for position, block in zip(self.positions, self.blocks, strict=True):
            x = x + position(x)
            x = rearrange(x, "b t gh gw d -> (b gh gw) t d")
            x = block(x, bias=mask)
            x = rearrange(x, "(b gh gw) t d -> b t gh gw d", b=b, gh=gh)
        return x
