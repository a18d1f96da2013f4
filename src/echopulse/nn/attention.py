"""Multi-head attention, self or cross, with an optional additive bias."""

from collections.abc import Callable

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

COSINE_SCALE = 8.0
"""Factor of the logits where queries and keys have unit length."""


class KeptKeys:
    """Keys and values of one attention that are kept from one pass over a batch of sequences to the next."""

    def __init__(self) -> None:
        self._kept: tuple[Tensor, Tensor] | None = None

    def updated(
        self, make: Callable[[], tuple[Tensor, Tensor]], batch: int, rows: Int[Tensor, "b k"] | None = None
    ) -> tuple[Float[Tensor, "b h n d"], Float[Tensor, "b h n d"]]:
        """Keys and values of the first `batch` sequences, those at `rows` made anew; all of them where none are kept.

        Rows take the place of the old ones in memory, so that no gradient goes through them.
        """
        if self._kept is None:
            self._kept = make()
        k, v = (part[:batch] for part in self._kept)
        if rows is not None:
            for old, new in zip((k, v), make(), strict=True):
                put_rows(old, rows, new, 2)
        return k, v


class Attention(nn.Module):
    """Pre-norm multi-head attention with normalised queries and keys (Henry 2020), which keeps bfloat16 stable.

    With a `context_dim` it attends to a context and to a learned null key, so that an empty or fully hidden context is
    a defined situation.

    Args:
        dim: width of the input and output.
        heads: number of heads.
        head_dim: width of a head.
        context_dim: width of the context; None for self-attention.
        published: the released network's way: queries and keys of unit length instead of layer normalisation, logits
            times `COSINE_SCALE`, keys and values from the input before its norm; a context has a norm of its own and
            two null keys.
    """

    def __init__(
        self, dim: int, heads: int, head_dim: int, context_dim: int | None = None, *, published: bool = False
    ) -> None:
        super().__init__()
        inner = heads * head_dim
        self.heads, self.published = heads, published
        self.scale = COSINE_SCALE if published else head_dim**-0.5
        self.norm = nn.LayerNorm(dim)
        self.to_q = nn.Linear(dim, inner, bias=False)
        self.to_kv = nn.Linear(context_dim or dim, 2 * inner, bias=False)
        self.q_scale = nn.Parameter(torch.ones(head_dim))
        self.k_scale = nn.Parameter(torch.ones(head_dim))
        self.to_out = nn.Linear(inner, dim, bias=False)
        self.nulls = 2 if published else 1
        self.null_kv = nn.Parameter(torch.randn(2, heads, self.nulls, head_dim) * 0.02) if context_dim else None
        self.context_norm = nn.LayerNorm(context_dim) if context_dim and published else None

    def forward(
        self,
        x: Float[Tensor, "b n d"],
        context: Float[Tensor, "b m c"] | None = None,
        bias: Tensor | None = None,
        kept: KeptKeys | None = None,
        rows: Int[Tensor, "b k"] | None = None,
    ) -> Float[Tensor, "b n d"]:
        """Attends.

        Args:
            x: queries, and keys too where there is no context.
            context: keys and values of cross-attention.
            bias: added to the attention logits (or a boolean mask, True = may attend); broadcasts to
                (b, heads, n, m). Without the null keys, which are always visible.
            kept: keys and values of passes before; those of a context are made once.
            rows: which places of the whole sequence x is, where the others are kept.
        """
        normed = self.norm(x)
        source = context
        if context is None:
            source = x if self.published else normed
        elif self.context_norm is not None:
            source = self.context_norm(context)
        q = self._unit(rearrange(self.to_q(normed), "b n (h d) -> b h n d", h=self.heads), self.q_scale)

        def make() -> tuple[Tensor, Tensor]:
            k, v = rearrange(self.to_kv(source), "b m (two h d) -> two b h m d", two=2, h=self.heads)
            return self._unit(k, self.k_scale), v

        if kept is None:
            k, v = make()
        else:
            k, v = kept.updated(make, len(x), rows if context is None else None)
        if self.null_kv is not None:
            null_k, null_v = self.null_kv.to(k.dtype).unsqueeze(1).expand(-1, k.shape[0], -1, -1, -1)
            k, v = torch.cat([self._unit(null_k, self.k_scale), k], dim=2), torch.cat([null_v, v], dim=2)
            if bias is not None:
                bias = F.pad(bias, (self.nulls, 0), value=bias.dtype == torch.bool)
        out = attend(q, k, v, bias, self.scale)
        return self.to_out(rearrange(out, "b h n d -> b n (h d)"))

    def _unit(self, x: Tensor, scale: Tensor) -> Tensor:
        """Normalises over the head width, without bias."""
        if self.published:
            return F.normalize(x, dim=-1) * scale.to(x.dtype)
        return F.layer_norm(x, scale.shape, scale.to(x.dtype))


class FeedForward(nn.Module):
    """Pre-norm feed-forward layer with a gated GELU (Shazeer 2020), as wide as a plain one of `mult` times `dim`.

    Args:
        dim: width of the input and output.
        mult: hidden width of the plain layer with as many parameters, in units of `dim`.
        align: the hidden width is rounded up to a multiple of this.
    """

    def __init__(self, dim: int, mult: float, *, align: int = 32) -> None:
        super().__init__()
        inner = int(dim * mult * 2 / 3 + align - 1) // align * align
        self.norm = nn.LayerNorm(dim)
        self.to_gate = nn.Linear(dim, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, dim, bias=False)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Applies the layer; the residual is the caller's."""
        value, gate = self.to_gate(self.norm(x)).chunk(2, dim=-1)
        # A copy first: on the CPU the kernel takes memory without gaps in less than half the time.
        return self.to_out(value * F.gelu(gate.contiguous()))


def rows_at(x: Float[Tensor, "b n d"], rows: Int[Tensor, "b k"]) -> Float[Tensor, "b k d"]:
    """Some rows of each sequence."""
    return x.gather(1, rows.unsqueeze(-1).expand(-1, -1, x.shape[-1]))


def put_rows(x: Tensor, rows: Int[Tensor, "b k"], new: Tensor, axis: int) -> None:
    """Writes some rows of each sequence, along an axis; one sequence after the other, six times as fast as at once."""
    for sequence, places, values in zip(x, rows, new, strict=True):
        sequence.index_copy_(axis - 1, places, values)


_PIECE = 4 << 20  # bytes of attention logits that stay in a processor's cache
_FUSED_KEYS = 64  # from so many keys on the fused kernel is faster in float32


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float) -> Tensor:
    """Softmax attention of (b, heads, n, d) queries; on the CPU in plain matrix products.

    They are three to five times as fast there as the fused kernel, forward and backward, for the few hundred tokens of
    a frame (measured, bfloat16). Without gradients, logits that would not stay in the cache are made and used up a few
    heads at a time: for a window of 1536 tokens 6.5 times as fast as all at once, and twice as the fused kernel. In
    float32, without gradients and bias, the fused kernel is 1.7 times as fast for 512 tokens.
    """
    if q.device.type != "cpu":
        if bias is not None and bias.dtype != torch.bool:
            bias = bias.to(q.dtype)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale)
    if q.dtype == torch.float32 and bias is None and k.shape[2] >= _FUSED_KEYS and not torch.is_grad_enabled():
        return F.scaled_dot_product_attention(q, k, v, scale=scale)
    b, heads, n, _ = q.shape
    together = max(1, _PIECE // (n * k.shape[2] * q.element_size()))
    if torch.is_grad_enabled() or b * heads <= together:
        return _attend(q * scale, k, v, bias)
    out, q = torch.empty(*q.shape[:3], v.shape[-1], dtype=v.dtype), q * scale
    if bias is not None:
        bias = bias.expand(b, heads, *bias.shape[-2:])
    for row in range(b):
        for first in range(0, heads, together):
            piece = row, slice(first, first + together)
            out[piece] = _attend(q[piece], k[piece], v[piece], None if bias is None else bias[piece])
    return out


def _attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    logits = q @ k.transpose(-1, -2)
    if bias is not None:
        logits = logits.masked_fill(~bias, float("-inf")) if bias.dtype == torch.bool else logits + bias.to(q.dtype)
    return logits.softmax(dim=-1) @ v
