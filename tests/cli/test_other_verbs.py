import json
from pathlib import Path

import pytest

from echopulse.cli.main import main


def run(*arguments: object) -> int:
    """Exit code of the command line."""
    try:
        main([str(a) for a in arguments])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


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


def test_simulate_is_the_same_whatever_the_workers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, workers in (("a", 1), ("b", 2)):
        arguments = ("--num", 3, "--seed", 9, "--seconds", 0.2, "--size", 48, "--workers", workers)
        assert run("simulate", "-o", tmp_path / name, *arguments) == 0
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert len(files) == 1 + 3 * 4
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    found = described(capsys, tmp_path / "a")
    assert found["kind"] == "set"
    assert (found["num_clips"], found["has_masks"], found["has_truth"]) == (3, True, True)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--num", "0"),
        ("--num", "-3"),
        ("--num", "2", "--seed", "-1"),
        ("--num", "2", "--fps", "0"),
        ("--num", "2", "--seconds", "-1"),
        ("--num", "2", "--size", "3"),
        ("--num", "2", "--workers", "-1"),
        ("--num", "2", "--view", "plax"),
        ("--num", "2", "--rhythm", "polka"),
    ],
)
def test_simulate_refuses_bad_arguments(arguments: tuple[str, ...], tmp_path: Path) -> None:
    assert run("simulate", "-o", tmp_path / "set", *arguments) == 2
    assert not list(tmp_path.iterdir())


def test_simulate_refuses_a_folder_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    assert run("simulate", "-o", tmp_path, "--num", "2") == 2
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_simulate_goes_on_after_an_interruption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from echopulse.cli import simulate

    settings = simulate.Simulation(3, 9, None, None, 25.0, 0.2, 48, True)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    simulate.simulate_set(whole, settings, 1)
    (broken / ".parts").mkdir(parents=True)
    simulate.save_json(broken / ".parts" / "settings.json", simulate.asdict(settings))
    simulate._render(broken, settings, 10)
    made = (broken / "clips" / "phantom-0000010.npy").stat().st_mtime_ns
    simulate.simulate_set(broken, settings, 1)
    assert (broken / "clips" / "phantom-0000010.npy").stat().st_mtime_ns == made
    assert (broken / "manifest.jsonl").read_bytes() == (whole / "manifest.jsonl").read_bytes()
    assert not (broken / ".parts").exists()


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
