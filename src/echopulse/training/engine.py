"""The training loop that every task shares: precision, processes, EMA, log, checkpoints, exact resume.

A step's data and randomness follow from (seed, step, rank) alone, so a resumed run repeats an unbroken one to the bit.
"""

import copy
import json
import math
import shutil
import time
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from accelerate import Accelerator, PartialState
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from echopulse.config import from_dict, load_json, save_json, to_dict
from echopulse.errors import InputError
from echopulse.models.checkpoints import write_tensors
from echopulse.nn.precision import mixed_precision

_OLD = ".checkpoint.old"


@dataclass(frozen=True)
class TrainSettings:
    """How long and how to train.

    Attributes:
        steps: optimizer steps.
        batch: clips a step, on each process.
        accumulate: batches whose gradients are added up to one step.
        learning_rate: peak; linear warm-up, then cosine to a tenth.
        warmup: steps of warm-up.
        beta1, beta2, weight_decay: AdamW.
        clip_norm: largest gradient norm.
        ema_decay, ema_every: moving average of the weights.
        precision: `bf16` mixed precision, `no`, or `auto`: `bf16` where the device multiplies it in hardware.
        log_every, sample_every: steps between log lines and between sample pictures.
        checkpoint_every_s: seconds between checkpoints.
        seed: of everything random.
    """

    steps: int
    batch: int
    accumulate: int = 1
    learning_rate: float = 3e-4
    warmup: int = 200
    beta1: float = 0.9
    beta2: float = 0.99
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    ema_decay: float = 0.995
    ema_every: int = 2
    precision: Literal["auto", "bf16", "no"] = "auto"
    log_every: int = 20
    sample_every: int = 500
    checkpoint_every_s: float = 180.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1 or self.accumulate < 1:
            raise InputError(
                f"steps = {self.steps}, batch = {self.batch}, accumulate = {self.accumulate}; expected 1 or more"
            )


@runtime_checkable
class Task(Protocol):
    """What the engine needs of a task."""

    @property
    def model(self) -> nn.Module:
        """The network to train."""
        ...

    def batch(self, step: int, rank: int) -> Any:
        """Inputs of one step on one process."""
        ...

    def losses(self, model: nn.Module, batch: Any, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss to minimise, and what to log beside it."""
        ...

    def sample(self, model: nn.Module, folder: Path, step: int) -> None:
        """Writes pictures that show how training goes."""
        ...

    def export(self, model: nn.Module, folder: Path) -> None:
        """Writes the trained network as a checkpoint folder."""
        ...


@runtime_checkable
class CountingTask(Task, Protocol):
    """A task whose loss is a mean over a number of terms that changes from batch to batch.

    The engine then divides by the number of all processes and accumulated batches together, so that every term weighs
    the same however the batch is spread.
    """

    def count(self, batch: Any) -> float:
        """How many terms the loss of a batch is the mean of."""
        ...


@runtime_checkable
class AdversarialTask(Task, Protocol):
    """A task with a second network, trained against the first by its own optimizer."""

    @property
    def discriminator(self) -> nn.Module:
        """The second network."""
        ...

    @property
    def discriminator_learning_rate(self) -> float:
        """Its peak learning rate; the schedule is that of the first network."""
        ...

    @property
    def discriminator_start(self) -> int:
        """First step of the second network's training."""
        ...

    def discriminator_losses(self, discriminator: nn.Module, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """The second network's loss on what `losses` just made of this batch, and what to log."""
        ...


def train(task: Task, settings: TrainSettings, folder: Path, *, resume: bool = False, quiet: bool = False) -> None:
    """Trains a task and exports the moving average of its weights to `folder/export`. Call on all ranks.

    Args:
        task: what to train.
        settings: how.
        folder: the run: `settings.json`, `log.jsonl`, TensorBoard events, `samples/`, `checkpoint/`, `export/`.
        resume: go on from `folder/checkpoint`.
        quiet: no progress on standard output.

    Raises:
        InputError: the folder holds another run, or nothing to resume.
        FloatingPointError: the loss is not finite.
    """
    precision = mixed_precision() if settings.precision == "auto" else settings.precision
    accelerator = Accelerator(mixed_precision=precision, cpu=not torch.cuda.is_available())
    players = [_Player("model", task.model, settings.learning_rate, 0, settings, accelerator.device)]
    if isinstance(task, AdversarialTask):
        rate, start = task.discriminator_learning_rate, task.discriminator_start
        players.append(_Player("discriminator", task.discriminator, rate, start, settings, accelerator.device))
    average = AveragedModel(task.model, multi_avg_fn=get_ema_multi_avg_fn(settings.ema_decay))
    checkpoint = folder / "checkpoint"
    first = 0
    if resume:
        first = _load(checkpoint, settings, players, average)
    elif checkpoint.exists():
        raise InputError(f"{folder} already holds a run; add --resume, or choose another folder")
    for player in players:
        player.wrapped, player.optimizer = accelerator.prepare(player.network, player.optimizer)
    if accelerator.is_main_process:
        (folder / "samples").mkdir(parents=True, exist_ok=True)
        save_json(folder / "settings.json", to_dict(settings))
    saved_at = time.monotonic()
    with closing(_Log(folder, first, accelerator.is_main_process, quiet)) as log:
        for step in range(first, settings.steps):
            torch.manual_seed(hash((settings.seed, step, accelerator.process_index)) % 2**63)
            scalars = _step(task, players, settings, accelerator, step)
            if step % settings.ema_every == 0:
                average.update_parameters(task.model)
            last = step + 1 == settings.steps
            if step % settings.log_every == 0 or last:
                log.write(step, settings.steps, scalars)
            if accelerator.is_main_process and (last or (step + 1) % settings.sample_every == 0):
                shown = average.module if accelerator.device.type == "cpu" else copy.deepcopy(average.module).cpu()
                with torch.inference_mode():
                    task.sample(shown.eval(), folder / "samples", step + 1)
            if accelerator.is_main_process and (last or time.monotonic() - saved_at > settings.checkpoint_every_s):
                _save(checkpoint, settings, step + 1, players, average.module)
                task.export(average.module, folder / "export")
                saved_at = time.monotonic()
    accelerator.wait_for_everyone()  # a process that leaves while another writes may abort both
    accelerator.end_training()


def main_process_first() -> AbstractContextManager[None]:
    """A context that the first process goes through before the others, which then find its files."""
    state = PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(days=1))
    return state.main_process_first()


class _Player:
    """A network with its optimizer and the step from which it learns."""

    def __init__(
        self, name: str, network: nn.Module, rate: float, start: int, settings: TrainSettings, device: torch.device
    ) -> None:
        self.name, self.network, self.rate, self.start = name, network.to(device), rate, start
        self.wrapped = self.network
        self.optimizer: Any = torch.optim.AdamW(
            [p for p in network.parameters() if p.requires_grad],
            lr=rate,
            betas=(settings.beta1, settings.beta2),
            weight_decay=settings.weight_decay,
        )

    def update(self, settings: TrainSettings, accelerator: Accelerator, step: int) -> Tensor:
        """One optimizer step; returns the gradient's norm before clipping."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * _schedule(settings, step, self.start)
        norm = accelerator.clip_grad_norm_(self.wrapped.parameters(), settings.clip_norm)
        assert norm is not None
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm


def _step(
    task: Task, players: list[_Player], settings: TrainSettings, accelerator: Accelerator, step: int
) -> dict[str, float]:
    """Gradients of all batches of a step, then one update of each network; the mean of what there is to log."""
    active = [player for player in players if step >= player.start]
    sums: dict[str, float] = {}
    parts = range(step * settings.accumulate, (step + 1) * settings.accumulate)
    batches: Iterable[Any] = (task.batch(part, accelerator.process_index) for part in parts)
    shares = [1 / settings.accumulate] * settings.accumulate
    if isinstance(task, CountingTask):
        batches = list(batches)
        shares = _shares([task.count(batch) for batch in batches], accelerator)
    for part, (batch, share) in enumerate(zip(batches, shares, strict=True)):
        for player in active:
            with accelerator.autocast():
                if player.name == "model":
                    loss, breakdown = task.losses(player.wrapped, batch, step)
                    breakdown = {"loss": loss} | breakdown
                else:
                    assert isinstance(task, AdversarialTask)
                    loss, breakdown = task.discriminator_losses(player.wrapped, batch)
            if not torch.isfinite(loss):
                raise FloatingPointError(f"step {step}: the loss is {float(loss.detach())}; lower the learning rate")
            synchronise = part + 1 == settings.accumulate
            with nullcontext() if synchronise else accelerator.no_sync(player.wrapped):
                accelerator.backward(loss * share)
            for name, value in breakdown.items():
                sums[name] = sums.get(name, 0.0) + float(torch.as_tensor(value).detach()) * share
    norms = {player.name: float(player.update(settings, accelerator, step)) for player in active}
    sums["gradient_norm"] = norms.pop("model")
    return sums | {f"{name}_gradient_norm": norm for name, norm in norms.items()}


def _shares(counts: list[float], accelerator: Accelerator) -> list[float]:
    """What each batch's mean weighs in the mean over all, times the processes, which are averaged afterwards."""
    own = torch.tensor(counts, dtype=torch.float64)
    total = accelerator.reduce(own.sum().to(accelerator.device, torch.float32), "sum")
    return (own * accelerator.num_processes / float(total)).tolist()  # type: ignore[arg-type]


def _schedule(settings: TrainSettings, step: int, start: int) -> float:
    """Share of the peak learning rate: linear warm-up from `start`, cosine to a tenth over the whole run."""
    warm = min(1.0, (step - start + 1) / max(settings.warmup, 1))
    return warm * (0.55 + 0.45 * math.cos(math.pi * step / settings.steps))


def _save(folder: Path, settings: TrainSettings, step: int, players: Sequence[_Player], average: nn.Module) -> None:
    """Writes everything that the next step depends on: new folder first, then swapped in."""
    fresh = folder.with_name(".checkpoint.part")
    fresh.mkdir(parents=True, exist_ok=True)
    files = {"average": average.state_dict()}
    for player in players:
        state = player.optimizer.state_dict()["state"]
        moments = {f"{i}.{key}": value for i, entry in state.items() for key, value in entry.items()}
        files |= {player.name: player.network.state_dict(), _optimizer_file(player): moments}
    for name, content in files.items():
        write_tensors(content, fresh / f"{name}.safetensors")
    save_json(fresh / "state.json", {"step": step, "settings": to_dict(settings)})
    old = folder.with_name(_OLD)
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
    fresh.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _load(folder: Path, settings: TrainSettings, players: Sequence[_Player], average: AveragedModel) -> int:
    if not folder.exists() and folder.with_name(_OLD).exists():  # killed between the two renames of `_save`
        folder.with_name(_OLD).rename(folder)
    if not (folder / "state.json").is_file():
        raise InputError(f"{folder}: nothing to resume there")
    state = load_json(folder / "state.json")
    if from_dict(TrainSettings, state["settings"], "state.json") != settings:
        raise InputError(f"{folder} was trained with other settings; repeat them or start a new run")
    for player in players:
        if not (folder / f"{player.name}.safetensors").is_file():
            raise InputError(f"{folder} was trained without a {player.name}; repeat the options or start a new run")
        player.network.load_state_dict(load_file(folder / f"{player.name}.safetensors"))
        content: dict[int, dict[str, Tensor]] = {}
        for name, value in load_file(folder / f"{_optimizer_file(player)}.safetensors").items():
            index, key = name.split(".", 1)
            content.setdefault(int(index), {})[key] = value
        optimizer = player.optimizer
        optimizer.load_state_dict({"state": content, "param_groups": optimizer.state_dict()["param_groups"]})
    average.module.load_state_dict(load_file(folder / "average.safetensors"))
    average.n_averaged.fill_(1)  # not the first update any more, which would copy the weights
    return int(state["step"])


def _optimizer_file(player: _Player) -> str:
    return "optimizer" if player.name == "model" else f"{player.name}_optimizer"


class _Log:
    """One JSON object a line, TensorBoard scalars, and a line on standard output."""

    def __init__(self, folder: Path, first: int, active: bool, quiet: bool) -> None:
        self._active, self._quiet, self._start = active, quiet, time.monotonic()
        if active:
            from torch.utils.tensorboard.writer import SummaryWriter

            path = folder / "log.jsonl"
            lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
            kept = [line for line in lines if json.loads(line)["step"] < first]
            path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
            self._file = path.open("a", encoding="utf-8")
            self._board = SummaryWriter(str(folder / "tensorboard"))

    def write(self, step: int, steps: int, scalars: dict[str, float]) -> None:
        if not self._active:
            return
        elapsed = round(time.monotonic() - self._start, 1)
        self._file.write(json.dumps({"step": step, "elapsed_s": elapsed} | scalars) + "\n")
        self._file.flush()
        for name, value in scalars.items():
            self._board.add_scalar(name, value, step)
        if not self._quiet:
            values = "  ".join(f"{name} {value:.4g}" for name, value in scalars.items())
            print(f"{step}/{steps}  {elapsed:.0f} s  {values}", flush=True)

    def close(self) -> None:
        if self._active:
            self._file.close()
            self._board.close()
