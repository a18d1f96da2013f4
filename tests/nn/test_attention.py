"""Attention in pieces is the attention."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from echopulse.nn import attention

B, HEADS, N, WIDTH = 2, 4, 60, 8


def _biases() -> dict[str, Tensor | None]:
    draw = torch.Generator().manual_seed(1)
    hidden = torch.rand(B, 1, 1, N, generator=draw) < 0.7
    return {"none": None, "bias": torch.randn(HEADS, N, N, generator=draw), "mask": hidden}


@pytest.mark.parametrize("kind", ["none", "bias", "mask"])
@pytest.mark.parametrize("heads_at_once", [1, 3])
def test_pieces_give_what_all_at_once_gives(monkeypatch: pytest.MonkeyPatch, kind: str, heads_at_once: int) -> None:
    q, k, v = torch.randn(3, B, HEADS, N, WIDTH, generator=torch.Generator().manual_seed(0))
    bias = _biases()[kind]
    asked = []
    small = attention._attend
    monkeypatch.setattr(attention, "_attend", lambda *given: (asked.append(given[0].shape[0]), small(*given))[1])
    monkeypatch.setattr(attention, "_PIECE", 4 * N * N * heads_at_once)
    with torch.inference_mode():
        pieces = attention.attend(q, k, v, bias, 0.3)
    assert asked == [1] * 8 if heads_at_once == 1 else [3, 1, 3, 1]
    torch.testing.assert_close(pieces, F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=0.3))
    asked.clear()
    attention.attend(q.requires_grad_(), k, v, bias, 0.3)
    assert len(asked) == 1, "with gradients everything has to be kept anyway"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("keys", [40, 90])
def test_kernels_agree(dtype: torch.dtype, keys: int) -> None:
    draw = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(B, HEADS, n, WIDTH, generator=draw).to(dtype) for n in (N, keys, keys))
    kept = attention.attend(q, k, v, None, 0.3)
    with torch.inference_mode():
        free = attention.attend(q, k, v, None, 0.3)
    tolerance = 1e-5 if dtype == torch.float32 else 0.02
    torch.testing.assert_close(free, kept, rtol=0, atol=tolerance)
