"""Tables of numbers without a rate of their own: CSV and NPY, in millivolts."""

import re
from io import StringIO
from pathlib import Path

import numpy as np

from echopulse.axes import STANDARD_LEADS
from echopulse.errors import InputError
from echopulse.io.ecg_formats.channels import check_size, wanted_samples
from echopulse.signals.ecg import EcgSignal
from echopulse.signals.leads import unique_leads

MAX_LEADS = 64
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?|nan|inf(?:inity)?)", re.IGNORECASE)
_CLOCK = re.compile(r"(?:elapsed )?time\b.*|time_\w+|t|index|sample(?: ?#|s| number)?|seconds|ms|s", re.IGNORECASE)


def is_npy(head: bytes) -> bool:
    """Whether a file begins like NPY."""
    return head[:6] == b"\x93NUMPY"


def is_table(text: str) -> bool:
    """Whether the first or second line of a text is a row of numbers."""
    lines = _content(text[:65536])[:2]
    return any(_is_row(line, _delimiter(lines)) for line in lines)


def read_csv(
    path: Path, text: str, sampling_rate_hz: float, leads: tuple[str, ...] | None, max_duration_s: float | None
) -> EcgSignal:
    """Reads a table with one lead a column, in millivolts.

    Columns are parted by commas, semicolons, tabs or blanks. The first line may name the leads; a
    column named as a clock (`time`, `index`, ...) is left out. Decimal commas are understood where
    the columns are parted by semicolons or tabs.

    Args:
        path: the file, for messages.
        text: its content.
        sampling_rate_hz: samples per second.
        leads: names of the columns; they win over those of the file.
        max_duration_s: read only the beginning.

    Raises:
        InputError: a line that is no row of numbers, or names that do not match the columns.
    """
    lines = _content(text)
    delimiter = _delimiter(lines[:2])
    named = not _is_row(lines[0], delimiter)
    body = lines[1:] if named else lines
    body = body[: wanted_samples(len(body), sampling_rate_hz, max_duration_s)]  # so that no more is parsed
    if delimiter in (";", "\t"):
        body = [line.replace(",", ".") for line in body]
    try:
        table = np.loadtxt(StringIO("\n".join(body)), delimiter=delimiter, ndmin=2, dtype=np.float64, comments=None)
    except ValueError as error:
        raise InputError(f"{path}: not a table of numbers: {' '.join(str(error).split())}") from error
    names = None
    if named:
        fields = [lines[0]] if delimiter is None and table.shape[1] == 1 else lines[0].split(delimiter)
        names = [field.strip(" \t\"'") for field in fields]
        if len(names) != table.shape[1]:
            raise InputError(f"{path}: {len(names)} names in the first line for {table.shape[1]} columns")
        kept = [index for index, name in enumerate(names) if not _CLOCK.fullmatch(name)]
        table, names = table[:, kept], [names[index] for index in kept]
    return table_signal(path, table.T, names, sampling_rate_hz, leads, "csv", max_duration_s)


def read_npy(
    path: Path, sampling_rate_hz: float, leads: tuple[str, ...] | None, max_duration_s: float | None
) -> EcgSignal:
    """Reads an array of shape (samples,), (leads, samples) or (samples, leads), in millivolts.

    The longer axis is time.

    Args:
        path: the file.
        sampling_rate_hz: samples per second.
        leads: names of the leads.
        max_duration_s: read only the beginning.

    Raises:
        InputError: another shape or type.
    """
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if array.ndim not in (1, 2) or array.dtype.kind not in "iuf" or array.size == 0:
        raise InputError(f"{path}: {array.dtype} of shape {array.shape}; expected real numbers, (leads, samples)")
    rows = array[None] if array.ndim == 1 else array if array.shape[1] >= array.shape[0] else array.T
    return table_signal(path, rows, None, sampling_rate_hz, leads, "npy", max_duration_s)


def need_rate(path: Path, sampling_rate_hz: float | None) -> float:
    """The rate, which a file of this kind does not say.

    Raises:
        InputError: nobody said it.
    """
    if sampling_rate_hz is None:
        raise InputError(f"{path}: the file does not say its sampling rate; give it with --rate, as in --rate 500")
    return sampling_rate_hz


def table_signal(
    path: Path,
    rows: np.ndarray,
    names: list[str] | None,
    rate: float,
    leads: tuple[str, ...] | None,
    form: str,
    max_duration_s: float | None,
) -> EcgSignal:
    """Rows of millivolts as an ECG; 12 rows without names are the standard leads.

    Raises:
        InputError: too many rows, or names that do not match them.
    """
    count = rows.shape[0]
    if count > MAX_LEADS:
        raise InputError(f"{path}: {count} leads; expected at most {MAX_LEADS} (one lead a column)")
    rows = rows[:, : wanted_samples(rows.shape[1], rate, max_duration_s)]
    check_size(path, count, rows.shape[1])
    if leads is not None and len(leads) != count:
        raise InputError(f"{path}: {len(leads)} lead names given for {count} columns")
    unnamed = STANDARD_LEADS if count == len(STANDARD_LEADS) else ("",) * count
    return EcgSignal(rows, unique_leads(list(leads or names or unnamed)), rate, source=path.name, format=form)


def _content(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


def _delimiter(lines: list[str]) -> str | None:
    return next((mark for mark in (";", "\t", ",") if any(mark in line for line in lines)), None)


def _is_row(line: str, delimiter: str | None) -> bool:
    decimal_comma = delimiter in (";", "\t")
    fields = [field.strip().replace(",", ".") if decimal_comma else field.strip() for field in line.split(delimiter)]
    return bool(fields) and all(_NUMBER.fullmatch(field) for field in fields)
