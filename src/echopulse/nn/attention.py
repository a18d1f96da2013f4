"""Multi-head attention, self or cross, with an optional additive bias."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class Attention(nn.Module):
    """Pre-norm multi-head attention with normalised queries and keys (Henry 2020), which keeps bfloat16 stable.

    With a `context_dim` it attends to a context and to one learned null key, so that an empty or fully
    hidden context is a defined situation.

    Args:
        dim: width of the input and output.
        heads: number of heads.
        head_dim: width of a head.
        context_dim: width of the context; None for self-attention.
    """

    def __init__(self, dim: int, heads: int, head_dim: int, context_dim: int | None = None) -> None:
        super().__init__()
        inner = heads * head_dim
        self.heads = heads
        self.norm = nn.LayerNorm(dim)
        self.to_q = nn.Linear(dim, inner, bias=False)
        self.to_kv = nn.Linear(context_dim or dim, 2 * inner, bias=False)
        self.q_scale = nn.Parameter(torch.ones(head_dim))
        self.k_scale = nn.Parameter(torch.ones(head_dim))
        self.to_out = nn.Linear(inner, dim, bias=False)
        self.null_kv = nn.Parameter(torch.randn(2, heads, 1, head_dim) * 0.02) if context_dim else None

    def forward(
        self,
        x: Float[Tensor, "b n d"],
        context: Float[Tensor, "b m c"] | None = None,
        bias: Tensor | None = None,
    ) -> Float[Tensor, "b n d"]:
        """Attends.

        Args:
            x: queries, and keys too where there is no context.
            context: keys and values of cross-attention.
            bias: added to the attention logits (or a boolean mask, True = may attend); broadcasts to
                (b, heads, n, m). Without the null key, which is always visible.
        """
        x = self.norm(x)
        q = rearrange(self.to_q(x), "b n (h d) -> b h n d", h=self.heads)
        kv = self.to_kv(x if context is None else context)
        k, v = rearrange(kv, "b m (two h d) -> two b h m d", two=2, h=self.heads)
        q, k = _unit(q, self.q_scale), _unit(k, self.k_scale)
        if self.null_kv is not None:
            null_k, null_v = self.null_kv.to(k.dtype).unsqueeze(1).expand(-1, k.shape[0], -1, -1, -1)
            k, v = torch.cat([_unit(null_k, self.k_scale), k], dim=2), torch.cat([null_v, v], dim=2)
            if bias is not None:
                bias = F.pad(bias, (1, 0), value=bias.dtype == torch.bool)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return self.to_out(rearrange(out, "b h n d -> b n (h d)"))


class FeedForward(nn.Module):
    """Pre-norm feed-forward layer with a gated GELU (Shazeer 2020), as wide as a plain one of `mult` times `dim`."""

    def __init__(self, dim: int, mult: float) -> None:
        super().__init__()
        inner = int(dim * mult * 2 / 3 + 31) // 32 * 32
        self.norm = nn.LayerNorm(dim)
        self.to_gate = nn.Linear(dim, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, dim, bias=False)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Applies the layer; the residual is the caller's."""
        value, gate = self.to_gate(self.norm(x)).chunk(2, dim=-1)
        return self.to_out(value * F.gelu(gate))


def _unit(x: Tensor, scale: Tensor) -> Tensor:
    """Layer normalisation over the head width, without bias."""
    return F.layer_norm(x, scale.shape, scale.to(x.dtype))
