"""`echopulse train`, one stage after the other, and what is refused."""

from pathlib import Path

import pytest
import torch
from command_line import run
from safetensors.torch import load_file

from echopulse.config import from_dict, load_json
from echopulse.evaluation.segmentation import SHIPPED_SEGMENTER
from echopulse.models.checkpoints import locate_checkpoint
from echopulse.models.critic import TokenCritic
from echopulse.models.tokenizer import VideoTokenizer
from echopulse.sampling.decode import DecodeSettings
from echopulse.sampling.pipeline import Pipeline
from echopulse.training.recipes import generator_decoding


def test_ecg_then_generator_then_critic(tmp_path: Path) -> None:
    shots, ecg, tokenizer = tmp_path / "set", tmp_path / "ecg", tmp_path / "tokenizer"
    assert run("simulate", "-o", shots, "--num", 2, "--seconds", 0.52) == 0
    tiny = ("--preset", "tiny", "--steps", 2)
    assert run("train", "ecg", "--phantom", 3, *tiny, "-o", ecg) == 0
    assert run("train", "ef", "--phantom", 3, *tiny, "-o", tmp_path / "ef") == 0
    assert run("train", "tokenizer", "--data", shots, *tiny, "-o", tokenizer) == 0
    detail, generator, critic = tmp_path / "detail", tmp_path / "generator", tmp_path / "critic"
    assert run("train", "detail", "--data", shots, *tiny, "--tokenizer", tokenizer, "-o", detail) == 0
    assert run("train", "segmenter", "--data", shots, *tiny, "-o", tmp_path / "segmenter") == 0
    beside = ("--ef-reader", tmp_path / "ef", "--detail", detail, "--segmenter", tmp_path / "segmenter")
    options = ("--data", shots, *tiny, "--tokenizer", detail)
    assert run("train", "generator", *options, *beside, "--ecg-init", ecg, "-o", generator) == 0
    assert run("train", "critic", "--phantom", 2, *tiny, "--generator", generator, "-o", critic) == 0
    assert len(load_json(tmp_path / "critic-cache" / "cache.json")["clips"]) == 2
    assert Pipeline.load(generator / "export").critic is None
    whole = Pipeline.load(critic / "export")
    assert whole.ef_reader is not None and whole.detail is not None and whole.segmenter is not None
    assert whole.default_settings == generator_decoding("tiny") and whole.default_settings.rehearsals == 3
    assert isinstance(whole.critic, TokenCritic) and whole.picture_network is None


def test_a_picture_network_is_trained_beside_a_generator_and_goes_on(tmp_path: Path) -> None:
    tiny = ("--phantom", 2, "--preset", "tiny", "--steps", 2)
    assert run("train", "tokenizer", *tiny, "-o", tmp_path / "tokenizer") == 0
    assert run("train", "generator", *tiny, "--tokenizer", tmp_path / "tokenizer", "-o", tmp_path / "generator") == 0
    options = ("train", "picture", *tiny, "--generator", tmp_path / "generator")
    assert run(*options, "-o", tmp_path / "a") == 0
    assert load_json(tmp_path / "a-cache" / "cache.json")["clips"][0]["fps"] == 1
    assert run(*options, "--init", tmp_path / "a", "--learning-rate", 1e-9, "-o", tmp_path / "b") == 0
    a, b = (Pipeline.load(tmp_path / name / "export") for name in "ab")
    assert a.picture_network is not None and b.picture_network is not None
    before, after = a.picture_network.state_dict(), b.picture_network.state_dict()
    assert all(torch.allclose(x.float(), after[name].float(), atol=1e-3) for name, x in before.items())
    kept = a.generator.state_dict()
    assert all(torch.equal(x, kept[name]) for name, x in b.generator.state_dict().items())


def test_the_shipped_checkpoint_has_its_recipes_decoding() -> None:
    shipped = load_json(locate_checkpoint("compact") / "index.json")["decoding"]
    assert from_dict(DecodeSettings, shipped) == generator_decoding("compact")


def test_a_generator_goes_on_from_a_run(tmp_path: Path) -> None:
    tiny = ("--phantom", 2, "--preset", "tiny", "--steps", 2)
    assert run("train", "tokenizer", *tiny, "-o", tmp_path / "tokenizer") == 0
    options = ("train", "generator", *tiny, "--tokenizer", tmp_path / "tokenizer")
    assert run(*options, "-o", tmp_path / "a") == 0
    settings = Pipeline.load(tmp_path / "a" / "export").default_settings
    assert (settings.rehearsals, settings.auditions) == (0, 1), "no segmenter to judge"
    assert run(*options, "--init", tmp_path / "a", "--learning-rate", 1e-9, "-o", tmp_path / "b") == 0
    before, after = (Pipeline.load(tmp_path / name / "export").generator.state_dict() for name in "ab")
    assert all(torch.allclose(x.float(), after[name].float(), atol=1e-3) for name, x in before.items())


def test_a_segmenter_goes_on_from_a_run_or_from_the_shipped_one(tmp_path: Path) -> None:
    assert run("simulate", "-o", tmp_path / "set", "--num", 1, "--seconds", 0.52) == 0
    tiny = ("train", "segmenter", "--data", tmp_path / "set", "--preset", "tiny", "--steps", 2)
    assert run(*tiny, "-o", tmp_path / "a") == 0
    assert run(*tiny, "--init", tmp_path / "a", "--learning-rate", 1e-9, "-o", tmp_path / "b") == 0
    assert run(*tiny, "--init", "segmenter", "--learning-rate", 1e-9, "-o", tmp_path / "c") == 0
    a, b, c = (tmp_path / name / "export" / "segmenter" for name in "abc")
    for before, after in ((a, b), (SHIPPED_SEGMENTER, c)):
        x, y = (load_file(folder / "model.safetensors") for folder in (before, after))
        assert all(torch.allclose(tensor, y[name], atol=1e-3) for name, tensor in x.items())


def test_decoder_alone_goes_on_from_a_run_and_codes_keep_their_meaning(tmp_path: Path) -> None:
    tiny = ("train", "tokenizer", "--phantom", 2, "--preset", "tiny", "--steps", 2, "--perceptual", "none")
    assert run(*tiny, "--adversarial", "none", "-o", tmp_path / "a") == 0
    more = ("--init", tmp_path / "a", "--only", "decoder", "--adversarial", "video")
    assert run(*tiny, *more, "-o", tmp_path / "b") == 0
    before, after = (VideoTokenizer.from_pretrained(tmp_path / name).state_dict() for name in "ab")
    changed = {name.split(".")[0] for name, x in before.items() if not torch.equal(x, after[name])}
    assert {"unpatches", "spatial_decoder"} <= changed
    assert not changed & {"patches", "spatial_encoder", "temporal_encoder", "first_in", "pair_in"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("critic", "--data", "set"), "needs --generator"),
        (("picture", "--data", "set"), "needs --generator"),
        (("picture", "--data", "set", "--generator", "compact", "--config", "c.json"), "leave --config out"),
        (("generator", "--phantom", "3"), "needs --tokenizer"),
        (("critic", "--data", "set", "--generator", "nothing"), "no checkpoint 'nothing'"),
        (("ecg", "--phantom", "3", "--ecg-init", "run"), "--ecg-init is for `train generator`"),
        (("ecg", "--phantom", "3", "--preset", "base"), "no recipe for preset 'base'"),
        (("ef", "--phantom", "3", "--preset", "paper"), "the EF reader has no preset 'paper'"),
        (("ef", "--phantom", "3", "--ef-reader", "run"), "--ef-reader is for `train generator`"),
        (("tokenizer", "--phantom", "3", "--walls-weight", "2"), "name one with --segmenter"),
        (("tokenizer", "--phantom", "3", "--segmenter", "nowhere"), "nowhere"),
        (("detail", "--phantom", "3", "--segmenter", "run"), "--segmenter is for `train generator and tokenizer`"),
        (
            ("ecg", "--phantom", "3", "--init", "run"),
            "--init is for `train tokenizer and generator and detail and picture and segmenter`",
        ),
        (("detail", "--phantom", "3"), "needs --tokenizer"),
        (("generator", "--phantom", "3", "--init", "nothing", "--tokenizer", "compact"), "no checkpoint 'nothing'"),
        (("generator", "--phantom", "3", "--init", "a", "--ecg-init", "b"), "leave --ecg-init out"),
        (("ecg",), "either --data"),
    ],
)
def test_mistakes_are_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    assert run("train", *arguments, "-o", tmp_path / "run") == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
