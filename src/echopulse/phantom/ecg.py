"""The 12-lead ECG of a beat sequence: a rotating dipole of Gaussian waves, projected on the leads.

Sources: McSharry 2003 (Gaussian waves), Sameni 2007 (three-dimensional dipole), Dower 1980 (lead matrix).
Differs from McSharry: waves are placed in seconds around each R peak and not by a phase oscillator, so that
every fiducial time is exact.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d

from echopulse.axes import STANDARD_LEADS
from echopulse.phantom.rhythm import QRS_ONSET_BEFORE_R_S, Beats
from echopulse.signals import EcgSignal

SAMPLING_RATE_HZ = 500.0

DOWER = {
    "I": (0.632, -0.235, 0.059),
    "II": (0.235, 1.066, -0.132),
    "V1": (-0.515, 0.157, -0.917),
    "V2": (0.044, 0.164, -1.387),
    "V3": (0.882, 0.098, -1.277),
    "V4": (1.213, 0.127, -0.601),
    "V5": (1.125, 0.127, -0.086),
    "V6": (0.831, 0.076, 0.230),
}
"""Dower's matrix: lead voltage from the dipole (x left, y down, z back)."""


@dataclass(frozen=True)
class EcgShape:
    """What makes one patient's ECG look as it does.

    Attributes:
        voltage: scale of the QRS complex; 1 is the population mean.
        qrs_width: scale of the QRS duration; 1 is about 90 ms.
        t_amplitude: scale of the T wave; negative is inverted.
        r_progression: scale of the anterior-to-left growth of the R wave over V1–V6.
        p_amplitude: scale of the P wave.
        axis_rad: rotation of the frontal axis.
        transverse_rad: rotation in the transverse plane.
    """

    voltage: float = 1.0
    qrs_width: float = 1.0
    t_amplitude: float = 1.0
    r_progression: float = 1.0
    p_amplitude: float = 1.0
    axis_rad: float = 0.0
    transverse_rad: float = 0.0


@dataclass(frozen=True)
class EcgNoise:
    """Noise of the recording device, in millivolts (standard deviations; mains is an amplitude)."""

    baseline_mv: float = 0.03
    muscle_mv: float = 0.01
    mains_mv: float = 0.0
    mains_hz: float = 50.0


# (time from R in s, width in s, dipole x, y, z in mV) of each QRS kernel
_NARROW = (
    (-0.024, 0.009, -0.12, -0.05, -0.16),
    (0.000, 0.011, 1.00, 0.85, 0.38),
    (0.027, 0.012, -0.18, -0.16, 0.50),
)
_LBBB = (
    (-0.012, 0.020, 0.55, 0.40, 0.35),
    (0.006, 0.016, 0.60, 0.45, 0.45),
    (0.050, 0.022, 0.75, 0.25, 0.75),
)
_PACED = (
    (0.000, 0.026, 0.80, -0.75, 0.55),
    (0.050, 0.026, 0.60, -0.60, 0.60),
)
_PVC = (
    (0.000, 0.030, -0.55, 1.45, -0.65),
    (0.060, 0.028, -0.35, 0.55, -0.40),
)
_QRS = {"sinus": _NARROW, "af": _NARROW, "lbbb": _LBBB, "paced": _PACED, "pvc": _PVC}
_T_VECTOR = {
    "sinus": (0.30, 0.22, -0.16),
    "af": (0.30, 0.22, -0.16),
    "lbbb": (-0.26, -0.14, -0.34),
    "paced": (-0.26, 0.30, -0.28),
    "pvc": (0.24, -0.42, 0.30),
}
_T_FALL_S = 0.036  # width of the falling half of T; its end lies 2.2 widths after the peak
_T_RISE_S = 0.060


def render_ecg(
    rng: np.random.Generator, beats: Beats, shape: EcgShape, noise: EcgNoise, *, start_s: float, duration_s: float
) -> EcgSignal:
    """The 12-lead ECG of a beat sequence.

    Args:
        rng: source of the noise.
        beats: when the heart beats.
        shape: the patient's wave shapes.
        noise: the device's noise.
        start_s: time of the first sample, seconds.
        duration_s: length, seconds.

    Returns:
        12 standard leads at `SAMPLING_RATE_HZ`, millivolts.
    """
    num_samples = round(duration_s * SAMPLING_RATE_HZ)
    times = start_s + np.arange(num_samples) / SAMPLING_RATE_HZ
    dipole = np.zeros((3, num_samples))

    def add(center_s: float, rise_s: float, fall_s: float, vector: np.ndarray) -> None:
        first, last = np.searchsorted(times, (center_s - 4.5 * rise_s, center_s + 4.5 * fall_s))
        t = times[first:last] - center_s
        wave = np.exp(-0.5 * (t / np.where(t < 0, rise_s, fall_s)) ** 2)
        dipole[:, first:last] += vector[:, None] * wave

    for r, p_onset, t_end, kind in zip(beats.r_s, beats.p_onset_s, beats.t_end_s, beats.kinds, strict=True):
        if np.isfinite(p_onset):
            add(p_onset + 0.045, 0.019, 0.022, shape.p_amplitude * np.array([0.06, 0.11, -0.02]))
        for offset, width, *vector in _QRS[kind]:
            v = np.array(vector) * shape.voltage
            v[2] *= 2.0 - shape.r_progression
            v[0] *= shape.r_progression if kind in ("sinus", "af") else 1.0
            add(r + offset * shape.qrs_width, width * shape.qrs_width, width * shape.qrs_width, v)
        squeeze = np.clip((t_end - r) / 0.34, 0.6, 1.2)
        peak = t_end - 2.2 * _T_FALL_S * squeeze
        secondary = kind not in ("sinus", "af")
        scale = 1.0 if secondary else shape.t_amplitude
        add(peak, _T_RISE_S * squeeze, _T_FALL_S * squeeze, scale * np.array(_T_VECTOR[kind]))
        if kind == "paced":
            at = np.searchsorted(times, r - QRS_ONSET_BEFORE_R_S - 0.02)
            dipole[:, at : at + 1] += np.array([[0.6], [1.0], [0.4]])  # the pacing spike, one sample wide
    dipole = _rotation(shape.axis_rad, shape.transverse_rad) @ dipole
    if any(kind == "af" for kind in beats.kinds):
        wobble = 2 * np.pi * (5.5 * times + 0.6 * np.sin(2 * np.pi * 0.9 * times))
        dipole += 0.05 * np.stack([0.5 * np.sin(wobble), 0.7 * np.sin(wobble + 0.5), -0.9 * np.cos(wobble)])
    leads = {name: np.array(row) @ dipole for name, row in DOWER.items()}
    for name, wave in leads.items():
        leads[name] = wave + _device_noise(rng, times, noise)
    one, two = leads["I"], leads["II"]
    leads |= {"III": two - one, "aVR": -(one + two) / 2, "aVL": one - two / 2, "aVF": two - one / 2}
    return EcgSignal(
        np.stack([leads[name] for name in STANDARD_LEADS]),
        STANDARD_LEADS,
        SAMPLING_RATE_HZ,
        start_s=start_s,
        source="phantom",
        format="phantom",
    )


def _rotation(axis_rad: float, transverse_rad: float) -> np.ndarray:
    ca, sa, ct, st = np.cos(axis_rad), np.sin(axis_rad), np.cos(transverse_rad), np.sin(transverse_rad)
    frontal = np.array([[ca, -sa, 0], [sa, ca, 0], [0, 0, 1]])
    transverse = np.array([[ct, 0, -st], [0, 1, 0], [st, 0, ct]])
    return frontal @ transverse


def _device_noise(rng: np.random.Generator, times: np.ndarray, noise: EcgNoise) -> np.ndarray:
    """Wander (below 0.5 Hz), muscle noise (above 20 Hz) and mains hum of one lead, millivolts."""
    wander = sum(
        np.sin(2 * np.pi * frequency * times + rng.uniform(0, 2 * np.pi)) * rng.normal(0, noise.baseline_mv)
        for frequency in (0.05, 0.15, 0.3)
    )
    white = rng.standard_normal(times.size)
    muscle = noise.muscle_mv * (white - gaussian_filter1d(white, 4.0))
    mains = noise.mains_mv * np.sin(2 * np.pi * noise.mains_hz * times + rng.uniform(0, 2 * np.pi))
    return wander + muscle + mains
