import json
from pathlib import Path

import numpy as np
import pytest
from command_line import run

from echopulse import EchoPulse
from echopulse.cli.measure import measure
from echopulse.evaluation import segmentation
from echopulse.io.sets import write_wfdb
from echopulse.io.video import read_video
from echopulse.phantom import sample_patient, simulate_clip
from echopulse.signals import EcgSignal, PairedClip
from echopulse.signals.processing import detect_r_peaks, resample


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
    assert {"ef_percent", "ed_times_s", "es_times_s"} <= set(content)
    assert (content["ef_percent"] is None) == ("null_because" in content)


def test_same_seed_same_frames(checkpoint: Path, record: Path) -> None:
    model = EchoPulse.from_pretrained(checkpoint)
    first, again, other = (model(record, seconds=0.5, seed=seed).frames for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


# what is measured on the video ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def beating() -> PairedClip:
    """A true clip of two seconds, as a generator would make it."""
    patient = sample_patient(1_000_001, rhythm="sinus", heart_rate_bpm=75, ef_percent=55.0)
    return simulate_clip(patient, seconds=2.0)


def test_a_beating_clip_is_measured_on_its_own_clock(beating: PairedClip) -> None:
    r = np.array(beating.truth["r_times_s"])
    seen = measure(beating.clip.frames, beating.clip.frame_times_s + 7)
    assert seen.masks is not None and not seen.null_because
    assert seen.ef_percent == pytest.approx(beating.truth["ef_percent"], abs=8)
    inside = [t for t in seen.ed_times_s or () if t > 7.2]  # the first beat began before the clip
    assert inside and all(np.abs(r + 7 - t).min() < 0.12 for t in inside)
    assert json.loads(json.dumps(seen.plain()))["es_times_s"] == [round(t, 4) for t in seen.es_times_s or ()]


def test_what_shows_no_ventricle_is_null_with_a_reason() -> None:
    seen = measure(np.zeros((10, 128, 128), np.uint8), np.arange(10) / 25)
    plain = seen.plain()
    assert plain["ef_percent"] is plain["ed_times_s"] is plain["es_times_s"] is None
    assert "no cavity" in plain["null_because"]


def test_without_a_segmenter_the_values_are_null(
    beating: PairedClip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segmentation, "SHIPPED_SEGMENTER", tmp_path)
    seen = measure(beating.clip.frames, beating.clip.frame_times_s)
    assert seen.masks is None and seen.plain()["ef_percent"] is None
    assert "no segmenter" in seen.plain()["null_because"]


def test_no_report_no_measurement(
    checkpoint: Path, record: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The main job does not wait for the segmenter."""

    def refuse(*_: object) -> None:
        raise AssertionError("segmented")

    monkeypatch.setattr(segmentation, "segment_clip", refuse)
    arguments = ("generate", record, "-o", tmp_path / "echo.npz", "--seconds", 0.4, "--checkpoint", checkpoint)
    assert run(*arguments) == 0
    with pytest.raises(AssertionError, match="segmented"):
        run(*arguments, "--report", tmp_path / "r.json")


# ECGs unlike those of training ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rhythm_strip() -> EcgSignal:
    """Thirty seconds at 72 beats a minute, 12 leads, 500 Hz."""
    patient = sample_patient(11, rhythm="sinus", heart_rate_bpm=72)
    ecg = simulate_clip(patient, fps=1.0, seconds=26.0, size=(32, 32), with_masks=False).clip.ecg
    assert ecg is not None
    return ecg.shifted(0.0)


def _watch(ecg: EcgSignal, folder: Path) -> Path:
    rows = "\n".join(f"{1000 * value:.3f}" for value in resample(ecg, 512.0).lead("I"))
    head = 'Name,A B\nDevice,"Watch7,12"\nSample Rate,512 hertz\n\n\nLead,Lead I\nUnit,µV\n\n'
    (folder / "watch.csv").write_text(head + rows + "\n")
    return folder / "watch.csv"


def _single_lead(ecg: EcgSignal, folder: Path) -> Path:
    np.save(folder / "strip.npy", resample(ecg, 250.0).lead("II"))
    return folder / "strip.npy"


def _holter(ecg: EcgSignal, folder: Path) -> Path:
    """Two leads under names of a recorder, ten minutes long."""
    two = ecg.select(("II", "V1"))
    samples = np.tile(resample(two, 128.0).samples_mv, 20)
    write_wfdb(folder, "holter", EcgSignal(samples, ("MLII", "V1"), 128.0))
    return folder / "holter.hea"


SOURCES = {
    "watch": (_watch, ("I",), ()),
    "single": (_single_lead, None, ("--rate", 250)),
    "holter": (_holter, None, ()),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_any_recorder_drives_a_clip(kind: str, rhythm_strip: EcgSignal, checkpoint: Path, tmp_path: Path) -> None:
    write, leads, options = SOURCES[kind]
    path, out, report = write(rhythm_strip, tmp_path), tmp_path / "echo.npz", tmp_path / "r.json"
    arguments = ("--start", 3.5, "--seconds", 2.0, "--checkpoint", checkpoint, "--report", report, *options)
    assert run("generate", path, "-o", out, *arguments) == 0
    told = json.loads(report.read_text())
    assert told["ecg"]["heart_rate_bpm"] == pytest.approx(72, rel=0.05)
    assert leads is None or tuple(told["ecg"]["leads"]) == leads
    true = detect_r_peaks(rhythm_strip)
    true = true[(true > 3.55) & (true < 5.45)]
    assert len(true) >= 2
    for r in true:
        assert np.abs(np.array(told["r_times_s"]) - r).min() < 0.04, "the beats are those of the recording"
    assert told["provenance"]["ecg_repeated"] is False
    assert read_video(out).frames.shape == (50, 128, 128)


def test_flat_ecg_is_accepted_with_a_warning(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flat, out, report = tmp_path / "flat.csv", tmp_path / "echo.npz", tmp_path / "r.json"
    flat.write_text("0.0\n" * 1000)
    arguments = ("--rate", 250, "--seconds", 0.4, "--checkpoint", checkpoint, "--report", report)
    assert run("generate", flat, "-o", out, *arguments) == 0
    assert "warning: ECG quality is flat" in capsys.readouterr().err
    told = json.loads(report.read_text())
    assert (told["ecg"]["quality"], told["r_times_s"], told["ecg"]["heart_rate_bpm"]) == ("flat", [], None)
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
    "text without need": ("plain.csv", "o.mp4", "--rate", "250", "--text", "a heart"),
    "no text encoder": ("plain.csv", "o.mp4", "--rate", "250", "--text-encoder", "nothing"),
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
