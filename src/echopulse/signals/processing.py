"""Cleaning, resampling, beats and quality of an ECG.

Beats and T ends come from NeuroKit2 (Makowski et al., 2021): its gradient detector finds the QRS
complexes, its delineators (Emrich et al., 2024; Martinez et al., 2004) the end of the T wave. What
is added here is the choice of the lead, the handling of short signals and edges, and the refusal of noise.
"""

import math
import warnings
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

import numpy as np
from scipy import signal

from echopulse.errors import InputError
from echopulse.signals.ecg import EcgSignal
from echopulse.signals.leads import standard_lead

BAND_HZ = (0.67, 40.0)
"""Pass band of `clean`: the monitoring band of the AHA/ACC recommendations (Kligfield et al., 2007)."""

FLAT_MV = 0.02
"""Peak-to-peak amplitude under which a cleaned lead counts as flat."""

SATURATED_S = 0.04
"""A lead that stays at its highest or lowest value for this long was cut off by the recorder."""

IMPLAUSIBLE_MV = 30.0
"""Peak-to-peak amplitude above which the unit is doubted."""

MIN_CONTRAST = 5.5
"""QRS complexes must stand out from the rest of the signal this many times.

Measured: the best of 12 leads of noise reached 5.1 (white and brown, 1 to 10 s, 240 trials); real records
of 10 s and more lie between 9 and 74.
"""

_ANALYSIS_HZ = 500.0
_T_WAVE_WITHIN_S = 0.36
_PAD_S = 3.0
_LEAD_ORDER = ("II", "I", "V5", "V4", "V6", "V2", "V3", "V1", "aVF", "III", "aVL", "aVR")


@dataclass(frozen=True, eq=False)
class EcgQuality:
    """How far an ECG can be trusted.

    Attributes:
        verdict: `good`, `fair`, `poor` (no plausible rhythm or strong noise) or `flat`.
        reasons: one short sentence per finding; empty when the verdict is `good`.
        heart_rate_bpm: 60 over the median RR interval, or None with fewer than two beats.
        r_times_s: times of the R peaks on the ECG's clock, float64 of shape (beats,).
    """

    verdict: Literal["good", "fair", "poor", "flat"]
    reasons: tuple[str, ...]
    heart_rate_bpm: float | None
    r_times_s: np.ndarray


@dataclass(frozen=True, eq=False)
class _Beats:
    r_times_s: np.ndarray
    lead: str
    contrast: float


def clean(ecg: EcgSignal) -> EcgSignal:
    """Removes baseline wander, muscle noise and mains hum without moving the waves in time.

    A zero-phase second-order Butterworth band-pass of 0.67 to 40 Hz, run forwards and backwards; the
    upper edge is lowered for rates under 89 Hz. A notch at 50 or 60 Hz comes first where the spectrum
    has a peak there. Length, rate and clock stay.

    Args:
        ecg: any ECG.

    Returns:
        The filtered ECG.
    """
    samples = ecg.samples_mv.astype(np.float64)
    samples -= np.median(samples, axis=1, keepdims=True)
    rate = ecg.sampling_rate_hz
    if 0.45 * rate <= 2 * BAND_HZ[0] or samples.shape[1] < 4:
        return replace(ecg, samples_mv=samples)
    for mains_hz in (50.0, 60.0):
        if _has_mains_peak(samples, rate, mains_hz):
            numerator, denominator = signal.iirnotch(mains_hz, 25.0, fs=rate)
            notch = signal.tf2sos(numerator, denominator)
            samples = _zero_phase(notch, samples, rate)
    band = _band_pass((BAND_HZ[0], min(BAND_HZ[1], 0.45 * rate)), rate)
    return replace(ecg, samples_mv=_zero_phase(band, samples, rate))


def resample(ecg: EcgSignal, sampling_rate_hz: float) -> EcgSignal:
    """The same ECG at another rate, band-limited; the first sample keeps its time.

    The rate ratio is approximated by a fraction that drifts by less than 0.4 ms in an hour. The median
    is taken out meanwhile and the ends are continued by odd reflection, so that nothing rings.

    Args:
        ecg: any ECG.
        sampling_rate_hz: the new rate.

    Returns:
        An ECG of the same duration, to within one sample.

    Raises:
        InputError: the rate is not positive, or more than 1000 times higher or lower.
    """
    if not (np.isfinite(sampling_rate_hz) and sampling_rate_hz > 0):
        raise InputError(f"target sampling rate is {sampling_rate_hz} Hz; expected a positive number")
    ratio = sampling_rate_hz / ecg.sampling_rate_hz
    if ratio == 1:
        return ecg
    if not 1e-3 <= ratio <= 1e3:
        raise InputError(
            f"cannot resample {ecg.sampling_rate_hz:g} Hz to {sampling_rate_hz:g} Hz; expected at most a factor of 1000"
        )
    choices = [Fraction(ratio).limit_denominator(limit) for limit in (1000, 10_000, 100_000)]
    fraction = next((choice for choice in choices if abs(choice / ratio - 1) < 1e-7), choices[-1])
    up, down = fraction.numerator, fraction.denominator
    blocks = math.ceil(10 * max(1 / down, 1 / up)) + 1  # the filter reaches 10 samples of the slower rate
    samples = ecg.samples_mv.astype(np.float64)
    offset = np.median(samples, axis=1, keepdims=True)
    padded = np.pad(samples - offset, ((0, 0), (blocks * down, blocks * down)), mode="reflect", reflect_type="odd")
    first, count = blocks * up, math.ceil(ecg.num_samples * up / down)
    samples = offset + signal.resample_poly(padded, up, down, axis=1)[:, first : first + count]
    return replace(ecg, samples_mv=samples, sampling_rate_hz=float(sampling_rate_hz))


def detect_r_peaks(ecg: EcgSignal) -> np.ndarray:
    """Times of the R peaks.

    Lead II (or its stand-in) is used where its QRS complexes are clear, otherwise the lead where
    they stand out most.

    Args:
        ecg: any ECG; it is cleaned here.

    Returns:
        Seconds on the ECG's clock, float64 of shape (beats,), increasing; empty for a flat line or
        for noise.
    """
    return _find_beats(clean(ecg)).r_times_s


def detect_t_ends(ecg: EcgSignal, r_times_s: np.ndarray) -> np.ndarray:
    """Time of the end of the T wave after every R peak.

    NeuroKit2's delineation by prominence (Emrich et al., 2024) of the three leads with the largest T
    waves (the largest alone where there are fewer), their median; by wavelets where that finds none.
    Only ends between 150 ms and 600 ms after the R peak, and before the next one, are believed.
    Negative T waves are turned first: the delineators expect a dome.

    Args:
        ecg: any ECG; it is cleaned here.
        r_times_s: R peaks in seconds on its clock, shape (beats,).

    Returns:
        Seconds, float64 of shape (beats,); nan where no T end was found.
    """
    r_times = np.asarray(r_times_s, dtype=np.float64).reshape(-1)
    if r_times.size == 0:
        return np.empty(0)
    if not 40 <= ecg.sampling_rate_hz <= 500e3:
        return np.full(r_times.size, np.nan)
    samples = resample(clean(ecg), _ANALYSIS_HZ).samples_mv.astype(np.float64)
    pad = int(_PAD_S * _ANALYSIS_HZ)
    peaks = np.rint((r_times - ecg.start_s) * _ANALYSIS_HZ).astype(np.int64) + pad
    heights = np.array([_t_wave_height(lead, peaks - pad) for lead in samples])
    largest = np.argsort(-np.abs(heights), kind="stable")[: 3 if len(heights) >= 3 else 1]
    padded = np.pad(samples * np.sign(heights)[:, None], ((0, 0), (pad, pad)), mode="edge")
    latest = np.append(np.minimum(r_times[:-1] + 0.6, r_times[1:]), min(r_times[-1] + 0.6, ecg.end_s))
    result = np.full(r_times.size, np.nan)
    for method in ("prominence", "dwt"):
        if not np.isnan(result).any():
            break
        found = np.stack([_delineate_t_ends(padded[lead], peaks, method) for lead in largest])
        ends = ecg.start_s + (found - pad) / _ANALYSIS_HZ
        ends[(ends < r_times + 0.15) | (ends > latest)] = np.nan
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a beat without any T end is an all-nan column
            result = np.where(np.isnan(result), np.nanmedian(ends, axis=0), result)
    return result


def assess_quality(ecg: EcgSignal) -> EcgQuality:
    """Beats, heart rate and a verdict with its reasons.

    Args:
        ecg: any ECG.

    Returns:
        The verdict; nothing is refused here.
    """
    cleaned = clean(ecg)
    none = np.empty(0)
    swing = np.ptp(cleaned.samples_mv, axis=1)
    if swing.max() < FLAT_MV:
        return EcgQuality("flat", (f"no lead swings by more than {FLAT_MV:g} mV",), None, none)
    beats = _find_beats(cleaned)
    times = beats.r_times_s
    if times.size == 0:
        return EcgQuality("poor", ("no plausible rhythm: no QRS complexes stand out of the noise",), None, none)
    intervals = np.diff(times)
    heart_rate = float(60.0 / np.median(intervals)) if intervals.size else None
    poor, fair = [], []
    if heart_rate is not None and not 25 <= heart_rate <= 250:
        poor.append(f"heart rate of {heart_rate:.0f} bpm is not plausible")
    if heart_rate is None and ecg.duration_s > 3:
        poor.append(f"one beat in {ecg.duration_s:.1f} s")
    elif heart_rate is None:
        fair.append("one beat only: the heart rate is unknown")
    gap = float(np.diff(np.concatenate(([ecg.start_s], times, [ecg.end_s]))).max())
    if gap > 4:
        fair.append(f"no beat found for {gap:.1f} s")
    if beats.contrast < 1.3 * MIN_CONTRAST:
        fair.append("strong noise between the beats")
    if swing.max() > IMPLAUSIBLE_MV:
        fair.append(f"an amplitude of {swing.max():.3g} mV is not plausible: are the samples in millivolts?")
    flat = [name for name, value in zip(ecg.leads, swing, strict=True) if value < FLAT_MV]
    if flat:
        fair.append(f"flat leads: {', '.join(flat)}")
    saturated = [name for name, lead in zip(ecg.leads, ecg.samples_mv, strict=True) if _is_saturated(lead, ecg)]
    if saturated:
        fair.append(f"saturated leads: {', '.join(saturated)}")
    if ecg.gaps_s:
        missing_s = sum(end - start for start, end in ecg.gaps_s)
        fair.append(f"gaps in the recording: {len(ecg.gaps_s)}, {missing_s:.3g} s in all")
    verdict = "poor" if poor else "fair" if fair else "good"
    return EcgQuality(verdict, tuple(poor + fair), heart_rate, times)


def _is_saturated(lead: np.ndarray, ecg: EcgSignal) -> bool:
    """Whether a lead of raw samples rests on its own extreme; a flat lead does not count."""
    low, high = lead.min(), lead.max()
    longest = max(_longest_run(lead == extreme) for extreme in (low, high))
    return bool(high - low >= FLAT_MV and longest >= max(5, SATURATED_S * ecg.sampling_rate_hz))


def _longest_run(mask: np.ndarray) -> int:
    """Most True values in a row."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], mask, [False])).astype(np.int8)))
    return int(np.diff(edges)[::2].max(initial=0))


def _band_pass(band_hz: tuple[float, float], rate: float) -> np.ndarray:
    return np.asarray(signal.butter(2, band_hz, btype="bandpass", fs=rate, output="sos"))


def _zero_phase(sos: np.ndarray, samples: np.ndarray, rate: float) -> np.ndarray:
    padding = min(samples.shape[1] - 1, int(_PAD_S * rate))
    return signal.sosfiltfilt(sos, samples, axis=1, padlen=padding)


def _has_mains_peak(samples: np.ndarray, rate: float, mains_hz: float) -> bool:
    if mains_hz + 8 > rate / 2:
        return False
    frequencies, power = signal.welch(samples, rate, nperseg=min(samples.shape[1], int(4 * rate)), axis=1)
    power = power.mean(axis=0)
    distance = np.abs(frequencies - mains_hz)
    neighbours = power[(distance > 2) & (distance <= 8)]
    return bool(power[distance <= 1].max() > 10 * np.median(neighbours) + 1e-12)


def _ranked_leads(ecg: EcgSignal) -> list[str]:
    """Lead names, those in which beats are usually clearest first."""
    order = {name: rank for rank, name in enumerate(_LEAD_ORDER)}
    return sorted(ecg.leads, key=lambda name: order.get(standard_lead(name) or "", len(order)))


def _find_beats(cleaned: EcgSignal) -> _Beats:
    """R peaks of the first lead with clear QRS complexes, otherwise of the clearest."""
    best = _Beats(np.empty(0), "", 0.0)
    for name in _ranked_leads(cleaned):
        found = _find_beats_in(cleaned.select((name,)))
        if found.contrast > best.contrast:
            best = found
        if best.contrast > 1.5 * MIN_CONTRAST:
            break
    return best if best.contrast >= MIN_CONTRAST else _Beats(np.empty(0), best.lead, best.contrast)


def _find_beats_in(ecg: EcgSignal) -> _Beats:
    name = ecg.leads[0]
    if np.ptp(ecg.samples_mv) < FLAT_MV or not 40 <= ecg.sampling_rate_hz <= 500e3:
        return _Beats(np.empty(0), name, 0.0)
    samples = resample(ecg, _ANALYSIS_HZ).samples_mv[0].astype(np.float64)
    pad = int(_PAD_S * _ANALYSIS_HZ)
    padded = np.pad(samples, pad, mode="reflect")
    peaks = _gradient_peaks(padded)
    if peaks.size and _points_down(padded, peaks):
        peaks = _gradient_peaks(-padded)
    steep = np.abs(signal.sosfiltfilt(_band_pass((5.0, 25.0), _ANALYSIS_HZ), padded))[pad:-pad]
    inside = (peaks > pad + 1) & (peaks < pad + samples.size - 2)  # at the very edge lies a wave that is cut off
    peaks, contrast = _confirm(steep, peaks[inside] - pad)
    return _Beats(ecg.start_s + peaks / _ANALYSIS_HZ, name, contrast)


def _gradient_peaks(samples: np.ndarray) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import neurokit2

        found = neurokit2.ecg_findpeaks(samples, sampling_rate=int(_ANALYSIS_HZ), method="neurokit", mindelay=0.25)
    return np.asarray(found["ECG_R_Peaks"], dtype=np.int64)


def _windows(samples: np.ndarray, peaks: np.ndarray, half_s: float) -> np.ndarray:
    """Cuts around the peaks, shape (beats, window)."""
    half = int(half_s * _ANALYSIS_HZ)
    inside = peaks[(peaks >= half) & (peaks < samples.size - half)]
    return samples[inside[:, None] + np.arange(-half, half + 1)]


def _points_down(samples: np.ndarray, peaks: np.ndarray) -> bool:
    beats = _windows(samples, peaks, 0.08)
    return beats.size > 0 and bool(np.median(-beats.min(axis=1)) > 1.5 * np.median(beats.max(axis=1)))


def _confirm(steep: np.ndarray, peaks: np.ndarray) -> tuple[np.ndarray, float]:
    """The peaks that are steep enough, and how far they stand out of what lies between.

    `steep` is the magnitude in the band 5 to 25 Hz, where the QRS complex has most of its energy. What follows a peak
    within 360 ms and is less than half as steep is its T wave (Pan & Tompkins 1985).
    """
    reach = int(0.06 * _ANALYSIS_HZ)
    heights = np.array([steep[max(0, peak - reach) : peak + reach + 1].max() for peak in peaks])
    if heights.size:
        typical = np.median(np.sort(heights)[heights.size // 2 :])
        kept: list[int] = []
        for i in np.flatnonzero(heights >= 0.12 * typical):
            soon = bool(kept) and peaks[i] - peaks[kept[-1]] < _T_WAVE_WITHIN_S * _ANALYSIS_HZ
            if not (soon and heights[i] < 0.5 * heights[kept[-1]]):
                kept.append(int(i))
        peaks, heights = peaks[kept], heights[kept]
    between = np.ones(steep.size, dtype=bool)
    for peak in peaks:
        between[max(0, peak - 50) : peak + 50] = False
    if heights.size == 0 or not between.any():
        return peaks[:0], 0.0
    return peaks, float(np.median(heights) / (1.4826 * np.median(steep[between]) + 1e-6))


def _t_wave_height(samples: np.ndarray, peaks: np.ndarray) -> float:
    """Signed height in mV of the T wave of the median beat; 0 where no whole beat is there."""
    first, last = int(0.14 * _ANALYSIS_HZ), int(0.42 * _ANALYSIS_HZ)
    inside = peaks[(peaks >= 0) & (peaks < samples.size - last)]
    if inside.size == 0:
        return 0.0
    beat = np.median(samples[inside[:, None] + np.arange(first, last)], axis=0)
    beat = beat - np.median(beat)
    return float(beat[np.argmax(np.abs(beat))])


def _delineate_t_ends(samples: np.ndarray, peaks: np.ndarray, method: str) -> np.ndarray:
    """T ends as positions in one padded lead, shape (beats,); nan where there is none."""
    nothing = np.full(peaks.size, np.nan)
    if peaks.min() < 0 or peaks.max() >= samples.size or np.any(np.diff(peaks) <= 0):
        return nothing
    # The delineator takes its search range from the heart rate: a lone beat gets a neighbour at 75 bpm.
    beats = peaks if peaks.size > 1 else np.append(peaks, peaks[0] + int(0.8 * _ANALYSIS_HZ))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import neurokit2

            _, waves = neurokit2.ecg_delineate(samples, beats, sampling_rate=int(_ANALYSIS_HZ), method=method)
    except (ArithmeticError, LookupError, TypeError, ValueError):  # its answer to beats it cannot segment
        return nothing
    ends = np.asarray(waves["ECG_T_Offsets"], dtype=np.float64)
    return ends[: peaks.size] if ends.size == beats.size else nothing
