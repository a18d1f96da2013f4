"""EDF, EDF+ and BDF: the ECG channels among others, chosen by their labels.

Reference: Kemp et al. (1992), "A simple format for exchange of digitized polygraphic recordings".
"""

import math
from pathlib import Path

import numpy as np

from echopulse.errors import InputError
from echopulse.io.ecg_formats.channels import check_size, is_ecg_label, millivolts_per, wanted_samples
from echopulse.signals.ecg import EcgSignal
from echopulse.signals.leads import unique_leads

_EDF = b"0       "
_BDF = b"\xffBIOSEMI"


def is_edf(head: bytes) -> bool:
    """Whether a file begins like EDF or BDF."""
    return head[:8] in (_EDF, _BDF)


def read(path: Path, max_duration_s: float | None) -> EcgSignal:
    """Reads the ECG channels, in millivolts; of several rates the highest.

    Args:
        path: the file.
        max_duration_s: read only the beginning.

    Raises:
        InputError: cut short, discontinuous, or no ECG channel in it.
    """
    import edfio

    is_bdf = _check_header(path)
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
    samples = wanted_samples(length, rate, max_duration_s)
    check_size(path, len(channels), samples)
    values = [channel.get_data_slice(0, samples / rate)[:samples] * scale for channel, scale in channels]
    return EcgSignal(
        np.stack(values),
        unique_leads([channel.label for channel, _ in channels]),
        rate,
        source=path.name,
        format="bdf" if is_bdf else "edf",
    )


def _check_header(path: Path) -> bool:
    """Compares the sizes in the header with the file; says whether it is BDF."""
    with path.open("rb") as file:
        fixed = file.read(256)
        if len(fixed) < 256:
            raise InputError(f"{path}: cut short: an EDF header has 256 bytes, this file {len(fixed)}")
        is_bdf = fixed[:8] == _BDF
        if fixed[192:197] in (b"EDF+D", b"BDF+D"):
            raise InputError(f"{path}: the recording has gaps (EDF+D); export a continuous part of it")
        records, signals = _number(path, fixed[236:244]), int(_number(path, fixed[252:256]))
        duration_s = _number(path, fixed[244:252])
        check_size(path, signals, 0)
        if signals < 1 or not duration_s > 0:
            raise InputError(f"{path}: {signals} signals in records of {duration_s:g} s; expected positive numbers")
        per_signal = file.read(256 * signals)
    if len(per_signal) < 256 * signals:
        raise InputError(f"{path}: cut short in the header of its {signals} signals")
    counts = [_number(path, per_signal[216 * signals + 8 * i :][:8]) for i in range(signals)]
    if min(counts) < 0 or sum(counts) < 1:
        raise InputError(f"{path}: a signal has a negative number of samples")
    needed = 256 * (signals + 1) + max(records, 1) * sum(counts) * (3 if is_bdf else 2)
    if path.stat().st_size < needed:
        raise InputError(
            f"{path}: cut short: {path.stat().st_size} bytes where its header declares {needed:.0f}; copy it again"
        )
    return is_bdf


def _number(path: Path, field: bytes) -> float:
    try:
        value = float(field.decode("ascii").strip())
    except ValueError as error:
        raise InputError(f"{path}: damaged EDF header: {field!r} where a number belongs") from error
    if not math.isfinite(value):
        raise InputError(f"{path}: damaged EDF header: {field!r} where a number belongs")
    return value
