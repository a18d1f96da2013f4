"""The 12 leads: Einthoven, R peaks where the truth says, waves that belong to the rhythm."""

from collections.abc import Callable

import numpy as np
import pytest

from echopulse.axes import STANDARD_LEADS
from echopulse.phantom import sample_patient, simulate_ecg
from echopulse.phantom.ecg import EcgShape, render_ecg
from echopulse.phantom.patient import patient_beats
from echopulse.phantom.rhythm import Beats
from echopulse.signals import PairedClip
from echopulse.signals.processing import detect_r_peaks

Record = Callable[..., PairedClip]


def _one_beat(kind: str = "sinus", p_onset_s: float = 0.8, **shape: float) -> dict[str, np.ndarray]:
    beats = Beats(*(np.array([x]) for x in (1.0, p_onset_s, 1.34, 0.9)), kinds=(kind,))  # type: ignore[arg-type]
    ecg = render_ecg(beats, EcgShape(**shape), start_s=0.0, duration_s=2.0)
    return {name: ecg.lead(name) for name in STANDARD_LEADS}


def _swing(samples: np.ndarray, start_s: float, end_s: float) -> float:
    piece = samples[round(start_s * 500) : round(end_s * 500)]
    return float(piece[np.abs(piece).argmax()])


@pytest.mark.parametrize("rhythm", ["sinus", "af", "pvc", "lbbb", "paced"])
def test_limb_leads_satisfy_einthoven_and_goldberger(record: Record, rhythm: str) -> None:
    ecg = record(1, rhythm).clip.ecg
    assert ecg is not None and ecg.leads == STANDARD_LEADS and ecg.sampling_rate_hz == 500
    one, two, three = ecg.lead("I"), ecg.lead("II"), ecg.lead("III")
    np.testing.assert_allclose(two, one + three, atol=1e-3)
    np.testing.assert_allclose(ecg.lead("aVR"), -(one + two) / 2, atol=1e-3)
    np.testing.assert_allclose(ecg.lead("aVL"), (one - three) / 2, atol=1e-3)
    np.testing.assert_allclose(ecg.lead("aVF"), (two + three) / 2, atol=1e-3)
    assert 0.5 < np.ptp(two) < 5


@pytest.mark.parametrize("seed", range(6))
def test_detector_finds_the_r_peaks_of_sinus_patients(record: Record, seed: int) -> None:
    paired = record(seed, "sinus")
    truth, found = np.array(paired.truth["r_times_s"]), detect_r_peaks(paired.clip.ecg)
    away = np.abs(truth[:, None] - found[None, :]).min(axis=1)
    assert np.mean(away <= 0.03) >= 0.95
    inside = found[(found > truth[0] - 0.1) & (found < truth[-1] + 0.1)]
    assert len(inside) <= 1.05 * len(truth), "beats that are not there"


def test_waves_stand_where_the_beat_says() -> None:
    two = _one_beat()["II"]
    assert two.argmax() / 500 == pytest.approx(1.0, abs=0.006)
    assert 0.05 < _swing(two, 0.8, 0.9) < 0.3, "P"
    t_wave = two[round(1.12 * 500) :]
    assert t_wave.argmax() / 500 + 1.12 == pytest.approx(1.34 - 2.2 * 0.036, abs=0.006)
    assert np.abs(two[round(1.36 * 500) :]).max() < 0.05 * t_wave.max(), "the T wave has ended"
    assert np.abs(two[: round(0.75 * 500)]).max() < 1e-3, "nothing before P"


def test_beat_without_p_wave_has_none() -> None:
    assert abs(_swing(_one_beat(p_onset_s=float("nan"))["II"], 0.7, 0.94)) < 1e-3


def test_r_wave_grows_over_the_chest() -> None:
    leads = _one_beat()
    assert _swing(leads["V1"], 0.94, 1.06) < 0 < _swing(leads["V5"], 0.94, 1.06)
    assert leads["V4"].max() > leads["V2"].max() > leads["V1"].max()


def _qrs_ms(kind: str, **shape: float) -> float:
    """Where the spatial velocity exceeds 6 % of its peak, pacing spike left out."""
    speed = np.linalg.norm(np.diff(np.stack(list(_one_beat(kind, float("nan"), **shape).values())), axis=1), axis=0)
    speed[:465] = 0 if kind == "paced" else speed[:465]
    return float(2 * np.ptp(np.flatnonzero(speed[400:560] > 0.06 * speed.max())))


@pytest.mark.parametrize("width", [0.85, 1.0, 1.25])
def test_qrs_lasts_as_long_as_its_kind_says(width: float) -> None:
    assert 70 <= _qrs_ms("sinus", qrs_width=width) <= 120
    assert all(_qrs_ms(kind, qrs_width=width) > 120 for kind in ("lbbb", "paced", "pvc"))
    assert _qrs_ms("sinus", qrs_width=1.2 * width) == pytest.approx(1.2 * _qrs_ms("sinus", qrs_width=width), abs=5)


@pytest.mark.parametrize("kind", ["sinus", "af", "lbbb", "paced", "pvc"])
@pytest.mark.parametrize("axis_rad", [-0.45, -0.22, 0.0])
def test_largest_deflection_stands_at_r(kind: str, axis_rad: float) -> None:
    """In the leads in which beats are looked for: II, and I where it is not isoelectric."""
    leads = _one_beat(kind, float("nan"), axis_rad=axis_rad)
    for name in ("I", "II"):
        size = np.abs(leads[name][400:600])
        if size.max() > 0.3:
            assert abs(2 * size.argmax() - 200) <= 8, name


def test_shape_scales_its_waves() -> None:
    base = _one_beat()["II"]
    assert _one_beat(voltage=2.0)["II"].max() == pytest.approx(2 * base.max(), rel=0.02)
    assert _one_beat(t_amplitude=-0.4)["V6"][550:680].min() < -0.05, "inverted T in the lateral leads"
    assert _one_beat(t_amplitude=-0.4)["V2"][550:680].max() > 0.1, "upright T in V2"
    assert _swing(_one_beat(p_amplitude=2.0)["II"], 0.8, 0.9) == pytest.approx(2 * _swing(base, 0.8, 0.9), rel=0.05)
    poor, good = (_one_beat(r_progression=x)["V3"].max() for x in (0.5, 1.2))
    assert good > 1.2 * poor


@pytest.mark.parametrize("kind", ["sinus", "af", "lbbb", "paced", "pvc"])
@pytest.mark.parametrize(
    "change", [dict(voltage=0.8), dict(qrs_width=1.2), dict(t_amplitude=0.2), dict(r_progression=0.6)]
)
def test_every_shape_shows_in_every_kind_of_beat(kind: str, change: dict[str, float]) -> None:
    """Otherwise the EF would be hidden in some rhythm."""
    base, changed = (np.stack(list(_one_beat(kind, **shape).values())) for shape in ({}, change))
    assert np.abs(changed - base).max() > 0.04


# other people's detectors -----------------------------------------------------------------------------


def _found(marks_s: np.ndarray, r_s: np.ndarray) -> float:
    return float(np.mean(np.abs(r_s[:, None] - marks_s).min(axis=1) <= 0.02))


@pytest.mark.parametrize(("device", "lead"), [("clean", "II"), ("clean", "I"), ("hospital", "II"), ("watch", "I")])
def test_public_detectors_find_the_r_peaks(device: str, lead: str) -> None:
    """NeuroKit2 and wfdb's XQRS as they come; `benchmarks/phantom_ecg.py` measures 100 patients."""
    neurokit2 = pytest.importorskip("neurokit2")
    processing = pytest.importorskip("wfdb.processing")
    shares = []
    for seed in range(4):
        patient = sample_patient(seed, rhythm="sinus")
        ecg = simulate_ecg(patient, duration_s=15.0, device=device)
        x, rate = ecg.lead(lead).astype(np.float64), int(ecg.sampling_rate_hz)
        r_s = patient_beats(patient).r_s
        r_s = r_s[(r_s > 0.3) & (r_s < 14.7)]
        _, found = neurokit2.ecg_peaks(neurokit2.ecg_clean(x, sampling_rate=rate), sampling_rate=rate)
        detector = processing.XQRS(sig=x, fs=rate)
        detector.detect(verbose=False)
        shares += [_found(np.asarray(found["ECG_R_Peaks"]) / rate, r_s), _found(detector.qrs_inds / rate, r_s)]
    assert min(shares) >= 0.9 and np.mean(shares) >= 0.99


@pytest.mark.parametrize("rhythm", ["af", "pvc", "lbbb", "paced"])
@pytest.mark.parametrize("device", ["clean", "hospital", "watch"])
def test_own_detector_finds_every_rhythm(rhythm: str, device: str) -> None:
    """The pacing spike, 74 ms before R, is not taken for a beat."""
    for seed in range(3):
        patient = sample_patient(seed, rhythm=rhythm)
        r_s = patient_beats(patient).r_s
        r_s = r_s[(r_s > 0.3) & (r_s < 14.7)]
        found = detect_r_peaks(simulate_ecg(patient, duration_s=15.0, device=device))
        assert _found(found, r_s) >= (0.8 if rhythm == "pvc" and device == "watch" else 0.95)
        assert len(found) <= len(r_s) + 2
