"""Training of the token critic: what it sees, what it starts from, and the checkpoint it is part of."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from echopulse.models.checkpoints import load_network
from echopulse.models.critic import TokenCritic
from echopulse.models.presets import generator_config
from echopulse.models.tokenizer import VideoTokenizer
from echopulse.models.video_transformer import GeneratorConfig, VideoTransformer
from echopulse.sampling.pipeline import Pipeline
from echopulse.training.critic import CriticTask
from echopulse.training.engine import TrainSettings, train
from echopulse.training.token_cache import CachedClip


@pytest.fixture
def task(checkpoint: Path, clips: list[CachedClip], frozen_tokenizer: VideoTokenizer) -> CriticTask:
    generator = load_network(VideoTransformer, GeneratorConfig, checkpoint / "generator")
    return CriticTask(generator, clips, frozen_tokenizer, checkpoint=checkpoint, batch=4)


def test_hidden_places_hold_the_generators_draws_and_the_others_the_truth(task: CriticTask) -> None:
    batch = task.batch(0, 0)
    torch.manual_seed(1)
    mixed, _ = task._drawn(batch)
    assert torch.equal(mixed[~batch.hidden], batch.codes[~batch.hidden])
    assert (mixed[batch.hidden] != batch.codes[batch.hidden]).float().mean() > 0.8
    other, _ = task._drawn(batch)
    assert not torch.equal(mixed, other)


def test_critic_starts_from_the_generators_first_layers_and_has_no_encoder(task: CriticTask) -> None:
    assert isinstance(task.model, TokenCritic) and task.model.config.depth == 2 and task.model.ecg is None
    own, generator = task.model.state_dict(), task.generator.state_dict()
    assert all(torch.equal(own[name], generator[name]) for name in own if not name.startswith("head."))
    assert own["head.weight"].shape == (1, 32)
    deeper = VideoTransformer(replace(generator_config("tiny"), depth=8))
    shallow = CriticTask(deeper, task.clips, task._tokenizer, checkpoint=task._checkpoint, batch=1)
    assert shallow.model.config.depth == 4


def test_critic_learns_to_tell_draws_from_codes_and_the_generator_stays(
    task: CriticTask, settings: TrainSettings, tmp_path: Path
) -> None:
    before = {name: x.clone() for name, x in task.generator.state_dict().items()}
    settings = replace(
        settings, steps=40, batch=4, learning_rate=3e-3, ema_decay=0.5, checkpoint_every_s=100, sample_every=40
    )
    train(task, settings, tmp_path / "critic", quiet=True)
    assert all(torch.equal(x, before[name]) for name, x in task.generator.state_dict().items())
    scores, truth = [], []
    with torch.no_grad():
        for step in range(100, 104):
            torch.manual_seed(step)
            batch = task.batch(step, 0)
            scores.append(task.model(*task._drawn(batch)))
            truth.append(~batch.hidden)
    score, real = torch.cat(scores), torch.cat(truth)
    order = score[real][:, None] > score[~real][None]  # the share of rightly ordered pairs is the ROC area
    assert float(order.float().mean()) > 0.6
    pipeline = Pipeline.load(tmp_path / "critic" / "export")
    assert isinstance(pipeline.critic, TokenCritic)
    assert (tmp_path / "critic" / "samples" / "0000040.png").is_file()


def test_checkpoint_without_a_critic_has_none(checkpoint: Path) -> None:
    assert Pipeline.load(checkpoint).critic is None
