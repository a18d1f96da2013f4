"""Beat times: when the atria and ventricles are excited, and when the T wave ends."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

Rhythm = Literal["sinus", "af", "pvc", "lbbb", "paced"]
BeatKind = Literal["sinus", "af", "pvc", "lbbb", "paced"]

MARGIN_S = 4.0
"""Beats are made this long before 0 and after the end, so that every window is inside the record."""

QRS_ONSET_BEFORE_R_S = 0.04
"""QRS onset to R peak in narrow beats (R-wave peak time, < 50 ms in V5–V6: Surawicz 2009)."""


@dataclass(frozen=True)
class Beats:
    """The excitation sequence of a record, one entry a beat.

    Attributes:
        r_s: R peak times, seconds.
        p_onset_s: P wave onset, NaN where the beat has no P wave.
        t_end_s: end of the T wave.
        rr_s: interval from the previous R peak.
        kinds: what started each beat.
    """

    r_s: np.ndarray
    p_onset_s: np.ndarray
    t_end_s: np.ndarray
    rr_s: np.ndarray
    kinds: tuple[BeatKind, ...]


def simulate_beats(
    rng: np.random.Generator,
    rhythm: Rhythm,
    *,
    heart_rate_bpm: float,
    duration_s: float,
    qtc_s: float,
    pr_s: float,
    respiration_hz: float,
) -> Beats:
    """Places the beats of one record.

    QT follows the preceding RR interval by Fridericia's formula, `QT = QTc · RR^(1/3)` (Fridericia 1920).
    Sinus intervals vary with respiration (about 4 %) and by 1 % at random; in atrial fibrillation they are
    independent with a coefficient of variation of 0.2; premature ventricular beats come at 55–70 % of the
    interval and are followed by a full compensatory pause.

    Args:
        rng: source of all randomness here.
        rhythm: which rhythm.
        heart_rate_bpm: mean rate, beats per minute.
        duration_s: record length; beats also cover `MARGIN_S` on both sides.
        qtc_s: QT interval at RR = 1 s, seconds.
        pr_s: P onset to QRS onset, seconds.
        respiration_hz: breathing rate.
    """
    mean_rr = 60.0 / heart_rate_bpm
    phase = rng.uniform(0, 2 * np.pi)
    time = -MARGIN_S - mean_rr * rng.uniform(0.2, 1.0)
    r_s: list[float] = []
    kinds: list[BeatKind] = []
    pause = 0.0
    while time < duration_s + MARGIN_S:
        sinus_rr = mean_rr * (
            1 + 0.04 * np.sin(2 * np.pi * respiration_hz * time + phase) + 0.01 * rng.standard_normal()
        )
        kind: BeatKind = "sinus" if rhythm == "pvc" else rhythm
        if rhythm == "af":
            step = max(0.34, mean_rr * (1 + 0.2 * rng.standard_normal()))
        elif rhythm == "paced":
            step = mean_rr
        elif rhythm == "pvc" and not pause and rng.uniform() < 0.2 and len(r_s) > 1:
            step = max(0.36, sinus_rr * rng.uniform(0.55, 0.7))
            kind, pause = "pvc", 2 * sinus_rr - step
        elif pause:
            step, pause = pause, 0.0
        else:
            step = sinus_rr
        time += step
        r_s.append(time)
        kinds.append(kind)
    r = np.array(r_s)
    rr = np.diff(r, prepend=r[0] - mean_rr)
    wide = np.array([kind in ("lbbb", "paced", "pvc") for kind in kinds])
    qt = (qtc_s + 0.03 * wide) * np.minimum(rr, 1.5) ** (1 / 3)
    following = np.append(np.diff(r), mean_rr)
    t_end = r + np.minimum(qt - QRS_ONSET_BEFORE_R_S, following - 0.13)
    has_p = np.array([kind in ("sinus", "lbbb") for kind in kinds])
    p_onset = np.where(has_p, r - QRS_ONSET_BEFORE_R_S - np.minimum(pr_s, 0.4 * rr), np.nan)
    return Beats(r_s=r, p_onset_s=p_onset, t_end_s=t_end, rr_s=rr, kinds=tuple(kinds))
