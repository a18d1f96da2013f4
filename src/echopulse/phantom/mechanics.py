"""The left ventricle's volume over time, tied to the ECG's fiducial times.

Per beat: largest volume at the R peak (end-diastole), isovolumic contraction, ejection until the T wave ends
(end-systole), isovolumic relaxation, early filling, diastasis, atrial kick (Wiggers 1921; phases and durations
as in Levick, Cardiovascular Physiology). Knots are joined by a monotone cubic, so the extremes are exactly there.
"""

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import PchipInterpolator

from echopulse.phantom.rhythm import Beats

ISOVOLUMIC_CONTRACTION_S = 0.05
ISOVOLUMIC_RELAXATION_S = 0.07
EARLY_FILLING_S = 0.17
FILLING_TIME_CONSTANT_S = 0.14


@dataclass(frozen=True)
class VolumeCurve:
    """Left ventricular volume as a function of time.

    Attributes:
        edv_ml: volume at each beat's R peak.
        esv_ml: volume at each beat's end-systole.
        ed_s: end-diastole of each beat (its R peak), seconds.
        es_s: end-systole of each beat (its T end), seconds.
    """

    edv_ml: np.ndarray
    esv_ml: np.ndarray
    ed_s: np.ndarray
    es_s: np.ndarray
    _curve: PchipInterpolator

    def volume_ml(self, times_s: np.ndarray) -> np.ndarray:
        """Volume in millilitres at the given times (seconds), same shape."""
        return self._curve(times_s)

    def filling_ml_per_s(self, times_s: np.ndarray) -> np.ndarray:
        """Rate of change of the volume, millilitres per second; positive while the mitral valve is open."""
        return self._curve(times_s, 1)


def simulate_volume(beats: Beats, *, edv_ml: float, ef: float, atrial_share: float = 0.25) -> VolumeCurve:
    """Volume curve of a beat sequence.

    A beat after a long interval starts fuller and contracts more strongly, a premature one less so
    (Frank–Starling and post-extrasystolic potentiation); in sinus rhythm every beat has about the nominal EF.

    Args:
        beats: when the heart beats.
        edv_ml: nominal end-diastolic volume, millilitres.
        ef: nominal ejection fraction, between 0 and 1.
        atrial_share: part of the stroke volume that the atrial kick brings (0 where a beat has no P wave).
    """
    r, es = beats.r_s, beats.t_end_s
    mean_rr = float(np.median(beats.rr_s))
    diastole = np.append(mean_rr - np.median(es - r), r[1:] - es[:-1]) - ISOVOLUMIC_RELAXATION_S
    usual = max(np.median(diastole), 0.05)
    fullness = np.clip((_filled(np.maximum(diastole, 0.02)) / _filled(usual)) ** 0.5, 0.5, 1.05)
    irregular = any(kind in ("af", "pvc") for kind in beats.kinds)
    esv_nominal = edv_ml * (1 - ef)
    edv, esv = np.empty_like(r), np.empty_like(r)
    previous_esv = esv_nominal
    for i, kind in enumerate(beats.kinds):
        edv[i] = min(previous_esv + (edv_ml - esv_nominal) * fullness[i], 1.08 * edv_ml)
        strength = np.clip(1 + 0.2 * (beats.rr_s[i] / mean_rr - 1), 0.7, 1.1) if irregular else 1.0
        if kind == "pvc":
            strength *= 0.85
        esv[i] = edv[i] * (1 - np.clip(ef * strength, 0.05, 0.85))
        previous_esv = esv[i]

    knots, values = [], []

    def knot(time: float, volume: float) -> None:
        if not knots or time > knots[-1] + 0.004:
            knots.append(time)
            values.append(volume)

    for i in range(len(r)):
        stroke = edv[i] - esv[i]
        knot(r[i], edv[i])
        knot(r[i] + ISOVOLUMIC_CONTRACTION_S, edv[i] - 0.01 * stroke)
        knot(r[i] + ISOVOLUMIC_CONTRACTION_S + 0.45 * (es[i] - r[i] - ISOVOLUMIC_CONTRACTION_S), edv[i] - 0.68 * stroke)
        knot(es[i], esv[i])
        if i + 1 == len(r):
            break
        refill, next_r = edv[i + 1] - esv[i], r[i + 1]
        kick = atrial_share if np.isfinite(beats.p_onset_s[i + 1]) else 0.02
        relaxed = es[i] + min(ISOVOLUMIC_RELAXATION_S, 0.3 * (next_r - es[i]))
        knot(relaxed, esv[i] + 0.015 * refill)
        early_end = relaxed + EARLY_FILLING_S
        kick_start = beats.p_onset_s[i + 1] + 0.06 if np.isfinite(beats.p_onset_s[i + 1]) else next_r - 0.05
        if early_end < kick_start - 0.02:
            knot(early_end, esv[i] + (0.93 - kick) * refill)
            knot(kick_start, esv[i] + (0.99 - kick) * refill)
        elif kick_start > relaxed + 0.02:
            knot(kick_start, esv[i] + (0.9 - kick) * refill)
    return VolumeCurve(edv_ml=edv, esv_ml=esv, ed_s=r, es_s=es, _curve=PchipInterpolator(knots, values))


def _filled(diastole_s: np.ndarray | float) -> np.ndarray:
    return np.asarray(1 - np.exp(-np.asarray(diastole_s) / FILLING_TIME_CONSTANT_S))
