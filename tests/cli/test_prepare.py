"""`echopulse prepare`: exit codes, what is said where, and the way from a recording to a generated clip."""

from pathlib import Path

import numpy as np
import pytest
from command_line import run

from echopulse.io.sets import PreparedSet, write_manifest, write_set_clip
from echopulse.phantom import sample_patient, simulate_clip

ULTRASOUND = Path(__file__).parents[3] / "shared" / "data" / "ultrasound"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    pairs = [simulate_clip(sample_patient(seed), seconds=0.4, size=(64, 64), with_masks=True) for seed in range(2)]
    write_manifest(folder, [write_set_clip(folder, pair, "phantom") for pair in pairs])
    return folder


def test_a_set_is_made_and_told(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "set"
    assert run("prepare", source, "-o", out, "--size", 32, "--workers", 1) == 0
    said = capsys.readouterr()
    assert "2 clips of 2 subjects kept, 0 skipped" in said.out and "removed" in said.out
    assert f"salt: {out}.salt" in said.out and "skipped:" not in said.err
    prepared = PreparedSet(out)
    masks = prepared.masks(0)
    assert masks is not None and masks.shape[1:] == (32, 32) and {0, 1, 2} <= set(np.unique(masks).tolist())
    assert run("prepare", source, "-o", out, "--size", 32, "--workers", 2) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert run("prepare", source, "-o", out, "--size", 48) == 2


def test_exit_codes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "broken.mp4").write_bytes(b"\x00" * 100)
    assert run("prepare", folder, "-o", tmp_path / "set", "--salt", "x", "--workers", 1) == 2
    error = capsys.readouterr().err
    assert "nothing usable" in error and "broken.mp4" in error and error.count("\n") == 1
    np.save(folder / "fine_a4c.npy", np.random.default_rng(0).integers(0, 255, (8, 40, 40), dtype=np.uint8))
    assert run("prepare", folder, "-o", tmp_path / "set", "--salt", "x", "--workers", 1, "--size", 32) == 1
    said = capsys.readouterr()
    assert f"skipped: {folder / 'broken.mp4'}: " in said.err and "1 clips of 1 subjects kept, 1 skipped" in said.out
    assert PreparedSet(tmp_path / "set").line(0)["view"] == "a4c"


@pytest.mark.parametrize(
    "arguments",
    [
        ("--size", 4),
        ("--workers", -1),
        ("--view", "Jane"),
        ("--fps", 0),
        ("--max-seconds", -1),
        ("--salt", ""),
        ("--ecg", "none.hea"),
        ("--format", "dvd"),
    ],
)
def test_bad_arguments_leave_nothing(source: Path, arguments: tuple, tmp_path: Path) -> None:
    assert run("prepare", source, "-o", tmp_path / "set", *arguments) == 2
    assert not list(tmp_path.iterdir())


def test_a_single_video_with_its_ecg(record: Path, tmp_path: Path) -> None:
    video = tmp_path / "one.npy"
    np.save(video, np.random.default_rng(0).integers(0, 255, (8, 40, 40), dtype=np.uint8))
    options = ("--ecg", record, "--ecg-start", -0.5, "--view", "A2C", "--fps", 20, "--salt", "x", "--workers", 1)
    assert run("prepare", video, "-o", tmp_path / "set", *options) == 0
    clip = PreparedSet(tmp_path / "set").clip(0).clip
    assert clip.ecg is not None and clip.ecg.start_s == -0.5 and len(clip.ecg.leads) == 12
    assert (clip.view, clip.fps, clip.num_frames) == ("a2c", 20, 8)


def test_a_real_recording_goes_through_generate(checkpoint: Path, tmp_path: Path) -> None:
    """The Acuson clip: its own ECG, its own first frame."""
    source = ULTRASOUND / "DIRW0007.dcm"
    if not source.is_file():
        pytest.skip(f"no {source.name} in shared/data/ultrasound")
    options = ("--view", "a4c", "--salt", "x", "--workers", 1)
    assert run("prepare", source, "-o", tmp_path / "set", *options) == 0
    prepared = PreparedSet(tmp_path / "set")
    line = prepared.line(0)
    assert (line["num_frames"], line["view"]) == (65, "a4c")
    assert 1 / line["fps"] == pytest.approx(0.0187, abs=0.001)
    assert line["provenance"]["ecg_heart_rate_bpm"] == pytest.approx(61, abs=2)
    assert any("FrameTimeVector" in text for text in line["provenance"]["warnings"])
    from PIL import Image

    Image.fromarray(np.array(prepared.frames(0)[0])).save(tmp_path / "first.png")
    ecg, out = tmp_path / "set" / f"{line['ecg']}.hea", tmp_path / "echo.avi"
    picture = ("--image", tmp_path / "first.png")
    assert run("generate", ecg, "-o", out, *picture, "--seconds", 0.4, "--checkpoint", checkpoint) == 0
    assert out.is_file()
