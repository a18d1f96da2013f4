"""A set prepared from each dataset trains: two steps of the tokenizer, and of the generator where there is an ECG."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from echopulse.io.datasets import SourceOptions
from echopulse.io.prepare import PrepareSettings, prepare_set
from echopulse.io.sets import PreparedSet
from echopulse.models.presets import generator_config, tokenizer_config
from echopulse.training.generator import GeneratorTask
from echopulse.training.token_cache import build_token_cache
from echopulse.training.tokenizer import TokenizerTask

WITHOUT_ECG = ("camus_nifti", "camus_mhd", "echonet_dynamic", "echonet_pediatric", "echonet_lvh")
WITH_ECG = ("echoxflow_zarr", "echoxflow_hdf5", "folder_of_pairs", "webdataset")


def two_steps(task: TokenizerTask | GeneratorTask) -> None:
    before = [p.detach().clone() for p in task.model.parameters()]
    optimizer = torch.optim.AdamW(task.model.parameters(), lr=1e-3)
    for step in range(2):
        loss, _ = task.losses(task.model, task.batch(step, 0), step)
        assert torch.isfinite(loss)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert any(not torch.equal(old, new) for old, new in zip(before, task.model.parameters(), strict=True))


@pytest.mark.parametrize("name", WITHOUT_ECG + WITH_ECG)
def test_a_prepared_dataset_trains(name: str, standin: Callable[[str], Path], tmp_path: Path) -> None:
    outcome = prepare_set(
        standin(name), tmp_path / "set", PrepareSettings(options=SourceOptions(fps=30.0)), workers=2, salt="test"
    )
    prepared = PreparedSet(tmp_path / "set")
    assert outcome.report["clips"]["kept"] == len(prepared) > 0
    for i in range(len(prepared)):
        frames, masks = prepared.frames(i), prepared.masks(i)
        assert frames.shape[1:] == (128, 128) and frames.max() > 100
        assert masks is None or masks.shape == frames.shape
    tokenizer = TokenizerTask(tokenizer_config("tiny"), [tmp_path / "set"], batch=1, frames=3)
    two_steps(tokenizer)
    with_ecg = [i for i in range(len(prepared)) if prepared.line(i)["ecg"] is not None]
    assert bool(with_ecg) == (name in WITH_ECG)
    if len(with_ecg) < len(prepared):
        return
    frozen = tokenizer.model.eval().requires_grad_(False)
    clips = build_token_cache(tmp_path / "cache", [tmp_path / "set"], frozen, min_frames=7)
    two_steps(GeneratorTask(generator_config("tiny"), clips, frozen, batch=1))
