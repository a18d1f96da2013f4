"""Agreement of two readings, confidence intervals by resampling patients, and warnings about small sets."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

RECOMMENDED_CLIPS = 500
"""Below this many clips distances between sets are biased and intervals wide."""


def cluster_bootstrap(
    statistic: Callable[[np.ndarray], float | None],
    patients: Sequence[str],
    draws: int = 2000,
    seed: int = 0,
) -> tuple[float, float] | None:
    """95 % percentile interval of a statistic under resampling of whole patients.

    A patient who is drawn brings all of their clips (and all seeds of them), so that clips of one patient never
    count as independent.

    Args:
        statistic: maps clip indices, repeats included, to a number; None or nan where it is undefined.
        patients: label of every clip.
        draws: resamples.
        seed: of the draws.

    Returns:
        The interval, or None with fewer than two patients or where fewer than nine draws in ten give a number.
    """
    names, labels = np.unique(np.asarray(patients), return_inverse=True)
    if len(names) < 2:
        return None
    order = np.argsort(labels, kind="stable")
    clips_of = np.split(order, np.cumsum(np.bincount(labels))[:-1])
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(draws):
        drawn = rng.integers(len(names), size=len(names))
        value = statistic(np.concatenate([clips_of[i] for i in drawn]))
        if value is not None and np.isfinite(value):
            values.append(value)
    if len(values) < 0.9 * draws:
        return None
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def size_warnings(num_clips: int, num_patients: int) -> list[str]:
    """What a reader must know about the size of the comparison; empty when it is large enough."""
    warnings = []
    if num_clips < RECOMMENDED_CLIPS:
        warnings.append(
            f"{num_clips} clips: fewer than {RECOMMENDED_CLIPS}. Distances between sets are biased upward by small "
            "counts; read them beside their floor at the same count, and prefer the kernel distance."
        )
    if num_patients < 50:
        warnings.append(f"{num_patients} patients: intervals are wide, and R² can change by 0.2 from sample to sample.")
    return warnings


def ef_agreement(predicted: Sequence[float], reference: Sequence[float]) -> dict[str, Any]:
    """Agreement of two EF readings of the same clips, percentage points.

    R² is 1 − SSE/SST, which a bias lowers, and not the squared correlation, which it does not. R² depends on the
    spread of the reference; the spread stands beside it for that reason. Limits of agreement: bias ± 1.96 SD of the
    differences (Bland and Altman 1986).

    Args:
        predicted: EF in percent.
        reference: EF in percent, same order.

    Returns:
        `mae`, `rmse`, `r2`, `bias` (predicted - reference), `n`, `spread` (SD of the reference), `loa` [low, high].
        Values that cannot be computed are None.
    """
    p, r = np.asarray(predicted, np.float64), np.asarray(reference, np.float64)
    assert p.shape == r.shape and p.ndim == 1
    if p.size == 0:
        return {"mae": None, "rmse": None, "r2": None, "bias": None, "n": 0, "spread": None, "loa": None}
    error = p - r
    bias, rmse = float(error.mean()), float(np.sqrt(np.mean(error**2)))
    result: dict[str, Any] = {"mae": float(np.abs(error).mean()), "rmse": rmse, "r2": None, "bias": bias, "n": p.size}
    result |= {"spread": None, "loa": None}
    if p.size > 1:
        total, spread = float(np.sum((r - r.mean()) ** 2)), 1.96 * float(error.std(ddof=1))
        result |= {"spread": float(r.std(ddof=1)), "loa": [bias - spread, bias + spread]}
        if total > 0:
            result["r2"] = 1 - float(np.sum(error**2)) / total
    return result
