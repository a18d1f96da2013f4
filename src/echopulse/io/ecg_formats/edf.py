"""EDF, EDF+ and BDF: the ECG channels among others, chosen by their labels.

Of a discontinuous recording (EDF+D, BDF+D) the records are put where their time stamps say.

References: Kemp et al. (1992), "A simple format for exchange of digitized polygraphic recordings";
Kemp and Olivan (2003), "European data format 'plus' (EDF+)".
"""

import math
import re
from pathlib import Path

import numpy as np

from echopulse.errors import InputError
from echopulse.io.ecg_formats.channels import bridge_gaps, check_size, is_ecg_label, millivolts_per, wanted_samples
from echopulse.signals.ecg import EcgSignal
from echopulse.signals.leads import unique_leads

_EDF = b"0       "
_BDF = b"\xffBIOSEMI"
_TIME_STAMP = re.compile(rb"([+-]\d+(?:\.\d*)?)\x14")


def is_edf(head: bytes) -> bool:
    """Whether a file begins like EDF or BDF."""
    return head[:8] in (_EDF, _BDF)


def read(path: Path, max_duration_s: float | None) -> EcgSignal:
    """Reads the ECG channels, in millivolts; of several rates the highest.

    Args:
        path: the file.
        max_duration_s: read only the beginning.

    Raises:
        InputError: cut short, or no ECG channel in it.
    """
    import edfio

    is_bdf, onsets_s = _check_header(path)
    recording = edfio.read_bdf(path) if is_bdf else edfio.read_edf(path, lazy_load_data=True)
    channels = [
        (channel, scale)
        for channel in recording.signals
        if (scale := millivolts_per(channel.physical_dimension)) is not None and is_ecg_label(channel.label)
    ]
    if not channels:
        labels = ", ".join(f"{channel.label} [{channel.physical_dimension}]" for channel in recording.signals)
        raise InputError(f"{path}: no ECG channel in volts among {labels or 'no channels'}")
    rate = max(channel.sampling_frequency for channel, _ in channels)
    channels = [(channel, scale) for channel, scale in channels if channel.sampling_frequency == rate]
    length = int(recording.num_data_records * channels[0][0].samples_per_data_record)
    names, scales = [channel.label for channel, _ in channels], np.array([[scale] for _, scale in channels])
    samples = length if onsets_s is not None else wanted_samples(length, rate, max_duration_s)
    check_size(path, len(channels), samples)
    values = np.stack([channel.get_data_slice(0, samples / rate)[:samples] for channel, _ in channels]) * scales
    notes, gaps = (), ()
    if onsets_s is not None:
        values = _place(path, values, onsets_s, rate)
        values = values[:, : wanted_samples(values.shape[1], rate, max_duration_s)]
        names, values, notes, gaps = bridge_gaps(path, names, values, rate)
    form = "bdf" if is_bdf else "edf"
    return EcgSignal(values, unique_leads(names), rate, source=path.name, format=form, notes=notes, gaps_s=gaps)


def _place(path: Path, values: np.ndarray, onsets_s: np.ndarray, rate: float) -> np.ndarray:
    """Data records at their times on one line, nan between them."""
    length = values.shape[1] // onsets_s.size
    starts = np.rint((onsets_s - onsets_s[0]) * rate)
    if np.any(np.diff(starts) < length):
        raise InputError(f"{path}: data records overlap in time; expected each to begin after the one before it")
    check_size(path, values.shape[0], starts[-1] + length)
    line = np.full((values.shape[0], int(starts[-1]) + length), np.nan)
    places = starts.astype(np.int64)[:, None] + np.arange(length)
    line[:, places.ravel()] = values[:, : places.size]
    return line


def _check_header(path: Path) -> tuple[bool, np.ndarray | None]:
    """Compares the sizes in the header with the file.

    Returns:
        Whether it is BDF; and, of a discontinuous recording, the time of every data record in seconds.
    """
    with path.open("rb") as file:
        fixed = file.read(256)
        if len(fixed) < 256:
            raise InputError(f"{path}: cut short: an EDF header has 256 bytes, this file {len(fixed)}")
        is_bdf = fixed[:8] == _BDF
        records, signals = _number(path, fixed[236:244]), int(_number(path, fixed[252:256]))
        duration_s = _number(path, fixed[244:252])
        check_size(path, signals, 0)
        if signals < 1 or not duration_s > 0:
            raise InputError(f"{path}: {signals} signals in records of {duration_s:g} s; expected positive numbers")
        per_signal = file.read(256 * signals)
    if len(per_signal) < 256 * signals:
        raise InputError(f"{path}: cut short in the header of its {signals} signals")
    counts = [_number(path, per_signal[216 * signals + 8 * i :][:8]) for i in range(signals)]
    if any(count < 0 or count != int(count) for count in counts) or sum(counts) < 1:
        raise InputError(f"{path}: the numbers of samples of its signals are not whole and positive")
    width = 3 if is_bdf else 2
    needed = 256 * (signals + 1) + max(records, 1) * sum(counts) * width
    if path.stat().st_size < needed:
        raise InputError(
            f"{path}: cut short: {path.stat().st_size} bytes where its header declares {needed:.0f}; copy it again"
        )
    if fixed[192:197] not in (b"EDF+D", b"BDF+D"):
        return is_bdf, None
    labels = [per_signal[16 * i : 16 * i + 16].strip() for i in range(signals)]
    stamped = next((i for i, label in enumerate(labels) if label in (b"EDF Annotations", b"BDF Annotations")), None)
    if stamped is None:
        raise InputError(f"{path}: discontinuous, but without the annotations that say when its records are")
    sizes = [int(count) * width for count in counts]
    count = (path.stat().st_size - 256 * (signals + 1)) // sum(sizes) if records < 0 else int(records)
    rows = np.memmap(path, np.uint8, "r", offset=256 * (signals + 1), shape=(count, sum(sizes)))
    return is_bdf, _time_stamps(path, rows[:, sum(sizes[:stamped]) : sum(sizes[: stamped + 1])])


def _time_stamps(path: Path, annotations: np.ndarray) -> np.ndarray:
    """Seconds at which the data records begin, from their first annotation."""
    stamps = [_TIME_STAMP.match(row.tobytes()) for row in annotations]
    times = np.array([float(stamp[1]) for stamp in stamps if stamp])
    if times.size == 0 or times.size < len(stamps):
        raise InputError(f"{path}: discontinuous, but {len(stamps) - times.size} data records have no time stamp")
    return times


def _number(path: Path, field: bytes) -> float:
    try:
        value = float(field.decode("ascii").strip())
    except ValueError as error:
        raise InputError(f"{path}: damaged EDF header: {field!r} where a number belongs") from error
    if not math.isfinite(value):
        raise InputError(f"{path}: damaged EDF header: {field!r} where a number belongs")
    return value
