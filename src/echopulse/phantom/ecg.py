"""The 12-lead ECG of a beat sequence: a rotating dipole of Gaussian waves, projected on the leads.

Sources: McSharry 2003 (Gaussian waves), Sameni 2007 (three-dimensional dipole), Dower 1980 (lead matrix).
Left bundle branch block, pacing of the right ventricular septum and premature beats have wide complexes and
discordant T waves (Surawicz 2009). Differs from McSharry: waves are placed in seconds around each R peak and not by a
phase oscillator, so that every fiducial time is exact.
"""

from dataclasses import dataclass

import numpy as np

from echopulse.axes import STANDARD_LEADS
from echopulse.phantom.rhythm import NARROW_KINDS, QRS_ONSET_BEFORE_R_S, Beats, qrs_stretch
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
        qrs_width: scale of the QRS duration; 1 is about 95 ms. Wide beats follow it by half.
        t_amplitude: scale of the T wave in the lateral leads; negative is inverted. Discordant T waves of
            wide beats follow it by 0.4.
        r_progression: growth of the R wave over V1–V6: scales anterior forces, and weakens posterior ones.
        p_amplitude: scale of the P wave.
        axis_rad: rotation of the frontal axis, which lies at 65° in the limb leads without it.
        transverse_rad: rotation in the transverse plane.
    """

    voltage: float = 1.0
    qrs_width: float = 1.0
    t_amplitude: float = 1.0
    r_progression: float = 1.0
    p_amplitude: float = 1.0
    axis_rad: float = 0.0
    transverse_rad: float = 0.0


# (time from R in s, width in s, dipole x, y, z in mV) of each QRS kernel; the largest stands at R
_NARROW = (
    (-0.023, 0.0085, -0.12, -0.05, -0.16),
    (0.000, 0.0105, 1.00, 0.85, 0.38),
    (0.025, 0.0105, -0.18, -0.16, 0.50),
)
_LBBB = (
    (-0.034, 0.014, 0.40, 0.30, 0.40),
    (0.000, 0.013, 1.30, 0.95, 0.65),
    (0.044, 0.018, 0.80, 0.34, 1.00),
)
_PACED = (
    (-0.036, 0.015, 0.50, 0.36, 0.25),
    (0.000, 0.016, 1.30, 1.00, 0.70),
    (0.044, 0.020, 0.60, 0.38, 0.80),
)
_PVC = (
    (-0.002, 0.019, -0.55, 1.45, -0.65),
    (0.046, 0.019, -0.36, 0.60, -0.45),
)
_QRS = {"sinus": _NARROW, "af": _NARROW, "lbbb": _LBBB, "paced": _PACED, "pvc": _PVC}
_T_VECTOR = {
    "sinus": (0.30, 0.22, -0.16),
    "af": (0.30, 0.22, -0.16),
    "lbbb": (-0.26, -0.14, -0.34),
    "paced": (-0.26, -0.20, -0.28),
    "pvc": (0.18, -0.34, 0.24),
}
_ANTERIOR_T = np.array([-0.02, 0.02, -0.20])  # what T turns to as it inverts: lateral leads negative, V1–V2 upright
_T_FALL_S = 0.036  # width of the falling half of T; its end lies 2.2 widths after the peak
_T_RISE_S = 0.060
_SPIKE_MV = np.array([[0.15], [0.25], [0.10]])  # dipole of a bipolar pacing spike, two milliseconds wide
_SPIKE_BEFORE_QRS_S = 0.004


def render_ecg(beats: Beats, shape: EcgShape, *, start_s: float, duration_s: float) -> EcgSignal:
    """The ECG at the skin: no noise, no filter. A recorder is added by `devices.record_ecg`.

    Args:
        beats: when the heart beats.
        shape: the patient's wave shapes.
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
        if not times[0] - 1 < r < times[-1] + 1:
            continue  # no wave of this beat reaches the window
        if np.isfinite(p_onset):
            add(p_onset + 2.2 * 0.019, 0.019, 0.022, shape.p_amplitude * np.array([0.06, 0.11, -0.02]))
        stretch = qrs_stretch(kind, shape.qrs_width)
        for offset, width, *vector in _QRS[kind]:
            v = np.array(vector) * shape.voltage
            v[2] *= shape.r_progression if v[2] < 0 else 2.5 - 1.5 * shape.r_progression
            add(r + stretch * offset, stretch * width, stretch * width, v)
        squeeze = np.clip((t_end - r) / 0.34, 0.6, 1.2)
        peak = t_end - 2.2 * _T_FALL_S * squeeze
        scale = shape.t_amplitude if kind in NARROW_KINDS else 0.6 + 0.4 * shape.t_amplitude
        t_vector = scale * np.array(_T_VECTOR[kind])
        if kind in NARROW_KINDS:
            t_vector += (1 - scale) * _ANTERIOR_T
        add(peak, _T_RISE_S * squeeze, _T_FALL_S * squeeze, t_vector)
        if kind == "paced":
            at = np.searchsorted(times, r - QRS_ONSET_BEFORE_R_S[kind] * stretch - _SPIKE_BEFORE_QRS_S)
            dipole[:, at : at + 1] += _SPIKE_MV
    dipole = _rotation(shape.axis_rad, shape.transverse_rad) @ dipole
    if any(kind == "af" for kind in beats.kinds):
        wobble = 2 * np.pi * (5.5 * times + 0.6 * np.sin(2 * np.pi * 0.9 * times))
        dipole += 0.05 * np.stack([0.5 * np.sin(wobble), 0.7 * np.sin(wobble + 0.5), -0.9 * np.cos(wobble)])
    independent = np.array(list(DOWER.values())) @ dipole
    return EcgSignal(
        twelve_leads(independent), STANDARD_LEADS, SAMPLING_RATE_HZ, start_s=start_s, source="phantom", format="phantom"
    )


def twelve_leads(independent: np.ndarray) -> np.ndarray:
    """All standard leads from the eight independent ones (Einthoven 1913, Goldberger 1942).

    Args:
        independent: leads I, II, V1–V6 in the order of `DOWER`, shape (8, samples).

    Returns:
        The leads in the order of `STANDARD_LEADS`, shape (12, samples).
    """
    one, two = independent[:2]
    limbs = np.stack([one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2])
    return np.concatenate([limbs, independent[2:]])


def _rotation(axis_rad: float, transverse_rad: float) -> np.ndarray:
    ca, sa, ct, st = np.cos(axis_rad), np.sin(axis_rad), np.cos(transverse_rad), np.sin(transverse_rad)
    frontal = np.array([[ca, -sa, 0], [sa, ca, 0], [0, 0, 1]])
    transverse = np.array([[ct, 0, -st], [0, 1, 0], [st, 0, ct]])
    return frontal @ transverse
