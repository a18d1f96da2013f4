"""The recorders: leads, rate, band and noise as stated; fiducial times where they were."""

import numpy as np
import pytest

from echopulse.axes import STANDARD_LEADS
from echopulse.errors import InputError
from echopulse.phantom import DEVICES, record_ecg, sample_patient, simulate_clip, simulate_ecg
from echopulse.phantom.devices import CLEAN, HOSPITAL, EcgDevice, EcgNoise
from echopulse.phantom.patient import patient_beats
from echopulse.signals import EcgSignal

SILENT = EcgNoise()


def _tones(*frequencies: float, duration_s: float = 40.0) -> EcgSignal:
    """The same sum of tones of 1 mV in every independent lead."""
    times = np.arange(round(duration_s * 500)) / 500
    wave = np.sum([np.sin(2 * np.pi * f * times) for f in frequencies], axis=0)
    return EcgSignal(np.tile(wave, (12, 1)), STANDARD_LEADS, 500.0)


def _amplitude(ecg: EcgSignal, lead: str, frequency: float) -> complex:
    """Of one tone, from the middle half; its angle is 0 where the tone has not moved."""
    middle = (ecg.times_s > 0.25 * ecg.duration_s) & (ecg.times_s < 0.75 * ecg.duration_s)
    return complex(2j * np.mean(ecg.lead(lead)[middle] * np.exp(-2j * np.pi * frequency * ecg.times_s[middle])))


@pytest.mark.parametrize(
    ("name", "leads", "rate"),
    [
        ("clean", STANDARD_LEADS, 500.0),
        ("hospital", STANDARD_LEADS, 500.0),
        ("watch", ("I",), 512.0),
        ("holter", ("II", "V1", "V5"), 250.0),
    ],
)
def test_devices_are_what_they_say(name: str, leads: tuple[str, ...], rate: float) -> None:
    ecg = simulate_ecg(sample_patient(3), start_s=-1.0, duration_s=4.0, device=name)
    assert ecg.leads == leads and ecg.sampling_rate_hz == rate
    assert ecg.start_s == -1 and ecg.num_samples == 4 * rate


@pytest.mark.parametrize("name", ["hospital", "watch", "holter"])
def test_band_edges_halve_the_power_and_move_nothing(name: str) -> None:
    device = DEVICES[name]
    assert device.band_hz is not None
    low, high = device.band_hz
    ecg = record_ecg(_tones(0.5, 8.0, high), device, np.random.default_rng(0), SILENT)
    lead = device.leads[0]
    assert abs(_amplitude(ecg, lead, 8.0)) == pytest.approx(1.0, abs=0.02)
    assert abs(_amplitude(ecg, lead, high)) == pytest.approx(np.sqrt(0.5), abs=0.04)
    assert np.angle(_amplitude(ecg, lead, 8.0)) == pytest.approx(0.0, abs=0.01)
    assert abs(_amplitude(ecg, lead, 0.5)) == pytest.approx(0.5 / np.hypot(0.5, low), abs=0.02)


@pytest.mark.parametrize("name", ["hospital", "watch", "holter"])
def test_r_peaks_stay_in_place(name: str) -> None:
    """Within 4 ms, a sample of the slowest device, without its noise."""
    patient = sample_patient(5, rhythm="sinus")
    skin = simulate_ecg(patient, duration_s=10.0, device="clean")
    ecg = record_ecg(skin, name, np.random.default_rng(0), SILENT)
    r_s = patient_beats(patient).r_s
    for r in r_s[(r_s > 1) & (r_s < 9)]:
        near = np.abs(ecg.times_s - r) < 0.06
        assert abs(ecg.times_s[near][ecg.samples_mv[0][near].argmax()] - r) <= 0.0041


def test_noise_is_as_loud_as_asked_for() -> None:
    flat = EcgSignal(np.zeros((12, 10_000)), STANDARD_LEADS, 500.0)
    noise = EcgNoise(muscle_mv=0.02, mains_mv=0.1, mains_hz=60.0)
    ecg = record_ecg(flat, CLEAN, np.random.default_rng(0), noise)
    spectrum = np.abs(np.fft.rfft(ecg.lead("V3"))) * 2 / ecg.num_samples
    assert spectrum.argmax() / 20 == 60
    assert spectrum.max() == pytest.approx(0.1, rel=0.1)
    spectrum[spectrum.argmax()] = 0  # the hum is one line; what is left is muscle noise
    assert np.sqrt(np.sum(spectrum**2) / 2) == pytest.approx(0.02, rel=0.15)
    moved = record_ecg(flat, CLEAN, np.random.default_rng(0), EcgNoise(motion_mv=0.3, motion_per_min=30.0))
    assert 0.1 < np.abs(moved.samples_mv).max() < 3
    wander = record_ecg(flat, CLEAN, np.random.default_rng(0), EcgNoise(baseline_mv=0.1)).lead("V3")
    assert wander.std() > 0.02 and np.abs(np.diff(wander)).max() < 0.003


def test_holter_is_noisier_than_the_hospital_and_clean_is_clean() -> None:
    patient = sample_patient(4, rhythm="sinus")
    skin = simulate_ecg(patient, duration_s=20.0, device="clean")

    def noise(name: str) -> float:
        ecg = simulate_ecg(patient, duration_s=20.0, device=name)
        silent = record_ecg(skin, name, np.random.default_rng(0), SILENT)
        return float(np.std(ecg.lead(ecg.leads[0]) - silent.lead(ecg.leads[0])))

    assert noise("clean") == 0
    assert 0.003 < noise("hospital") < 0.5 * noise("holter")


def test_limb_leads_agree_after_recording() -> None:
    ecg = simulate_ecg(sample_patient(2), device="hospital")
    np.testing.assert_allclose(ecg.lead("II"), ecg.lead("I") + ecg.lead("III"), atol=1e-5)
    np.testing.assert_allclose(ecg.lead("V2") / 0.005, np.round(ecg.lead("V2") / 0.005), atol=1e-3)


def test_recording_repeats_by_seed() -> None:
    skin = simulate_ecg(sample_patient(6), device="clean")
    first, again, other = (record_ecg(skin, "watch", np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first.sha256() == again.sha256() != other.sha256()


def test_clip_carries_the_ecg_of_its_device() -> None:
    patient = sample_patient(7)
    usual, watch = (
        simulate_clip(patient, fps=2.0, seconds=1.0, size=(32, 32), with_masks=False, **option)
        for option in ({}, {"device": "watch"})
    )
    assert usual.clip.ecg is not None and watch.clip.ecg is not None
    assert usual.clip.ecg.leads == STANDARD_LEADS and usual.clip.ecg.sampling_rate_hz == HOSPITAL.sampling_rate_hz
    assert watch.clip.ecg.leads == ("I",) and watch.clip.ecg.sampling_rate_hz == 512
    assert (watch.clip.ecg.start_s, watch.clip.ecg.duration_s) == (usual.clip.ecg.start_s, usual.clip.ecg.duration_s)
    assert np.array_equal(usual.clip.frames, watch.clip.frames) and usual.truth == watch.truth
    assert usual.clip.provenance["ecg_device"] == "hospital" and watch.clip.provenance["ecg_device"] == "watch"
    own = EcgDevice("two", ("V5", "aVF"), 360.0)
    assert simulate_ecg(patient, device=own).leads == ("V5", "aVF")


def test_unknown_device_and_time_are_refused() -> None:
    patient = sample_patient(0)
    with pytest.raises(InputError, match="unknown ECG device 'phone'; expected one of clean, hospital, watch, holter"):
        simulate_clip(patient, device="phone")
    for start_s, duration_s in ((-3.5, 10.0), (115.0, 10.0), (0.0, 0.5), (float("nan"), 5.0)):
        with pytest.raises(InputError, match="expected at least 1 s between -3 and 123 s"):
            simulate_ecg(patient, start_s=start_s, duration_s=duration_s)
