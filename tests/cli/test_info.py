"""`echopulse info`: any input is described and drawn."""

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from command_line import run
from PIL import Image

import echopulse
from echopulse.io.sets import write_manifest, write_set_clip
from echopulse.phantom import sample_patient, simulate_clip


def described(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict:
    capsys.readouterr()
    assert run("info", *arguments, "--json") == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("set")
    paired = simulate_clip(sample_patient(3), seconds=0.6, size=(64, 64), with_masks=False)
    write_manifest(folder, [write_set_clip(folder, paired, "phantom")])
    return folder


def test_an_ecg_is_described_and_drawn(record: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = described(capsys, record, "--plot", tmp_path / "ecg.png")
    assert {"kind", "format", "leads", "sampling_rate_hz", "num_samples", "duration_s"} <= set(found)
    assert {"heart_rate_bpm", "r_times_s", "quality"} <= set(found)
    assert len(found["r_times_s"]) >= 5
    with Image.open(tmp_path / "ecg.png") as page:
        picture = np.asarray(page)
    assert picture.shape[1] == 1200
    header = 34
    orange = (np.abs(picture[header:].astype(int) - (214, 92, 0)).sum(axis=2) < 30).any(axis=0)
    marks = np.flatnonzero(np.diff(orange.astype(int)) == 1)
    shown = np.array(found["r_times_s"]) / found["duration_s"] * 1200
    assert all(np.abs(marks - x).min() < 8 for x in shown)
    assert run("info", record) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[-2].count("R") == 4  # four seconds at 70 a minute
    assert set(said[-1]) <= set("▁▂▃▄▅▆▇█") and len(said[-1]) == 100


def test_a_set_is_counted_and_drawn(prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = described(capsys, prepared, "--plot", tmp_path / "sheet.png")
    assert (found["kind"], found["num_clips"], found["with_ecg"], found["has_ecg"]) == ("set", 1, 1, True)
    with Image.open(tmp_path / "sheet.png") as page:
        assert page.size[0] >= 160
    line = json.loads((prepared / "manifest.jsonl").read_text())
    folder = tmp_path / "shards"
    folder.mkdir()
    with tarfile.open(folder / "shard-000000.tar", "w") as archive:
        for name in (line["video"], f"{line['ecg']}.hea", f"{line['ecg']}.dat"):
            archive.add(prepared / name, Path(name).name)
        archive.add(prepared / "manifest.jsonl", f"{line['id']}.json")
    assert described(capsys, folder) == found


def test_an_ultrasound_recording_is_described(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "clip.npy", np.random.default_rng(0).integers(0, 255, (6, 40, 40), dtype=np.uint8))
    found = described(capsys, tmp_path / "clip.npy")
    assert (found["kind"], found["format"], found["num_frames"], found["has_ecg"]) == ("video", "npy", 6, False)
    assert found["ecg"] is None and found["warnings"]
    assert run("info", tmp_path / "clip.npy", "--plot", tmp_path / "x.png") == 2
    assert not (tmp_path / "x.png").exists()


def test_a_saved_clip_keeps_its_ecg(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip = simulate_clip(sample_patient(3), seconds=0.6, size=(64, 64), with_masks=False).clip
    clip.save(tmp_path / "clip.npz")
    found = described(capsys, tmp_path / "clip.npz")
    assert found["kind"] == "video" and found["has_ecg"] and found["ecg"]["leads"][0] == "I"


@pytest.mark.parametrize("plot", ["x.jpg", "none/x.png"])
def test_plots_go_to_png_in_a_folder(record: Path, plot: str, tmp_path: Path) -> None:
    assert run("info", record, "--plot", tmp_path / plot) == 2
    assert not list(tmp_path.iterdir())


def test_shipped_tokenizer_alone_is_described_and_does_not_generate(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = Path(echopulse.__file__).parent / "weights" / "base"
    about = described(capsys, folder)
    assert about["tokens_per_11_frames"] == 1536 and set(about["networks"]) == {"tokenizer"}
    ecg = folder.parent / "demo_ecg" / "demo.hea"
    assert run("generate", ecg, "-o", tmp_path / "echo.npz", "--checkpoint", "base") == 2
    assert "base has no generator" in capsys.readouterr().err
