"""A prepared set is complete, repeatable and tells nothing of the people in it."""

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from echopulse.errors import InputError
from echopulse.io.datasets import SourceClip, SourceOptions
from echopulse.io.prepare import PrepareSettings, prepare_set
from echopulse.io.prepare.convert import clean_truth, evened, fitted
from echopulse.io.prepare.pseudonyms import Pseudonyms, split_of
from echopulse.io.prepare.workers import run_safely
from echopulse.io.sets import PreparedSet, write_manifest, write_set_clip, write_wfdb
from echopulse.signals import EcgSignal, EchoClip, PairedClip

SALT = "not a secret"


def beating(frames: int = 20, side: int = 64, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    inside = (np.hypot(x - side / 2, y) < side - 4) & (np.abs(np.arctan2(x - side / 2, y + 1e-9)) < 0.7)
    clip = np.where(inside, rng.integers(60, 200, (side, side)), 0)[None].repeat(frames, 0).astype(np.uint8)
    for i in range(frames):
        clip[i, 20 : 34 + i % 5, 25:40] = 10
    return clip


def an_ecg(seconds: float = 3.0, rate: float = 250.0) -> EcgSignal:
    times = np.arange(round(seconds * rate)) / rate
    beats = [np.exp(-(((times - beat) / 0.012) ** 2)) for beat in np.arange(0.3, seconds, 0.8)]
    return EcgSignal(np.sum(beats, 0)[None], ("II",), rate)


def write_set(folder: Path, count: int = 3) -> Path:
    """A source that is quick to read: a set of another size."""
    lines = []
    for i in range(count):
        clip = EchoClip(beating(seed=i), 25.0, view="a4c", ecg=an_ecg())
        pair = PairedClip(clip, truth={"ef_percent": 40.0 + i}, id=f"clip{i}", subject=f"patient{i}", split="train")
        lines.append(write_set_clip(folder, pair, "phantom"))
    write_manifest(folder, lines)
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def prepare(source: Path, folder: Path, salt: str | None = SALT, **settings):
    return prepare_set(source, folder, PrepareSettings(**({"size": 32} | settings)), workers=1, salt=salt)


def write_dicom(path: Path, frames: np.ndarray, **tags) -> None:
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, UltrasoundMultiFrameImageStorage, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UltrasoundMultiFrameImageStorage
    meta.MediaStorageSOPInstanceUID = tags.get("SOPInstanceUID", generate_uid())
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID = meta.MediaStorageSOPClassUID
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    dataset.Modality = "US"
    for name, value in tags.items():
        setattr(dataset, name, value)
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = frames.shape
    dataset.FrameTime = 40
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.PixelData = frames.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)


def test_a_set_holds_what_the_source_holds(tmp_path: Path) -> None:
    source = write_set(tmp_path / "source")
    before = tree(source)
    outcome = prepare(source, tmp_path / "set")
    assert tree(source) == before
    assert outcome.fresh and outcome.skipped == [] and outcome.salt_file is None
    prepared = PreparedSet(tmp_path / "set")
    assert len(prepared) == 3
    assert sorted(prepared.line(i)["truth"]["ef_percent"] for i in range(3)) == [40, 41, 42]
    clip = prepared.clip(0).clip
    assert clip.frames.shape == (20, 32, 32) and clip.fps == 25 and clip.view == "a4c"
    assert clip.ecg is not None and clip.ecg.start_s == 0
    line = prepared.line(0)
    assert line["provenance"]["synthetic"] and line["provenance"]["ecg_quality"] in ("good", "fair")
    assert not (set(line["subject"]) - set("s0123456789abcdef")) and line["split"] == "train"
    report = json.loads((tmp_path / "set" / "report.json").read_text())
    assert report["clips"] == {"found": 3, "kept": 3, "skipped": 0}
    assert (report["with_ecg"], report["subjects"], report["frames"]) == (3, 3, 60)
    assert {p.name for p in tmp_path.iterdir()} == {"source", "set"}
    assert (tmp_path / "set" / "contact_sheet.png").read_bytes().startswith(b"\x89PNG")
    assert "3 clips of 3 subjects" in (tmp_path / "set" / "report.md").read_text()


def test_again_is_nothing_and_other_settings_are_refused(tmp_path: Path) -> None:
    source = write_set(tmp_path / "source")
    prepare(source, tmp_path / "set")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "set").rglob("*")}
    assert not prepare(source, tmp_path / "set").fresh
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "set").rglob("*")} == before
    for changes in ({"size": 48}, {"max_seconds": 0.5}, {"salt": "other"}, {"shards": True}):
        with pytest.raises(InputError, match="other settings"):
            prepare(source, tmp_path / "set", **changes)
    with pytest.raises(InputError, match="another source"):
        prepare(write_set(tmp_path / "source2"), tmp_path / "set")
    prepare(source, tmp_path / "copy")
    assert tree(tmp_path / "set") == tree(tmp_path / "copy")


def test_places_that_are_refused(tmp_path: Path) -> None:
    source = write_set(tmp_path / "source")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "draft.txt").write_text("years")
    for folder, match in (
        (source / "set", "within each other"),
        (tmp_path, "within each other"),
        (tmp_path / "none" / "set", "no such folder"),
        (tmp_path / "thesis", "not empty"),
        (tmp_path / "thesis" / "draft.txt", "is a file"),
    ):
        with pytest.raises(InputError, match=match):
            prepare(source, folder)
    with pytest.raises(InputError, match="no such file"):
        prepare(tmp_path / "gone", tmp_path / "set")
    with pytest.raises(InputError, match="nothing usable"):
        prepare(tmp_path / "thesis", tmp_path / "set")
    assert not (tmp_path / "set").exists() and not (tmp_path / "set.preparing").exists()
    for bad in ({"size": 8}, {"max_seconds": 0.0}, {"dataset": "x"}, {"options": SourceOptions(fps=0.0)}):
        with pytest.raises(InputError):
            PrepareSettings(**bad)


def test_a_random_salt_stays_beside_the_set_and_links_later_sets(tmp_path: Path) -> None:
    source = write_set(tmp_path / "source")
    outcome = prepare(source, tmp_path / "set", salt=None)
    assert outcome.salt_file == tmp_path / "set.salt" and outcome.salt_file.stat().st_mode & 0o77 == 0
    assert not prepare(source, tmp_path / "set", salt=None).fresh
    salt = outcome.salt_file.read_text().strip().encode()
    assert all(salt not in content for content in tree(tmp_path / "set").values())
    prepare(source, tmp_path / "again", salt=salt.decode())
    assert PreparedSet(tmp_path / "again").ids == PreparedSet(tmp_path / "set").ids
    prepare(source, tmp_path / "other", salt="another")
    assert not set(PreparedSet(tmp_path / "other").ids) & set(PreparedSet(tmp_path / "set").ids)


def test_splits_follow_the_subject() -> None:
    splits = [split_of(f"patient {i}") for i in range(3000)]
    shares = [splits.count(name) / 3000 for name in ("train", "val", "test")]
    np.testing.assert_allclose(shares, [0.8, 0.1, 0.1], atol=0.03)
    assert splits == [split_of(f"patient {i}") for i in range(3000)]
    names = Pseudonyms(b"salt")
    assert names.name("s", "a") == Pseudonyms(b"salt").name("s", "a") != names.name("c", "a")


def test_damaged_files_are_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    source = tmp_path / "source"
    write_dicom(source / "good.dcm", beating())
    whole = (source / "good.dcm").read_bytes()
    (source / "cut.dcm").write_bytes(whole[: len(whole) // 2])
    (source / "empty.dcm").touch()
    (source / "noise.avi").write_bytes(os.urandom(5000))
    (source / "README.txt").write_text("read me")
    outcome = prepare(source, tmp_path / "set")
    assert [Path(path).name for path, _ in outcome.skipped] == ["cut.dcm", "empty.dcm", "noise.avi"]
    assert all(reason and "\n" not in reason for _, reason in outcome.skipped)
    assert outcome.report["clips"] == {"found": 4, "kept": 1, "skipped": 3}
    assert outcome.report["files_ignored"] == 1
    assert "noise.avi: " in (tmp_path / "set.skipped.txt").read_text()
    assert (tmp_path / "set.skipped.txt").stat().st_mode & 0o77 == 0


SECRETS = (
    "Doe",
    "Jane",
    "19530704",
    "1953",
    "JD-4711",
    "1.2.826.0.1.3680043",
    "Charite",
    "Dr. Who",
    "Wardroom",
    "4711",
)


def test_nothing_of_the_source_is_told(tmp_path: Path) -> None:
    source = tmp_path / "Jane Doe 1953"
    study = "1.2.826.0.1.3680043.8.498.1"
    for number in range(2):
        write_dicom(
            source / "Charite" / f"Doe_Jane_19530704_{number}.dcm",
            beating(seed=number),
            PatientName="Doe^Jane",
            PatientID="JD-4711",
            PatientBirthDate="19530704",
            PatientAge="071Y",
            StudyInstanceUID=study,
            SOPInstanceUID=f"{study}.{number}",
            InstitutionName="Charite",
            OperatorsName="Dr. Who",
            StudyDate="19530704",
            ImageComments="Jane Doe, Wardroom 7",
        )
    np.save(source / "Doe_video.npy", beating(60))
    write_wfdb(source, "Doe_video", an_ecg())
    with (source / "Doe_video.hea").open("a") as header:
        header.write("# Jane Doe, 19530704, JD-4711\n")
    (source / "damaged_Doe.dcm").write_bytes(b"Jane Doe")
    outcome = prepare(source, tmp_path / "set")
    assert outcome.report["clips"]["kept"] == 3 and outcome.report["clips"]["skipped"] == 1
    table = tmp_path / "Doe.csv"
    rows = (
        f"video,ecg,subject,exam,view,Name,Birth\n{source}/Doe_video.npy,{source}/Doe_video.hea,JD-4711,Jane 1,Doe 4ch,"
    )
    table.write_text(rows + "Jane Doe,19530704\n")
    prepare(table, tmp_path / "second")
    for folder in (tmp_path / "set", tmp_path / "second"):
        for name, content in tree(folder).items():
            for secret in SECRETS:
                assert secret not in name
                for coded in (secret.encode(), secret.encode("utf-16-le"), secret.lower().encode()):
                    assert coded not in content, f"{secret} in {name}"
    lines = [PreparedSet(tmp_path / "set").line(i) for i in range(3)]
    assert len({line["subject"] for line in lines}) == 2  # two recordings of one patient ID, and the other video
    second = PreparedSet(tmp_path / "second").line(0)
    assert second["subject"] in {line["subject"] for line in lines}  # the same patient, the same salt
    removed = outcome.report["removed"]
    assert {"PatientName", "PatientID", "PatientBirthDate", "InstitutionName"} <= set(removed)


def test_killed_and_restarted_nothing_is_lost_or_doubled(tmp_path: Path) -> None:
    source = write_set(tmp_path / "source", 40)
    script = (
        "from pathlib import Path\nfrom echopulse.io.prepare import *\n"
        f"prepare_set(Path({str(source)!r}), Path({str(tmp_path / 'set')!r}), "
        f"PrepareSettings(size=32), workers=2, salt={SALT!r})\n"
    )
    run = subprocess.Popen(
        [sys.executable, "-c", script], start_new_session=True, env=os.environ | {"PYTHONPATH": "src"}
    )
    parts = tmp_path / "set.preparing" / "parts"
    deadline = time.monotonic() + 60
    while len(list(parts.glob("*.json"))) < 5 and time.monotonic() < deadline and run.poll() is None:
        time.sleep(0.005)
    run.send_signal(signal.SIGKILL)
    run.wait()
    done = {path.name: path.stat().st_mtime_ns for path in parts.glob("*.json")}
    assert 5 <= len(done) < 40
    (tmp_path / "set" / "clips" / ".x.npy.1.part").write_bytes(b"half")
    time.sleep(1.5)  # the workers notice that they are alone
    outcome = prepare_set(source, tmp_path / "set", PrepareSettings(size=32), workers=2, salt=SALT)
    assert outcome.report["clips"] == {"found": 40, "kept": 40, "skipped": 0}
    prepare_set(source, tmp_path / "whole", PrepareSettings(size=32), workers=2, salt=SALT)
    assert tree(tmp_path / "set") == tree(tmp_path / "whole")
    assert not parts.exists()


def test_a_zip_is_unpacked_and_a_lying_one_refused(tmp_path: Path) -> None:
    source = write_set(tmp_path / "source")
    with zipfile.ZipFile(tmp_path / "source.zip", "w") as archive:
        for name, content in tree(source).items():
            archive.writestr(f"inner/{name}", content)
    prepare(tmp_path / "source.zip", tmp_path / "set")
    prepare(source, tmp_path / "plain")
    assert PreparedSet(tmp_path / "set").ids == PreparedSet(tmp_path / "plain").ids
    assert not (tmp_path / "set.preparing").exists()
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr("../escaped.avi", b"x")
    with pytest.raises(InputError, match="refused"):
        prepare(tmp_path / "bad.zip", tmp_path / "bad")
    assert not (tmp_path / "escaped.avi").exists()


def test_shards_hold_the_same_clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from echopulse.io import shards

    monkeypatch.setattr(shards, "CLIPS_PER_SHARD", 2)
    source = write_set(tmp_path / "source")
    prepare(source, tmp_path / "plain")
    prepare(source, tmp_path / "packed", shards=True)
    files = {path.name for path in (tmp_path / "packed").iterdir()}
    assert files == {
        *("shard-000000.tar", "shard-000001.tar", "manifest.jsonl"),
        *("report.json", "report.md", "contact_sheet.png"),
    }
    plain = PreparedSet(tmp_path / "plain")
    for with_manifest in (True, False):
        if not with_manifest:
            (tmp_path / "packed" / "manifest.jsonl").unlink()
        packed = PreparedSet(tmp_path / "packed")
        assert packed.ids == plain.ids
        for i in range(3):
            one, other = plain.clip(i), packed.clip(i)
            np.testing.assert_array_equal(one.clip.frames, other.clip.frames)
            assert isinstance(packed.frames(i), np.memmap)
            assert one.clip.ecg is not None and other.clip.ecg is not None
            np.testing.assert_array_equal(one.clip.ecg.samples_mv, other.clip.ecg.samples_mv)
            assert one.truth == other.truth
    prepare(tmp_path / "packed", tmp_path / "again")
    assert len(PreparedSet(tmp_path / "again")) == 3
    shard = tmp_path / "packed" / "shard-000001.tar"
    shard.write_bytes(shard.read_bytes()[:2000])
    with pytest.raises(InputError, match="shard-000001"):
        PreparedSet(tmp_path / "packed")


def test_uneven_frames_are_evened_and_long_clips_cut() -> None:
    frames = np.arange(40, dtype=np.uint8)[:, None, None].repeat(16, 1).repeat(16, 2)
    times = np.arange(40) / 20
    times[20:] += 0.5  # a pause
    source = SourceClip(EchoClip(frames, 20, ecg=an_ecg(40.0)), times, masks=frames % 3, truth={"mask_frames": [0, 30]})
    even = evened(source, None)
    assert even.clip.fps == pytest.approx(20) and even.clip.num_frames == 50 and even.frame_times_s is None
    assert even.masks is not None
    assert even.clip.frames[:20, 0, 0].tolist() == list(range(20)) and even.clip.frames[-1, 0, 0] == 39
    assert even.truth["mask_frames"] == [0, 40] and "evenly" in even.warnings[0]
    assert even.clip.ecg is not None and even.clip.ecg.end_s == pytest.approx(12.5)
    short = evened(source, 1.0)
    assert short.clip.num_frames == 20 and short.truth["mask_frames"] == [0]
    slightly = evened(SourceClip(EchoClip(frames, 20), np.arange(40) / 20 + 0.01 * (np.arange(40) % 2)), None)
    assert slightly.clip.num_frames == 40 and slightly.frame_times_s is not None
    with pytest.raises(InputError, match="do not rise"):
        evened(SourceClip(EchoClip(frames, 20), np.zeros(40)), None)
    with pytest.raises(InputError, match="overlap"):
        evened(SourceClip(EchoClip(frames, 20, ecg=an_ecg().shifted(100.0))), None)


def test_pixels_become_square() -> None:
    frames = np.full((2, 50, 100), 200, np.uint8)
    square = fitted(SourceClip(EchoClip(frames, 20), masks=frames // 100, pixel_height=0.5), 64)
    rows, columns = np.nonzero(square.clip.frames[0])
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (24, 39, 0, 63)
    assert square.masks is not None and set(np.unique(square.masks)) == {0, 2}


def test_truth_is_kept_by_name_and_type() -> None:
    given = {
        "ef_percent": 55, "edv_ml": "Jane", "ed_times_s": [0.1, 9.0, float("nan")], "rhythm": "Jane",
        "patient": "Jane", "esv_ml": True, "mask_frames": ["Jane"], "lv_volume_ml": [1, 2],
    }  # fmt: skip
    assert clean_truth(given, 1.0) == {"ef_percent": 55.0, "ed_times_s": [0.1], "lv_volume_ml": [1.0, 2.0]}


def test_a_job_that_crashes_or_hangs_is_the_only_one_lost() -> None:
    jobs = ["pass", "import os; os._exit(1)", "x = 1", "import time; time.sleep(60)", "x = 2", "x = 3"]
    ended = dict(run_safely(exec, jobs, 2, limit_s=1.5))
    assert ended == {job: job not in (jobs[1], jobs[3]) for job in jobs}
