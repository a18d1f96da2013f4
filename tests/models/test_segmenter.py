"""The segmenter's shape, independence of rows, gradients, precision and files."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from echopulse.axes import MASK_CLASSES
from echopulse.errors import InputError
from echopulse.models.checkpoints import load_network, save_network
from echopulse.models.segmenter import ChamberSegmenter, SegmenterConfig

TINY = SegmenterConfig(widths=(8, 16), size=32)


@pytest.fixture
def network() -> ChamberSegmenter:
    torch.manual_seed(0)
    return ChamberSegmenter(TINY).eval()


def frames(count: int = 2, height: int = 32, width: int = 48) -> torch.Tensor:
    return torch.rand(count, 1, height, width, generator=torch.Generator().manual_seed(1))


def test_one_score_per_class_and_pixel(network: ChamberSegmenter) -> None:
    with torch.inference_mode():
        assert network(frames()).shape == (2, len(MASK_CLASSES), 32, 48)


def test_a_batch_of_two_is_two_batches_of_one(network: ChamberSegmenter) -> None:
    with torch.inference_mode():
        both, alone = network(frames()), [network(frame[None]) for frame in frames()]
    torch.testing.assert_close(both, torch.cat(alone), rtol=1e-4, atol=1e-5)


def test_every_parameter_gets_a_gradient(network: ChamberSegmenter) -> None:
    scores = network.train()(frames())
    (scores * torch.randn(scores.shape, generator=torch.Generator().manual_seed(2))).sum().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_bfloat16_is_finite(network: ChamberSegmenter) -> None:
    with torch.inference_mode():
        scores = network.to(torch.bfloat16)(frames().to(torch.bfloat16))
    assert scores.dtype == torch.bfloat16 and scores.isfinite().all()


def test_the_coarsest_map_sees_the_whole_picture(network: ChamberSegmenter) -> None:
    picture = frames(1, 32, 32).requires_grad_()
    network(picture)[0, 0, 0, 0].backward()
    assert picture.grad is not None and picture.grad[0, 0, 16:, 16:].any()


def test_half_precision_files_load(network: ChamberSegmenter, tmp_path: Path) -> None:
    save_network(ChamberSegmenter(TINY).half(), TINY, tmp_path / "half")
    loaded = load_network(ChamberSegmenter, SegmenterConfig, tmp_path / "half")
    assert next(loaded.parameters()).dtype == torch.float32 and loaded.config == TINY
    save_network(network, replace(TINY, widths=(8, 16, 24)), tmp_path / "other")
    with pytest.raises(InputError, match="not a ChamberSegmenter of this config"):
        load_network(ChamberSegmenter, SegmenterConfig, tmp_path / "other")


@pytest.mark.parametrize(("widths", "size"), [((), 128), ((12, 16), 128), ((0,), 128), ((8, 16), 30), ((8,), 0)])
def test_impossible_shapes_are_refused(widths: tuple[int, ...], size: int) -> None:
    with pytest.raises(InputError, match="segmenter"):
        SegmenterConfig(widths, size)


class ByBrightness(ChamberSegmenter):
    """Takes what is bright for the cavity, and grey for what may be."""

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        cavity = 12 * (2 * frames - 1)
        rest = torch.full_like(frames, -30).expand(-1, len(MASK_CLASSES) - 1, -1, -1)
        return torch.cat([torch.zeros_like(frames), cavity, rest[:, 1:]], dim=1)


def disc(radius: float, blur: float, height: int = 64, width: int = 64) -> np.ndarray:
    rows, columns = np.indices((height, width)) + 0.5
    distance = radius - np.hypot(rows - height / 2, columns - width / 2)
    return (255 * np.clip(0.5 + distance / blur, 0, 1)).astype(np.uint8)


def test_doubt_is_the_width_of_an_unclear_border() -> None:
    network = ByBrightness(replace(TINY, size=64))
    sharp, soft, large, nothing = network.doubt(
        np.stack([disc(10, 2), disc(10, 6), disc(20, 6), np.zeros((64, 64), np.uint8)])
    )
    assert 2.5 < soft / sharp < 3.5, "three times as wide"
    assert large == pytest.approx(soft, rel=0.05), "whatever the size"
    assert np.isinf(nothing)
    assert network.doubt(np.empty((0, 64, 64), np.uint8)).shape == (0,)
    wide = network.doubt(disc(10, 6, 40, 64)[None])
    assert wide[0] == pytest.approx(soft, rel=0.05), "black borders change nothing"
