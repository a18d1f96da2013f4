import json
from pathlib import Path

import numpy as np
import pytest

from echopulse import EchoPulse
from echopulse.cli.main import main
from echopulse.io.video import read_video


def run(*arguments: object) -> int:
    """Exit code of the command line."""
    try:
        main([str(a) for a in arguments])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.mark.parametrize("ending", ["mp4", "gif", "avi", "npz"])
def test_every_ending_plays_back(checkpoint: Path, record: Path, tmp_path: Path, ending: str) -> None:
    out = tmp_path / f"echo.{ending}"
    assert run("generate", record, "-o", out, "--seconds", 0.4, "--checkpoint", checkpoint) == 0
    clip = read_video(out)
    assert clip.frames.shape == (10, 128, 128)
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_report_says_what_was_done(checkpoint: Path, record: Path, tmp_path: Path) -> None:
    out, report = tmp_path / "echo.npz", tmp_path / "r.json"
    arguments = ("--seconds", 0.4, "--checkpoint", checkpoint, "--report", report, "--ef", 35, "--view", "a2c")
    assert run("generate", record, "-o", out, *arguments) == 0
    content = json.loads(report.read_text())
    assert content["ecg"]["format"] == "wfdb"
    assert len(content["ecg"]["leads"]) == 12
    assert content["video"] == {"num_frames": 10, "fps": 25.0, "size": [128, 128]}
    assert set(content["timing_s"]) == {"load", "encode", "sample", "decode", "write"}
    assert content["provenance"]["model"] == "tiny-random"
    assert content["provenance"]["ef_percent"] == 35
    assert "not for diagnosis" in content["provenance"]["statement"]
    assert content["ef_percent"] is None
    assert content["null_because"]


def test_same_seed_same_frames(checkpoint: Path, record: Path) -> None:
    model = EchoPulse.from_pretrained(checkpoint)
    first, again, other = (model(record, seconds=0.5, seed=seed).frames for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_flat_ecg_is_accepted_with_a_warning(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flat, out = tmp_path / "flat.csv", tmp_path / "echo.npz"
    flat.write_text("0.0\n" * 1000)
    assert run("generate", flat, "-o", out, "--rate", 250, "--seconds", 0.4, "--checkpoint", checkpoint) == 0
    assert "warning" in capsys.readouterr().err
    assert out.is_file()


BAD = {
    "missing file": ("nothing.hea", "o.mp4"),
    "directory": (".", "o.mp4"),
    "empty file": ("empty.csv", "o.mp4"),
    "unknown format": ("garbage.bin", "o.mp4"),
    "no rate": ("plain.csv", "o.mp4"),
    "rate of zero": ("plain.csv", "o.mp4", "--rate", "0"),
    "negative rate": ("plain.csv", "o.mp4", "--rate", "-5"),
    "too short": ("short.csv", "o.mp4", "--rate", "250"),
    "NaN": ("nan.csv", "o.mp4", "--rate", "250"),
    "no such folder": ("plain.csv", "no/such/o.mp4", "--rate", "250"),
    "unknown ending": ("plain.csv", "o.mov", "--rate", "250"),
    "no ending": ("plain.csv", "o", "--rate", "250"),
    "no frames": ("plain.csv", "o.mp4", "--rate", "250", "--seconds", "0"),
    "negative seconds": ("plain.csv", "o.mp4", "--rate", "250", "--seconds", "-1"),
    "endless": ("plain.csv", "o.mp4", "--rate", "250", "--seconds", "1e12"),
    "NaN seconds": ("plain.csv", "o.mp4", "--rate", "250", "--seconds", "nan"),
    "no frame rate": ("plain.csv", "o.mp4", "--rate", "250", "--fps", "0"),
    "absurd frame rate": ("plain.csv", "o.mp4", "--rate", "250", "--fps", "1e9"),
    "unknown view": ("plain.csv", "o.mp4", "--rate", "250", "--view", "plax"),
    "EF out of range": ("plain.csv", "o.mp4", "--rate", "250", "--ef", "150"),
    "no checkpoint": ("plain.csv", "o.mp4", "--rate", "250", "--checkpoint", "nonexistent"),
    "no image": ("plain.csv", "o.mp4", "--rate", "250", "--image", "nothing.png"),
    "image is no image": ("plain.csv", "o.mp4", "--rate", "250", "--image", "plain.csv"),
    "report nowhere": ("plain.csv", "o.mp4", "--rate", "250", "--report", "no/such/r.json"),
    "overlay on data": ("plain.csv", "o.npz", "--rate", "250", "--overlay"),
    "start outside": ("plain.csv", "o.mp4", "--rate", "250", "--start", "99"),
    "negative steps": ("plain.csv", "o.mp4", "--rate", "250", "--steps", "-1"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_mistake_is_one_line_and_exit_code_2(
    case: str, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "garbage.bin").write_bytes(bytes(range(256)) * 9)
    (tmp_path / "plain.csv").write_text("".join(f"{(i % 200 == 0) * 1.0}\n" for i in range(1000)))
    (tmp_path / "short.csv").write_text("0.1\n0.2\n" * 50)
    (tmp_path / "nan.csv").write_text("0.1\nnan\n" * 500)
    before = sorted(tmp_path.rglob("*"))
    ecg, out, *options = BAD[case]
    chosen = [] if "--checkpoint" in options else ["--checkpoint", checkpoint]
    assert run("generate", ecg, "-o", out, *options, *chosen) == 2
    said = capfd.readouterr().err
    assert "Traceback" not in said
    if not said.startswith("╭"):  # a wrong choice is told by the command line parser, in its frame
        assert said.startswith("echopulse: ")
        assert said.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_interruption_leaves_nothing(
    checkpoint: Path, record: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from echopulse.io import video

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(video, "_padded_to_even", interrupt)
    arguments = ("generate", record, "-o", tmp_path / "echo.mp4", "--seconds", 0.4, "--checkpoint", checkpoint)
    assert run(*arguments) == 130
    assert not list(tmp_path.iterdir())
