"""Reading ECG files: written here by the reference libraries, real ones, and damaged ones."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from echopulse.axes import STANDARD_LEADS
from echopulse.errors import InputError
from echopulse.io.ecg import read_ecg

DATA = Path(__file__).parents[2].parent / "shared" / "data" / "ecg"
RATE = 250.0
LEADS = ("I", "II", "V1")
SIGNAL = np.round(np.random.default_rng(0).normal(scale=0.4, size=(3, 750)), 3)
"""Three leads of 3 s in steps of 1 uV."""


def write_wfdb(folder: Path, name: str = "rec", **changes: object) -> Path:
    import wfdb

    arguments = dict(
        fs=RATE, units=["mV"] * 3, sig_name=["i", "ECG II", "MDC_ECG_LEAD_V1"], p_signal=SIGNAL.T, fmt=["16"] * 3
    )
    arguments |= dict(adc_gain=[1000.0] * 3, baseline=[0] * 3, write_dir=str(folder)) | changes
    wfdb.wrsamp(name, **arguments)
    return folder / f"{name}.hea"


def write_dicom(folder: Path, unit: str = "uV") -> Path:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, TwelveLeadECGWaveformStorage, generate_uid

    def item(**values: object) -> Dataset:
        result = Dataset()
        for key, value in values.items():
            setattr(result, key, value)
        return result

    def group(label: str, raw: np.ndarray) -> Dataset:
        channels = [
            item(
                ChannelSourceSequence=[item(CodeValue=code, CodingSchemeDesignator=scheme, CodeMeaning=meaning)],
                ChannelSensitivity="0.5",
                ChannelSensitivityUnitsSequence=[item(CodeValue=unit, CodingSchemeDesignator="UCUM")],
                ChannelSensitivityCorrectionFactor="2",
                ChannelBaseline="10",
            )
            for code, scheme, meaning in (
                ("2:1", "MDC", "one"),
                ("5.6.3-9-2", "SCPECG", "two"),
                ("x", "99", "Lead V1"),
            )
        ]
        return item(
            WaveformOriginality="ORIGINAL" if label == "RHYTHM" else "DERIVED",
            MultiplexGroupLabel=label,
            NumberOfWaveformChannels=3,
            NumberOfWaveformSamples=raw.shape[1],
            SamplingFrequency="250",
            ChannelDefinitionSequence=channels,
            WaveformBitsAllocated=16,
            WaveformSampleInterpretation="SS",
            WaveformData=raw.T.astype("<i2").tobytes(),
        )

    raw = np.rint(1000 * SIGNAL) - 10
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = TwelveLeadECGWaveformStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid(entropy_srcs=["test"])
    dataset.WaveformSequence = [group("MEDIAN BEAT", np.zeros((3, 2000))), group("RHYTHM", raw)]
    dataset.save_as(folder / "ecg.bin", enforce_file_format=True)
    return folder / "ecg.bin"


def write_edf(folder: Path, labels: tuple[str, ...] = ("ECG I", "EKG II", "v1"), bdf: bool = False) -> Path:
    import edfio

    make_signal, make_file = (edfio.BdfSignal, edfio.Bdf) if bdf else (edfio.EdfSignal, edfio.Edf)
    signals = [
        make_signal(1000 * lead, RATE, label=label, physical_dimension="uV", physical_range=(-3200, 3200))
        for lead, label in zip(SIGNAL, labels, strict=True)
    ]
    signals.insert(1, make_signal(np.zeros(300), 100, label="SaO2", physical_dimension="%", physical_range=(0, 100)))
    signals.append(make_signal(np.zeros(750), RATE, label="EEG Fp1", physical_dimension="uV", physical_range=(-1, 1)))
    path = folder / "ecg.rec"
    make_file(signals).write(path)
    return path


APPLE = {
    "en": ('Name,A B\nDate of Birth,"Jan 1, 1970"\nDevice,"Watch7,12"\nSample Rate,{} hertz\n', "250", "."),
    "de": ("Name,A B\nGeburtsdatum,01.01.1970\nSoftwareversion,1.90\nAbtastrate,{} Hertz\n", "250,000", ","),
    "ru": ('Имя,А Б\nДата рождения,"8 янв. 1970 г."\nКлассификация,x\nВерсия,1.90\nЧастота,{} герц\n', "250", ","),
    "th": ("ชื่อ,A\nวันเกิด,1/1/1970\nประเภท,x\nเวอร์ชั่น,1.90\nอัตราการสุ่มตัวอย่าง,{} เฮิรตซ์\n", "250", "."),
    "zh": ('姓名,测试\n出生日期,"1970年1月1日"\n软件版本,1.90\n采样率,{}赫兹\n', "250", "."),
}


def write_apple(folder: Path, language: str = "en") -> Path:
    header, rate, point = APPLE[language]
    samples = "\n".join(f"{1000 * value:.3f}".replace(".", point) for value in SIGNAL[0])
    path = folder / "ecg.txt"
    unit = {"ru": "мкВ", "th": "ไมโครโวลต์"}.get(language, "µV")
    path.write_text(f"{header.format(rate)}\n\nLead,Lead I\nUnit,{unit}\n\n\n{samples}\n", encoding="utf-8")
    return path


def write_csv(folder: Path, header: str = "I,ii,ECG V1\n", delimiter: str = ",", point: str = ".") -> Path:
    path = folder / "ecg.data"
    rows = [delimiter.join(f"{value:.3f}".replace(".", point) for value in row) for row in SIGNAL.T]
    path.write_text(header + "\n".join(rows) + "\n", encoding="utf-8")
    return path


def write_npy(folder: Path, array: np.ndarray = SIGNAL) -> Path:
    path = folder / "ecg.npy"
    np.save(path, array)
    return path


WRITERS: dict[str, Callable[[Path], Path]] = {
    "wfdb": write_wfdb,
    "dicom": write_dicom,
    "edf": write_edf,
    "bdf": lambda folder: write_edf(folder, bdf=True),
    "apple_watch": write_apple,
    "csv": write_csv,
    "npy": write_npy,
}


def given_rate(form: str) -> float | None:
    return RATE if form in ("csv", "npy") else None


@pytest.mark.parametrize("form", WRITERS)
def test_reads_every_format_by_content(form: str, tmp_path: Path) -> None:
    ecg = read_ecg(WRITERS[form](tmp_path), sampling_rate_hz=given_rate(form))
    names = {"apple_watch": ("I",), "npy": ("lead_1", "lead_2", "lead_3")}.get(form, LEADS)
    assert (ecg.format, ecg.leads, ecg.sampling_rate_hz, ecg.num_samples) == (form, names, RATE, 750)
    assert ecg.start_s == 0
    # EDF stores 6400 uV in 16 bits: half a step is 0.05 uV
    np.testing.assert_allclose(ecg.samples_mv, SIGNAL[: len(names)], atol=1e-4)


@pytest.mark.parametrize("form", WRITERS)
def test_reads_the_beginning_only(form: str, tmp_path: Path) -> None:
    path = WRITERS[form](tmp_path)
    whole = read_ecg(path, sampling_rate_hz=given_rate(form))
    part = read_ecg(path, sampling_rate_hz=given_rate(form), max_duration_s=1.2)
    np.testing.assert_array_equal(part.samples_mv, whole.samples_mv[:, :300])
    assert read_ecg(path, sampling_rate_hz=given_rate(form), max_duration_s=99).num_samples == 750


@pytest.mark.parametrize("name", ["rec.hea", "rec.dat", "rec"])
def test_a_record_has_three_names(name: str, tmp_path: Path) -> None:
    write_wfdb(tmp_path)
    assert read_ecg(tmp_path / name).leads == LEADS


def test_wfdb_units_and_other_channels(tmp_path: Path) -> None:
    path = write_wfdb(
        tmp_path, units=["uV", "mmHg", "mV"], sig_name=["mlii", "ABP", "MLII"], adc_gain=[1.0, 1000.0, 1000.0]
    )
    ecg = read_ecg(path)
    assert ecg.leads == ("MLII", "MLII_2")
    np.testing.assert_allclose(ecg.samples_mv[0], np.rint(SIGNAL[0]) / 1000, atol=1e-6)
    np.testing.assert_allclose(ecg.samples_mv[1], SIGNAL[2], atol=1e-4)


def test_multi_segment_record(tmp_path: Path) -> None:
    write_wfdb(tmp_path, "a")
    write_wfdb(tmp_path, "b")
    (tmp_path / "all.hea").write_text("all/2 3 250 1500\na 750\nb 750\n")
    np.testing.assert_allclose(read_ecg(tmp_path / "all").samples_mv, np.hstack([SIGNAL, SIGNAL]), atol=1e-4)
    (tmp_path / "b.dat").unlink()
    with pytest.raises(InputError, match="b.dat: no such file"):
        read_ecg(tmp_path / "all")


@pytest.mark.parametrize(("unit", "factor"), [("uV", 1e-3), ("mV", 1.0), ("V", 1e3)])
def test_dicom_units(unit: str, factor: float, tmp_path: Path) -> None:
    np.testing.assert_allclose(read_ecg(write_dicom(tmp_path, unit)).samples_mv, 1000 * SIGNAL * factor, rtol=1e-5)


@pytest.mark.parametrize("language", APPLE)
def test_apple_in_any_language(language: str, tmp_path: Path) -> None:
    ecg = read_ecg(write_apple(tmp_path, language))
    assert (ecg.sampling_rate_hz, ecg.leads, ecg.format) == (RATE, ("I",), "apple_watch")
    np.testing.assert_allclose(ecg.samples_mv, SIGNAL[:1], atol=1e-6)


@pytest.mark.parametrize(
    ("header", "delimiter", "point", "leads"),
    [
        ("", ",", ".", ("lead_1", "lead_2", "lead_3")),
        ("", " ", ".", ("lead_1", "lead_2", "lead_3")),
        ("", "\t", ".", ("lead_1", "lead_2", "lead_3")),
        ("", ";", ",", ("lead_1", "lead_2", "lead_3")),
        ("# by hand\n", ",", ".", ("lead_1", "lead_2", "lead_3")),
        ("'I';II;\"V1\"\n", ";", ",", LEADS),
        ("time,AVR,avr\n", ",", ".", ("aVR", "aVR_2")),
    ],
)
def test_csv_dialects(header: str, delimiter: str, point: str, leads: tuple[str, ...], tmp_path: Path) -> None:
    ecg = read_ecg(write_csv(tmp_path, header, delimiter, point), sampling_rate_hz=RATE)
    assert ecg.leads == leads
    np.testing.assert_allclose(ecg.samples_mv, SIGNAL[3 - len(leads) :], atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "leads"), [((750,), ("lead_1",)), ((750, 12), STANDARD_LEADS), ((12, 750), STANDARD_LEADS)]
)
def test_npy_shapes(shape: tuple[int, ...], leads: tuple[str, ...], tmp_path: Path) -> None:
    array = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
    ecg = read_ecg(write_npy(tmp_path, array), sampling_rate_hz=RATE)
    assert ecg.leads == leads
    rows = array[None] if array.ndim == 1 else array if array.shape[1] == 750 else array.T
    np.testing.assert_array_equal(ecg.samples_mv, rows)


def test_leads_name_columns_or_choose(tmp_path: Path) -> None:
    table = write_csv(tmp_path, header="a,b,c\n")
    assert read_ecg(table, sampling_rate_hz=RATE, leads=("V6", "avl", "Lead I")).leads == ("V6", "aVL", "I")
    with pytest.raises(InputError, match="2 lead names given for 3 columns"):
        read_ecg(table, sampling_rate_hz=RATE, leads=("I", "II"))
    record = write_wfdb(tmp_path)
    chosen = read_ecg(record, leads=("v1", "I"))
    np.testing.assert_array_equal(chosen.samples_mv, read_ecg(record).samples_mv[[2, 0]])
    with pytest.raises(InputError, match="no lead 'aVF'"):
        read_ecg(record, leads=("AVF",))


def replaced(write: Callable[[Path], Path], old: bytes, new: bytes) -> Callable[[Path], Path]:
    """The file with one piece of its content replaced."""

    def make(folder: Path) -> Path:
        path = write(folder)
        content = path.read_bytes()
        assert old in content
        path.write_bytes(content.replace(old, new, 1))
        return path

    return make


def cut(write: Callable[[Path], Path], size: int, suffix: str | None = None) -> Callable[[Path], Path]:
    """The file, or its neighbour of that suffix, without its last bytes."""

    def make(folder: Path) -> Path:
        path = write(folder)
        target = path.with_suffix(suffix) if suffix else path
        target.write_bytes(target.read_bytes()[:-size])
        return path

    return make


def text(content: str | bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / "file.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return make


def without_signal_file(folder: Path) -> Path:
    path = write_wfdb(folder)
    path.with_suffix(".dat").unlink()
    return path


def lonely_signal_file(folder: Path) -> Path:
    path = write_wfdb(folder)
    path.unlink()
    return path.with_suffix(".dat")


def no_waveform(folder: Path) -> Path:
    import pydicom

    path = write_dicom(folder)
    dataset = pydicom.dcmread(path)
    del dataset.WaveformSequence
    dataset.save_as(path)
    return path


def edf_field(start: int, value: bytes) -> Callable[[Path], Path]:
    """An EDF file with one of the 8-byte numbers of its header overwritten."""

    def make(folder: Path) -> Path:
        path = write_edf(folder)
        content = bytearray(path.read_bytes())
        content[start : start + 8] = value.ljust(8)
        path.write_bytes(content)
        return path

    return make


NUMBERS = "0.1\n" * 500
BAD: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (lambda folder: folder / "no.csv", "no such file"),
    "folder": (lambda folder: folder, "no ECG of a watch"),
    "empty": (text(""), "is empty"),
    "blank": (text("\n \n"), "is empty"),
    "unknown text": (text("an ECG\n" * 50), "unknown format"),
    "unknown XML": (text("<xml>ECG</xml>\n" * 50), "XML with the root 'xml'"),
    "unknown bytes": (text(bytes(range(256)) * 9), "unknown format"),
    "matlab 5": (text(b"MATLAB 5.0 MAT-file" + bytes(500)), "no matrix|damaged"),
    "wfdb without signal file": (without_signal_file, "rec.dat: no such file"),
    "wfdb without header": (lonely_signal_file, "needs its .hea"),
    "wfdb cut": (cut(write_wfdb, 7, ".dat"), "cut short: 748 samples"),
    "wfdb absurd length": (replaced(write_wfdb, b" 250 750", b" 250 750000000000"), "cut short"),
    "wfdb absurd channels": (replaced(write_wfdb, b"rec 3 ", b"rec 999999999 "), "999999999 channels"),
    "wfdb no rate": (replaced(write_wfdb, b" 3 250 ", b" 3 0 "), "sampling rate"),
    "wfdb other folder": (replaced(write_wfdb, b"\nrec.dat", b"\n../rec.dat"), "damaged"),
    "wfdb other format": (replaced(write_wfdb, b"rec.dat 16 ", b"rec.dat 99 "), "not supported"),
    "wfdb header misnamed": (lambda folder: write_wfdb(folder).rename(folder / "rec.txt"), "must end in .hea"),
    "wfdb short": (lambda folder: write_wfdb(folder, p_signal=SIGNAL.T[:200]), "0.80 s"),
    "dicom cut": (cut(write_dicom, 100), "damaged|cut short"),
    "dicom cut early": (cut(write_dicom, 15000), "damaged|cut short|no waveform"),
    "dicom no waveform": (no_waveform, "holds no waveform"),
    "dicom unit": (lambda folder: write_dicom(folder, "mm[Hg]"), "no channel of the waveform is in volts"),
    "edf cut": (cut(write_edf, 10), "cut short"),
    "edf header cut": (text(b"0       " + b" " * 100), "cut short"),
    "edf no ecg": (lambda folder: write_edf(folder, ("EMG", "EOG", "Resp")), "no ECG channel"),
    "edf absurd records": (edf_field(236, b"99999999"), "cut short"),
    "edf no record length": (edf_field(244, b"0"), "records of 0 s"),
    "edf damaged number": (edf_field(244, b"x"), "where a number belongs"),
    "edf gaps": (edf_field(192, b"EDF+D"), "without the annotations"),
    "apple not a number": (replaced(write_apple, b"V\n\n\n", b"V\n\n1.5\nnoise\n"), "line 11 is 'noise'"),
    "apple no samples": (cut(write_apple, 6000), "expected at least one lead"),
    "csv not a number": (text(NUMBERS + "x\n" + NUMBERS), "not a table of numbers"),
    "csv ragged": (text("1,2\n" * 400 + "1\n"), "not a table of numbers"),
    "csv names": (text("I,II\n" + NUMBERS), "2 names in the first line for 1 columns"),
    "csv nan": (text(NUMBERS + "nan\n"), "NaN or infinite"),
    "csv inf": (text(NUMBERS + "-inf\n"), "NaN or infinite"),
    "csv short": (text("0.1\n" * 200), "0.80 s"),
    "csv too wide": (text((",".join(["1"] * 65) + "\n") * 300), "65 leads"),
    "npy cut": (cut(write_npy, 8), "damaged"),
    "npy objects": (lambda folder: write_npy(folder, np.array([{}] * 500)), "damaged"),
    "npy complex": (lambda folder: write_npy(folder, np.ones(500, dtype=complex)), "expected real numbers"),
    "npy cube": (lambda folder: write_npy(folder, np.ones((9, 9, 9))), "expected real numbers"),
    "npy nan": (lambda folder: write_npy(folder, np.full(500, np.nan)), "NaN or infinite"),
    "npy absurd size": (replaced(write_npy, b"(3, 750)", b"(3, 9e9)"), "damaged"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_refused_in_one_line(case: str, tmp_path: Path) -> None:
    write, message = BAD[case]
    path = write(tmp_path)
    rate = RATE if path.suffix in (".csv", ".npy") else None
    with pytest.raises(InputError, match=message) as caught:
        read_ecg(path, sampling_rate_hz=rate)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith((str(tmp_path), "file.csv", "rec.", "ecg.", "ECG"))


@pytest.mark.parametrize("form", ["csv", "npy"])
def test_a_table_needs_a_rate(form: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="give it with --rate"):
        read_ecg(WRITERS[form](tmp_path))


def test_bad_arguments(tmp_path: Path) -> None:
    table, record = write_csv(tmp_path), write_wfdb(tmp_path)
    for rate in (0.0, -250.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="expected a positive number"):
            read_ecg(table, sampling_rate_hz=rate)
    for rate in (1.0, 1e6):
        with pytest.raises(InputError, match="expected 40 to 100000 Hz|expected at least"):
            read_ecg(table, sampling_rate_hz=rate)
    for duration_s in (0.5, -1.0, float("nan")):
        with pytest.raises(InputError, match="at least 1 second"):
            read_ecg(table, sampling_rate_hz=RATE, max_duration_s=duration_s)
    with pytest.raises(InputError, match="leave out --rate"):
        read_ecg(record, sampling_rate_hz=500)
    assert read_ecg(record, sampling_rate_hz=RATE).sampling_rate_hz == RATE
