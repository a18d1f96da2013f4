"""`echopulse reconstruct` and `echopulse convert`: figures by hand, the picture, and what is refused."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from echopulse.cli.main import main
from echopulse.cli.reconstruct import round_trip, round_trip_pieces
from echopulse.errors import InputError
from echopulse.io.video import read_video
from echopulse.models.checkpoints import save_network
from echopulse.models.convert.state_file import read_tensors
from echopulse.models.detail import DetailConfig, DetailNetwork
from echopulse.models.presets import tokenizer_config
from echopulse.models.segmenter import ChamberSegmenter, SegmenterConfig
from echopulse.models.tokenizer import VideoTokenizer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny tokenizer, and an array of two clips whose frames and sides do not fit."""
    torch.manual_seed(0)
    save_network(VideoTokenizer(tokenizer_config("tiny")), tokenizer_config("tiny"), tmp_path / "tokenizer")
    clips = np.random.default_rng(0).integers(0, 256, (2, 6, 40, 52), dtype=np.uint8)
    np.save(tmp_path / "clips.npy", clips)
    return tmp_path


def test_figures_are_those_of_the_round_trip(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ECHOPULSE_DTYPE", "float32")
    tokenizer = str(folder / "tokenizer")
    main(["reconstruct", str(folder / "clips.npy"), "--json", str(folder / "r.json"), "--checkpoint", tokenizer])
    figures = json.loads((folder / "r.json").read_text())
    clips = np.load(folder / "clips.npy")
    network = VideoTokenizer.from_pretrained(tokenizer)
    again = np.stack([round_trip(network, clip)[0] for clip in clips])
    mse = float(np.mean((again / 255 - clips / 255) ** 2))
    assert figures["mse"] == pytest.approx(mse, rel=1e-5)
    assert figures["mae"] == pytest.approx(float(np.mean(np.abs(again / 255 - clips / 255))), rel=1e-5)
    assert figures["psnr"] == pytest.approx(-10 * math.log10(mse), rel=1e-5)
    assert -1 <= figures["ssim"] < 1
    assert (figures["num_clips"], figures["num_frames"], figures["checkpoint"]) == (2, 12, tokenizer)
    assert figures["tokens_per_clip"] == 4 * 3 * 4 and figures["bits_per_clip"] == 6 * 4 * 3 * 4


def test_detail_is_drawn_from_the_seed_where_asked_for(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shape = DetailConfig((8,), (8,), 2)
    network = DetailNetwork(shape)
    torch.nn.init.normal_(network.texture.head.weight)
    command = ["reconstruct", str(folder / "clips.npy"), "--checkpoint", str(folder), "--json", str(folder / "r.json")]
    with pytest.raises(SystemExit) as stop:
        main([*command, "--detail"])
    assert stop.value.code == 2 and "holds no detail" in capsys.readouterr().err
    save_network(network, shape, folder / "detail")
    errors = []
    for options in ([], ["--detail"], ["--detail"], ["--detail", "--seed", "1"]):
        main([*command, *options])
        figures = json.loads((folder / "r.json").read_text())
        assert figures["detail"] == bool(options)
        errors.append(figures["mse"])
    assert errors[1] == errors[2] and len(set(errors)) == 3


@pytest.mark.parametrize("place", ["", "tokenizer"])
def test_search_comes_nearer_with_and_without_a_segmenter(
    folder: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setenv("ECHOPULSE_DTYPE", "float32")
    shape = SegmenterConfig((8, 8), 32)
    command = ["reconstruct", str(folder / "clips.npy"), "--checkpoint", str(folder / place)]
    errors = []
    for steps in (0, 8, 8):
        main([*command, "--json", str(folder / "r.json"), "--search", str(steps)])
        figures = json.loads((folder / "r.json").read_text())
        assert figures["search"] == steps
        errors.append(figures["mse"])
        if steps:
            save_network(ChamberSegmenter(shape), shape, folder / "segmenter")
    assert errors[1] < errors[0]
    assert errors[2] < errors[0]
    if place:
        assert errors[1] == errors[2], "a tokenizer's own folder has no segmenter"


def test_a_search_of_too_many_steps_is_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for steps in ("-1", "1001"):
        with pytest.raises(SystemExit) as stop:
            main(["reconstruct", str(folder / "clips.npy"), "--checkpoint", str(folder), "--search", steps])
        error = capsys.readouterr().err.strip()
        assert stop.value.code == 2 and f"{steps} steps of search; expected 0" in error and "\n" not in error


def test_round_trip_in_pieces_is_that_of_the_whole(folder: Path) -> None:
    network = VideoTokenizer.from_pretrained(folder / "tokenizer")
    clip = np.random.default_rng(1).integers(0, 256, (131, 32, 32), dtype=np.uint8)
    again, tokens = round_trip(network, clip)
    with torch.inference_mode():
        whole = network(torch.from_numpy(clip)[None, :, None] / 255).reconstruction[0, :, 0].clamp(0, 1) * 255
    assert again.shape == clip.shape and tokens == 66 * 4
    np.testing.assert_allclose(again, whole, atol=0.05)
    pieces = list(round_trip_pieces(network, clip))
    assert len(pieces) == 3 and sum(map(len, pieces)) == 131
    assert np.array_equal(np.concatenate(pieces), again)


def test_original_reconstruction_and_difference_lie_side_by_side(folder: Path) -> None:
    output = folder / "videos"
    main(["reconstruct", str(folder / "clips.npy"), "-o", str(output), "--checkpoint", str(folder / "tokenizer")])
    assert sorted(path.name for path in output.iterdir()) == ["clips-0000.mp4", "clips-0001.mp4"]
    assert read_video(output / "clips-0000.mp4").frames.shape == (6, 40, 156)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.npy", None, "no such file"),
        ("bad.npy", np.zeros((3, 16, 16), np.float32), "expected uint8"),
        ("flat.npy", np.zeros((16, 16), np.uint8), "expected uint8"),
        ("objects.npy", np.array([{}], dtype=object), "not a .npy array of numbers"),
        ("absent.mp4", None, "no such file"),
    ],
)
def test_bad_input_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], name: str, content: np.ndarray | None, message: str
) -> None:
    if content is not None:
        np.save(folder / name, content, allow_pickle=True)
    with pytest.raises(SystemExit) as stop:
        main(["reconstruct", str(folder / name), "--checkpoint", str(folder / "tokenizer")])
    assert stop.value.code == 2
    error = capsys.readouterr().err.strip()
    assert message in error and "\n" not in error


def test_published_tokenizer_becomes_a_checkpoint(tmp_path: Path) -> None:
    source = Path(__file__).parents[3] / "shared" / "data" / "parity" / "cvivit_tiny.safetensors"
    if not source.is_file():
        pytest.skip("the parity fixtures are not there")
    weights = {k.removeprefix("weights."): x for k, x in read_tensors(source).items() if k.startswith("weights.")}
    torch.save(weights, tmp_path / "released.bin")
    main(["convert", "published-tokenizer", str(tmp_path / "released.bin"), "-o", str(tmp_path / "out")])
    assert VideoTokenizer.from_pretrained(tmp_path / "out").config.quantizer.kind == "vq"
    np.save(tmp_path / "clip.npy", np.zeros((3, 32, 32), np.uint8))
    main(["reconstruct", str(tmp_path / "clip.npy"), "--checkpoint", str(tmp_path / "out")])


class _Explosive:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_pickle_that_would_run_code_is_refused_and_not_run(tmp_path: Path) -> None:
    torch.save({"weight": _Explosive(tmp_path / "trap")}, tmp_path / "evil.bin")
    with pytest.raises(InputError, match="cannot be read safely|can be read safely"):
        read_tensors(tmp_path / "evil.bin")
    assert not (tmp_path / "trap").exists()
    torch.save([1, 2], tmp_path / "list.bin")
    with pytest.raises(InputError, match="dictionary of tensors"):
        read_tensors(tmp_path / "list.bin")


def test_other_weights_are_no_vgg16(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_file({"features.0.weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(SystemExit):
        main(["convert", "vgg16", str(tmp_path / "other.safetensors"), "-o", str(tmp_path / "vgg.safetensors")])
    assert "13 convolutions" in capsys.readouterr().err
    assert not (tmp_path / "vgg.safetensors").exists()


def test_a_checkpoint_of_half_the_size_is_the_same_network(checkpoint: Path, tmp_path: Path) -> None:
    main(["convert", "bfloat16", str(checkpoint), "-o", str(tmp_path / "half")])
    for name in ("tokenizer", "generator"):
        whole, half = ((folder / name / "model.safetensors") for folder in (checkpoint, tmp_path / "half"))
        assert half.stat().st_size < 0.6 * whole.stat().st_size
    assert (tmp_path / "half" / "index.json").read_text() == (checkpoint / "index.json").read_text()
    one, other = (VideoTokenizer.from_pretrained(folder).state_dict() for folder in (checkpoint, tmp_path / "half"))
    assert all(torch.allclose(one[name], other[name], rtol=0.01, atol=1e-6) for name in one)


def test_a_folder_without_networks_is_not_rounded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["convert", "bfloat16", str(tmp_path), "-o", str(tmp_path / "half")])
    assert stop.value.code == 2 and "holds no network" in capsys.readouterr().err
    assert not (tmp_path / "half").exists()
