"""Prepared sets: what is written comes back, and nothing hostile gets through."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import wfdb

from echopulse.errors import InputError
from echopulse.io.sets import PreparedSet, read_manifest, write_manifest, write_set_clip
from echopulse.signals import EcgSignal, EchoClip, PairedClip


def make_pair(name: str = "clip-1_a", *, masks: bool = True, peak_mv: float = 2.0, **fields) -> PairedClip:
    rng = np.random.default_rng(len(name))
    samples_mv = rng.uniform(-peak_mv, peak_mv, (3, 1200))
    ecg = EcgSignal(samples_mv, ("I", "II", "V1"), 497.25, start_s=0.25)
    frames = rng.integers(0, 256, (9, 20, 24), dtype=np.uint8)
    clip = EchoClip(frames, 29.97, start_s=0.75, view="a4c", ecg=ecg, provenance={"model": "phantom", "seed": 3})
    truth = {"ef_percent": 55.0, "r_times_s": [0.8, 1.0], "es_times_s": []}
    classes = rng.integers(0, 6, frames.shape, dtype=np.uint8) if masks else None
    return PairedClip(clip, classes, truth, name, **({"subject": "p1", "split": "train"} | fields))


def write_set(folder: Path, *pairs: PairedClip) -> Path:
    write_manifest(folder, [write_set_clip(folder, pair, "phantom", "exam-7") for pair in pairs])
    return folder


def edit_manifest(folder: Path, **changes) -> None:
    line = read_manifest(folder)[0]
    line |= changes
    (folder / "manifest.jsonl").write_text(json.dumps(line) + "\n")


def test_a_clip_comes_back(tmp_path: Path) -> None:
    pair = make_pair()
    prepared = PreparedSet(write_set(tmp_path / "set", pair))
    back = prepared.clip(0)
    assert pair.clip.ecg is not None and back.clip.ecg is not None and back.masks is not None
    np.testing.assert_array_equal(back.clip.frames, pair.clip.frames)
    np.testing.assert_array_equal(back.masks, pair.masks)
    np.testing.assert_allclose(back.clip.ecg.samples_mv, pair.clip.ecg.samples_mv, atol=0.000501)
    assert back.clip.ecg.leads == ("I", "II", "V1")
    assert back.clip.ecg.sampling_rate_hz == 497.25
    assert (back.clip.fps, back.clip.view, back.clip.provenance) == (29.97, "a4c", {"model": "phantom", "seed": 3})
    assert (back.id, back.subject, back.split) == (pair.id, "p1", "train")
    assert (prepared.line(0)["source"], prepared.line(0)["exam"]) == ("phantom", "exam-7")
    assert isinstance(prepared.frames(0), np.memmap)


def test_the_clock_of_a_set_starts_at_frame_0(tmp_path: Path) -> None:
    back = PreparedSet(write_set(tmp_path, make_pair())).clip(0)
    assert back.clip.ecg is not None
    assert back.clip.start_s == 0.0
    assert back.clip.ecg.start_s == pytest.approx(-0.5)
    assert back.truth["r_times_s"] == pytest.approx([0.05, 0.25])
    assert back.truth["es_times_s"] == [] and back.truth["ef_percent"] == 55.0


def test_lines_are_sorted_and_masks_optional(tmp_path: Path) -> None:
    prepared = PreparedSet(write_set(tmp_path, make_pair("b"), make_pair("a", masks=False)))
    assert prepared.ids == ("a", "b") and len(prepared) == 2
    assert prepared.masks(0) is None and prepared.clip(0).masks is None
    assert prepared.masks(1) is not None


def test_wfdb_reads_the_record_by_itself(tmp_path: Path) -> None:
    write_set(tmp_path, make_pair())
    record = wfdb.rdrecord(str(tmp_path / "ecg" / "clip-1_a"))
    assert record.units == ["mV"] * 3 and record.sig_name == ["I", "II", "V1"] and record.base_date is None
    written = wfdb.rdheader(str(tmp_path / "ecg" / "clip-1_a")).checksum
    counted = wfdb.rdrecord(str(tmp_path / "ecg" / "clip-1_a"), physical=False).calc_checksum()
    assert [(one - other) % 65536 for one, other in zip(written, counted, strict=True)] == [0, 0, 0]


def test_bytes_are_the_same_each_time(tmp_path: Path) -> None:
    first, second = write_set(tmp_path / "1", make_pair()), write_set(tmp_path / "2", make_pair())
    names = sorted(p.relative_to(first) for p in first.rglob("*") if p.is_file())
    assert len(names) == 5
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes()


@pytest.mark.parametrize("peak_mv", [40.0, 3000.0])
def test_a_large_ecg_is_not_clipped(tmp_path: Path, peak_mv: float) -> None:
    pair = make_pair(peak_mv=peak_mv)
    ecg = PreparedSet(write_set(tmp_path, pair)).ecg(0)
    assert pair.clip.ecg is not None
    np.testing.assert_allclose(ecg.samples_mv, pair.clip.ecg.samples_mv, atol=0.6 * peak_mv / 32000 + 1e-3 * peak_mv)
    assert np.abs(ecg.samples_mv).max() > 0.99 * peak_mv


def test_an_ecg_that_is_not_in_millivolts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected millivolts"):
        write_set(tmp_path, make_pair(peak_mv=1e6))


@pytest.mark.parametrize("name", ["", "../x", "a/b", "a.b", "a b", "ü", ".hidden", "x" * 201])
def test_names_that_cannot_be_files_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="clip id"):
        write_set_clip(tmp_path / "set", make_pair(name), "phantom")
    assert not (tmp_path / "set").exists()


def test_masks_with_unknown_classes_are_refused(tmp_path: Path) -> None:
    pair = make_pair()
    with pytest.raises(InputError, match="values up to 6"):
        write_set_clip(tmp_path, PairedClip(pair.clip, np.full_like(pair.clip.frames, 6), id="a"), "phantom")


def test_an_interrupt_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(file, array, **_) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_set_clip(tmp_path, make_pair(), "phantom")
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_truth_must_be_finite_json(tmp_path: Path) -> None:
    line = write_set_clip(tmp_path, make_pair(), "phantom")
    for bad in (float("nan"), np.zeros(2)):
        with pytest.raises(InputError, match="plain finite JSON"):
            write_manifest(tmp_path, [line | {"truth": {"ef_percent": bad}}])
    assert not (tmp_path / "manifest.jsonl").exists()


def test_a_subject_stays_in_one_split(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="subject p1 is in the splits"):
        write_set(tmp_path, make_pair("a"), make_pair("b", split="test"))


def test_no_set(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        read_manifest(tmp_path / "none")
    with pytest.raises(InputError, match=r"no manifest\.jsonl"):
        read_manifest(tmp_path)
    (tmp_path / "manifest.jsonl").write_text("\n")
    with pytest.raises(InputError, match="no clips"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    "row", ["{", "[1]", "7", '{"id": NaN}', "[" * 5000, '"x"', "{}", '{"num_frames": ' + "9" * 5000 + "}"]
)
def test_broken_lines_name_their_number(tmp_path: Path, row: str) -> None:
    write_set(tmp_path, make_pair())
    with (tmp_path / "manifest.jsonl").open("a") as file:
        file.write(row + "\n")
    with pytest.raises(InputError, match="line 2: ") as caught:
        read_manifest(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_manifest_that_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "manifest.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="UTF-8"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "../../etc/passwd"},
        {"id": ".."},
        {"id": 7},
        {"video": "/etc/passwd"},
        {"video": "clips/../../secret.npy"},
        {"video": ""},
        {"video": None},
        {"video": "C:\\secret.npy"},
        {"video": "clips/a\u0000.npy"},
        {"masks": "../masks.npy"},
        {"ecg": "s3://bucket/record"},
        {"num_frames": 0},
        {"num_frames": True},
        {"num_frames": 9.0},
        {"fps": 0},
        {"fps": "30"},
        {"fps": 10**400},
        {"ecg_start_s": None},
        {"truth": []},
        {"provenance": "me"},
        {"frame_times_s": [0.0]},
        {"frame_times_s": ["0"] * 9},
        {"frame_times_s": [0.1 * i for i in range(9)]},
    ],
)
def test_hostile_fields_are_refused(tmp_path: Path, changes: dict) -> None:
    write_set(tmp_path, make_pair())
    edit_manifest(tmp_path, **changes)
    with pytest.raises(InputError, match="line 1: " + next(iter(changes))):
        read_manifest(tmp_path)


def test_even_frame_times_are_accepted(tmp_path: Path) -> None:
    write_set(tmp_path, make_pair())
    edit_manifest(tmp_path, frame_times_s=[i / 29.97 for i in range(9)])
    assert len(PreparedSet(tmp_path)) == 1


def test_an_id_twice(tmp_path: Path) -> None:
    write_set(tmp_path, make_pair())
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text(manifest.read_text() * 2)
    with pytest.raises(InputError, match="comes twice"):
        read_manifest(tmp_path)


def test_pictures_must_match_the_manifest(tmp_path: Path) -> None:
    write_set(tmp_path, make_pair())
    video = tmp_path / "clips" / "clip-1_a.npy"
    edit_manifest(tmp_path, num_frames=8)
    with pytest.raises(InputError, match="has 9 frames"):
        PreparedSet(tmp_path).frames(0)
    edit_manifest(tmp_path, num_frames=9)
    np.save(video, np.zeros((9, 20, 23), np.uint8))
    with pytest.raises(InputError, match="masks of"):
        PreparedSet(tmp_path).masks(0)
    pickled = np.full((9, 4, 4), {}, dtype=object)
    for wrong in (np.zeros((9, 4, 4)), np.zeros((9, 4), np.uint8), np.zeros((9, 0, 4), np.uint8), pickled):
        np.save(video, wrong, allow_pickle=True)
        with pytest.raises(InputError, match="expected uint8 of shape"):
            PreparedSet(tmp_path).frames(0)
    for content in (b"", b"PK\x03\x04", b"\x93NUMPY\x01\x00"):
        video.write_bytes(content)
        with pytest.raises(InputError, match="not a complete"):
            PreparedSet(tmp_path).frames(0)
    video.unlink()
    with pytest.raises(InputError, match="no file clips"):
        PreparedSet(tmp_path).frames(0)


@pytest.mark.parametrize("shape", ["(-9, 20, 24)", "(9, 99999999999, 99999999999)", "(9, 20, 25)"])
def test_an_array_larger_than_its_file(tmp_path: Path, shape: str) -> None:
    write_set(tmp_path, make_pair())
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    (tmp_path / "clips" / "clip-1_a.npy").write_bytes(b"\x93NUMPY\x01\x00\x76\x00" + header.encode() + bytes(4320))
    with pytest.raises(InputError):
        PreparedSet(tmp_path).frames(0)


def test_links_out_of_the_set_are_refused(tmp_path: Path) -> None:
    write_set(tmp_path / "set", make_pair())
    video = tmp_path / "set" / "clips" / "clip-1_a.npy"
    os.replace(video, tmp_path / "outside.npy")
    video.symlink_to(tmp_path / "outside.npy")
    with pytest.raises(InputError, match="leaves the set"):
        PreparedSet(tmp_path / "set").frames(0)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "nonsense",
        "clip-1_a 1 500 99999999999\nclip-1_a.dat 16 1000(0)/mV 16 0 0 0 0 I\n",
        "clip-1_a 1 500 1000\nother.dat 16 1000(0)/mV 16 0 0 0 0 I\n",
        "clip-1_a 1 500 1000\nclip-1_a.dat 212 1000(0)/mV 16 0 0 0 0 I\n",
        "clip-1_a 1 500 1000\nclip-1_a.dat 16 1000(0)/uV 16 0 0 0 0 I\n",
        "clip-1_a 1 0 1000\nclip-1_a.dat 16 1000(0)/mV 16 0 0 0 0 I\n",
        "clip-1_a 1 500\nclip-1_a.dat 16 1000(0)/mV 16 0 0 0 0 I\n",
        "clip-1_a/2 1 500 1000\nclip-1_a 500\nclip-1_a 500\n",
    ],
)
def test_broken_ecg_headers_are_refused(tmp_path: Path, header: str) -> None:
    write_set(tmp_path, make_pair())
    (tmp_path / "ecg" / "clip-1_a.hea").write_text(header)
    with pytest.raises(InputError) as caught:
        PreparedSet(tmp_path).ecg(0)
    assert "\n" not in str(caught.value)


def test_a_cut_or_missing_ecg_is_refused(tmp_path: Path) -> None:
    write_set(tmp_path, make_pair())
    data = tmp_path / "ecg" / "clip-1_a.dat"
    data.write_bytes(data.read_bytes()[:-2])
    with pytest.raises(InputError, match="complete record"):
        PreparedSet(tmp_path).ecg(0)
    data.unlink()
    with pytest.raises(InputError, match="no file ecg"):
        PreparedSet(tmp_path).ecg(0)
