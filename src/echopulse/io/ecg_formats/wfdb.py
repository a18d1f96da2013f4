"""WFDB records (PhysioNet): a `.hea` header beside signal files, `.mat` of the Challenges included.

Reference: Moody, "WFDB Applications Guide", header(5) and signal(5).
"""

import math
import re
from pathlib import Path
from typing import Any

import numpy as np

from echopulse.errors import InputError
from echopulse.io.ecg_formats.channels import bridge_gaps, check_size, is_ecg_label, millivolts_per, wanted_samples
from echopulse.signals.ecg import EcgSignal
from echopulse.signals.leads import unique_leads

_RECORD_LINE = re.compile(rb"^[\w.\-]+(?:/\d+)?[ \t]+\d+(?:[ \t]+[\d.eE+\-]+(?:/\S*)?(?:[ \t]+\d+.*)?)?\s*$")
_NUMBER = re.compile(rb"[\d.,;eE+\-]*")
_BYTES_PER_SAMPLE = {
    **{"8": 1.0, "16": 2.0, "24": 3.0, "32": 4.0, "61": 2.0, "80": 1.0, "160": 2.0},
    **{"212": 1.5, "310": 4 / 3, "311": 4 / 3},
}
_COMPRESSED = ("508", "516", "524")
_MAX_HEADER_BYTES = 1 << 20


def is_header(head: bytes) -> bool:
    """Whether a file begins like a WFDB header, whatever its ending."""
    lines = [line for line in head.splitlines() if line.strip() and not line.lstrip().startswith(b"#")]
    if len(lines) < 2 or not _RECORD_LINE.match(lines[0]):
        return False
    first, *rest = lines[1].split()
    return bool(rest) and rest[0][:1].isdigit() and not _NUMBER.fullmatch(first)


def header_of(path: Path) -> Path | None:
    """The header of the record that a signal file, or a name without ending, belongs to."""
    if not path.exists():
        header = path.with_name(path.name + ".hea")
        return header if header.is_file() else None
    header = path.with_suffix(".hea")
    if header == path or not header.is_file() or header.stat().st_size > _MAX_HEADER_BYTES:
        return None
    names = {line.split()[0] for line in header.read_bytes().splitlines() if line.strip()}
    return header if path.name.encode() in names else None


def read(path: Path, max_duration_s: float | None) -> EcgSignal:
    """Reads the voltage channels of a record, in millivolts.

    Args:
        path: the `.hea` file.
        max_duration_s: read only the beginning.

    Raises:
        InputError: the header and its signal files do not fit together.
    """
    import wfdb

    if path.suffix != ".hea":
        raise InputError(f"{path}: this is a WFDB header, whose name must end in .hea; rename it")
    if path.stat().st_size > _MAX_HEADER_BYTES:
        raise InputError(f"{path}: a WFDB header of {path.stat().st_size} bytes; expected at most {_MAX_HEADER_BYTES}")
    _check_channel_count(path)
    record_name = str(path.resolve().with_suffix(""))
    header: Any = wfdb.rdheader(record_name, rd_segments=True)
    length = _check(path, header)
    rate = float(header.fs)
    samples = wanted_samples(length, rate, max_duration_s)
    check_size(path, int(header.n_sig), samples * max(_frame_sizes(header)))
    record: Any = wfdb.rdrecord(record_name, sampto=samples, warn_empty=True, smooth_frames=False)
    if not record.e_p_signal:
        raise InputError(f"{path}: the record holds no signal")
    labels = [name or "" for name in record.sig_name]
    scales = [millivolts_per(unit or "mV") for unit in record.units]
    voltages = [index for index, scale in enumerate(scales) if scale is not None]
    chosen = [index for index in voltages if is_ecg_label(labels[index])] or voltages
    if not chosen:
        raise InputError(f"{path}: no channel in volts among {', '.join(labels)}")
    fastest = max(record.e_p_signal[index].size for index in chosen)
    chosen = [index for index in chosen if record.e_p_signal[index].size == fastest]
    rate *= round(fastest / samples) if samples else 1  # a frame may hold several samples of a signal
    factors = np.array([scales[index] for index in chosen], dtype=np.float64)
    values = np.stack([record.e_p_signal[index] for index in chosen])
    values *= factors[:, None]
    names, values, notes, gaps = bridge_gaps(path, [labels[index] for index in chosen], values, rate)
    return EcgSignal(values, unique_leads(names), rate, source=path.name, format="wfdb", notes=notes, gaps_s=gaps)


def _frame_sizes(header: Any) -> list[int]:
    """Samples of each signal in a frame; of a record in segments, those of all segments."""
    segments = getattr(header, "segments", None)
    if segments is not None:
        return [size for segment in segments if segment is not None for size in _frame_sizes(segment)] or [1]
    return [int(size or 1) for size in header.samps_per_frame or [1]]


def _check_channel_count(path: Path) -> None:
    """The number of signals, before the library makes a list that long."""
    for line in path.read_bytes().splitlines():
        if line.strip() and not line.lstrip().startswith(b"#"):
            fields = line.split()
            if len(fields) < 2 or not fields[1].isdigit():
                raise InputError(f"{path}: the first line is not a WFDB record line")
            check_size(path, int(fields[1]), 0)
            return


def _check(path: Path, header: Any) -> int:
    """Samples per signal of a record whose files are all there and long enough."""
    segments = getattr(header, "segments", None)
    if segments is not None:
        for segment in segments:
            if segment is not None and segment.sig_len:
                _check(path.with_name(f"{segment.record_name}.hea"), segment)
        return int(header.sig_len or 0)
    if not header.n_sig:
        raise InputError(f"{path}: the header lists no signals")
    shortest = math.inf
    for name in dict.fromkeys(header.file_name):
        file = path.with_name(name)
        if not file.is_file():
            raise InputError(f"{file}: no such file, but {path.name} names it as a signal file")
        shortest = min(shortest, _check_file(path, header, file))
    if header.sig_len:
        return int(header.sig_len)
    if shortest == math.inf:
        raise InputError(f"{path}: the header does not say how long the compressed signal is")
    return int(shortest)


def _check_file(path: Path, header: Any, file: Path) -> float:
    """Samples in one signal file; infinite where compression hides it."""
    signals = [index for index, name in enumerate(header.file_name) if name == file.name]
    formats = {header.fmt[index] for index in signals}
    if formats <= set(_COMPRESSED):
        return math.inf
    if len(formats) != 1 or not formats <= set(_BYTES_PER_SAMPLE):
        raise InputError(f"{path}: signal format {', '.join(sorted(map(str, formats)))} is not supported")
    per_frame = sum(int(header.samps_per_frame[index] or 1) for index in signals)
    if per_frame < 1 or per_frame > 1_000_000:
        raise InputError(f"{path}: {per_frame} values in a frame; expected 1 to 1000000")
    frame_bytes = _BYTES_PER_SAMPLE[formats.pop()] * per_frame
    offset = int(header.byte_offset[signals[0]] or 0)
    frames = math.floor((file.stat().st_size - offset) / frame_bytes + 1e-6)
    if header.sig_len and frames < header.sig_len:
        raise InputError(
            f"{file}: cut short: {max(frames, 0)} samples per signal where {path.name} says {header.sig_len}; "
            "copy the record again"
        )
    return frames
