"""What the readers share: units, the choice of ECG channels, gaps, and the limit on size."""

from pathlib import Path

import numpy as np

from echopulse.axes import STANDARD_LEADS
from echopulse.errors import InputError
from echopulse.signals.leads import normalize_lead, standard_lead

MAX_VALUES = 100_000_000
"""Samples times leads that are read at most: 2.3 hours of 12 leads at 1000 Hz."""

MAX_CHANNELS = 256

LEAD_NUMBERS = {
    **{1: "I", 2: "II", 61: "III", 62: "aVR", 63: "aVL", 64: "aVF"},
    **{number + 2: f"V{number}" for number in range(1, 8)},
    **{number + 8: f"V{number}R" for number in range(2, 8)},
    **{16: "X", 17: "Y", 18: "Z", 66: "V8", 67: "V9"},
}
"""Lead codes of SCP-ECG (EN 1064), which DICOM and ISO/IEEE 11073-10102 took over."""

_MILLIVOLTS = {"nv": 1e-6, "uv": 1e-3, "mv": 1.0, "v": 1e3}
_WITH_FRANK = (*STANDARD_LEADS, "X", "Y", "Z")


def millivolts_per(unit: str) -> float | None:
    """How many millivolts one unit is, or None where it is no voltage."""
    return _MILLIVOLTS.get(unit.strip().replace("µ", "u").replace("μ", "u").lower())


def is_ecg_label(label: str) -> bool:
    """Whether a channel label names an ECG: a lead, or anything with ECG or EKG in it."""
    known = normalize_lead(label) in _WITH_FRANK or standard_lead(label) is not None
    return known or "ecg" in label.lower() or "ekg" in label.lower()


def check_size(path: Path, channels: int, samples: float) -> None:
    """Refuses what does not fit in memory, before anything is allocated.

    Raises:
        InputError: too many channels or samples.
    """
    if not 0 <= channels <= MAX_CHANNELS:
        raise InputError(f"{path}: the header says {channels} channels; expected at most {MAX_CHANNELS}")
    if not 0 <= channels * samples <= MAX_VALUES:
        raise InputError(
            f"{path}: {channels} channels of {samples:.3g} samples; at most {MAX_VALUES:g} values are read at once, "
            "so read a part of it with max_duration_s"
        )


def wanted_samples(available: int, sampling_rate_hz: float, max_duration_s: float | None) -> int:
    """Samples to read of those available."""
    if max_duration_s is None or not np.isfinite(sampling_rate_hz):
        return available
    return min(available, max(0, round(max_duration_s * sampling_rate_hz)))


def stack_leads(path: Path, names: list[str], rows: list[np.ndarray]) -> tuple[list[str], np.ndarray, tuple[str, ...]]:
    """The leads of full length as one array, with a note on those that are shorter.

    Returns:
        Names, samples of shape (leads, samples), notes.

    Raises:
        InputError: no lead at all.
    """
    longest = max((row.size for row in rows), default=0)
    if longest == 0:
        raise InputError(f"{path}: the file holds no ECG samples")
    check_size(path, len(rows), longest)
    kept = [index for index, row in enumerate(rows) if row.size == longest]
    left_out = [name for index, name in enumerate(names) if index not in kept]
    notes = (f"shorter leads left out: {', '.join(left_out)}",) if left_out else ()
    return [names[index] for index in kept], np.stack([rows[index] for index in kept]), notes


def bridge_gaps(
    path: Path, names: list[str], samples: np.ndarray, sampling_rate_hz: float
) -> tuple[list[str], np.ndarray, tuple[str, ...], tuple[tuple[float, float], ...]]:
    """Bridges missing samples (nan) by straight lines; leads that miss more than half are left out.

    Args:
        path: the file, for messages.
        names: one a lead.
        samples: shape (leads, samples).
        sampling_rate_hz: samples per second.

    Returns:
        Names, samples without nan, notes, and the gaps as (from, to) in seconds.

    Raises:
        InputError: every lead misses more than half of its samples.
    """
    missing = np.isnan(samples)
    if not missing.any():
        return names, samples, (), ()
    kept = np.flatnonzero(missing.mean(axis=1) <= 0.5)
    if kept.size == 0:
        raise InputError(f"{path}: more than half of the samples of every lead are missing")
    left_out = [name for index, name in enumerate(names) if index not in kept]
    samples, missing = samples[kept].copy(), missing[kept]
    positions = np.arange(samples.shape[1])
    for row, absent in zip(samples, missing, strict=True):
        row[absent] = np.interp(positions[absent], positions[~absent], row[~absent])
    edges = np.flatnonzero(np.diff(np.concatenate(([False], missing.any(axis=0), [False])).astype(np.int8)))
    gaps = tuple((float(first), float(last)) for first, last in edges.reshape(-1, 2) / sampling_rate_hz)
    notes = (f"leads with few samples left out: {', '.join(left_out)}",) if left_out else ()
    return [names[index] for index in kept], samples, notes, gaps
