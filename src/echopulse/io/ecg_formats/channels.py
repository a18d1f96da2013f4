"""What the readers share: units, the choice of ECG channels, and the limit on size."""

from pathlib import Path

import numpy as np

from echopulse.axes import STANDARD_LEADS
from echopulse.errors import InputError
from echopulse.signals.leads import normalize_lead, standard_lead

MAX_VALUES = 100_000_000
"""Samples times leads that are read at most: 2.3 hours of 12 leads at 1000 Hz."""

MAX_CHANNELS = 256

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
