"""Transformer blocks over token grids: spatial, causal temporal, and plain sequences."""

from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from echopulse.nn.attention import Attention, FeedForward, KeptKeys, attend
from echopulse.nn.positions import ContinuousPositionBias, PositionConvolution


class Block(nn.Module):
    """Self-attention, optional cross-attention, feed-forward, each with a residual.

    Args:
        dim: width.
        heads, head_dim: attention heads and their width.
        mult: width of the feed-forward layer, see `FeedForward`.
        context_dim: width of the context; None without cross-attention.
        published: attention as in the released network, see `Attention`, and a hidden width that is not rounded.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        head_dim: int,
        mult: float,
        context_dim: int | None = None,
        *,
        published: bool = False,
    ) -> None:
        super().__init__()
        self.attention = Attention(dim, heads, head_dim, published=published)
        self.cross = Attention(dim, heads, head_dim, context_dim, published=published) if context_dim else None
        self.feed_forward = FeedForward(dim, mult, align=1 if published else 32)

    def forward(
        self,
        x: Float[Tensor, "b n d"],
        bias: Tensor | None = None,
        context: Float[Tensor, "b m c"] | None = None,
        context_mask: Tensor | None = None,
        kept: tuple[KeptKeys | None, KeptKeys] | None = None,
        rows: Int[Tensor, "b k"] | None = None,
    ) -> Float[Tensor, "b k d"]:
        """Runs the block, without cross-attention where there is no context.

        Args:
            x: the sequence.
            bias: of self-attention, see `Attention`.
            context: what it attends to besides.
            context_mask: broadcasts to (b, heads, n, m), True = may attend.
            kept: keys of self-attention, or None, and of cross-attention from passes before.
            rows: which places of the whole sequence x is, where the others are kept.
        """
        own, crossed = (None, None) if kept is None else kept
        x = x + self.attention(x, bias=bias, kept=own, rows=rows)
        if self.cross is not None and context is not None:
            x = x + self.cross(x, context=context, bias=context_mask, kept=crossed)
        return x + self.feed_forward(x)


class PlainBlock(nn.Module):
    """A block of the original vision transformer (Dosovitskiy 2021): biases everywhere, no gate, no scales.

    Args:
        dim: width.
        heads: attention heads.
        mult: width of the hidden layer, in units of `dim`.
    """

    def __init__(self, dim: int, heads: int, mult: float) -> None:
        super().__init__()
        self.heads, hidden = heads, round(mult * dim)
        self.attention_norm, self.mlp_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.to_qkv, self.to_out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))

    def forward(self, x: Float[Tensor, "b n d"], bias: Tensor | None = None) -> Float[Tensor, "b n d"]:
        """Runs the block; `bias` is added to the logits or hides keys (False), and broadcasts to (b, heads, n, n)."""
        qkv = rearrange(self.to_qkv(self.attention_norm(x)), "b n (three h d) -> three b h n d", three=3, h=self.heads)
        q, k, v = qkv
        out = attend(q, k, v, bias, q.shape[-1] ** -0.5)
        x = x + self.to_out(rearrange(out, "b h n d -> b n (h d)"))
        return x + self.mlp(self.mlp_norm(x))


@dataclass(frozen=True)
class StackShape:
    """What the four transformers of a tokenizer have in common.

    Attributes:
        dim, heads, head_dim, mult: see `Block`.
        published: the details of the released network: its `Block`, a position bias as wide as the network with leaky
            rectifiers, and position convolutions of the temporal layers over tokens in the order in which they lie in
            memory there (location first, then time).
    """

    dim: int
    heads: int
    head_dim: int
    mult: float
    published: bool = False

    def block(self) -> Block:
        """One layer."""
        return Block(self.dim, self.heads, self.head_dim, self.mult, published=self.published)

    def blocks(self, depth: int) -> nn.ModuleList:
        """Layers."""
        return nn.ModuleList(self.block() for _ in range(depth))

    def positions(self, depth: int) -> nn.ModuleList:
        """A position convolution for each layer."""
        return nn.ModuleList(PositionConvolution(self.dim) for _ in range(depth))


class SpatialTransformer(nn.Module):
    """Full attention within each token frame, with a 2-D continuous position bias.

    Args:
        shape: of the layers.
        depth: number of layers.
        convolution: a position convolution before each layer; it looks two token frames back.
    """

    def __init__(self, shape: StackShape, depth: int, *, convolution: bool = False) -> None:
        super().__init__()
        if shape.published:
            self.bias = ContinuousPositionBias(shape.heads, axes=2, width=shape.dim, leak=0.1)
        else:
            self.bias = ContinuousPositionBias(shape.heads, axes=2)
        self.positions = shape.positions(depth) if convolution else None
        self.blocks = shape.blocks(depth)

    @property
    def reach(self) -> int:
        """How many earlier token frames an output depends on."""
        return 0 if self.positions is None else 2 * len(self.blocks)

    def forward(self, x: Float[Tensor, "b t gh gw d"]) -> Float[Tensor, "b t gh gw d"]:
        """Mixes positions of one token frame."""
        b, _, gh, gw, _ = x.shape
        bias = self.bias((gh, gw))
        for i, block in enumerate(self.blocks):
            if self.positions is not None:
                x = x + self.positions[i](x)
            x = block(rearrange(x, "b t gh gw d -> (b t) (gh gw) d"), bias=bias)
            x = rearrange(x, "(b t) (gh gw) d -> b t gh gw d", b=b, gh=gh)
        return x


class TemporalTransformer(nn.Module):
    """Attention over the token frames of each location: causal within a sliding window, or over all of them.

    A position convolution before each block tells where and when; there is no absolute position, so that
    a clip of any length can be streamed. Causal, token frame `k` depends on frames `k − reach` to `k`.

    Args:
        shape: of the layers.
        depth: number of layers.
        window: token frames that one attention sees, itself included; None for all, later ones too.
    """

    def __init__(self, shape: StackShape, depth: int, window: int | None) -> None:
        super().__init__()
        self.window, self._memory_order = window, shape.published
        self.positions = shape.positions(depth)
        self.blocks = shape.blocks(depth)

    @property
    def reach(self) -> int:
        """How many earlier token frames an output depends on."""
        assert self.window is not None, "not causal"
        return len(self.blocks) * (self.window - 1 + 2)

    def forward(self, x: Float[Tensor, "b t gh gw d"]) -> Float[Tensor, "b t gh gw d"]:
        """Mixes each location with its own past."""
        grid, mask = x.shape, self._mask(x.shape[1], x.device)
        for position, block in zip(self.positions, self.blocks, strict=True):
            if not self._memory_order:
                x = x + position(x)
            x = rearrange(x, "b t gh gw d -> (b gh gw) t d")
            if self._memory_order:
                x = x + position(x.reshape(grid)).reshape(x.shape)
            x = block(x, bias=mask)
            x = rearrange(x, "(b gh gw) t d -> b t gh gw d", b=grid[0], gh=grid[2])
        return x

    def _mask(self, t: int, device: torch.device) -> Tensor | None:
        if self.window is None:
            return None
        step = torch.arange(t, device=device)
        age = step[:, None] - step[None, :]
        return (age >= 0) & (age < self.window)
