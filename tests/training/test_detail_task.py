"""Training of the detail network: batches, a better score, resume by seed, export."""

from pathlib import Path

import pytest
import torch

from echopulse.errors import InputError
from echopulse.models.checkpoints import load_network
from echopulse.models.detail import DetailConfig, DetailNetwork
from echopulse.models.tokenizer import VideoTokenizer
from echopulse.phantom.series import ClipSeries
from echopulse.training.detail import DetailTask
from echopulse.training.phantom_data import PhantomDataset

SMALL = DetailConfig((16, 16), (16,), 2)


@pytest.fixture
def task(prepared: Path, frozen_tokenizer: VideoTokenizer) -> DetailTask:
    return DetailTask(SMALL, frozen_tokenizer, [prepared], batch=4)


def test_batches_are_pairs_of_one_clip_with_a_known_picture(task: DetailTask) -> None:
    batch = task.batch(3, 0)
    assert batch.true.shape == batch.decoded.shape == (4, 3, 1, 128, 128)
    assert batch.material.shape == batch.fresh.shape == (2, 4, 3, 1, 128, 128)
    torch.testing.assert_close(batch.true[:, 2], batch.known[:, 0])
    torch.testing.assert_close(batch.decoded[:, 2], batch.known_decoded[:, 0])
    assert batch.masks.shape == (4, 3, 2, 128, 128)
    assert batch.has_known.tolist() == [[True, True, False]] * 4
    assert torch.equal(batch.material[:, :, 0], batch.material[:, :, 2])
    assert not torch.equal(batch.fresh[:, :, 0], batch.fresh[:, :, 1])
    for same, other in zip(batch, task.batch(3, 0), strict=True):
        assert torch.equal(same, other)
    assert not torch.equal(batch.true, task.batch(4, 0).true)


def test_training_lowers_both_losses(task: DetailTask, tmp_path: Path) -> None:
    optimizer = torch.optim.Adam(task.model.parameters(), 3e-3)
    history = []
    for step in range(25):
        loss, terms = task.losses(task.model, task.batch(step % 5, 0), step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append({name: value.item() for name, value in terms.items()})
    for name in ("dissimilarity", "speckle", "first_speckle"):
        before, after = (sum(row[name] for row in part) for part in (history[:5], history[-5:]))
        assert after < 0.9 * before, (name, before, after)
    task.sample(task.model.eval(), tmp_path, 25)
    assert (tmp_path / "0000025.png").is_file()
    task.export(task.model, tmp_path)
    again = load_network(DetailNetwork, DetailConfig, tmp_path / "detail")
    assert torch.equal(again.motion.head.weight, task.model.motion.head.weight)
    assert (tmp_path / "tokenizer" / "config.json").is_file()


def test_pictures_that_do_not_fit_are_refused(prepared: Path, frozen_tokenizer: VideoTokenizer) -> None:
    task = DetailTask(DetailConfig((8,) * 7), frozen_tokenizer, [prepared], batch=1)
    with pytest.raises(InputError, match="frames of 128x128; expected multiples of 16 and 256"):
        task.batch(0, 0)


def test_walls_move_displacements_alone_and_only_where_masks_are_known(
    task: DetailTask, frozen_tokenizer: VideoTokenizer
) -> None:
    batch = task.batch(0, 0)  # of a set without masks
    assert not batch.masks.any()
    assert task.losses(task.model, batch, 0)[1]["walls"].item() == 0
    task = DetailTask(SMALL, frozen_tokenizer, PhantomDataset(ClipSeries(seconds=0.4), 2), batch=2)
    batch = task.batch(0, 0)
    assert batch.masks.any((-2, -1)).all()
    walls = task.losses(task.model, batch, 0)[1]["walls"]
    assert walls.item() > 0
    walls.backward()
    motion, texture = (head.weight.grad for head in (task.model.motion.head, task.model.texture.head))
    assert motion is not None and motion[:2].any() and not motion[2:].any() and texture is None
