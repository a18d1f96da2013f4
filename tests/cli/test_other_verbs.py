import json
from pathlib import Path

import pytest
from command_line import run


def described(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict:
    capsys.readouterr()
    assert run("info", *arguments, "--json") == 0
    return json.loads(capsys.readouterr().out)


def test_demo_makes_a_video_with_the_shipped_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("demo", "-o", tmp_path / "demo") == 0
    assert {path.name for path in (tmp_path / "demo").iterdir()} == {"echo.mp4", "frames.png", "report.json"}
    report = json.loads((tmp_path / "demo" / "report.json").read_text())
    assert report["video"]["num_frames"] == 100
    assert "frames/s" in capsys.readouterr().out


def test_info_describes_ecg_checkpoint_and_video(
    record: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ecg = described(capsys, record)
    assert (ecg["kind"], ecg["format"], ecg["sampling_rate_hz"], ecg["num_samples"]) == ("ecg", "wfdb", 500.0, 2500)
    assert abs(ecg["heart_rate_bpm"] - 70) < 5
    model = described(capsys, checkpoint)
    assert model["kind"] == "checkpoint"
    assert model["tokens_per_11_frames"] == 384
    assert run("generate", record, "-o", tmp_path / "e.avi", "--seconds", 0.4, "--checkpoint", checkpoint) == 0
    video = described(capsys, tmp_path / "e.avi")
    assert (video["kind"], video["num_frames"], video["fps"]) == ("video", 10, 25.0)
    assert run("info", tmp_path / "nothing") == 2
    assert run("info", tmp_path) == 2


def test_train_both_stages_then_generate(record: Path, tmp_path: Path) -> None:
    sets, tokenizer, generator = tmp_path / "set", tmp_path / "tokenizer", tmp_path / "generator"
    assert run("simulate", "-o", sets, "--num", 2, "--seconds", 0.6, "--no-masks", "--workers", 1) == 0
    options = ("--data", sets, "--preset", "tiny", "--steps", 2)
    assert run("train", "tokenizer", *options, "-o", tokenizer) == 0
    assert run("train", "tokenizer", *options, "-o", tokenizer) == 2  # a run is never overwritten
    assert run("train", "generator", *options, "-o", generator) == 2  # needs a tokenizer
    assert run("train", "generator", *options, "--tokenizer", tokenizer, "-o", generator) == 0
    assert list((generator / "samples").glob("*.png"))
    out = tmp_path / "echo.mp4"
    export = generator / "export"
    assert run("generate", record, "-o", out, "--seconds", 0.4, "--checkpoint", export, "--steps", 2) == 0
    assert out.is_file()
