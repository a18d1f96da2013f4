"""`echopulse train` for `ecg`, `ef`, `generator` and `critic`, one after the other, and what is refused."""

from pathlib import Path

import pytest
import torch
from command_line import run

from echopulse.config import load_json
from echopulse.models.critic import TokenCritic
from echopulse.models.tokenizer import VideoTokenizer
from echopulse.sampling.pipeline import Pipeline


def test_ecg_then_generator_then_critic(tmp_path: Path) -> None:
    shots, ecg, tokenizer = tmp_path / "set", tmp_path / "ecg", tmp_path / "tokenizer"
    assert run("simulate", "-o", shots, "--num", 2, "--seconds", 0.52, "--no-masks") == 0
    tiny = ("--preset", "tiny", "--steps", 2)
    assert run("train", "ecg", "--phantom", 3, *tiny, "-o", ecg) == 0
    assert run("train", "ef", "--phantom", 3, *tiny, "-o", tmp_path / "ef") == 0
    assert run("train", "tokenizer", "--data", shots, *tiny, "-o", tokenizer) == 0
    generator, critic = tmp_path / "generator", tmp_path / "critic"
    options = ("--data", shots, *tiny, "--tokenizer", tokenizer, "--ecg-init", ecg, "--ef-reader", tmp_path / "ef")
    assert run("train", "generator", *options, "-o", generator) == 0
    assert run("train", "critic", "--phantom", 2, *tiny, "--generator", generator, "-o", critic) == 0
    assert len(load_json(tmp_path / "critic-cache" / "cache.json")["clips"]) == 2
    assert Pipeline.load(generator / "export").critic is None
    assert Pipeline.load(critic / "export").ef_reader is not None
    assert isinstance(Pipeline.load(critic / "export").critic, TokenCritic)


def test_decoder_alone_goes_on_from_a_run_and_codes_keep_their_meaning(tmp_path: Path) -> None:
    tiny = ("train", "tokenizer", "--phantom", 2, "--preset", "tiny", "--steps", 2, "--perceptual", "none")
    assert run(*tiny, "--adversarial", "none", "-o", tmp_path / "a") == 0
    more = ("--init", tmp_path / "a", "--decoder-only", "--adversarial", "video")
    assert run(*tiny, *more, "-o", tmp_path / "b") == 0
    before, after = (VideoTokenizer.from_pretrained(tmp_path / name).state_dict() for name in "ab")
    changed = {name.split(".")[0] for name, x in before.items() if not torch.equal(x, after[name])}
    assert {"unpatches", "spatial_decoder"} <= changed
    assert not changed & {"patches", "spatial_encoder", "temporal_encoder", "first_in", "pair_in"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("critic", "--data", "set"), "needs --generator"),
        (("generator", "--phantom", "3"), "needs --tokenizer"),
        (("critic", "--data", "set", "--generator", "nothing"), "holds no generator"),
        (("ecg", "--phantom", "3", "--ecg-init", "run"), "--ecg-init is for `train generator`"),
        (("ecg", "--phantom", "3", "--preset", "base"), "no recipe for preset 'base'"),
        (("ef", "--phantom", "3", "--preset", "paper"), "the EF reader has no preset 'paper'"),
        (("ef", "--phantom", "3", "--ef-reader", "run"), "--ef-reader is for `train generator`"),
        (("ecg",), "either --data"),
    ],
)
def test_mistakes_are_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    assert run("train", *arguments, "-o", tmp_path / "run") == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
