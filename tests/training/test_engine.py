"""The loop: what a run leaves behind, exact resume, and what is refused."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from echopulse.config import load_json
from echopulse.errors import InputError
from echopulse.models.checkpoints import load_network
from echopulse.models.presets import tokenizer_config
from echopulse.models.tokenizer import TokenizerConfig, VideoTokenizer
from echopulse.sampling.pipeline import Pipeline
from echopulse.training.engine import TrainSettings, train
from echopulse.training.tokenizer import TokenizerTask

STAGES = ("tokenizer", "generator")
MakeTask = Callable[[str], Any]
ReadLog = Callable[[Path], list[dict[str, Any]]]


class Line:
    """The smallest task: fit `y = 2x`. Counts its batches and can be interrupted or broken at a step."""

    def __init__(self, interrupt_at: int | None = None, nan_at: int | None = None) -> None:
        torch.manual_seed(0)
        self.model = nn.Linear(1, 1)
        self.interrupt_at, self.nan_at = interrupt_at, nan_at

    def batch(self, step: int, rank: int) -> Tensor:
        if step == self.interrupt_at:
            raise KeyboardInterrupt
        return torch.rand(4, 1, generator=torch.Generator().manual_seed(step))

    def losses(self, model: nn.Module, batch: Tensor, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        noise = 0.01 * torch.randn(batch.shape)
        loss = torch.mean((model(batch) - 2 * batch + noise) ** 2)
        if step == self.nan_at:
            loss = loss * float("nan")
        return loss, {"error": loss.sqrt()}

    def sample(self, model: nn.Module, folder: Path, step: int) -> None:
        (folder / f"{step}.txt").write_text(str(float(model.weight.detach())))

    def export(self, model: nn.Module, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        torch_weights = np.array([float(p.detach()) for p in model.parameters()])
        np.save(folder / "weights.npy", torch_weights)


def _interrupted(task: Any, step: int) -> Any:
    batch = task.batch

    def interrupt(at: int, rank: int) -> Any:
        if at == step:
            raise KeyboardInterrupt
        return batch(at, rank)

    task.batch = interrupt
    return task


def test_without_bfloat16_in_hardware_training_is_in_float32(
    tmp_path: Path, settings: TrainSettings, read_log: ReadLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ECHOPULSE_DTYPE", "float32")
    train(Line(), replace(settings, precision="auto"), tmp_path / "auto", quiet=True)
    train(Line(), settings, tmp_path / "no", quiet=True)
    assert read_log(tmp_path / "auto") == read_log(tmp_path / "no")


@pytest.mark.parametrize("stage", STAGES)
def test_run_leaves_log_samples_checkpoint_and_export(
    make_task: MakeTask, settings: TrainSettings, read_log: ReadLog, tmp_path: Path, stage: str
) -> None:
    run = tmp_path / "run"
    train(make_task(stage), replace(settings, steps=3), run, quiet=True)
    log = read_log(run)
    assert [line["step"] for line in log] == [0, 1, 2]
    assert all(np.isfinite(list(line.values())).all() for line in log)
    expected = {"psnr_db", "reconstruction"} if stage == "tokenizer" else {"cross_entropy", "accuracy"}
    assert {"loss", "gradient_norm"} | expected <= set(log[0])
    picture = np.asarray(Image.open(run / "samples" / "0000003.png"))
    assert (
        picture.ndim == 2 and picture.shape[0] == (384 if stage == "tokenizer" else 256) and picture.shape[1] % 128 == 0
    )
    assert {path.name for path in (run / "checkpoint").iterdir()} == {
        "model.safetensors",
        "average.safetensors",
        "optimizer.safetensors",
        "state.json",
    }
    assert load_json(run / "checkpoint" / "state.json")["step"] == 3
    assert load_json(run / "settings.json")["steps"] == 3
    assert list((run / "tensorboard").iterdir())
    assert not [path for path in run.rglob("*") if path.name.endswith((".part", ".old"))]
    if stage == "tokenizer":
        load_network(VideoTokenizer, TokenizerConfig, run / "export" / "tokenizer")
    else:
        assert Pipeline.load(run / "export").size == (128, 128)


@pytest.mark.parametrize("stage", STAGES)
def test_resumed_run_equals_an_unbroken_one_to_the_byte(
    make_task: MakeTask, settings: TrainSettings, read_log: ReadLog, tmp_path: Path, stage: str
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(make_task(stage), settings, whole, quiet=True)
    with pytest.raises(KeyboardInterrupt):
        train(_interrupted(make_task(stage), 3), settings, broken, quiet=True)
    assert load_json(broken / "checkpoint" / "state.json")["step"] == 3
    train(make_task(stage), settings, broken, resume=True, quiet=True)
    assert read_log(broken) == read_log(whole)
    for path in (f"export/{stage}/model", "checkpoint/model", "checkpoint/average", "checkpoint/optimizer"):
        one, two = (folder / f"{path}.safetensors" for folder in (whole, broken))
        assert one.read_bytes() == two.read_bytes(), f"{path} differs"


@pytest.mark.parametrize("at", [1, 2, 5])
@pytest.mark.parametrize("ema_every", [1, 2, 3])
def test_resume_is_exact_wherever_it_stopped(
    settings: TrainSettings, read_log: ReadLog, tmp_path: Path, at: int, ema_every: int
) -> None:
    settings = replace(settings, ema_every=ema_every, ema_decay=0.5, steps=7)
    train(Line(), settings, tmp_path / "whole", quiet=True)
    with pytest.raises(KeyboardInterrupt):
        train(Line(interrupt_at=at), settings, tmp_path / "broken", quiet=True)
    train(Line(), settings, tmp_path / "broken", resume=True, quiet=True)
    assert read_log(tmp_path / "broken") == read_log(tmp_path / "whole")
    whole, broken = (np.load(tmp_path / run / "export" / "weights.npy") for run in ("whole", "broken"))
    np.testing.assert_array_equal(whole, broken)


def test_steps_after_the_last_checkpoint_are_logged_once(
    settings: TrainSettings, read_log: ReadLog, tmp_path: Path
) -> None:
    """The checkpoint of step 2 is all there is when the run stops at step 4."""
    rare = replace(settings, checkpoint_every_s=0.0)
    with pytest.raises(KeyboardInterrupt):
        train(Line(interrupt_at=2), rare, tmp_path / "run", quiet=True)
    saved = {path.name: path.read_bytes() for path in (tmp_path / "run" / "checkpoint").iterdir()}
    with pytest.raises(KeyboardInterrupt):
        train(Line(interrupt_at=4), rare, tmp_path / "run", resume=True, quiet=True)
    for name, content in saved.items():
        (tmp_path / "run" / "checkpoint" / name).write_bytes(content)
    train(Line(), rare, tmp_path / "run", resume=True, quiet=True)
    assert [line["step"] for line in read_log(tmp_path / "run")] == [0, 1, 2, 3, 4, 5]


def test_stop_between_two_renames_of_a_checkpoint_is_survived(settings: TrainSettings, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(Line(interrupt_at=2), settings, run, quiet=True)
    (run / ".checkpoint.old").mkdir()
    (run / ".checkpoint.old" / "state.json").write_text("{}")
    train(Line(), settings, run, resume=True, quiet=True)
    assert load_json(run / "checkpoint" / "state.json")["step"] == 6


def test_training_learns_and_averages(settings: TrainSettings, read_log: ReadLog, tmp_path: Path) -> None:
    task = Line()
    longer = replace(settings, steps=200, learning_rate=0.1, ema_decay=0.8, checkpoint_every_s=60.0)
    train(task, longer, tmp_path / "run", quiet=True)
    log = read_log(tmp_path / "run")
    assert log[-1]["loss"] < 0.02 * log[0]["loss"]
    exported = np.load(tmp_path / "run" / "export" / "weights.npy")
    assert exported[0] == pytest.approx(2, abs=0.1)
    assert exported[0] != float(task.model.weight.detach()), "the moving average is exported"


def test_run_is_not_overwritten(settings: TrainSettings, tmp_path: Path) -> None:
    train(Line(), settings, tmp_path / "run", quiet=True)
    with pytest.raises(InputError, match="already holds a run; add --resume"):
        train(Line(), settings, tmp_path / "run", quiet=True)


def test_resume_with_other_settings_is_refused(settings: TrainSettings, tmp_path: Path) -> None:
    train(Line(), settings, tmp_path / "run", quiet=True)
    with pytest.raises(InputError, match="other settings"):
        train(Line(), replace(settings, learning_rate=1e-5), tmp_path / "run", resume=True, quiet=True)


def test_nothing_to_resume_is_refused(settings: TrainSettings, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing to resume"):
        train(Line(), settings, tmp_path / "run", resume=True, quiet=True)


def test_loss_that_is_not_finite_stops_the_run_before_it_spoils_the_weights(
    settings: TrainSettings, tmp_path: Path
) -> None:
    task = Line(nan_at=3)
    with pytest.raises(FloatingPointError, match="step 3: the loss is nan"):
        train(task, settings, tmp_path / "run", quiet=True)
    assert all(torch.isfinite(p).all() for p in task.model.parameters())
    assert load_json(tmp_path / "run" / "checkpoint" / "state.json")["step"] == 3


def test_progress_is_printed_unless_quiet(
    settings: TrainSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(Line(), settings, tmp_path / "quiet", quiet=True)
    assert capsys.readouterr().out == ""
    train(Line(), settings, tmp_path / "loud")
    assert "5/6" in capsys.readouterr().out


@pytest.mark.parametrize("change", [dict(steps=0), dict(batch=0)])
def test_impossible_settings_are_refused(settings: TrainSettings, change: dict[str, int]) -> None:
    with pytest.raises(InputError, match="expected 1 or more"):
        replace(settings, **change)


def test_tokenizer_learns_one_clip(prepared: Path) -> None:
    """Thirty steps on one fixed batch bring the pixel loss down by a third at least."""
    task = TokenizerTask(tokenizer_config("tiny"), [prepared], batch=2, frames=3)
    batch = task.batch(0, 0)
    optimizer = torch.optim.Adam(task.model.parameters(), lr=3e-3)
    losses = []
    for step in range(30):
        loss, terms = task.losses(task.model, batch, step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(terms["reconstruction"].detach()))
    assert np.mean(losses[-3:]) < 0.67 * np.mean(losses[:3])


class Counting(Line):
    """A mean over more or fewer points, the same ones however they are split into batches."""

    def __init__(self, splits: tuple[int, ...]) -> None:
        super().__init__()
        self.splits = splits

    def batch(self, step: int, rank: int) -> Tensor:
        points = torch.rand(12, 1, generator=torch.Generator().manual_seed(step // len(self.splits)))
        return points.split(self.splits)[step % len(self.splits)]

    def count(self, batch: Tensor) -> float:
        return float(len(batch))

    def losses(self, model: nn.Module, batch: Tensor, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        loss = torch.mean((model(batch) - 2 * batch) ** 2)
        return loss, {"error": loss}


def test_every_term_weighs_the_same_however_batches_are_split(
    settings: TrainSettings, read_log: ReadLog, tmp_path: Path
) -> None:
    for name, splits in (("one", (12,)), ("three", (1, 3, 8))):
        train(Counting(splits), replace(settings, accumulate=len(splits)), tmp_path / name, quiet=True)
    one, three = (np.load(tmp_path / name / "export" / "weights.npy") for name in ("one", "three"))
    np.testing.assert_allclose(three, one, rtol=1e-5)
    losses = [[line["loss"] for line in read_log(tmp_path / name)] for name in ("one", "three")]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
