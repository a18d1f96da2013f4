"""Training of the tokenizer: discriminator, exact resume, frozen encoder, accumulation, LoRA."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from echopulse.errors import InputError
from echopulse.models.presets import tokenizer_config
from echopulse.models.tokenizer import TokenizerConfig, VideoTokenizer
from echopulse.training.engine import TrainSettings, train
from echopulse.training.lora import LoraTask, add_lora, load_adapter, merged, trained_share
from echopulse.training.moving_textures import moving_textures
from echopulse.training.tokenizer import AdversarialTokenizerTask, TokenizerLosses, TokenizerTask, tokenizer_task

ReadLog = Callable[[Path], list[dict[str, Any]]]
LOSSES = TokenizerLosses(adversarial="video", adversarial_start=2, continuous_steps=2)
SMALL = replace(tokenizer_config("tiny"), patch=8)


def _task(prepared: Path, losses: TokenizerLosses = LOSSES, network: Any = SMALL, **options: Any) -> TokenizerTask:
    return tokenizer_task(network, [prepared], losses=losses, batch=2, frames=3, **options)


def _tokenizer(config: TokenizerConfig = SMALL) -> VideoTokenizer:
    torch.manual_seed(1)
    return VideoTokenizer(config)


def test_every_term_is_logged_and_the_discriminator_joins_later(
    prepared: Path, settings: TrainSettings, read_log: ReadLog, tmp_path: Path
) -> None:
    train(_task(prepared, textures=0.5), settings, tmp_path / "run", quiet=True)
    log = read_log(tmp_path / "run")
    before = {"reconstruction", "perceptual", "psnr_db", "codes_in_batch", "code_perplexity", "gradient_norm"}
    joined = {"adversarial", "discriminator_real", "discriminator_made", "discriminator_gradient_norm"}
    assert before <= set(log[0]) and not joined & set(log[1])
    assert before | joined <= set(log[2])
    assert all(np.isfinite(list(line.values())).all() for line in log)
    files = {path.stem for path in (tmp_path / "run" / "checkpoint").iterdir()}
    assert {"discriminator", "discriminator_optimizer"} < files


@pytest.mark.parametrize("stop", [1, 4], ids=["before", "after"])
def test_resumed_adversarial_run_equals_an_unbroken_one(
    prepared: Path, settings: TrainSettings, read_log: ReadLog, tmp_path: Path, stop: int
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(_task(prepared), settings, whole, quiet=True)
    task, batch = _task(prepared), _task(prepared).batch

    def interrupt(step: int, rank: int) -> Any:
        if step == stop:
            raise KeyboardInterrupt
        return batch(step, rank)

    task.batch = interrupt  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        train(task, settings, broken, quiet=True)
    train(_task(prepared), settings, broken, resume=True, quiet=True)
    assert read_log(broken) == read_log(whole)
    for path in sorted((whole / "checkpoint").glob("*.safetensors")):
        assert path.read_bytes() == (broken / "checkpoint" / path.name).read_bytes(), path.name


def test_killed_run_goes_on_as_if_nothing_had_happened(prepared: Path, read_log: ReadLog, tmp_path: Path) -> None:
    """`kill -9` somewhere in the run, then `--resume`."""
    command = [sys.executable, "-c", "from echopulse.cli.main import main; main()", "train", "tokenizer"]
    command += ["--data", str(prepared), "--preset", "tiny", "--steps", "12", "--adversarial", "image"]

    def start(run: Path, *options: str) -> subprocess.Popen:
        whole = [*command, "-o", str(run), *options]
        return subprocess.Popen(whole, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)

    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    assert start(tmp_path / "whole").wait(120) == 0
    killed = start(tmp_path / "broken")
    deadline = time.monotonic() + 120
    while not (tmp_path / "broken" / "log.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.wait(10)
    resume = ["--resume"] if (tmp_path / "broken" / "checkpoint").exists() else []
    assert start(tmp_path / "broken", *resume).wait(120) == 0
    assert read_log(tmp_path / "broken") == read_log(tmp_path / "whole")


def test_resume_without_the_discriminator_is_refused(prepared: Path, settings: TrainSettings, tmp_path: Path) -> None:
    train(
        _task(prepared, replace(LOSSES, adversarial="none")), replace(settings, steps=1), tmp_path / "run", quiet=True
    )
    with pytest.raises(InputError, match="trained without a discriminator"):
        train(_task(prepared), replace(settings, steps=1), tmp_path / "run", resume=True, quiet=True)


def test_two_accumulated_batches_are_one_of_both(prepared: Path, settings: TrainSettings, tmp_path: Path) -> None:
    """With plain pixel loss and no clipping, the update follows from the mean gradient of both batches."""
    losses = TokenizerLosses(perceptual="none", continuous_steps=0)
    task = _task(prepared, losses)
    parts = [task.batch(step, 0) for step in (0, 1)]
    gradients = []
    for part in parts:
        task.losses(task.model, part, 0)[0].backward()
        gradients.append([p.grad.clone() for p in task.model.parameters() if p.grad is not None])
        task.model.zero_grad()
    mean = [(x + y) / 2 for x, y in zip(*gradients, strict=True)]
    norm = torch.stack([g.norm() for g in mean]).norm()
    train(_task(prepared, losses), replace(settings, steps=1, accumulate=2), tmp_path / "run", quiet=True)
    logged = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[0])
    assert logged["gradient_norm"] == pytest.approx(float(norm), rel=1e-4)


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_a_part_that_does_not_learn_keeps_what_codes_mean(
    part: Literal["encoder", "decoder"], prepared: Path, settings: TrainSettings, tmp_path: Path
) -> None:
    tokenizer = _tokenizer()
    video = torch.rand(1, 3, 1, 32, 32)
    with torch.inference_mode():
        codes, features = tokenizer.encode(video), tokenizer.features(video)
        pixels = tokenizer.decode(codes)
    task = _task(prepared, replace(LOSSES, only=part, adversarial="none"), tokenizer)
    train(task, replace(settings, learning_rate=1e-2), tmp_path / "run", quiet=True)
    trained = VideoTokenizer.from_pretrained(tmp_path / "run")
    with torch.inference_mode():
        assert torch.equal(trained.decode(codes), pixels) == (part == "encoder")
        assert torch.equal(trained.features(video), features) == (part == "decoder")


def test_of_adapters_too_only_those_of_the_part_learn(prepared: Path) -> None:
    tokenizer = _tokenizer()
    add_lora(tokenizer, 2)
    task = _task(prepared, replace(LOSSES, only="decoder", adversarial="none"), tokenizer)
    trained = {name for name, parameter in task.model.named_parameters() if parameter.requires_grad}
    assert trained and all("lora" in name and name.split(".")[0].endswith("_decoder") for name in trained)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(perceptual="vgg16"), "the network and its file go together"),
        (dict(vgg16="file"), "the network and its file go together"),
        (dict(pixel_weight=-1.0), "negative"),
        (dict(walls_weight=-1.0), "negative"),
    ],
)
def test_impossible_losses_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TokenizerLosses(**change)


def test_impossible_tasks_are_refused(prepared: Path) -> None:
    with pytest.raises(InputError, match="clips of 3 frames or more"):
        tokenizer_task(SMALL, [prepared], losses=LOSSES, batch=2, frames=1)
    with pytest.raises(InputError, match="makes no discriminator"):
        AdversarialTokenizerTask(SMALL, [prepared], losses=TokenizerLosses(), batch=2)
    with pytest.raises(InputError, match="moving textures is 2"):
        _task(prepared, textures=2.0)
    frozen = _tokenizer()
    add_lora(frozen, 2)
    with pytest.raises(InputError, match="last layer is frozen"):
        _task(prepared, LOSSES, frozen)


def test_a_segmenter_judges_reconstructions_and_stays_as_it_is(prepared: Path) -> None:
    losses = TokenizerLosses(perceptual="none", segmenter="compact", walls_weight=2.0)
    task = tokenizer_task(SMALL, [prepared], losses=losses, batch=2, frames=3)
    assert task.segmenter is not None
    before = {name: value.clone() for name, value in task.segmenter.state_dict().items()}
    loss, terms = task.losses(task.model, task.batch(0, 0), 0)
    loss.backward()
    assert 0 < float(terms["walls"].detach()) <= 8 and not any(p.grad is not None for p in task.segmenter.parameters())
    assert all(torch.equal(value, before[name]) for name, value in task.segmenter.state_dict().items())
    with pytest.raises(InputError, match="trained on pictures of 128; the clips are 64 wide"):
        tokenizer_task(SMALL, [prepared], losses=losses, batch=2, frames=3, size=64)


def test_single_frames_train_with_an_image_discriminator(prepared: Path) -> None:
    losses = replace(LOSSES, adversarial="image", adversarial_start=0)
    task = tokenizer_task(SMALL, [prepared], losses=losses, batch=2, frames=1)
    loss, terms = task.losses(task.model, task.batch(0, 0), 0)
    assert torch.isfinite(loss) and "adversarial" in terms


def test_moving_textures_move_and_stay_in_range() -> None:
    clips = moving_textures(np.random.default_rng(0), 3, 5, 32)
    assert clips.shape == (3, 5, 1, 32, 32) and clips.min() >= 0 and clips.max() <= 1
    assert (clips[:, 1:] - clips[:, :-1]).abs().mean() > 1e-3
    assert (clips[:, 1:] - clips[:, :-1]).abs().mean() < (clips[0, 1:] - clips[1, 1:]).abs().mean()
    assert torch.equal(clips, moving_textures(np.random.default_rng(0), 3, 5, 32))


# LoRA ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stem", [False, True])
def test_adapters_start_as_nothing_and_train_a_small_share(stem: bool) -> None:
    tokenizer, video = _tokenizer().eval(), torch.rand(1, 3, 1, 32, 32)
    with torch.inference_mode():
        before = tokenizer(video).reconstruction
        add_lora(tokenizer, 2, stem=stem)
        torch.testing.assert_close(tokenizer(video).reconstruction, before)
    trained = [name for name, p in tokenizer.named_parameters() if p.requires_grad]
    assert trained and all(".lora_" in name for name in trained)
    assert any(name.startswith("patches") for name in trained) is stem
    number, share = trained_share(tokenizer)
    assert number > 0 and share < 0.5
    projections = {name.split(".lora_")[0].rsplit(".", 1)[-1] for name in trained if "blocks" in name}
    assert projections == {"to_q", "to_kv", "to_out", "to_gate"}


def test_saved_adapter_merges_into_the_same_network(
    prepared: Path, settings: TrainSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = torch.rand(1, 3, 1, 32, 32)
    tokenizer = _tokenizer()
    add_lora(tokenizer, 2, stem=True)
    task = LoraTask(tokenizer, [prepared], init="base", batch=2, frames=3, losses=TokenizerLosses())
    assert "parameters trained" in capsys.readouterr().out
    train(task, replace(settings, learning_rate=1e-2), tmp_path / "run", quiet=True)
    export = tmp_path / "run" / "export"
    assert json.loads((export / "adapter" / "adapter_config.json").read_text())["peft_type"] == "LORA"
    whole, loaded = VideoTokenizer.from_pretrained(export), load_adapter(_tokenizer().eval(), export / "adapter")
    with torch.inference_mode():
        expected = whole(video).reconstruction
        torch.testing.assert_close(loaded(video).reconstruction, expected, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(_tokenizer()(video).reconstruction, expected, atol=1e-3)


def test_adapter_is_readable_by_peft(prepared: Path, settings: TrainSettings, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    tokenizer = _tokenizer()
    add_lora(tokenizer, 2)
    with torch.no_grad():
        for name, p in tokenizer.named_parameters():
            if ".lora_B." in name:
                p.normal_(std=0.1)
    LoraTask(tokenizer, [prepared], init="base", batch=2, frames=3).export(tokenizer, tmp_path)
    theirs = peft.PeftModel.from_pretrained(_tokenizer(), str(tmp_path / "adapter")).merge_and_unload().eval()
    video = torch.rand(1, 3, 1, 32, 32)
    with torch.inference_mode():
        expected = merged(tokenizer).eval()(video).reconstruction
        torch.testing.assert_close(theirs(video).reconstruction, expected, rtol=1e-4, atol=1e-5)


def test_adapters_of_another_network_and_no_adapters_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="rank of LoRA is 0"):
        add_lora(_tokenizer(), 0)
    with pytest.raises(InputError, match="no adapter"):
        load_adapter(_tokenizer(), tmp_path)
    (tmp_path / "adapter_config.json").write_text('{"r": 2, "lora_alpha": 4}')
    save_file({"base_model.model.stranger.lora_A.weight": torch.zeros(2, 4)}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(InputError, match="does not fit this tokenizer"):
        load_adapter(_tokenizer(), tmp_path)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"no weights")
    with pytest.raises(InputError, match="not an adapter"):
        load_adapter(_tokenizer(), tmp_path)
