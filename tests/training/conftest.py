"""A prepared set of four phantom patients and the tiny tasks that train on it."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from echopulse.io.sets import write_manifest, write_set_clip
from echopulse.models.presets import generator_config, tokenizer_config
from echopulse.models.tokenizer import VideoTokenizer
from echopulse.phantom import sample_patient, simulate_clip
from echopulse.training.engine import TrainSettings
from echopulse.training.generator import GeneratorTask
from echopulse.training.token_cache import CachedClip, build_token_cache
from echopulse.training.tokenizer import TokenizerLosses, TokenizerTask


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four clips of 23 frames at 128x128."""
    folder = tmp_path_factory.mktemp("prepared")
    lines = []
    for seed in range(4):
        paired = simulate_clip(sample_patient(seed), fps=25.0, seconds=0.92, with_masks=False)
        lines.append(write_set_clip(folder, replace(paired, split="train"), "phantom"))
    write_manifest(folder, lines)
    return folder


@pytest.fixture(scope="session")
def frozen_tokenizer() -> VideoTokenizer:
    torch.manual_seed(0)
    return VideoTokenizer(tokenizer_config("tiny")).eval().requires_grad_(False)


@pytest.fixture(scope="session")
def clips(
    prepared: Path, frozen_tokenizer: VideoTokenizer, tmp_path_factory: pytest.TempPathFactory
) -> list[CachedClip]:
    return build_token_cache(tmp_path_factory.mktemp("cache"), [prepared], frozen_tokenizer, min_frames=7)


@pytest.fixture
def checkpoint(clips: list[CachedClip], frozen_tokenizer: VideoTokenizer, tmp_path: Path) -> Path:
    """A generator's checkpoint folder, untrained."""
    task = GeneratorTask(generator_config("tiny"), clips, frozen_tokenizer, batch=2)
    task.export(task.model, tmp_path / "run" / "export")
    return tmp_path / "run" / "export"


@pytest.fixture
def make_task(
    prepared: Path, clips: list[CachedClip], frozen_tokenizer: VideoTokenizer
) -> Callable[[str], TokenizerTask | GeneratorTask]:
    def make(stage: str) -> TokenizerTask | GeneratorTask:
        if stage == "tokenizer":
            return TokenizerTask(
                tokenizer_config("tiny"), [prepared], batch=2, frames=3, losses=TokenizerLosses(continuous_steps=2)
            )
        return GeneratorTask(generator_config("tiny"), clips, frozen_tokenizer, batch=2)

    return make


@pytest.fixture
def settings() -> TrainSettings:
    return TrainSettings(
        steps=6, batch=2, warmup=2, log_every=1, sample_every=6, precision="no", checkpoint_every_s=0.0
    )


@pytest.fixture
def read_log() -> Callable[[Path], list[dict[str, Any]]]:
    """The log without its wall clock."""

    def read(folder: Path) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        assert all(line.pop("elapsed_s") >= 0 for line in lines)
        return lines

    return read
