"""`echopulse synthesize`: whose ECG drives which clip, what is written with it, and any interruption survived."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import contents, run

from echopulse.cli import synthesize
from echopulse.io.prepare import workers
from echopulse.io.sets import PreparedSet, write_clip_files, write_manifest, write_set_clip
from echopulse.phantom import sample_patient, simulate_clip
from echopulse.signals import EchoClip

LENGTHS = (9, 9, 12, 9, 9, 9)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six clips of two lengths, smaller than the model's pictures."""
    folder, lines = tmp_path_factory.mktemp("sets") / "true", []
    for seed, length in enumerate(LENGTHS):
        patient = sample_patient(seed, view="a2c" if seed % 2 else "a4c")
        paired = simulate_clip(patient, seconds=length / 25, size=(48, 48), with_masks=False)
        lines.append(write_set_clip(folder, paired, source="phantom"))
        lines[-1]["provenance"] |= {"irreducible_ef_mae_points": 1.5, "secret": "x"}
    write_manifest(folder, lines)
    return folder


@pytest.fixture(scope="module")
def in_process() -> Iterator[None]:
    """Clips are generated here, which saves the time that workers take to start."""

    def run_all(function: Callable[[Any], None], jobs: Sequence[Any], *_: object) -> Iterator[tuple[Any, bool]]:
        for job in jobs:
            function(job)
            yield job, True

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers, "run_safely", run_all)
        yield


@pytest.fixture(scope="module")
def arms(
    source: Path, checkpoint: Path, in_process: None, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, PreparedSet]:
    """The set under every condition."""
    folder, made = tmp_path_factory.mktemp("arms"), {}
    for condition in ("ecg+image", "ecg", "image", "shuffled-ecg", "null-ecg"):
        out, masks = folder / condition, "--masks" if condition == "ecg+image" else "--no-masks"
        arguments = ("--condition", condition, "--checkpoint", checkpoint, masks)
        assert run("synthesize", source, "-o", out, *arguments) == 0
        made[condition] = PreparedSet(out)
    return made


def test_every_clip_has_its_counterpart(source: Path, arms: dict[str, PreparedSet]) -> None:
    true = PreparedSet(source)
    for made in arms.values():
        assert made.ids == true.ids
        for i in range(len(true)):
            a, b = true.line(i), made.line(i)
            assert all(a[name] == b[name] for name in ("subject", "split", "view", "num_frames", "fps"))
            assert made.frames(i).shape == (LENGTHS[i], 128, 128)
            assert b["source"] == "synthetic"


def test_the_ecg_that_drove_a_clip_is_stored_with_it(source: Path, arms: dict[str, PreparedSet]) -> None:
    true = PreparedSet(source)
    for name in ("ecg+image", "ecg", "shuffled-ecg"):
        for i in range(len(true)):
            line = arms[name].line(i)
            donor = true.ids.index(line["provenance"]["ecg_source_id"])
            assert (donor != i) == (name == "shuffled-ecg")
            mine, theirs = arms[name].ecg(i), true.ecg(donor)
            assert mine.sha256() == theirs.sha256()
            assert mine.start_s == pytest.approx(theirs.start_s, abs=1e-9)
            assert line["truth"] == {
                key: value
                for key, value in true.line(donor)["truth"].items()
                if key in ("r_times_s", "t_end_times_s", "rhythm")
            }
    for i in range(len(true)):
        assert not arms["null-ecg"].ecg(i).samples_mv.any()
        assert arms["null-ecg"].line(i)["truth"] == {} and arms["image"].line(i)["truth"] == {}
        assert arms["image"].line(i)["ecg"] is None


def test_conditions_reach_the_pictures(arms: dict[str, PreparedSet]) -> None:
    pictures = {name: made.frames(0) for name, made in arms.items()}
    for name in ("shuffled-ecg", "null-ecg", "image"):
        assert np.array_equal(pictures[name][0], pictures["ecg+image"][0]), "the same first picture"
        assert not np.array_equal(pictures[name], pictures["ecg+image"])
    assert not np.array_equal(pictures["ecg"][0], pictures["ecg+image"][0])


def test_provenance_tells_where_a_clip_comes_from(arms: dict[str, PreparedSet]) -> None:
    told = arms["ecg+image"].line(1)["provenance"]
    assert (told["model"], told["steps"], told["guidance"]) == ("tiny-random", 2, 1.5)
    assert (told["condition"], told["source_id"]) == ("ecg+image", arms["ecg+image"].ids[1])
    assert (told["ecg_shift_s"], told["irreducible_ef_mae_points"]) == (0.0, 1.5)
    assert "secret" not in told and "not for diagnosis" in told["statement"]
    seeds = {arms["ecg"].line(i)["provenance"]["seed"] for i in range(len(LENGTHS))}
    assert len(seeds) == len(LENGTHS) and max(seeds) < 2**48


def test_what_the_segmenter_reads_is_not_called_truth(arms: dict[str, PreparedSet]) -> None:
    made = arms["ecg+image"]
    masks, measured = made.masks(0), made.line(0)["provenance"]["measured"]
    assert masks is not None and masks.shape == (9, 128, 128)
    assert set(measured) >= {"ef_percent", "ed_times_s", "es_times_s"}
    assert measured["ef_percent"] is not None or measured["null_because"]
    assert not {"ef_percent", "ed_times_s", "lv_volume_ml"} & set(made.line(0)["truth"])
    assert arms["ecg"].masks(0) is None and arms["ecg"].line(0)["provenance"]["measured"] is None


@pytest.mark.usefixtures("in_process")
def test_a_shift_moves_ecg_and_marks(source: Path, checkpoint: Path, tmp_path: Path) -> None:
    arguments = ("--shift", 0.2, "--num", 1, "--checkpoint", checkpoint, "--no-masks")
    assert run("synthesize", source, "-o", tmp_path / "set", *arguments) == 0
    true, made = PreparedSet(source), PreparedSet(tmp_path / "set")
    assert made.ids == true.ids[:1] and made.line(0)["provenance"]["ecg_shift_s"] == 0.2
    assert made.ecg(0).start_s == pytest.approx(true.ecg(0).start_s + 0.2)
    for name in ("r_times_s", "t_end_times_s"):
        np.testing.assert_allclose(made.line(0)["truth"][name], np.array(true.line(0)["truth"][name]) + 0.2)


@pytest.mark.usefixtures("in_process")
def test_clips_that_cannot_be_generated_are_skipped(
    source: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    true, folder, lines = PreparedSet(source), tmp_path / "true", []
    for name, view, ecg, fps in [
        ("good", "a4c", True, 25.0),
        ("mute", "a4c", False, 25.0),
        ("viewless", "unknown", True, 25.0),
        ("slow", "a4c", True, 5.0),
    ]:
        clip = EchoClip(true.frames(0), fps=fps, view=view, ecg=true.ecg(0) if ecg else None)
        lines.append(write_clip_files(folder, clip, name=name, subject=name, split="", source="x"))
    write_manifest(folder, lines)
    arguments = ("--checkpoint", checkpoint, "--no-masks")
    out = tmp_path / "made"
    assert run("synthesize", folder, "-o", out, *arguments) == 1
    said = capsys.readouterr().err
    assert "mute: it has no ECG" in said and "viewless: its view is unknown; say by --view" in said
    assert "slow: frame rate is 5" in said
    assert PreparedSet(out).ids == ("good",)
    assert run("synthesize", folder, "-o", out, *arguments) == 1, "the same answer the second time"
    assert capsys.readouterr().err == said
    assert run("synthesize", folder, "-o", tmp_path / "a", *arguments, "--view", "a2c", "--condition", "image") == 1
    made = PreparedSet(tmp_path / "a")
    assert made.ids == ("good", "mute", "viewless")
    assert [made.line(i)["view"] for i in range(3)] == ["a4c", "a4c", "a2c"]


@pytest.mark.usefixtures("in_process")
def test_a_set_without_any_ecg_leaves_nothing(
    source: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = EchoClip(PreparedSet(source).frames(0), fps=25.0, view="a4c")
    write_manifest(
        tmp_path / "true", [write_clip_files(tmp_path / "true", clip, name="a", subject="", split="", source="")]
    )
    assert run("synthesize", tmp_path / "true", "-o", tmp_path / "made", "--checkpoint", checkpoint) == 2
    said = capsys.readouterr().err
    assert "no clip can be generated: it has no ECG" in said and said.count("\n") == 1
    assert not (tmp_path / "made").exists()


# interruptions ----------------------------------------------------------------------------------------


def _session(leader: int) -> list[int]:
    """Living processes of a session."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(words[3]) == leader and words[0] != "Z":
            found.append(int(stat.parent.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="finds worker processes through /proc")
def test_a_killed_run_goes_on_and_workers_change_no_byte(
    source: Path, checkpoint: Path, arms: dict[str, PreparedSet], tmp_path: Path
) -> None:
    code = "import sys; from echopulse.cli.main import main; main(sys.argv[1:])"
    words = ("synthesize", source, "-o", tmp_path / "ecg", "--condition", "ecg", "--checkpoint", checkpoint)
    words = (*words, "--no-masks", "--workers", 2)
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words)],
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    deadline = time.monotonic() + 90
    while not list((tmp_path / "ecg").glob(".lines/*.json")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.wait()
    while _session(process.pid):
        assert time.monotonic() < deadline, "workers outlive the main process"
        time.sleep(0.05)
    (tmp_path / "ecg" / "clips" / ".half.npy.1.part").write_bytes(b"half")
    (tmp_path / "ecg" / "manifest.jsonl").unlink(missing_ok=True)
    done = {path.stem for path in (tmp_path / "ecg" / ".lines").glob("*.json")}
    assert done
    assert run(*words) == 0
    assert contents(tmp_path / "ecg") == contents(arms["ecg"].folder)


@pytest.mark.usefixtures("in_process")
def test_a_complete_set_is_left_alone_and_other_arguments_are_refused(
    source: Path, checkpoint: Path, arms: dict[str, PreparedSet], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = arms["ecg"].folder
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    usual = ("synthesize", source, "-o", folder, "--checkpoint", checkpoint, "--no-masks")
    assert run(*usual, "--condition", "ecg") == 0
    capsys.readouterr()
    for change in (("--seed", 1), ("--num", 2), ("--steps", 3), ("--ef", 30), ("--condition", "image")):
        assert run(*usual, "--condition", "ecg", *change) == 2
        assert "other arguments" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


# mistakes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--num 0", "--num is 0"),
        ("--num 7", "expected 1 to 6"),
        ("--seed -1", "--seed is -1"),
        ("--workers -1", "--workers is -1"),
        ("--shift nan", "--shift is nan"),
        ("--shift 1 --condition image", "has none"),
        ("--steps 0", "steps is 0"),
        ("--ef 90", "--ef is 90"),
        ("--condition sound", "condition"),
        ("--checkpoint nothing", "no checkpoint"),
    ],
)
def test_bad_arguments_are_told_in_one_line(
    arguments: str, message: str, source: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = () if "--checkpoint" in arguments else ("--checkpoint", checkpoint)
    assert run("synthesize", source, "-o", tmp_path / "set", *arguments.split(), *chosen) == 2
    said = capsys.readouterr().err
    assert said.startswith("echopulse: ") and message in said and said.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_folder_of_another_kind_is_refused(
    source: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.txt").write_text("years of work")
    for place in (tmp_path / "thesis", tmp_path / "no" / "such", source, source / "inside"):
        assert run("synthesize", source, "-o", place, "--checkpoint", checkpoint) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert run("synthesize", tmp_path / "thesis", "-o", tmp_path / "new", "--checkpoint", checkpoint) == 2
    assert json.loads((source / "manifest.jsonl").read_text().splitlines()[0])["id"]
    assert [path.name for path in tmp_path.iterdir()] == ["thesis"]


def test_a_clips_own_seed_follows_from_seed_and_id(arms: dict[str, PreparedSet]) -> None:
    assert synthesize._own_seed(0, "a") != synthesize._own_seed(1, "a") != synthesize._own_seed(1, "b")
    assert arms["ecg"].line(0)["provenance"]["seed"] == synthesize._own_seed(0, arms["ecg"].ids[0])
