"""Controls beside every claim: ECGs that should break synchrony, clips that do not follow the ECG, and chance.

A synchrony figure means something only beside the same figure under ECGs that ought to change it: another patient's
(`shuffled_pairs`), the own one moved in time (`shifted_ecg`, `shift_regression`), none (`null_ecg`); and beside clips
that need no ECG at all (`frozen`, `mean_beat`).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from echopulse.errors import InputError
from echopulse.signals import EcgSignal


def shuffled_pairs(subjects: Sequence[str], seed: int = 0) -> np.ndarray:
    """For each clip the index of another subject's clip whose ECG it gets; every ECG is used once.

    Clips are dealt in random order and turned by the size of the largest subject, so nobody can meet themselves.

    Args:
        subjects: subject of every clip.
        seed: of the order.

    Returns:
        int64 (clips,), a permutation.

    Raises:
        InputError: one subject owns more than half of the clips, so that some would keep their own ECG.
    """
    names, groups, sizes = np.unique(np.asarray(subjects, str), return_inverse=True, return_counts=True)
    if sizes.size == 0 or 2 * sizes.max() > len(subjects):
        raise InputError(
            f"shuffling ECGs needs clips of other subjects: {len(names)} subjects for {len(subjects)} clips, "
            f"the largest with {sizes.max(initial=0)}"
        )
    rng = np.random.default_rng(seed)
    order = np.lexsort((rng.random(len(subjects)), rng.permutation(sizes.size)[groups]))
    partner = np.empty(len(subjects), np.int64)
    partner[order] = np.roll(order, -int(sizes.max()))
    return partner


def shifted_ecg(ecg: EcgSignal, shift_s: float) -> EcgSignal:
    """The ECG with everything `shift_s` later on the same clock."""
    return ecg.shifted(ecg.start_s + shift_s)


def null_ecg(ecg: EcgSignal) -> EcgSignal:
    """A flat line of the same leads, rate and clock."""
    return replace(ecg, samples_mv=np.zeros_like(ecg.samples_mv))


def frozen(frames: np.ndarray) -> np.ndarray:
    """The first frame throughout, uint8 (frames, height, width)."""
    return np.broadcast_to(frames[:1], frames.shape).copy()


def mean_beat(frames: np.ndarray, times_s: np.ndarray, r_times_s: np.ndarray) -> np.ndarray:
    """The clip's mean beat played over and over at its mean rate: motion that follows no single beat.

    Frames are averaged by their phase between R peaks, in as many phases as a mean beat has frames.

    Args:
        frames: uint8 (frames, height, width).
        times_s: (frames,) seconds.
        r_times_s: R peaks; at least two within reach of the clip.

    Returns:
        uint8 of the same shape, in phase with the first R peak.

    Raises:
        InputError: fewer than two R peaks.
    """
    r = np.sort(np.asarray(r_times_s, np.float64))
    if r.size < 2:
        raise InputError(f"a mean beat needs two R peaks or more; got {r.size}")
    rr = float(np.diff(r).mean())
    first, last = r[0] - rr * np.ceil(max(0.0, r[0] - times_s[0]) / rr), r[-1]
    marks = np.concatenate([np.arange(first, r[0] - 0.5 * rr, rr), r])
    marks = np.append(marks, last + rr * np.arange(1, 2 + np.ceil(max(0.0, times_s[-1] - last) / rr)))
    beat = np.clip(np.searchsorted(marks, times_s, side="right") - 1, 0, marks.size - 2)
    phase = (times_s - marks[beat]) / np.diff(marks)[beat]
    phases = max(2, round(rr * (len(frames) - 1) / (times_s[-1] - times_s[0]))) if len(frames) > 1 else 1
    wanted = np.arange(phases) / phases
    distance = np.abs((phase[None, :] - wanted[:, None] + 0.5) % 1 - 0.5) * phases
    weights = np.maximum(1 - distance, 0) + 1e-6 * (distance == distance.min(1, keepdims=True))
    mean = np.tensordot(weights / weights.sum(1, keepdims=True), frames.astype(np.float32), 1)
    steady = ((times_s - r[0]) / rr) % 1
    return np.rint(mean[np.rint(steady * phases).astype(np.int64) % phases]).astype(np.uint8)


def shift_regression(given_s: Sequence[float], measured_s: Sequence[float | None]) -> dict[str, Any]:
    """Measured shift against given shift: slope 1 means that the ECG drives the motion, 0 that it does not.

    Ordinary least squares; the interval of the slope is the regression's own (1.96 standard errors).

    Args:
        given_s: by how much each clip's ECG was moved (`shifted_ecg`).
        measured_s: by how much its LV curve moved (`synchrony.curve_shift_s` against the clip of the unmoved ECG);
            None where it could not be told.

    Returns:
        `slope`, `intercept_ms`, `r`, `n`, `slope_ci95` [low, high]; None where nothing can be computed.
    """
    pairs = np.array([(g, m) for g, m in zip(given_s, measured_s, strict=True) if m is not None], np.float64)
    n = len(pairs)
    empty = {"slope": None, "intercept_ms": None, "r": None, "n": n, "slope_ci95": None}
    if n < 3 or np.ptp(pairs[:, 0]) == 0:
        return empty
    x, y = pairs[:, 0] - pairs[:, 0].mean(), pairs[:, 1] - pairs[:, 1].mean()
    slope = float(x @ y / (x @ x))
    residual = float(np.sum((y - slope * x) ** 2))
    half = 1.96 * float(np.sqrt(residual / (n - 2) / (x @ x)))
    return {
        "slope": slope,
        "intercept_ms": 1e3 * float(pairs[:, 1].mean() - slope * pairs[:, 0].mean()),
        "r": float(x @ y / np.sqrt((x @ x) * (y @ y))) if y @ y > 0 else 0.0,
        "n": n,
        "slope_ci95": [slope - half, slope + half],
    }
