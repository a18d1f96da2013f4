"""What watches hand out: Apple's CSV, its export and its PDF, Fitbit's and Samsung's exports."""

import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from echopulse.errors import InputError
from echopulse.io.ecg import list_recordings, read_ecg
from echopulse.io.ecg_formats import exports

RATE = 512.0
TRACE = 0.4 * np.sin(np.arange(30 * 512) / 40) + np.random.default_rng(3).normal(scale=0.01, size=30 * 512)
"""30 s of lead I in millivolts."""


def apple(number: int = 0) -> str:
    samples = "\n".join(f"{1000 * value:.3f}" for value in TRACE[number : number + 1000])
    return f'Name,A B\nDevice,"Watch7,12"\nSample Rate,512 hertz\n\n\nLead,Lead I\nUnit,µV\n\n{samples}\n'


def fitbit() -> str:
    counts = " ".join(str(round(10922 * value)) for value in TRACE[:7500])
    return (
        "reading_id,reading_time,result_classification,heart_rate,firmware_version,hardware_version,waveform_samples\n"
        f"12,Thu Oct 08 07:15:06 UTC 2020,NSR,61,1.2,Sense,[{counts}]\n"
    )


def export(folder: Path, recordings: int, names: str = "apple_health_export/électrocardiogrammes") -> Path:
    path = folder / "export.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("apple_health_export/export.xml", "<HealthData/>" * 9)
        archive.writestr("apple_health_export/workout.csv", "a,b\n1,2\n")
        for number in range(recordings):
            archive.writestr(f"{names}/ecg_2024-01-0{number + 1}.csv", apple(number))
    return path


def test_an_export_with_one_recording(tmp_path: Path) -> None:
    path = export(tmp_path, 1)
    ecg = read_ecg(path)
    assert (ecg.format, ecg.leads, ecg.sampling_rate_hz, ecg.num_samples) == ("apple_watch", ("I",), 512, 1000)
    assert ecg.source == "ecg_2024-01-01.csv"
    np.testing.assert_allclose(ecg.samples_mv[0], TRACE[:1000], atol=1e-6)


@pytest.mark.parametrize("unpacked", [False, True])
def test_an_export_with_several_recordings_lists_them(unpacked: bool, tmp_path: Path) -> None:
    path = export(tmp_path, 3)
    if unpacked:
        with zipfile.ZipFile(path) as archive:
            archive.extractall(tmp_path / "unpacked")
        path = tmp_path / "unpacked"
    found = list_recordings(path)
    assert [each.name for each in found] == [f"ecg_2024-01-0{number}.csv" for number in (1, 2, 3)]
    np.testing.assert_allclose(read_ecg(found[1]).samples_mv[0], TRACE[1:1001], atol=1e-6)
    with pytest.raises(InputError, match=r"holds 3 ECG recordings \(.*ecg_2024-01-01.csv.*name one, as in"):
        read_ecg(path)
    with pytest.raises(InputError, match="no such file"):
        read_ecg(path / "ecg_2030.csv")


def test_an_export_without_recordings(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no ECG of a watch"):
        read_ecg(export(tmp_path, 0))
    assert list_recordings(tmp_path) == ()
    with pytest.raises(InputError, match="no such file or folder"):
        list_recordings(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["../../evil", "/etc", "C:/evil", "a/../../b", "..\\evil"])
def test_paths_that_leave_the_archive_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="leads out of the archive"):
        read_ecg(export(tmp_path, 1, name))


def test_a_link_in_an_archive_is_refused(tmp_path: Path) -> None:
    path = export(tmp_path, 1)
    with zipfile.ZipFile(path, "a") as archive:
        link = zipfile.ZipInfo("apple_health_export/link.csv")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(InputError, match="leads out of the archive"):
        list_recordings(path)


def test_a_zip_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("big/ecg.csv", apple() + "0.1\n" * 5_000_000)
    with pytest.raises(InputError, match="no ECG of a watch"):
        read_ecg(path)
    with pytest.raises(InputError, match="unpacks to more than"):
        read_ecg(path / "big" / "ecg.csv")
    monkeypatch.setattr(exports, "_MAX_MEMBERS", 0)
    with pytest.raises(InputError, match="1 files; expected at most 0"):
        read_ecg(path)


def test_a_damaged_archive(tmp_path: Path) -> None:
    path = export(tmp_path, 1)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match="damaged zip archive"):
        read_ecg(path)


def test_fitbit(tmp_path: Path) -> None:
    path = tmp_path / "afib_ecg_reading_1602141306000.csv"
    path.write_text(fitbit())
    ecg = read_ecg(path)
    assert (ecg.format, ecg.leads, ecg.sampling_rate_hz, ecg.num_samples) == ("fitbit", ("I",), 250, 7500)
    np.testing.assert_allclose(ecg.samples_mv[0], TRACE[:7500], atol=1e-4)
    assert "10922 steps a mV assumed" in ecg.notes[0]
    with zipfile.ZipFile(tmp_path / "takeout.zip", "w") as archive:
        archive.write(path, f"Takeout/Google Health/Atrial Fibrillation ECG/{path.name}")
    np.testing.assert_array_equal(read_ecg(tmp_path / "takeout.zip").samples_mv, ecg.samples_mv)
    path.write_text(fitbit().replace("[", "(").replace("]", ")"))
    with pytest.raises(InputError, match="0 ECG readings"):
        read_ecg(path)


def test_samsung_says_where_its_samples_are_not(tmp_path: Path) -> None:
    path = tmp_path / "com.samsung.health.ecg.2024.csv"
    path.write_text("com.samsung.health.ecg,1,1\ndatauuid,start_time,sample_frequency\nx,2024,500\n")
    with pytest.raises(InputError, match="without their samples"):
        read_ecg(path)


def report(folder: Path, scale: float = 1.0, text: bool = True, form: bool = False) -> Path:
    """A page as Apple draws it: grid, icon, and three strips in pieces; the first strip begins after 0.36 s."""
    pytest.importorskip("pypdf")
    from pypdf import PdfWriter
    from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

    point = scale * 72 / 25.4
    drawing = ["q", "1 0 0 -1 0 612 cm", "0.8 G"]
    drawing += [f"40 {100 + 10 * line} m {40 + 250 * point} {100 + 10 * line} l S" for line in range(40)]
    drawing += [
        "1 0 0 RG",
        "45 110 m 50 100 60 100 60 110 c 60 120 50 125 45 110 c h f",
        "42 130 m 42 120 l 45 120 l S",
    ]
    for row in range(3):
        first, last = 5120 * row + (184 if row == 0 else 0), 5120 * (row + 1)
        x = 40 + (np.arange(first, last) - 5120 * row) / RATE * 25 * point
        y = 170 + 130 * row - TRACE[first:last] * 10 * point
        for start in range(0, last - first, 700):
            pieces = [f"{a:.4f} {b:.4f}" for a, b in zip(x[start : start + 701], y[start : start + 701], strict=True)]
            drawing.append(f"{pieces[0]} m " + " ".join(f"{piece} l" for piece in pieces[1:]) + " S")
    drawing.append("Q")
    writer = PdfWriter()
    page = writer.add_blank_page(842, 612)
    font = DictionaryObject(
        {NameObject("/Type"): NameObject("/Font"), NameObject("/Subtype"): NameObject("/Type1")}
        | {NameObject("/BaseFont"): NameObject("/Helvetica")}
    )
    resources = DictionaryObject({NameObject("/Font"): DictionaryObject({NameObject("/F1"): writer._add_object(font)})})
    label = "BT /F1 9 Tf 40 40 Td (25 mm/s, 10 mm/mV, 0.5 - 40 Hz, Lead I, 512Hz, iOS 17.1) Tj ET" if text else ""
    content = DecodedStreamObject()
    if form:
        inner = DecodedStreamObject()
        inner.set_data("\n".join(drawing).replace("1 0 0 -1 0 612 cm", "").encode())
        inner[NameObject("/Subtype")] = NameObject("/Form")
        resources[NameObject("/XObject")] = DictionaryObject({NameObject("/X1"): writer._add_object(inner)})
        drawing = ["q 1 0 0 -1 0 612 cm /X1 Do Q"]
    content.set_data("\n".join([*drawing, label]).encode())
    page[NameObject("/Contents")] = writer._add_object(content.flate_encode())
    page[NameObject("/Resources")] = resources
    path = folder / "ecg.bin"
    writer.write(path)
    return path


@pytest.mark.parametrize(
    "layout", [{}, {"text": False}, {"form": True}, {"scale": 0.8}, {"scale": 0.8, "form": True, "text": False}]
)
def test_apple_pdf_gives_its_samples_back(layout: dict, tmp_path: Path) -> None:
    ecg = read_ecg(report(tmp_path, **layout))
    assert (ecg.format, ecg.leads, ecg.sampling_rate_hz, ecg.num_samples) == ("apple_watch_pdf", ("I",), 512, 15176)
    expected = TRACE[184:]
    error = ecg.samples_mv[0] - (expected - np.median(expected))
    np.testing.assert_allclose(error[:4936], error[0], atol=1e-4)  # the shape is exact within a strip
    assert np.abs(error).max() < 0.05  # the noise of a sample, twice, where strips are joined
    assert ecg.notes == (
        ("the page is drawn at 0.8 of its size; measured by its strips of 10 s",) * ("scale" in layout)
    )
    assert read_ecg(tmp_path / "ecg.bin", max_duration_s=2).num_samples == 1024


def test_a_turned_page(tmp_path: Path) -> None:
    upright = read_ecg(report(tmp_path))
    from pypdf import PdfReader, PdfWriter, Transformation

    writer = PdfWriter(clone_from=PdfReader(tmp_path / "ecg.bin"))
    page = writer.pages[0]
    page.add_transformation(Transformation().rotate(90).translate(612, 0))
    page.rotate(90)  # shown upright again
    writer.write(tmp_path / "turned.pdf")
    np.testing.assert_allclose(read_ecg(tmp_path / "turned.pdf").samples_mv, upright.samples_mv, atol=1e-3)


def test_a_pdf_without_strips(tmp_path: Path) -> None:
    pytest.importorskip("pypdf")
    from pypdf import PdfWriter

    writer = PdfWriter()
    writer.add_blank_page(100, 100)
    writer.write(tmp_path / "empty.pdf")
    with pytest.raises(InputError, match="no ECG strips"):
        read_ecg(tmp_path / "empty.pdf")


def test_a_missing_pdf_reader_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = report(tmp_path)
    monkeypatch.setitem(sys.modules, "pypdf", None)
    with pytest.raises(InputError, match=r"pip install 'echopulse\[data\]'"):
        read_ecg(path)
