"""Recordings with holes and with more than one rate; saturation; what an ECG remembers of them."""

from pathlib import Path

import numpy as np
import pytest

from echopulse.errors import InputError
from echopulse.io.ecg import read_ecg
from echopulse.signals import EcgSignal
from echopulse.signals.processing import assess_quality

RATE = 250.0
SIGNAL = np.round(np.random.default_rng(0).normal(scale=0.4, size=(3, 750)), 3)
STEPS = {"fmt": ["16"] * 3, "adc_gain": [1000.0] * 3, "baseline": [0] * 3, "units": ["mV"] * 3}
LEADS = ("I", "II", "V1")


def write_wfdb(folder: Path, name: str, samples: np.ndarray = SIGNAL, leads: tuple[str, ...] = LEADS) -> None:
    import wfdb

    steps = {key: value[: len(leads)] for key, value in STEPS.items()}
    wfdb.wrsamp(name, fs=RATE, sig_name=list(leads), p_signal=samples.T, write_dir=str(folder), **steps)


def test_missing_samples_are_bridged_and_reported(tmp_path: Path) -> None:
    samples = SIGNAL.copy()
    samples[1, 100:200] = np.nan
    samples[2, 150:300] = np.nan
    write_wfdb(tmp_path, "a", samples)
    ecg = read_ecg(tmp_path / "a")
    assert ecg.gaps_s == ((0.4, 1.2),)
    np.testing.assert_allclose(ecg.samples_mv[1, 99:201], np.linspace(SIGNAL[1, 99], SIGNAL[1, 200], 102), atol=1e-3)
    np.testing.assert_allclose(ecg.samples_mv[0], SIGNAL[0], atol=1e-6)
    assert ecg.shifted(-1.0).gaps_s == (pytest.approx((-0.6, 0.2)),)
    assert ecg.crop(0.8, 2.0).gaps_s == ((0.8, 1.2),)
    assert ecg.crop(1.2, 3.0).gaps_s == ()
    samples[0, 5:600] = np.nan
    write_wfdb(tmp_path, "b", samples)
    assert read_ecg(tmp_path / "b").notes == ("leads with few samples left out: I",)
    write_wfdb(tmp_path, "c", samples[:1], ("I",))
    with pytest.raises(InputError, match="more than half of the samples of every lead"):
        read_ecg(tmp_path / "c")


def test_segments_of_variable_layout(tmp_path: Path) -> None:
    """A layout segment names all leads; a null segment is a gap; a segment without a lead is one, too."""
    write_wfdb(tmp_path, "s1")
    write_wfdb(tmp_path, "s2", SIGNAL[:2], ("I", "II"))
    layout = "".join(f"~ 0 1000(0)/mV 16 0 0 0 0 {lead}\n" for lead in LEADS)
    (tmp_path / "all_layout.hea").write_text(f"all_layout 3 250 0\n{layout}")
    (tmp_path / "all.hea").write_text("all/5 3 250 2350\nall_layout 0\ns1 750\n~ 100\ns1 750\ns2 750\n")
    ecg = read_ecg(tmp_path / "all.hea")
    assert (ecg.leads, ecg.num_samples) == (LEADS, 2350)
    assert ecg.gaps_s == ((3.0, 3.4), (6.4, 9.4))
    np.testing.assert_allclose(ecg.samples_mv[:, 850:1600], SIGNAL, atol=1e-6)
    np.testing.assert_allclose(ecg.samples_mv[:2, 1600:], SIGNAL[:2], atol=1e-6)
    assert read_ecg(tmp_path / "all", max_duration_s=2).num_samples == 500


def test_frames_of_several_samples_keep_the_rate_of_the_ecg(tmp_path: Path) -> None:
    """One frame: four samples of lead II, one of a pressure."""
    frames = np.column_stack((np.rint(1000 * SIGNAL[0, :748]).reshape(187, 4), np.full(187, 80.0))).astype("<i2")
    (tmp_path / "m.dat").write_bytes(frames.tobytes())
    (tmp_path / "m.hea").write_text(
        "m 2 62.5 187\nm.dat 16x4 1000(0)/mV 16 0 0 0 0 II\nm.dat 16 1(0)/mmHg 16 0 0 0 0 ABP\n"
    )
    ecg = read_ecg(tmp_path / "m")
    assert (ecg.leads, ecg.sampling_rate_hz, ecg.num_samples) == (("II",), 250, 748)
    np.testing.assert_allclose(ecg.samples_mv[0], SIGNAL[0, :748], atol=1e-6)
    assert read_ecg(tmp_path / "m", max_duration_s=2).num_samples == 500


def edf_plus_d(folder: Path, onsets_s: tuple[float, ...] = (0.0, 1.0, 2.5)) -> Path:
    """EDF+D of records of one second, written byte by byte."""
    stamps = [f"+{onset:.9g}\x14\x14\x00".encode().ljust(16, b"\0") for onset in onsets_s]
    records = b"".join(
        np.rint(1000 * SIGNAL[0, 250 * number : 250 * number + 250]).astype("<i2").tobytes() + stamp
        for number, stamp in enumerate(stamps)
    )
    fields = [(16, ("ECG II", "EDF Annotations")), (80, ("", "")), (8, ("uV", "")), (8, ("-32768", "-1"))]
    fields += [(8, ("32767", "1")), (8, ("-32768", "-32768")), (8, ("32767", "32767")), (80, ("", ""))]
    fields += [(8, ("250", "8")), (32, ("", ""))]
    head = "0".ljust(8) + "X X X X".ljust(80) + "Startdate X X X X".ljust(80) + "01.01.2000.00.00"
    head += f"{768:<8}" + "EDF+D".ljust(44) + f"{len(stamps):<8}" + "1".ljust(8) + "2".ljust(4)
    head += "".join(value.ljust(size) for size, values in fields for value in values)
    path = folder / "gaps.edf"
    path.write_bytes(head.encode() + records)
    return path


def test_discontinuous_edf_is_put_on_its_clock(tmp_path: Path) -> None:
    ecg = read_ecg(edf_plus_d(tmp_path))
    assert (ecg.leads, ecg.num_samples, ecg.gaps_s) == (("II",), 875, ((2.0, 2.5),))
    np.testing.assert_allclose(ecg.samples_mv[0, :500], SIGNAL[0, :500], atol=1e-6)
    np.testing.assert_allclose(ecg.samples_mv[0, 625:], SIGNAL[0, 500:], atol=1e-6)
    assert read_ecg(edf_plus_d(tmp_path, (7.0, 8.0, 9.0))).gaps_s == ()
    with pytest.raises(InputError, match="overlap in time"):
        read_ecg(edf_plus_d(tmp_path, (0.0, 0.5, 2.0)))
    with pytest.raises(InputError, match="values are read at once"):
        read_ecg(edf_plus_d(tmp_path, (0.0, 1.0, 2e8)))
    path = edf_plus_d(tmp_path)
    path.write_bytes(path.read_bytes().replace(b"+1\x14", b"x1\x14"))
    with pytest.raises(InputError, match="1 data records have no time stamp"):
        read_ecg(path)


def test_quality_names_gaps_and_saturation() -> None:
    time = np.arange(5000) / 500
    wave = sum(np.exp(-(((time - beat) / 0.02) ** 2)) for beat in np.arange(0.5, 10))
    wave = wave + np.random.default_rng(4).normal(scale=0.005, size=5000)
    ecg = EcgSignal(wave[None], ("I",), 500.0, gaps_s=((3.0, 3.5), (7.0, 7.25)))
    assert assess_quality(ecg).verdict == "fair"
    assert assess_quality(ecg).reasons == ("gaps in the recording: 2, 0.75 s in all",)
    wide = np.clip(5 * wave, None, 1.0)
    assert assess_quality(EcgSignal(np.stack([wave, wide]), ("I", "II"), 500.0)).reasons == ("saturated leads: II",)
    assert assess_quality(EcgSignal(wave[None], ("I",), 500.0)).verdict == "good"
