"""`echopulse simulate`: the same bytes always, whole after any interruption, one line for every mistake."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import contents, run

from echopulse.cli import simulate
from echopulse.errors import InputError
from echopulse.io import sets
from echopulse.io.sets import PreparedSet
from echopulse.phantom.series import ClipSeries

SMALL = ("--seed", 9, "--seconds", 0.2, "--size", 48)
SERIES = ClipSeries(seconds=0.2, size=48)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of four clips, written by one worker."""
    folder = tmp_path_factory.mktemp("sets") / "whole"
    assert run("simulate", "-o", folder, "--num", 4, *SMALL, "--workers", 1) == 0
    return folder


def test_the_workers_change_no_byte(whole: Path, tmp_path: Path) -> None:
    assert run("simulate", "-o", tmp_path / "again", "--num", 4, *SMALL, "--workers", 2) == 0
    assert contents(tmp_path / "again") == contents(whole)
    assert len(contents(whole)) == 2 + 4 * 4


def test_the_set_says_what_it_is(whole: Path) -> None:
    about = json.loads((whole / "simulation.json").read_text())
    assert about["settings"] == {
        "num": 4,
        "seed": 9,
        "view": None,
        "rhythm": None,
        "device": "hospital",
        "link": {"strength": 1.0, "residual_points": 2.0},
        "fps": 25.0,
        "seconds": 0.2,
        "size": 48,
        "masks": True,
        "phantom_version": about["settings"]["phantom_version"],
    }
    assert 1 < about["irreducible_ef_mae_points"] < about["irreducible_ef_rmse_points"] <= 2
    clips = PreparedSet(whole)
    for i in range(4):
        line = clips.line(i)
        assert line["source"] == "phantom" and line["num_frames"] == 5 and clips.masks(i) is not None
        for name in ("irreducible_ef_mae_points", "irreducible_ef_rmse_points"):
            assert line["provenance"][name] == about[name]


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clips are rendered here, which saves the time that workers take to start."""

    def render_all(render: Callable[[int], None], seeds: list[int], *_: int) -> None:
        for seed in seeds:
            render(seed)

    monkeypatch.setattr(simulate, "_render_all", render_all)


@pytest.mark.usefixtures("in_process")
def test_choices_reach_the_clips(tmp_path: Path) -> None:
    options = ("--device", "watch", "--ef-link", "inf", "--ef-residual", 3, "--view", "a2c", "--rhythm", "af")
    assert run("simulate", "-o", tmp_path / "set", "--num", 1, *SMALL, *options, "--no-masks", "--workers", 1) == 0
    about = json.loads((tmp_path / "set" / "simulation.json").read_text())
    assert about["settings"]["link"] == {"strength": "inf", "residual_points": 3.0}
    assert about["irreducible_ef_mae_points"] == about["irreducible_ef_rmse_points"] == 0
    clip = PreparedSet(tmp_path / "set").clip(0)
    assert clip.clip.ecg is not None and clip.clip.ecg.leads == ("I",)
    assert clip.clip.view == "a2c" and clip.truth["rhythm"] == "af" and clip.masks is None


def test_a_complete_set_is_left_alone(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*")}
    assert run("simulate", "-o", whole, "--num", 4, *SMALL) == 0
    assert "complete already" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*")} == before


@pytest.mark.parametrize("change", [("--num", 5), ("--num", 4, "--ef-link", 2), ("--num", 4, "--seed", 8)])
def test_other_arguments_are_refused(whole: Path, change: tuple, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(whole)
    assert run("simulate", "-o", whole, *SMALL, *change) == 2
    assert "other arguments" in capsys.readouterr().err
    assert contents(whole) == before


# interruptions ----------------------------------------------------------------------------------------


def _started(folder: Path, num: int) -> subprocess.Popen[str]:
    """The command in its own process group, once it has completed a clip."""
    code = """
import signal, sys
from echopulse.cli.main import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background inherits one that is ignored
main(sys.argv[1:])
"""
    words = ("simulate", "-o", folder, "--num", num, "--seconds", 0.6, "--size", 48, "--workers", 2)
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    deadline = time.monotonic() + 60
    while not list(folder.glob(".lines/*.json")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    return process


def _children(process: subprocess.Popen[str]) -> list[int]:
    return [int(word) for word in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


needs_proc = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds worker processes through /proc")


@needs_proc
@pytest.mark.usefixtures("in_process")
def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    process = _started(tmp_path / "set", 12)
    workers = _children(process)
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < deadline, "workers outlive the main process"
        time.sleep(0.02)
    assert not (tmp_path / "set" / "manifest.jsonl").exists()
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "set" / ".lines").glob("*.json")}
    kept = [tmp_path / "set" / "clips" / f"phantom-{int(path.stem):07d}.npy" for path in made]
    before = [path.stat().st_mtime_ns for path in kept]
    (tmp_path / "set" / "clips" / ".phantom-0000005.npy.1.part").write_bytes(b"half")
    series = ClipSeries(seconds=0.6, size=48)
    assert simulate.simulate_set(tmp_path / "set", series, num=12) == 12 - len(made)
    assert [path.stat().st_mtime_ns for path in kept] == before
    simulate.simulate_set(tmp_path / "whole", series, num=12)
    assert contents(tmp_path / "set") == contents(tmp_path / "whole")


@needs_proc
def test_a_killed_worker_is_told_in_one_line(tmp_path: Path) -> None:
    process = _started(tmp_path / "set", 40)
    for worker in _children(process):
        if b"spawn_main" in Path(f"/proc/{worker}/cmdline").read_bytes():
            os.kill(worker, signal.SIGKILL)
            break
    _, said = process.communicate(timeout=30)
    assert process.returncode == 2
    assert said.startswith("echopulse: a worker process was killed") and said.count("\n") == 1
    assert not list((tmp_path / "set").rglob(".*.part"))


def test_control_c_is_told_in_one_line(tmp_path: Path) -> None:
    process = _started(tmp_path / "set", 40)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert said == "echopulse: interrupted; nothing half-written was kept\n"
    assert not list((tmp_path / "set").rglob(".*.part"))


def _full_disk(*_: object, **__: object) -> None:
    raise OSError("622592 requested and 479104 written")  # what numpy raises for a short write


def test_a_full_disk_is_told_and_mended(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second clip finds no room."""

    def render_all(render: Callable[[int], None], seeds: list[int], *_: int) -> None:
        render(seeds[0])
        with monkeypatch.context() as full:
            full.setattr(sets.np, "save", _full_disk)
            render(seeds[1])

    with monkeypatch.context() as patch:
        patch.setattr(simulate, "_render_all", render_all)
        assert run("simulate", "-o", tmp_path / "set", "--num", 4, *SMALL) == 2
    said = capsys.readouterr().err
    assert "the disk is full" in said and said.count("\n") == 1
    assert sorted(contents(tmp_path / "set")) == [
        ".lines/9.json",
        "clips/phantom-0000009.masks.npy",
        "clips/phantom-0000009.npy",
        "ecg/phantom-0000009.dat",
        "ecg/phantom-0000009.hea",
        "simulation.json",
    ]
    assert simulate.simulate_set(tmp_path / "set", SERIES, num=4, seed=9) == 3
    assert contents(tmp_path / "set") == contents(whole)


# mistakes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        "--num 0",
        "--num -3",
        "--num 99999999",
        "--num two",
        "",
        "--num 2 --seed -1",
        "--num 2 --fps 0",
        "--num 2 --fps -25",
        "--num 2 --fps nan",
        "--num 2 --fps inf",
        "--num 2 --seconds -1",
        "--num 2 --seconds inf",
        "--num 2 --seconds 61",
        "--num 2 --size 3",
        "--num 2 --size 1024 --seconds 60",
        "--num 2 --workers -1",
        "--num 2 --view plax",
        "--num 2 --rhythm polka",
        "--num 2 --device phone",
        "--num 2 --ef-link -1",
        "--num 2 --ef-residual nan",
        "--num 2 --ef-link inf --ef-residual inf",
        "--num 2 --colour red",
    ],
)
def test_bad_arguments_are_told_in_one_line(arguments: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("simulate", "-o", tmp_path / "set", *arguments.split()) == 2
    said = capsys.readouterr().err
    assert said.startswith("echopulse: ") and said.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_folder_of_another_kind_is_refused(whole: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.txt").write_text("years of work")
    (tmp_path / "file").write_text("")
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "manifest.jsonl").write_bytes((whole / "manifest.jsonl").read_bytes())
    before = sorted(tmp_path.rglob("*"))
    for place in ("thesis", "file", "foreign", "no/such"):
        with pytest.raises(InputError, match="choose a new folder|no such folder"):
            simulate.simulate_set(tmp_path / place, SERIES, num=2)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="Permission denied"):
        simulate.simulate_set(tmp_path / "set", SERIES, num=2)
