"""Phantom patients rendered on the fly: the same clips as in a set, by index, in any process."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from echopulse.errors import InputError
from echopulse.models.presets import tokenizer_config
from echopulse.phantom.series import MAX_PIXELS, ClipSeries
from echopulse.training.data import batch_rng, sample_videos
from echopulse.training.phantom_data import PhantomDataset
from echopulse.training.tokenizer import TokenizerTask

SERIES = ClipSeries(seconds=0.2, size=48, rhythm="sinus", view="a2c")


def test_an_item_is_the_clip_of_its_seed() -> None:
    data = PhantomDataset(SERIES, num=10, seed=5)
    item, paired = data[3], SERIES.clip(8)
    assert len(data) == 10 and data.name(3) == paired.id
    assert item["video"].shape == (5, 1, 48, 48) and item["video"].dtype == torch.float32
    np.testing.assert_allclose(item["video"][:, 0].numpy() * 255, paired.clip.frames, atol=1e-4)
    np.testing.assert_array_equal(data.frames(3), paired.clip.frames)
    assert paired.masks is not None and np.array_equal(item["masks"].numpy(), paired.masks)
    assert paired.clip.ecg is not None
    np.testing.assert_allclose(item["ecg_mv"].numpy(), paired.clip.ecg.samples_mv, atol=1e-6)
    assert item["ecg_start_s"] == -2 and item["ecg_rate_hz"] == 500
    assert item["ef_percent"] == pytest.approx(paired.truth["ef_percent"]) and item["view"] == 1
    assert item["lv_volume_ml"].tolist() == pytest.approx(paired.truth["lv_volume_ml"])


def test_loader_workers_change_nothing() -> None:
    data = PhantomDataset(SERIES, num=4, seed=5)
    alone = next(iter(DataLoader(data, batch_size=4)))
    shared = next(iter(DataLoader(data, batch_size=4, num_workers=1)))
    assert alone["video"].shape == (4, 5, 1, 48, 48) and set(alone) == set(shared)
    assert all(torch.equal(alone[name], shared[name]) for name in alone)
    assert alone["seed"].tolist() == [5, 6, 7, 8]


def test_masks_can_be_left_out_and_the_end_is_the_end() -> None:
    data = PhantomDataset(ClipSeries(seconds=0.1, size=32, masks=False), num=2)
    assert "masks" not in data[1]
    for i in (2, -1):
        with pytest.raises(IndexError):
            data[i]


def test_training_takes_it_in_place_of_sets() -> None:
    data = PhantomDataset(ClipSeries(seconds=0.2, masks=False), num=10**9, seed=5)
    task = TokenizerTask(tokenizer_config("tiny"), data, batch=2, frames=3)
    assert task.pool is data
    first = sample_videos(data, batch_rng(0, 0, 0), 2, 3, 128)
    assert first.shape == (2, 3, 1, 128, 128) and 0 <= first.min() < first.max() <= 1
    assert torch.equal(first, sample_videos(data, batch_rng(0, 0, 0), 2, 3, 128))
    assert not torch.equal(first, sample_videos(data, batch_rng(0, 1, 0), 2, 3, 128))
    with pytest.raises(InputError, match="frames of 128x128; expected 64x64"):
        sample_videos(data, batch_rng(0, 0, 0), 1, 3, 64)
    with pytest.raises(InputError, match="5 frames; expected 7 or more"):
        sample_videos(data, batch_rng(0, 0, 0), 1, 7, 128)


@pytest.mark.parametrize("change", [dict(num=0), dict(num=1, seed=-1)])
def test_impossible_numbers_are_refused(change: dict[str, int]) -> None:
    with pytest.raises(InputError, match="expected"):
        PhantomDataset(SERIES, **change)


@pytest.mark.parametrize(
    "change",
    [
        dict(fps=float("nan")),
        dict(seconds=float("inf")),
        dict(size=8),
        dict(view="plax"),
        dict(rhythm="polka"),
        dict(device="phone"),
        dict(size=1024, seconds=MAX_PIXELS / 1024**2 / 25 + 0.1),
    ],
)
def test_impossible_series_are_refused(change: dict) -> None:
    with pytest.raises(InputError, match="expected"):
        ClipSeries(**change)
