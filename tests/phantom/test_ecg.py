"""The 12 leads: Einthoven, R peaks where the truth says, waves that belong to the rhythm."""

from collections.abc import Callable

import numpy as np
import pytest

from echopulse.axes import STANDARD_LEADS
from echopulse.phantom.ecg import EcgNoise, EcgShape, render_ecg
from echopulse.phantom.rhythm import Beats
from echopulse.signals import PairedClip
from echopulse.signals.processing import detect_r_peaks

Record = Callable[..., PairedClip]
QUIET = EcgNoise(baseline_mv=0.0, muscle_mv=0.0)


def _one_beat(kind: str = "sinus", p_onset_s: float = 0.8, **shape: float) -> dict[str, np.ndarray]:
    beats = Beats(*(np.array([x]) for x in (1.0, p_onset_s, 1.34, 0.9)), kinds=(kind,))  # type: ignore[arg-type]
    ecg = render_ecg(np.random.default_rng(0), beats, EcgShape(**shape), QUIET, start_s=0.0, duration_s=2.0)
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


def test_wide_beats_are_wider() -> None:
    def width(kind: str) -> float:
        speed = np.abs(np.gradient(np.stack(list(_one_beat(kind).values())), axis=1)).sum(0)[400:560]
        return (
            float(
                np.flatnonzero(speed > 0.08 * speed.max()).ptp()
                if False
                else np.ptp(np.flatnonzero(speed > 0.08 * speed.max()))
            )
            / 500
        )

    narrow = width("sinus")
    assert all(width(kind) > 1.25 * narrow for kind in ("lbbb", "pvc"))


def test_shape_scales_its_waves() -> None:
    base = _one_beat()["II"]
    assert _one_beat(voltage=2.0)["II"].max() == pytest.approx(2 * base.max(), rel=0.02)
    inverted = _one_beat(t_amplitude=-1.0)["II"]
    assert _swing(inverted, 1.15, 1.4) == pytest.approx(-_swing(base, 1.15, 1.4), rel=0.05)
    assert _swing(_one_beat(p_amplitude=2.0)["II"], 0.8, 0.9) == pytest.approx(2 * _swing(base, 0.8, 0.9), rel=0.05)


def test_noise_is_as_loud_as_asked_for() -> None:
    beats = Beats(*(np.array([x]) for x in (1000.0, 999.8, 1000.3, 0.9)), kinds=("sinus",))
    noise = EcgNoise(baseline_mv=0.0, muscle_mv=0.02, mains_mv=0.1, mains_hz=60.0)
    ecg = render_ecg(np.random.default_rng(0), beats, EcgShape(), noise, start_s=0.0, duration_s=20.0)
    spectrum = np.abs(np.fft.rfft(ecg.lead("V3"))) * 2 / ecg.num_samples
    assert spectrum.argmax() / 20 == 60
    assert spectrum.max() == pytest.approx(0.1, rel=0.1)
    spectrum[spectrum.argmax()] = 0  # the hum is one line; what is left is muscle noise
    assert np.sqrt(np.sum(spectrum**2) / 2) == pytest.approx(0.02, rel=0.15)
