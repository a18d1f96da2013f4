"""Does the ventricle beat with the ECG? ED against R, ES against T end, rates, phases, missed and extra beats.

The LV curve is read without the ECG (`find_beats`); only then are its beats matched with the ECG's,
one to one. Times are sub-frame.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.signal import detrend

from echopulse.signals.ventricle import LvBeats

EDGE_S = 0.1
"""A beat lies fully inside a clip from this long before its R peak to this long after its T end."""

TYPICAL_SYSTOLE_S = 0.33
"""R to T end, where no T end was found."""


@dataclass(frozen=True, eq=False)
class ClipSynchrony:
    """Timing of one clip.

    Attributes:
        ed_ms: ED minus R of every matched beat.
        es_ms: ES minus T end of every matched beat that has a T end.
        ed_phase_rad, es_phase_rad: 2π (t - R) / RR of the ED and ES of every matched beat.
        matched, missed, extra: beats of the ECG that were found, not found; beats of the curve without one in the ECG.
        curve_rate_bpm: heart rate by the LV curve alone, or None.
        ecg_rate_bpm: by the R peaks, or None.
        frame_s: time between frames.
    """

    ed_ms: np.ndarray
    es_ms: np.ndarray
    ed_phase_rad: np.ndarray
    es_phase_rad: np.ndarray
    matched: int
    missed: int
    extra: int
    curve_rate_bpm: float | None
    ecg_rate_bpm: float | None
    frame_s: float


def clip_synchrony(
    beats: LvBeats, r_times_s: np.ndarray, t_end_times_s: np.ndarray, *, start_s: float, end_s: float, fps: float
) -> ClipSynchrony:
    """Matches the beats of an LV curve (found without the ECG) with those of the ECG, one to one.

    The ED of a beat belongs to the nearest R peak, if that is less than half an RR interval away; of two EDs at one R
    peak the nearer keeps it and the other is extra. Counted as missed or matched are the ECG's beats that lie fully
    inside the clip; as extra none whose ED is at the clip's start, for its R peak may lie before.

    Args:
        beats: from `find_beats`.
        r_times_s: R peaks, also those before and after the clip where they are known.
        t_end_times_s: T ends; every R peak gets the first that follows it before the next R peak; NaNs are left out.
        start_s: time of the first frame.
        end_s: end of the last frame.
        fps: frames per second.
    """
    r = np.sort(np.asarray(r_times_s, np.float64))
    t_end = _following(r, np.asarray(t_end_times_s, np.float64))
    rr = _intervals(r)
    systole = np.where(np.isfinite(t_end), t_end, r + TYPICAL_SYSTOLE_S)
    inside = (r - EDGE_S >= start_s) & (systole + EDGE_S <= end_s)
    owner = _match(beats.ed_s, r, rr)
    pairs = [(i, k) for i, k in enumerate(owner) if k >= 0 and inside[k]]
    mine = np.array([i for i, _ in pairs], np.int64)
    theirs = np.array([k for _, k in pairs], np.int64)
    ed, es = beats.ed_s[mine], beats.es_s[mine]
    es_ms = 1e3 * (es - t_end[theirs])
    return ClipSynchrony(
        ed_ms=1e3 * (ed - r[theirs]),
        es_ms=es_ms[np.isfinite(es_ms)],
        ed_phase_rad=2 * np.pi * (ed - r[theirs]) / rr[theirs],
        es_phase_rad=2 * np.pi * (es - r[theirs]) / rr[theirs],
        matched=len(pairs),
        missed=int(inside.sum()) - len(pairs),
        extra=int(np.count_nonzero((owner < 0) & (beats.ed_s >= start_s + EDGE_S))),
        curve_rate_bpm=60 / beats.period_s if beats.period_s else None,
        ecg_rate_bpm=_ecg_rate_bpm(r, start_s, end_s),
        frame_s=1 / fps,
    )


def paired_ms(generated: LvBeats, reference: LvBeats) -> tuple[np.ndarray, np.ndarray]:
    """ED and ES of a generated clip minus those of the same beats of its reference, milliseconds.

    Takes out what the segmenter and the heart's own delay put into both.
    """
    owner = _match(generated.ed_s, reference.ed_s, _intervals(reference.ed_s))
    mine = np.flatnonzero(owner >= 0)
    theirs = owner[mine]
    return (
        1e3 * (generated.ed_s[mine] - reference.ed_s[theirs]),
        1e3 * (generated.es_s[mine] - reference.es_s[theirs]),
    )


def curve_shift_s(curve: np.ndarray, reference: np.ndarray, fps: float, period_s: float) -> float | None:
    """How much later one LV curve beats than another of the same instants: the lag of their highest correlation.

    Args:
        curve: volumes of every frame, (frames,); gaps (NaN) are bridged.
        reference: the same of the other clip.
        fps: frames per second.
        period_s: beat length; the shift is looked for within half of it, since more cannot be told from less.

    Returns:
        Seconds, sub-frame, positive when `curve` is late; None where a curve is flat or too short.
    """
    a, b = (_bridged(np.asarray(x, np.float64)) for x in (curve, reference))
    reach = int(np.ceil(0.5 * period_s * fps))
    if a is None or b is None or a.shape != b.shape or len(a) <= 2 * reach:
        return None
    scores = np.full(2 * reach + 1, -1.0)
    for k in range(-reach, reach + 1):
        x, y = (a[k:], b[: len(b) - k]) if k >= 0 else (a[:k], b[-k:])
        x, y = x - x.mean(), y - y.mean()
        scores[k + reach] = (x @ y) / np.sqrt((x @ x) * (y @ y) + 1e-12)
    best = int(np.argmax(scores))
    offset = 0.0
    if 0 < best < 2 * reach:
        left, middle, right = scores[best - 1 : best + 2]
        offset = 0.5 * (left - right) / min(left - 2 * middle + right, -1e-12)
    return float(np.clip((best - reach + offset) / fps, -0.5 * period_s, 0.5 * period_s))


def summarize_synchrony(clips: Sequence[ClipSynchrony]) -> dict[str, Any]:
    """The `synchrony` object of `metrics.json`, over all beats of all clips.

    Returns:
        `ed_ms`, `es_ms`: {`bias`, `median_abs`, `p90_abs`, `within_frame`, `n`}; `matched_beats`, `missed_beats`,
        `extra_beats`; `heart_rate_bpm`: {`mae`, `bias`, `n`}, curve against ECG; `phase`: {`ed`, `es`}, each
        {`mean_deg`, `resultant`, `rayleigh_p`, `n`}. None where nothing can be computed.
    """
    frame_ms = {1e3 * clip.frame_s for clip in clips}
    rates = [(c.curve_rate_bpm, c.ecg_rate_bpm) for c in clips if c.curve_rate_bpm and c.ecg_rate_bpm]
    error = np.array([curve - ecg for curve, ecg in rates])
    return {
        "ed_ms": _timing([clip.ed_ms for clip in clips], max(frame_ms, default=0.0)),
        "es_ms": _timing([clip.es_ms for clip in clips], max(frame_ms, default=0.0)),
        "matched_beats": sum(clip.matched for clip in clips),
        "missed_beats": sum(clip.missed for clip in clips),
        "extra_beats": sum(clip.extra for clip in clips),
        "heart_rate_bpm": {"mae": float(np.abs(error).mean()), "bias": float(error.mean()), "n": len(rates)}
        if rates
        else None,
        "phase": {
            "ed": circular_statistics(_joined([clip.ed_phase_rad for clip in clips])),
            "es": circular_statistics(_joined([clip.es_phase_rad for clip in clips])),
        },
    }


def circular_statistics(phases_rad: np.ndarray) -> dict[str, Any] | None:
    """Mean direction, mean resultant length (1: always the same phase, 0: any) and Rayleigh's test of uniformity.

    The p value is the approximation of Zar (Biostatistical Analysis, eq. 27.4), good to three digits from 10 phases on.
    """
    n = phases_rad.size
    if n == 0:
        return None
    mean = np.exp(1j * phases_rad).mean()
    length = n * float(np.abs(mean))
    p = np.exp(np.sqrt(1 + 4 * n + 4 * (n**2 - length**2)) - (1 + 2 * n))
    return {
        "mean_deg": float(np.rad2deg(np.angle(mean))),
        "resultant": length / n,
        "rayleigh_p": float(min(p, 1.0)),
        "n": n,
    }


def _timing(parts: Sequence[np.ndarray], frame_ms: float) -> dict[str, Any] | None:
    values = _joined(parts)
    if not values.size:
        return None
    size = np.abs(values)
    return {
        "bias": float(values.mean()),
        "median_abs": float(np.median(size)),
        "p90_abs": float(np.percentile(size, 90)),
        "within_frame": float(np.mean(size <= frame_ms)),
        "n": int(values.size),
    }


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.empty(0), *parts])


def _intervals(times: np.ndarray) -> np.ndarray:
    """Time from each beat to the next; the last gets the median."""
    gaps = np.diff(times)
    return np.append(gaps, np.median(gaps) if gaps.size else 60 / 75)[: times.size]


def _following(r: np.ndarray, t_end: np.ndarray) -> np.ndarray:
    """For each R peak the first T end before the next R peak, NaN where there is none."""
    t_end = np.append(np.sort(t_end[np.isfinite(t_end)]), np.inf)
    first = t_end[np.searchsorted(t_end, r, side="right")]
    return np.where(first < np.append(r[1:], np.inf)[: r.size], first, np.nan)


def _match(times: np.ndarray, targets: np.ndarray, intervals: np.ndarray) -> np.ndarray:
    """For each time the index of its target, -1 without one; nearest first, one to one, within half an interval."""
    owner = np.full(times.size, -1)
    if not (times.size and targets.size):
        return owner
    before = np.append(intervals[:1], intervals[:-1])
    distance = times[:, None] - targets[None, :]
    reach = 0.5 * np.where(distance < 0, before, intervals)
    cost = np.where(np.abs(distance) <= reach, np.abs(distance), np.inf)
    for _ in range(min(cost.shape)):
        i, k = np.unravel_index(np.argmin(cost), cost.shape)
        if not np.isfinite(cost[i, k]):
            break
        owner[i] = k
        cost[i, :], cost[:, k] = np.inf, np.inf
    return owner


def _ecg_rate_bpm(r: np.ndarray, start_s: float, end_s: float) -> float | None:
    """Mean rate of the RR intervals that the clip sees at least half of."""
    middle = 0.5 * (r[1:] + r[:-1])
    gaps = np.diff(r)[(middle >= start_s) & (middle <= end_s)]
    return float(60 / gaps.mean()) if gaps.size else None


def _bridged(curve: np.ndarray) -> np.ndarray | None:
    known = np.isfinite(curve)
    if known.sum() < 3 or np.ptp(curve[known]) < 1e-6 * np.abs(curve[known]).max():
        return None
    index = np.arange(curve.size)
    return detrend(np.interp(index, index[known], curve[known]))
