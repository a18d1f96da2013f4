"""ECG readings in the data that Google exports for Fitbit watches (`afib_ecg_reading_*.csv`).

One row a reading; the last column holds bracketed whole numbers. The export says neither rate nor
gain: both are taken from the documentation of the Fitbit Web API (250 Hz, lead I, 10922 steps a
millivolt), which serves the same readings.
"""

import re
from pathlib import Path

import numpy as np

from echopulse.errors import InputError
from echopulse.io.ecg_formats.channels import check_size, wanted_samples
from echopulse.signals.ecg import EcgSignal

_RATE_HZ = 250.0
_STEPS_PER_MILLIVOLT = 10922
_READING = re.compile(r"\[([\s\d,+\-]*)\]")


def is_fitbit(text: str) -> bool:
    """Whether the first line of a text names the columns of a Fitbit ECG reading."""
    columns = text[:4096].partition("\n")[0].lower()
    return "waveform_samples" in columns and "result_classification" in columns


def read(path: Path, text: str, max_duration_s: float | None) -> EcgSignal:
    """Reads the only reading of a file, in millivolts.

    Args:
        path: the file, for messages.
        text: its content.
        max_duration_s: keep only the beginning.

    Raises:
        InputError: no samples, or several readings.
    """
    readings = _READING.findall(text.partition("\n")[2])
    if len(readings) != 1:
        raise InputError(f"{path}: {len(readings)} ECG readings; expected one a file, as in afib_ecg_reading_*.csv")
    counts = np.array(readings[0].replace(",", " ").split(), dtype=np.float64)
    check_size(path, 1, counts.size)
    counts = counts[: wanted_samples(counts.size, _RATE_HZ, max_duration_s)]
    notes = (f"rate and gain are not in the export; {_RATE_HZ:g} Hz and {_STEPS_PER_MILLIVOLT} steps a mV assumed",)
    return EcgSignal(
        counts[None] / _STEPS_PER_MILLIVOLT, ("I",), _RATE_HZ, source=path.name, format="fitbit", notes=notes
    )
