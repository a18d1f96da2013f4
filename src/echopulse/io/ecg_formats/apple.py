"""The CSV that Apple Health exports for an Apple Watch ECG, in any language.

The header is translated and some languages write decimal commas, so nothing is looked up by name:
a line that is one number is a sample, everything before the first is header, and the rate is the
first header value that is a number followed by a unit. Where the unit of the samples is translated, too,
it is microvolts, which Apple always writes.
"""

import csv
import re
from pathlib import Path

import numpy as np

from echopulse.errors import InputError
from echopulse.io.ecg_formats.channels import check_size, millivolts_per, wanted_samples
from echopulse.signals.ecg import EcgSignal

_SAMPLE = re.compile(r"\s*[+-]?\d+(?:[.,]\d+)?\s*")
_RATE = re.compile(r"\s*(\d+(?:[.,]\d+)?)\s*[^\W\d_][^\d\s]*\s*")
_HEADER_LINES = 40
_MIN_VALUES = 6
_MILLIVOLTS = 1e-3


def is_apple(text: str) -> bool:
    """Whether a text begins like an Apple Watch ECG: a header with a rate, then one number a line."""
    header = _header(text.splitlines()[:_HEADER_LINES])
    return _rate(header) is not None and (_unit(header) is not None or len(_values(header)) >= _MIN_VALUES)


def read(path: Path, text: str, max_duration_s: float | None) -> EcgSignal:
    """Reads the samples, in millivolts.

    Args:
        path: the file, for messages.
        text: its content.
        max_duration_s: keep only the beginning.

    Raises:
        InputError: a line between the samples that is no number.
    """
    lines = text.splitlines()
    header = _header(lines[:_HEADER_LINES])
    rate, scale = _rate(header), _unit(header) or _MILLIVOLTS
    assert rate is not None, "is_apple was asked first"
    body = [(number, line) for number, line in enumerate(lines[len(header) :], len(header) + 1) if line.strip()]
    body = body[: wanted_samples(len(body), rate, max_duration_s)]
    check_size(path, 1, len(body))
    for number, line in body:
        if not _SAMPLE.fullmatch(line):
            raise InputError(f"{path}: line {number} is {line.strip()[:40]!r}; expected one number in microvolts")
    values = np.array([float(line.replace(",", ".")) for _, line in body], dtype=np.float64)
    return EcgSignal(values[None] * scale, ("I",), rate, source=path.name, format="apple_watch")


def _header(lines: list[str]) -> list[str]:
    for count, line in enumerate(lines):
        if _SAMPLE.fullmatch(line):
            return lines[:count]
    return lines


def _values(header: list[str]) -> list[str]:
    """What stands after the first comma of every header line."""
    return [",".join(row[1:]) for row in csv.reader(header) if len(row) > 1]


def _rate(header: list[str]) -> float | None:
    for value in _values(header):
        if match := _RATE.fullmatch(value):
            return float(match[1].replace(",", "."))
    return None


def _unit(header: list[str]) -> float | None:
    scales = [scale for value in _values(header) if (scale := millivolts_per(value)) is not None]
    return scales[-1] if scales else None
