"""Each dataset is recognised by its layout and read as its authors mean it."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from echopulse.errors import InputError
from echopulse.io.datasets import SourceClip, SourceOptions, find_source, read_item
from echopulse.io.datasets.echoxflow import even_ecg, scan_convert
from echopulse.io.datasets.item import known_view

Standin = Callable[[str], Path]


def read_all(root: Path, options: SourceOptions | None = None) -> dict[str, SourceClip]:
    return {item.key: read_item(item) for item in find_source(root, options or SourceOptions()).items}


def test_camus_runs_from_diastole_to_systole_whatever_its_order(standin: Standin) -> None:
    found = find_source(standin("camus_nifti"), SourceOptions())
    assert [(item.dataset, item.subject, item.view, item.split) for item in found.items] == [
        ("camus", "patient0001", "a2c", "train"),
        ("camus", "patient0001", "a4c", "train"),
        ("camus", "patient0007", "a2c", "test"),
        ("camus", "patient0007", "a4c", "test"),
    ]
    straight, turned = (read_item(item) for item in found.items[2:])
    np.testing.assert_array_equal(straight.clip.frames, turned.clip.frames)
    assert turned.masks is not None and straight.masks is not None
    np.testing.assert_array_equal(straight.masks, turned.masks)
    areas = (turned.masks == 1).sum(axis=(1, 2))
    assert areas.argmax() == 0 and areas.argmin() == 11
    assert set(np.unique(turned.masks)) == {0, 1, 2, 3}
    assert turned.truth == {
        "ed_times_s": [0.0],
        "es_times_s": [pytest.approx(11 / 48.2)],
        "ef_percent": 61.5,
    }
    assert turned.clip.ecg is None and turned.clip.fps == 48.2
    assert turned.pixel_height == pytest.approx(0.75)


def test_camus_mhd_has_masks_at_its_ends_and_asks_for_the_frame_rate(standin: Standin) -> None:
    root = standin("camus_mhd")
    with pytest.raises(InputError, match="--fps"):
        read_all(root)
    (source,) = read_all(root, SourceOptions(fps=30.0)).values()
    assert source.masks is not None and source.masks[1:-1].max() == 0
    assert source.truth["mask_frames"] == [0, 11]
    assert (source.truth["edv_ml"], source.truth["esv_ml"], source.truth["ef_percent"]) == (94.2, 40.1, 57.4)
    assert source.pixel_height == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("DimSize = 112 96 12", "DimSize = 112 96 13"),
        ("DimSize = 112 96 12", "DimSize = 99999 99999 99999"),
        ("DimSize = 112 96 12", "DimSize = -1 96 12"),
        ("DimSize = 112 96 12", "DimSize = ?"),
        ("patient0003_4CH_sequence.raw", "../../secret.raw"),
        ("MET_UCHAR", "MET_OTHER"),
    ],
)
def test_broken_mhd_is_refused(standin: Standin, tmp_path: Path, old: str, new: str) -> None:
    import shutil

    root = shutil.copytree(standin("camus_mhd"), tmp_path / "camus")
    header = next(root.rglob("*_sequence.mhd"))
    text = header.read_text()
    assert old in text
    header.write_text(text.replace(old, new))
    with pytest.raises(InputError, match="patient0003"):
        read_all(root, SourceOptions(fps=30.0))


def test_echonet_dynamic_has_truth_and_masks_of_the_traced_frames(standin: Standin) -> None:
    found = find_source(standin("echonet_dynamic"), SourceOptions())
    assert [(item.split, item.view) for item in found.items] == [("train", "a4c"), ("val", "a4c"), ("test", "a4c")]
    assert [skip.path.name for skip in found.skipped] == ["0XMISSING.avi"]
    source = read_item(found.items[0])
    assert source.truth == {
        "ef_percent": 55.5,
        "edv_ml": 90.5,
        "esv_ml": 40.25,
        "mask_frames": [2, 7],
        "ed_times_s": [2 / 50],
        "es_times_s": [7 / 50],
    }
    masks = source.masks
    assert masks is not None and masks[[i for i in range(12) if i not in (2, 7)]].max() == 0
    rows, columns = np.nonzero(masks[2])  # the chords from y = 32 to 76, x = 36 to 76; not the axis from 30 to 80
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (32, 76, 36, 76)


def test_echonet_pediatric_has_two_views_and_ten_folds(standin: Standin) -> None:
    found = find_source(standin("echonet_pediatric"), SourceOptions())
    assert [(item.view, item.split) for item in found.items] == [("a4c", "test"), ("psax", "test")]
    source = read_item(found.items[0])
    assert source.masks is not None and source.masks[3].sum() == 31 * 51
    assert source.truth == {"ef_percent": 63.2, "mask_frames": [3]}
    assert {"column Sex", "column Age"} <= set(found.removed)


def test_echonet_lvh_marks_the_measured_frames(standin: Standin) -> None:
    found = find_source(standin("echonet_lvh"), SourceOptions())
    assert [(item.view, item.split) for item in found.items] == [("plax", "train"), ("plax", "val")]
    assert read_item(found.items[0]).truth == {"ed_times_s": [2 / 50], "es_times_s": [9 / 50]}


def test_echoxflow_stores_zips_and_tars(standin: Standin) -> None:
    root = standin("echoxflow_zarr")
    found = find_source(root, SourceOptions())
    assert [item.split for item in found.items] == ["val", "val", "test", "train"]
    assert [item.view for item in found.items] == ["a4c", "unknown", "unknown", "unknown"]
    sources = [read_item(item) for item in found.items]
    for source in sources:
        assert source.clip.fps == pytest.approx(50) and source.clip.num_frames == 12
        assert source.truth["r_times_s"] == [pytest.approx(0.1)]
        np.testing.assert_array_equal(source.clip.frames, sources[0].clip.frames)
    assert [source.clip.ecg is not None for source in sources] == [True, False, True, True]
    ecg = sources[0].clip.ecg
    assert ecg is not None
    assert ecg.start_s == pytest.approx(-1.0) and ecg.sampling_rate_hz == pytest.approx(200.0)
    assert np.ptp(ecg.samples_mv) == pytest.approx(1.5, rel=0.1)


def test_echoxflow_hdf5_of_both_converters(standin: Standin) -> None:
    items = find_source(standin("echoxflow_hdf5"), SourceOptions()).items
    first, second = (read_item(item) for item in items[:2])
    assert first.clip.ecg is not None and second.clip.ecg is not None
    np.testing.assert_allclose(first.clip.ecg.samples_mv[:, :500], second.clip.ecg.samples_mv[:, :500], atol=0.01)
    assert first.clip.ecg.start_s == pytest.approx(-1.0)
    with pytest.raises(InputError, match="no coordinates"):
        read_item(items[2])


def test_scan_conversion_puts_a_spot_where_it_was() -> None:
    polar = np.zeros((1, 101, 81), np.uint8)
    polar[0, 70, 60] = 255  # a depth of 0.07 m, at 0.3 rad
    picture = scan_convert(polar, (0.0, 0.1, -0.6, 0.6))[0]
    row, column = np.unravel_index(picture.argmax(), picture.shape)
    step = 2 * 0.1 * np.sin(0.6) / (picture.shape[1] - 1)
    assert column * step - 0.1 * np.sin(0.6) == pytest.approx(0.07 * np.sin(0.3), abs=step)
    assert row * step == pytest.approx(0.07 * np.cos(0.3), abs=step)
    assert picture[-1, 0] == picture[-1, -1] == 0  # outside the sector
    full = scan_convert(np.full((1, 101, 81), 200, np.uint8), (0.02, 0.1, -0.6, 0.6))[0]
    assert set(np.unique(full)) == {0, 200}


def test_an_ecg_with_uneven_or_broken_times() -> None:
    times = np.cumsum(np.random.default_rng(0).uniform(0.004, 0.006, 600))
    ecg = even_ecg(np.sin(2 * np.pi * times), times)
    expected = 0.75 * np.sin(2 * np.pi * ecg.times_s)
    assert np.abs(ecg.samples_mv[0] - expected - (ecg.samples_mv[0] - expected).mean()).max() < 0.01
    for samples, broken in (
        (np.ones(600), times[::-1]),
        (np.ones(599), times),
        (np.full(600, np.nan), times),
        (np.ones(600), times * 1e-6),
        (np.ones(600), np.where(times > 1, times + 5, times)),
    ):
        with pytest.raises(InputError):
            even_ecg(samples, broken)


@pytest.mark.parametrize("geometry", [{}, {"depth_start_m": 0.1, "depth_end_m": 0.0}, {"DepthStart": "x", "Tilt": 0}])
def test_a_recording_without_geometry_is_refused(tmp_path: Path, geometry: dict, standin: Standin) -> None:
    import shutil

    source = next(standin("echoxflow_zarr").rglob("recording_0000000000000001.zarr"))
    store = shutil.copytree(source, tmp_path / "exams" / "exam_1" / "recording_1.zarr")
    attributes = json.loads((store / ".zattrs").read_text())
    attributes["recording_manifest"]["sectors"][0]["geometry"] = geometry
    (store / ".zattrs").write_text(json.dumps(attributes))
    with pytest.raises(InputError, match=r"recording_1\.zarr"):
        read_all(tmp_path)


def test_a_damaged_store_is_refused(tmp_path: Path, standin: Standin) -> None:
    import shutil

    source = next(standin("echoxflow_zarr").rglob("recording_0000000000000001.zarr"))
    store = shutil.copytree(source, tmp_path / "exams" / "exam_1" / "recording_1.zarr")
    chunk = store / "data" / "2d_brightness_mode" / "0.0.0"
    chunk.write_bytes(chunk.read_bytes()[:100])
    with pytest.raises(InputError, match=r"recording_1\.zarr"):
        read_all(tmp_path)
    array = store / "data" / "2d_brightness_mode" / ".zarray"
    array.write_text(array.read_text().replace("12", "999999999"))
    with pytest.raises(InputError, match=r"recording_1\.zarr"):
        read_all(tmp_path)


def test_a_folder_pairs_by_name(standin: Standin) -> None:
    found = find_source(standin("folder_of_pairs"), SourceOptions())
    assert [item.subject for item in found.items] == ["case0", "case0", "case1", "case2"]
    assert found.ignored == 1
    paired = read_item(found.items[1])
    assert paired.clip.ecg is not None and paired.clip.ecg.leads == ("II",)
    assert (paired.clip.view, paired.clip.num_frames) == ("a4c", 40)
    assert paired.clip.fps == pytest.approx(40)
    assert read_item(found.items[0]).clip.ecg is None


def test_pairs_across_folders_need_a_name_of_their_own(tmp_path: Path) -> None:
    for name in ("video/p1.avi", "video/p2.avi", "ecg/p1.edf", "a/clip.avi", "a/clip.csv", "b/clip.avi", "c/x.avi"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "c" / "y.edf").write_bytes(b"x")
    partners = {item.key: item.details["ecg"] for item in find_source(tmp_path, SourceOptions()).items}
    names = {key: ecg and ecg.relative_to(tmp_path).as_posix() for key, ecg in partners.items()}
    assert names == {
        "a/clip.avi": "a/clip.csv",
        "b/clip.avi": None,  # not another patient's ECG of the same name
        "c/x.avi": "c/y.edf",
        "video/p1.avi": "ecg/p1.edf",
        "video/p2.avi": None,
    }


def test_a_table_says_what_belongs_together(standin: Standin, tmp_path: Path) -> None:
    root = standin("folder_of_pairs")
    table = tmp_path / "study.csv"
    case = root / "case1"
    table.write_text(
        "video;ecg;ecg_start_s;subject;split;view;ef_percent;fps;Name\n"
        f"{case / 'rest_a4c.avi'};{case / 'rest_a4c.hea'};-0,25;p 1;val;Apical 2 chamber;51.5;20;Jane\n"
        f"{case / 'gone.avi'};;;;;;;;\n"
    )
    found = find_source(table, SourceOptions())
    assert len(found.skipped) == 1 and "row 3" in found.skipped[0].reason
    assert "column Name" in found.removed
    (item,) = found.items
    assert (item.subject, item.split, item.view) == ("p 1", "val", "a2c")
    source = read_item(item)
    assert source.clip.fps == 20 and source.frame_times_s is None and source.clip.view == "a2c"
    assert source.clip.ecg is not None and source.clip.ecg.start_s == -0.25
    assert source.truth == {"ef_percent": 51.5}


def test_a_table_with_a_subject_in_two_splits_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.avi").touch()
    table = tmp_path / "study.csv"
    table.write_text("video,subject,split\na.avi,p1,train\na.avi,p1,test\n")
    with pytest.raises(InputError, match="row 3: its subject is in two splits"):
        find_source(table, SourceOptions())


def test_shards_of_others(standin: Standin) -> None:
    found = find_source(standin("webdataset"), SourceOptions())
    assert [(item.key, item.subject, item.split, item.view) for item in found.items] == [
        ("00000.tar|a", "a", "", "unknown"),
        ("00001.tar|b", "p7", "val", "a4c"),
    ]
    assert found.ignored == 1
    with_ecg = read_item(found.items[1])
    assert with_ecg.clip.ecg is not None and with_ecg.clip.ecg.start_s == -0.5
    assert with_ecg.truth == {"ef_percent": 48}
    assert read_item(found.items[0]).clip.ecg is None


def test_a_cut_shard_is_skipped(standin: Standin, tmp_path: Path) -> None:
    source = standin("webdataset") / "00000.tar"
    (tmp_path / "cut.tar").write_bytes(source.read_bytes()[:3000])
    found = find_source(tmp_path, SourceOptions())
    assert found.items == [] and "complete" in found.skipped[0].reason


@pytest.mark.parametrize("name", ["../up.avi", "/etc/x.avi", "a/../../b.avi", "C:\\x.avi"])
def test_archives_that_lead_outside_are_refused(tmp_path: Path, name: str) -> None:
    import zipfile

    from echopulse.io.archives import extract

    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("fine.avi", b"x")
        archive.writestr(name, b"x")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    for ending in ("zip", "tar"):
        target = tmp_path / "in" / ending
        target.mkdir(parents=True)
        with pytest.raises(InputError, match="refused"):
            extract(tmp_path / f"a.{ending}", target)
        assert not list(target.iterdir())


def test_bombs_links_and_broken_archives_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import zipfile

    from echopulse.io import archives

    monkeypatch.setattr(archives, "MAX_FREE_BYTES", 1 << 20)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros.avi", bytes(1 << 24))
    with pytest.raises(InputError, match="times its size"):
        archives.extract(tmp_path / "bomb.zip", tmp_path / "out")
    with tarfile.open(tmp_path / "link.tar", "w") as archive:
        info = tarfile.TarInfo("link")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(info)
    with pytest.raises(InputError, match="link or device"):
        archives.extract(tmp_path / "link.tar", tmp_path / "out")
    lying = tmp_path / "lying.zip"  # says 10 bytes, unpacks to 16 MiB
    content = (tmp_path / "bomb.zip").read_bytes()
    lying.write_bytes(content.replace((1 << 24).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    with pytest.raises(InputError, match="complete zip"):
        archives.extract(lying, tmp_path / "out2")
    assert sum(path.stat().st_size for path in (tmp_path / "out2").rglob("*")) <= 10
    (tmp_path / "broken.zip").write_bytes(b"PK\x03\x04 nonsense")
    with pytest.raises(InputError, match="not a complete zip"):
        archives.extract(tmp_path / "broken.zip", tmp_path / "out")


@pytest.mark.parametrize(
    ("text", "view"),
    [
        ("A4C", "a4c"),
        ("apical 4 chamber", "a4c"),
        ("2CH", "a2c"),
        ("PLAX", "plax"),
        ("Jane", "unknown"),
        ("", "unknown"),
    ],
)
def test_views_in_any_spelling(text: str, view: str) -> None:
    assert known_view(text) == view
