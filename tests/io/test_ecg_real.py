"""Real ECG files, against the reader of reference of each format; skipped where they are absent."""

from pathlib import Path

import numpy as np
import pytest

from echopulse.axes import STANDARD_LEADS
from echopulse.errors import InputError
from echopulse.io.ecg import list_recordings, read_ecg
from echopulse.signals.processing import detect_r_peaks

DATA = Path(__file__).parents[2].parent / "shared" / "data" / "ecg"
EIGHT_FIRST = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6", "III", "aVR", "aVL", "aVF")
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"{DATA} is absent")

TABLE = {
    "wfdb/100.hea": ("wfdb", ("MLII", "V5"), 360, 650000),
    "wfdb/208": ("wfdb", ("MLII", "V1"), 360, 650000),
    "wfdb/00001_lr.hea": ("wfdb", STANDARD_LEADS, 100, 1000),
    "wfdb/s0010_re.dat": ("wfdb", (*STANDARD_LEADS, "X", "Y", "Z"), 1000, 38400),
    "wfdb/E07506.mat": ("wfdb", STANDARD_LEADS, 500, 5000),
    "wfdb/JS20002.hea": ("wfdb", STANDARD_LEADS, 500, 5000),
    "wfdb/JS20016.hea": ("wfdb", STANDARD_LEADS, 500, 5000),
    "wfdb/data_92_12.hea": ("wfdb", ("I", "II"), 200, 9779),
    "dicom/waveform_ecg.dcm": ("dicom", STANDARD_LEADS, 1000, 10000),
    "dicom/example-DICOM2.dcm": ("dicom", STANDARD_LEADS, 500, 5000),
    "edf/contec_0000050.edf": ("edf", STANDARD_LEADS, 800, 37855),
    "edf/derived_ptb_s0010_10s.edf": ("edf", STANDARD_LEADS, 1000, 10000),
    "apple_watch/derived_ecg_2019-03-28_en.csv": ("apple_watch", ("I",), 510.467, 15314),
    "apple_watch/derived_ecg_2019-04-04_decimal_comma.csv": ("apple_watch", ("I",), 512, 15314),
    "apple_watch/derived_ecg_2019-04-04_zh.csv": ("apple_watch", ("I",), 512, 15314),
    "csv/heartpy_e0103_250Hz.csv": ("csv", ("lead_1",), 250, 30000),
}
NO_READER_HERE = {
    "aecg_xml/hl7_example_aECG.xml": ("aecg", EIGHT_FIRST, 500, 5000),
    "scp/scpinfo_example.scp": ("scp", EIGHT_FIRST, 500, 5000),
    "muse_xml/braveheart_example1.xml": ("muse_xml", STANDARD_LEADS, 500, 5000),
    "muse_xml/guangxi_teaching_sinus_rhythm.xml": ("muse_xml", STANDARD_LEADS, 500, 5000),
    "philips_sierra_xml/129DYPRG.XML": ("sierra_xml", STANDARD_LEADS, 500, 5000),
    "philips_sierra_xml/2020-5-18_15-48-11.xml": ("sierra_xml", STANDARD_LEADS, 500, 5000),
    "cardiosoft_xml/example-XML1.xml": ("cardiosoft_xml", STANDARD_LEADS, 500, 5000),
    "ishne/derived_mitdb208_120s.ecg": ("ishne", ("II", "V1"), 360, 43200),
    "mat/A1980.mat": ("mat", STANDARD_LEADS, 500, 5000),
}
# Sample 1234 and standard deviation of two leads in mV: ecgdatakit 2.0.3; of CardioSoft its own text.
PINNED = {
    "aecg_xml/hl7_example_aECG.xml": {"V5": (-0.0725, 0.11285), "aVF": (-0.0625, 0.14956)},
    "scp/scpinfo_example.scp": {"V5": (-0.0725, 0.11285), "aVF": (-0.0625, 0.14956)},
    "muse_xml/braveheart_example1.xml": {"II": (-0.02928, 0.1879), "V6": (-0.05368, 0.18743)},
    "muse_xml/guangxi_teaching_sinus_rhythm.xml": {"II": (0.3416, 0.27281), "V6": (0.10248, 0.32764)},
    "philips_sierra_xml/129DYPRG.XML": {"II": (0.005, 0.17057), "V6": (0.03, 0.10011)},
    "philips_sierra_xml/2020-5-18_15-48-11.xml": {"II": (0.43, 0.12911), "V6": (-0.16, 0.20387)},
    "cardiosoft_xml/example-XML1.xml": {"II": (0.09, 0.14652), "V5": (0.04, 0.20524)},
    "ishne/derived_mitdb208_120s.ecg": {"V1": (0.045, 0.2964)},
}


def reference_mv(path: Path, form: str) -> np.ndarray:
    """The same samples by the reference reader, called directly."""
    if form == "wfdb":
        import wfdb

        return wfdb.rdrecord(str(path.with_suffix(""))).p_signal.T
    if form == "dicom":
        import pydicom

        return pydicom.dcmread(path).waveform_array(0).T / 1000
    if form == "edf":
        import edfio

        return np.stack([signal.data for signal in edfio.read_edf(path).signals])
    numbers = [line.replace(",", ".") for line in path.read_text(encoding="utf-8").splitlines()]
    samples = [float(line) for line in numbers if line.strip().lstrip("-").replace(".", "", 1).isdigit()]
    return np.array(samples)[None] / (1000 if form == "apple_watch" else 1)


@pytest.mark.parametrize("name", TABLE | NO_READER_HERE)
def test_leads_rate_and_length(name: str) -> None:
    form, leads, rate, samples = (TABLE | NO_READER_HERE)[name]
    ecg = read_ecg(DATA / name, sampling_rate_hz={"csv": 250.0, "mat": 500.0}.get(form))
    assert (ecg.format, ecg.leads, ecg.sampling_rate_hz, ecg.num_samples) == (form, leads, rate, samples)
    assert ecg.gaps_s == ()


@pytest.mark.parametrize("name", TABLE)
def test_samples_equal_the_reference_reader(name: str) -> None:
    form = TABLE[name][0]
    ecg = read_ecg(DATA / name, sampling_rate_hz=250 if form == "csv" else None)
    assert np.abs(ecg.samples_mv - reference_mv(DATA / name, form)).max() < 1e-3


@pytest.mark.parametrize("name", PINNED)
def test_samples_equal_another_reader(name: str) -> None:
    ecg = read_ecg(DATA / name)
    for lead, (sample, deviation) in PINNED[name].items():
        assert ecg.lead(lead)[1234] == pytest.approx(sample, abs=1e-5)
        assert ecg.lead(lead).astype(np.float64).std() == pytest.approx(deviation, abs=1e-5)


def test_the_derived_holter_equals_its_source() -> None:
    holter, source = read_ecg(DATA / "ishne/derived_mitdb208_120s.ecg"), read_ecg(DATA / "wfdb/208")
    np.testing.assert_allclose(holter.samples_mv, source.samples_mv[:, :43200], atol=1e-3)


@pytest.mark.parametrize(
    ("name", "message"), [("scp/healforce_62.SCP", "not valid SCP-ECG"), ("mat/A1980.mat", "give it with --rate")]
)
def test_refused_in_one_line(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_ecg(DATA / name)
    assert "\n" not in str(caught.value)


def test_a_folder_of_recordings() -> None:
    assert len(list_recordings(DATA / "apple_watch")) == 3


@pytest.mark.parametrize("record", ["100", "208"])
def test_r_peaks_agree_with_the_marks(record: str) -> None:
    """At least 99 % of the normal beats, half an hour of them, within 50 ms."""
    import wfdb

    marks = wfdb.rdann(str(DATA / "wfdb" / record), "atr")
    normal_s = np.asarray(marks.sample)[np.asarray(marks.symbol) == "N"] / 360
    found_s = detect_r_peaks(read_ecg(DATA / "wfdb" / record))
    after = np.clip(np.searchsorted(found_s, normal_s), 1, found_s.size - 1)
    error_s = np.minimum(np.abs(found_s[after] - normal_s), np.abs(found_s[after - 1] - normal_s))
    assert np.mean(error_s <= 0.05) >= 0.99


def test_tall_t_waves_of_a_watch_are_no_beats() -> None:
    intervals = np.diff(detect_r_peaks(read_ecg(DATA / "apple_watch/derived_ecg_2019-03-28_en.csv")))
    assert len(intervals) == 28 and 0.95 < intervals.min() <= intervals.max() < 1.15


@pytest.mark.parametrize("lead", ["I", "II"])
def test_waves_that_a_recording_cuts_off_are_no_beats(lead: str) -> None:
    found_s = detect_r_peaks(read_ecg(DATA / "philips_sierra_xml/129DYPRG.XML").select((lead,)))
    assert len(found_s) == 6 and np.allclose(np.diff(found_s), 1.478, atol=0.01)
