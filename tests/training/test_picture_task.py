"""Training of the picture network: its batches, what it starts from, and the checkpoint it is part of."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from echopulse.errors import InputError
from echopulse.models.checkpoints import load_network
from echopulse.models.tokenizer import VideoTokenizer
from echopulse.models.video_transformer import CodePredictor, GeneratorConfig, VideoTransformer
from echopulse.phantom.series import ClipSeries
from echopulse.sampling.decode import DecodeSettings
from echopulse.sampling.pipeline import Pipeline
from echopulse.sampling.request import GenerationRequest, Take
from echopulse.training.engine import TrainSettings, train
from echopulse.training.phantom_data import PhantomDataset
from echopulse.training.picture import PictureTask, begun_from
from echopulse.training.token_cache import CachedClip, build_token_cache


@pytest.fixture
def generator(checkpoint: Path) -> VideoTransformer:
    return load_network(VideoTransformer, GeneratorConfig, checkpoint / "generator")


@pytest.fixture
def album(frozen_tokenizer: VideoTokenizer, tmp_path: Path) -> list[CachedClip]:
    """Phantom patients at one picture a second: no videos."""
    patients = PhantomDataset(ClipSeries(seconds=3.0, fps=1.0, masks=False), 3, 5)
    return build_token_cache(tmp_path / "album", patients, frozen_tokenizer, 1)


@pytest.fixture
def task(
    generator: VideoTransformer, album: list[CachedClip], frozen_tokenizer: VideoTokenizer, checkpoint: Path
) -> PictureTask:
    return PictureTask(generator, album, frozen_tokenizer, checkpoint=checkpoint, batch=6)


def test_every_frame_of_a_set_without_videos_is_a_picture(album: list[CachedClip], clips: list[CachedClip]) -> None:
    assert [(clip.picture_stride, len(clip.pictures), len(clip.codes)) for clip in album] == [(1, 3, 0)] * 3
    assert all(clip.picture_stride == 6 and len(clip.codes) for clip in clips)


def test_batches_are_pictures_of_videos_that_would_begin_there(task: PictureTask) -> None:
    gaps, found = set(), set()
    for step in range(20):
        batch = task.batch(step, 0)
        assert batch.codes.shape == (6, 1, 8, 8)
        assert batch.hidden.flatten(1).any(1).all() and torch.equal(batch.known, ~batch.hidden)
        gaps.update(batch.conditions.first_gap_s.mul(1000).round().int().tolist())
        for codes, contraction in zip(batch.codes, batch.contraction, strict=True):
            places = [(c, i) for c in task.clips for i, x in enumerate(c.pictures) if np.array_equal(x, codes[0])]
            assert any(contraction[0, 0] == c.contraction[i] for c, i in places)
            found.update(i for _, i in places)
    assert gaps == {25, 40, 80}, "at 40, 25 and 12.5 frames a second"
    assert found == {0, 1, 2}


def test_it_starts_as_the_generator_draws_and_has_no_encoder(task: PictureTask) -> None:
    assert isinstance(task.model, CodePredictor) and task.model.ecg is None
    batch = task.batch(0, 0)
    conditions = batch.conditions._replace(ecg=task.generator.encode_ecg(batch.conditions.ecg))
    with torch.no_grad():
        own, others = (
            network(batch.seen, batch.known, conditions, batch.codes) for network in (task.model, task.generator)
        )
    assert torch.equal(own, others)


def test_a_network_of_another_shape_is_refused(task: PictureTask) -> None:
    deeper = begun_from(VideoTransformer(replace(task.generator.config, depth=4)))
    with pytest.raises(InputError, match="another shape"):
        Pipeline(task._tokenizer, task.generator, {}, torch.float32, picture_network=deeper)
    with pytest.raises(InputError, match="another shape"):
        PictureTask(task.generator, task.clips, task._tokenizer, checkpoint=task._checkpoint, batch=1, network=deeper)


def test_it_learns_pictures_the_generator_stays_and_the_checkpoint_draws_with_it(
    task: PictureTask, settings: TrainSettings, tmp_path: Path
) -> None:
    before = {name: x.clone() for name, x in task.generator.state_dict().items()}
    batch = task.batch(1000, 0)
    with torch.no_grad():
        first = float(task.losses(task.model, batch, 0)[0])
    settings = replace(
        settings, steps=40, batch=6, learning_rate=3e-3, ema_decay=0.5, checkpoint_every_s=100, sample_every=40
    )
    train(task, settings, tmp_path / "picture", quiet=True)
    with torch.no_grad():
        assert float(task.losses(task.model, batch, 0)[0]) < 0.9 * first
    assert all(torch.equal(x, before[name]) for name, x in task.generator.state_dict().items())
    assert (tmp_path / "picture" / "samples" / "0000040.png").is_file()
    pipeline = Pipeline.load(tmp_path / "picture" / "export")
    assert isinstance(pipeline.picture_network, CodePredictor)
    drawn = DecodeSettings(steps=2, picture_temperature=1.0)
    request = GenerationRequest(seconds=0.2, seed=3)
    with_it = pipeline.generate([Take(None, request)], drawn)[0][0].frames
    image = with_it[0]
    given = pipeline.generate([Take(None, request, image)], drawn)[0][0].frames
    pipeline.picture_network = None
    assert not np.array_equal(pipeline.generate([Take(None, request)], drawn)[0][0].frames[0], with_it[0])
    again = pipeline.generate([Take(None, request, image)], drawn)[0][0].frames
    assert np.array_equal(given, again), "beside a picture it has no part"
