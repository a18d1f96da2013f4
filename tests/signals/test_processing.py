"""Cleaning, resampling, beats, T ends and the verdict on made-up signals and on real records."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from echopulse.errors import InputError
from echopulse.signals.ecg import EcgSignal
from echopulse.signals.processing import assess_quality, clean, detect_r_peaks, detect_t_ends, resample

DATA = Path(__file__).parents[2].parent / "shared" / "data" / "ecg"
WAVES = ((-0.17, 0.025, 0.12), (-0.03, 0.010, -0.1), (0.0, 0.011, 1.1), (0.03, 0.010, -0.2), (0.28, 0.045, 0.3))
"""P, Q, R, S and T: time from R (s), spread (s), height (mV)."""


def beats(
    duration_s: float, rate: float, r_times_s: np.ndarray, noise_mv: float = 0.01, seed: int = 0, waves=WAVES
) -> EcgSignal:
    times = np.arange(int(duration_s * rate)) / rate
    lead = np.zeros_like(times)
    for r_time in r_times_s:
        for delay, spread, height in waves:
            lead += height * np.exp(-0.5 * ((times - r_time - delay) / spread) ** 2)
    lead += np.random.default_rng(seed).normal(scale=noise_mv, size=times.size)
    return EcgSignal(lead[None], ("II",), rate)


def tone(frequency_hz: float, rate: float = 500.0, duration_s: float = 10.0, offset_mv: float = 0.0) -> EcgSignal:
    times = np.arange(int(duration_s * rate)) / rate
    return EcgSignal(np.sin(2 * np.pi * frequency_hz * times)[None] + offset_mv, ("II",), rate)


def amplitude(ecg: EcgSignal) -> float:
    middle = ecg.samples_mv[0, ecg.num_samples // 4 : -ecg.num_samples // 4]
    return float(np.sqrt(2) * middle.std())


@pytest.mark.parametrize(
    ("frequency_hz", "low", "high"), [(0.15, 0, 0.02), (8, 0.98, 1.02), (50, 0, 0.02), (60, 0, 0.02)]
)
def test_clean_keeps_the_ecg_band_alone(frequency_hz: float, low: float, high: float) -> None:
    assert low <= amplitude(clean(tone(frequency_hz, offset_mv=3.0))) <= high


def test_clean_does_not_move_the_r_peaks() -> None:
    ecg = beats(10, 500, np.arange(0.5, 10, 0.8), noise_mv=0).shifted(7)
    cleaned = clean(ecg)
    assert (cleaned.num_samples, cleaned.start_s, cleaned.leads) == (ecg.num_samples, 7, ecg.leads)
    for r_time in np.arange(0.5, 9.5, 0.8):
        around = slice(int((r_time - 0.05) * 500), int((r_time + 0.05) * 500))
        assert abs(int(cleaned.samples_mv[0, around].argmax()) - int(ecg.samples_mv[0, around].argmax())) <= 1


def test_notch_only_where_there_is_hum() -> None:
    ecg = beats(10, 500, np.arange(0.5, 10, 0.8))
    hum = 0.3 * tone(50).samples_mv
    difference = clean(dataclasses.replace(ecg, samples_mv=ecg.samples_mv + hum)).samples_mv - clean(ecg).samples_mv
    assert np.abs(difference[:, 500:-500]).max() < 0.02


@pytest.mark.parametrize("rate", [1.0, 3.0, 50.0, 85.0, 500.0, 5000.0])
@pytest.mark.parametrize("value", [0.0, 2.5])
def test_flat_and_short_signals_pass_everywhere(rate: float, value: float) -> None:
    ecg = EcgSignal(np.full((2, max(1, int(rate))), value), ("I", "V2"), rate)
    assert np.abs(clean(ecg).samples_mv).max() < 1e-4
    assert resample(ecg, 250).samples_mv == pytest.approx(value, abs=1e-5)
    assert detect_r_peaks(ecg).size == 0
    assert np.isnan(detect_t_ends(ecg, np.array([0.2]))).all()
    quality = assess_quality(ecg)
    assert (quality.verdict, quality.heart_rate_bpm, quality.r_times_s.size) == ("flat", None, 0)
    assert quality.reasons


@pytest.mark.parametrize("rate", [100.0, 250.0, 510.467, 1000.0])
@pytest.mark.parametrize("target_hz", [125.0, 250.0, 500.0, 510.467])
def test_resample_is_accurate_and_keeps_the_clock(rate: float, target_hz: float) -> None:
    ecg = tone(7, rate, duration_s=30, offset_mv=5).shifted(-3)
    result = resample(ecg, target_hz)
    assert (result.start_s, result.sampling_rate_hz) == (-3, target_hz)
    assert abs(result.duration_s - ecg.duration_s) <= 1.01 / target_hz
    times = result.times_s - result.start_s
    error = result.samples_mv[0] - (5 + np.sin(2 * np.pi * 7 * times))
    assert np.abs(error[20:-20]).max() < 0.01
    assert np.abs(error[times <= 29.97]).max() < 0.1


def test_nearly_equal_rates_do_not_drift() -> None:
    ecg = tone(7, 512.0, duration_s=120)
    result = resample(ecg, 512.037)
    assert np.abs(result.samples_mv[0] - np.sin(2 * np.pi * 7 * result.times_s))[100:-100].max() < 0.01


def test_offset_does_not_ring_and_rates_are_checked() -> None:
    ecg = EcgSignal(np.full((1, 1000), 100.0), ("I",), 500)
    assert np.abs(resample(ecg, 333.3).samples_mv - 100).max() < 1e-3
    assert resample(ecg, 500) is ecg
    for bad in (0.0, -1.0, float("nan"), float("inf"), 1e9, 1e-9):
        with pytest.raises(InputError, match="resampl|sampling rate"):
            resample(ecg, bad)


@pytest.mark.parametrize("rate", [100.0, 250.0, 510.467, 1000.0, 2000.0])
@pytest.mark.parametrize("sign", [1, -1])
def test_finds_every_beat(rate: float, sign: int) -> None:
    truth = np.cumsum(np.r_[0.3, np.random.default_rng(1).uniform(0.6, 1.0, 24)])
    ecg = beats(truth[-1] + 0.5, rate, truth, noise_mv=0.03)
    ecg = EcgSignal(sign * ecg.samples_mv, ecg.leads, rate, start_s=4)
    np.testing.assert_allclose(detect_r_peaks(ecg), truth + 4, atol=max(0.004, 0.6 / rate))


@pytest.mark.parametrize("rate", [128.0, 512.0])
def test_a_tall_t_wave_is_no_beat(rate: float) -> None:
    times, truth = np.arange(int(20 * rate)) / rate, np.arange(0.4, 19.5, 1.05)
    lead = np.random.default_rng(2).normal(scale=0.01, size=times.size)
    for r_time in truth:
        since = times - r_time
        lead += 0.65 * np.exp(-0.5 * (since / 0.012) ** 2) - 0.1 * np.exp(-0.5 * ((since - 0.03) / 0.01) ** 2)
        since = since - 0.27
        lead += 0.55 * np.exp(-0.5 * (since / np.where(since < 0, 0.05, 0.022)) ** 2)  # steeper behind its peak
    np.testing.assert_allclose(detect_r_peaks(EcgSignal(lead[None], ("I",), rate)), truth, atol=0.008)


def test_a_beat_that_comes_soon_is_a_beat() -> None:
    truth = np.sort(np.r_[np.arange(0.5, 14.0, 0.9), 3.2 + 0.33, 8.6 + 0.33])
    waves = [wave for wave in WAVES if wave[0] < 0.2]  # one T wave would lie under the next beat
    np.testing.assert_allclose(detect_r_peaks(beats(14.5, 500, truth, waves=waves)), truth, atol=0.004)


@pytest.mark.parametrize(("first_s", "last_s"), [(0.0, 6.0), (0.28, 6.2), (0.2, 6.7)])
def test_a_wave_that_is_cut_off_is_no_beat(first_s: float, last_s: float) -> None:
    """On the R peak itself, on the T wave that follows it, and behind a whole beat."""
    whole = beats(9, 500, np.arange(1.0, 9.0, 1.0), noise_mv=0.002, waves=(*WAVES[:4], (0.28, 0.045, 0.7)))
    found = detect_r_peaks(whole.crop(1.0 + first_s, 1.0 + last_s))
    inside = np.arange(1.0, 9.0, 1.0)
    inside = inside[(inside > 1.0 + first_s + 0.004) & (inside < 1.0 + last_s - 0.004)]
    np.testing.assert_allclose(found, inside, atol=0.004)


def test_one_second_holds_one_beat() -> None:
    for r_time in (0.2, 0.5, 0.8):
        ecg = beats(1, 500, np.array([r_time]))
        np.testing.assert_allclose(detect_r_peaks(ecg), [r_time], atol=0.004)
        quality = assess_quality(ecg)
        assert (quality.verdict, quality.heart_rate_bpm) == ("fair", None)


@pytest.mark.parametrize("duration_s", [1, 3, 10, 60])
@pytest.mark.parametrize("seed", range(4))
def test_noise_is_no_rhythm(duration_s: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    noise = generator.normal(scale=0.3, size=(1, duration_s * 500))
    for samples in (noise, 0.05 * np.cumsum(noise, axis=1)):
        ecg = EcgSignal(samples, ("II",), 500)
        assert detect_r_peaks(ecg).size == 0
        quality = assess_quality(ecg)
        assert quality.verdict == "poor" and "no plausible rhythm" in quality.reasons[0]


def test_the_clear_lead_is_used_where_lead_ii_is_noise() -> None:
    truth = np.arange(0.4, 9.8, 0.75)
    good = beats(10, 500, truth).samples_mv[0]
    noise = np.random.default_rng(0).normal(scale=0.3, size=good.size)
    quality = assess_quality(EcgSignal(np.stack([noise, good, 0 * good]), ("II", "V5", "V6"), 500))
    np.testing.assert_allclose(quality.r_times_s, truth, atol=0.004)
    assert quality.heart_rate_bpm == pytest.approx(80, abs=0.5)
    assert quality.verdict == "fair" and quality.reasons == ("flat leads: V6",)


def test_verdicts() -> None:
    steady = np.arange(0.4, 29.8, 1.0)
    assert assess_quality(beats(30, 500, steady)).verdict == "good"
    pause = assess_quality(beats(30, 500, steady[(steady < 10) | (steady > 16)]))
    assert pause.verdict == "fair" and "no beat found for" in pause.reasons[0]
    ecg = beats(30, 500, steady)
    loud = assess_quality(EcgSignal(1000 * ecg.samples_mv, ecg.leads, 500))
    assert "millivolts" in loud.reasons[0]


@pytest.mark.parametrize("sign", [1, -1])
def test_t_ends_follow_the_t_wave(sign: int) -> None:
    truth = np.arange(0.5, 19, 0.9)
    ecg = beats(20, 500, truth)
    inverted_t = dataclasses.replace(ecg, samples_mv=sign * ecg.samples_mv).shifted(2)
    ends = detect_t_ends(inverted_t, truth + 2) - truth - 2
    assert ends.shape == truth.shape
    assert np.isfinite(ends).mean() > 0.9
    # the T wave is a Gaussian of 45 ms around 280 ms: its end lies 1.5 to 3 spreads behind the top
    assert 0.28 + 1.5 * 0.045 < np.nanmedian(ends) < 0.28 + 3 * 0.045
    assert np.nanpercentile(ends, 90) - np.nanpercentile(ends, 10) < 0.03


@pytest.mark.parametrize("r_times_s", [[], [0.4], [0.4, 0.4], [0.9, 0.4], [-50.0], [1e6]])
def test_t_ends_never_fail(r_times_s: list[float]) -> None:
    ends = detect_t_ends(beats(1, 250, np.array([0.4])), np.array(r_times_s))
    assert ends.shape == (len(r_times_s),)
    if r_times_s == [0.4]:
        assert 0.6 < ends[0] < 0.9


def real(name: str, seconds: float) -> tuple[EcgSignal, np.ndarray, np.ndarray]:
    """Beginning of a WFDB record with the times and symbols of its marked beats."""
    if not (DATA / "wfdb" / f"{name}.hea").is_file():
        pytest.skip(f"{DATA} is absent")
    import wfdb

    path = str(DATA / "wfdb" / name)
    rate = float(wfdb.rdheader(path).fs)
    record = wfdb.rdrecord(path, sampto=int(seconds * rate))
    marks = wfdb.rdann(path, "atr", sampto=int(seconds * rate))
    symbols = np.array(marks.symbol)
    is_beat = np.isin(symbols, list("NLRBAaJSVrFejnE/fQ"))
    ecg = EcgSignal(record.p_signal.T, tuple(record.sig_name), rate)
    return ecg, np.asarray(marks.sample)[is_beat] / rate, symbols[is_beat]


def nearest(times_s: np.ndarray, others_s: np.ndarray) -> np.ndarray:
    return np.abs(times_s[:, None] - others_s[None]).min(axis=1)


@pytest.mark.parametrize(
    ("name", "seconds", "sensitivity"), [("100", 300, 0.99), ("208", 300, 0.99), ("data_92_12", 48, 0.97)]
)
def test_beats_of_real_records(name: str, seconds: float, sensitivity: float) -> None:
    ecg, marked, symbols = real(name, seconds)
    found = detect_r_peaks(ecg)
    hit = nearest(marked, found) < 0.05
    assert hit.mean() >= sensitivity
    assert hit[symbols == "N"].mean() >= sensitivity
    assert (nearest(found, marked) < 0.15).mean() >= 0.985
    if name == "208":
        assert hit[symbols == "V"].mean() >= 0.98
    if name == "100":
        delays = detect_t_ends(ecg, found) - found
        assert np.isfinite(delays).mean() > 0.9
        assert 0.3 < np.nanmedian(delays) < 0.4
