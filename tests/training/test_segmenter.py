"""Training of the segmenter: it learns, its batches repeat, its augmentation keeps pictures and labels together."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from echopulse.axes import MASK_CLASSES
from echopulse.errors import InputError
from echopulse.io.sets import write_manifest, write_set_clip
from echopulse.models.checkpoints import load_network
from echopulse.models.segmenter import ChamberSegmenter, SegmenterConfig
from echopulse.phantom import sample_patient, simulate_clip
from echopulse.training.engine import TrainSettings, train
from echopulse.training.recipes import segmenter_recipe
from echopulse.training.segmenter import SegmenterTask, augment, dice

LV, WALL, RV = (MASK_CLASSES.index(name) for name in ("lv_cavity", "lv_myocardium", "right_ventricle"))
TINY = SegmenterConfig(widths=(8, 16), size=64)


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four A4C clips of four frames at 64x64 with masks."""
    folder = tmp_path_factory.mktemp("masked")
    lines = []
    for seed in range(4):
        paired = simulate_clip(sample_patient(seed, view="a4c"), fps=4, seconds=1.0, size=(64, 64))
        lines.append(write_set_clip(folder, replace(paired, split="train"), "phantom"))
    write_manifest(folder, lines)
    return folder


def pictures(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Frames (count, 1, 64, 64) and classes (count, 64, 64), not augmented."""
    paired = simulate_clip(sample_patient(0, view="a4c"), fps=4, seconds=1.0, size=(64, 64))
    assert paired.masks is not None
    frames = torch.from_numpy(paired.clip.frames[:1].copy())[:, None] / 255
    return frames.repeat(count, 1, 1, 1), torch.from_numpy(paired.masks[:1]).long().repeat(count, 1, 1)


def test_it_learns(masked: Path, tmp_path: Path) -> None:
    settings = TrainSettings(
        steps=40, batch=8, learning_rate=3e-3, warmup=5, ema_decay=0.8, log_every=40, sample_every=40, precision="no"
    )
    task = SegmenterTask(TINY, [masked], batch=8)
    batch = task.batch(1000, 0)
    before = float(task.losses(task.model, batch, 0)[0].detach())
    train(task, settings, tmp_path / "run", quiet=True)
    assert float(task.losses(task.model, batch, 0)[0].detach()) < 0.8 * before
    assert len(list((tmp_path / "run" / "samples").glob("*.png"))) == 1
    folder = tmp_path / "run" / "export" / "segmenter"
    loaded = load_network(ChamberSegmenter, SegmenterConfig, folder)
    parameters = sum(p.numel() for p in loaded.parameters())
    assert 2 * parameters < (folder / "model.safetensors").stat().st_size < 2 * parameters + 8000  # half precision


def test_batches_follow_from_seed_step_and_rank(masked: Path) -> None:
    task, again = SegmenterTask(TINY, [masked], batch=3), SegmenterTask(TINY, [masked], batch=3)
    other = SegmenterTask(TINY, [masked], batch=3, seed=1)
    frames, masks = task.batch(7, 0)
    assert frames.shape == (3, 1, 64, 64) and masks.shape == (3, 64, 64)
    assert 0 <= frames.min() and frames.max() <= 1 and masks.max() < len(MASK_CLASSES)
    assert torch.equal(frames, again.batch(7, 0)[0])
    for different in (task.batch(8, 0), task.batch(7, 1), other.batch(7, 0)):
        assert not torch.equal(frames, different[0])


def test_augmentation_changes_pictures_and_moves_labels_with_them() -> None:
    frames, masks = pictures(64)
    bright = torch.where(masks == LV, 0.0, 0.8)[:, None]
    changed, labels = augment(bright, masks, torch.Generator().manual_seed(3))
    contrast = []
    for picture, label in zip(changed[:, 0], labels, strict=True):
        cavity, wall = label == LV, label == WALL
        if cavity.sum() > 50 and wall.sum() > 50:
            contrast.append(float(picture[wall].mean() - picture[cavity].mean()))
    assert len(contrast) > 50 and sum(x > 0 for x in contrast) > 0.9 * len(contrast)
    kept = sum(torch.equal(x, y) for x, y in zip(changed, bright, strict=True))
    assert 20 <= kept <= 44  # about half
    assert not torch.equal(augment(frames, masks, torch.Generator().manual_seed(4))[0], frames)


def test_nothing_is_mirrored() -> None:
    frames, masks = pictures(64)
    _, labels = augment(frames, masks, torch.Generator().manual_seed(5))
    columns = torch.arange(64.0)
    seen = 0
    for label in labels:
        left, right = ((label == k).sum(0) for k in (RV, LV))
        if left.sum() > 30 and right.sum() > 30:
            seen += 1
            assert (left * columns).sum() / left.sum() < (right * columns).sum() / right.sum()
    assert seen > 40


def test_dice() -> None:
    truth = torch.zeros(1, 2, 4, 4)
    truth[:, 0, :2], truth[:, 1, 2:] = 1, 1
    assert torch.allclose(dice(truth, truth), torch.ones(2))
    half = truth.clone()
    half[:, 0, 0] = 0
    assert dice(half, truth)[0] == pytest.approx((2 * 4 + 1) / (4 + 8 + 1))


def test_sets_without_masks_or_of_another_size_are_refused(prepared: Path, masked: Path) -> None:
    with pytest.raises(InputError, match="no clip with masks"):
        SegmenterTask(TINY, [prepared], batch=2)
    with pytest.raises(InputError, match="64x64; expected 128x128"):
        SegmenterTask(SegmenterConfig((8, 16)), [masked], batch=2).batch(0, 0)


def test_recipes() -> None:
    assert segmenter_recipe("tiny").steps < segmenter_recipe("compact").steps
    with pytest.raises(InputError, match="no preset 'paper'"):
        segmenter_recipe("paper")
