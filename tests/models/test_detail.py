"""The detail network: starts as nothing, leaves frames alone without a known picture, moves pictures as it says."""

import pytest
import torch
from torch.nn import functional as F

from echopulse.errors import InputError
from echopulse.models.detail import DetailConfig, DetailNetwork, displaced


def inputs(n: int = 2, side: int = 32) -> tuple[torch.Tensor, ...]:
    draws = torch.Generator().manual_seed(1)
    pictures = torch.rand(3, n, 1, side, side, generator=draws)
    noise = torch.randn(2, 3, n, 1, side, side, generator=draws)
    return (*pictures, torch.arange(n) > 0, *noise)


def test_a_new_network_adds_no_speckle_and_moves_nothing() -> None:
    carried, drawn = DetailNetwork(DetailConfig((8, 16), (8,), 2))(*inputs())
    decoded, known = inputs()[:2]
    assert torch.equal(carried.flow, torch.zeros(2, 2, 32, 32))
    torch.testing.assert_close(carried.pixels[0], decoded[0])
    torch.testing.assert_close(carried.pixels[1], (decoded[1] + known[1]) / 2)
    torch.testing.assert_close(drawn, carried.pixels.expand(3, -1, -1, -1, -1))


def test_speckle_learns_nothing_of_motion_and_motion_learns_from_the_picture() -> None:
    network = DetailNetwork(DetailConfig((8, 16), (8,), 2))
    carried, drawn = network(*inputs())
    drawn.square().mean().backward(retain_graph=True)
    assert network.motion.head.weight.grad is None
    assert network.texture.head.weight.grad is not None and network.texture.head.weight.grad.abs().sum() > 0
    carried.pixels.square().mean().backward()
    assert network.motion.head.weight.grad is not None and network.motion.head.weight.grad.abs().sum() > 0


def test_displaced_takes_from_where_the_flow_points() -> None:
    picture = F.avg_pool2d(torch.rand(1, 1, 40, 40, generator=torch.Generator().manual_seed(0)), 5, 1, 2)
    flow = torch.zeros(1, 2, 40, 40)
    flow[:, 0], flow[:, 1] = 3, -2
    for mode in ("nearest", "bicubic"):
        moved = displaced(picture, flow, mode)
        torch.testing.assert_close(moved[..., 6:34, 6:34], picture[..., 4:32, 9:37], rtol=0, atol=1e-5)
        torch.testing.assert_close(displaced(picture, 0 * flow, mode), picture, rtol=0, atol=1e-5)


@pytest.mark.parametrize("change", [{"motion_widths": ()}, {"speckle_widths": (12,)}, {"noise": 3}])
def test_impossible_shapes_are_refused(change: dict) -> None:
    with pytest.raises(InputError, match="expected"):
        DetailConfig(**change)
