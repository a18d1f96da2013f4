"""MATLAB files of level 5 that hold an ECG as a matrix, bare or in a struct, in millivolts."""

import zlib
from pathlib import Path
from typing import Any

import numpy as np

from echopulse.errors import InputError
from echopulse.io.ecg_formats.plain import MAX_LEADS, need_rate, table_signal
from echopulse.signals.ecg import EcgSignal

_MAX_BYTES = 1 << 29
_COMPRESSED = 15
_MAX_DEPTH = 4
_RATES = {"fs", "sfreq", "rate", "srate", "samplerate", "samplingrate", "samplefrequency", "samplingfrequency"}


def is_mat(head: bytes) -> bool:
    """Whether a file begins like MATLAB's level 5 or 7.3."""
    return head[:6] == b"MATLAB"


def read(
    path: Path, sampling_rate_hz: float | None, leads: tuple[str, ...] | None, max_duration_s: float | None
) -> EcgSignal:
    """Reads the largest matrix of a file, in millivolts; its longer axis is time.

    Args:
        path: the file.
        sampling_rate_hz: samples per second; by default a number beside the matrix that is named as one.
        leads: names of the leads.
        max_duration_s: read only the beginning.

    Raises:
        InputError: no matrix, or no rate.
    """
    import scipy.io

    with path.open("rb") as file:
        if file.read(10) == b"MATLAB 7.3":
            raise InputError(f"{path}: MATLAB 7.3 (HDF5); save it with save(name, variable, '-v7')")
    _check_expanded_size(path)
    found = list(_arrays(scipy.io.loadmat(path, simplify_cells=True), _MAX_DEPTH))
    matrices = [array for _, array in found if array.ndim <= 2 and array.size > 1]
    if not matrices:
        raise InputError(f"{path}: no matrix of numbers in it; expected (leads, samples)")
    matrix = np.atleast_2d(max(matrices, key=lambda array: array.size))
    rows = matrix if matrix.shape[1] >= matrix.shape[0] else matrix.T
    if rows.shape[0] > MAX_LEADS:
        raise InputError(f"{path}: a matrix of shape {matrix.shape}; expected at most {MAX_LEADS} leads")
    stated = [float(array.reshape(-1)[0]) for name, array in found if array.size == 1 and _is_rate(name)]
    rate = sampling_rate_hz or need_rate(path, stated[0] if stated else None)
    return table_signal(path, rows, None, rate, leads, "mat", max_duration_s)


def _is_rate(name: str) -> bool:
    return name.lower().replace("_", "").removesuffix("hz") in _RATES


def _arrays(values: Any, depth: int) -> Any:
    """Names and arrays of real numbers in nested structs."""
    for name, value in values.items():
        if isinstance(value, dict) and depth:
            yield from _arrays(value, depth - 1)
        elif not name.startswith("__"):
            array = np.asarray(value)
            if array.dtype.kind in "iuf":
                yield name, array


def _check_expanded_size(path: Path) -> None:
    """Expands every compressed variable piece by piece without keeping it, up to the limit."""
    expanded, size = 0, path.stat().st_size
    with path.open("rb") as file:
        order = "big" if file.read(128)[126:128] == b"MI" else "little"
        while file.tell() + 8 <= size:
            kind, length = (int.from_bytes(file.read(4), order) for _ in range(2))
            end = file.tell() + length
            decompressor = zlib.decompressobj()
            while kind == _COMPRESSED and file.tell() < min(end, size) and expanded <= _MAX_BYTES:
                packed = file.read(min(1 << 16, end - file.tell()))
                while packed and expanded <= _MAX_BYTES:
                    expanded += len(decompressor.decompress(packed, 1 << 20))
                    packed = decompressor.unconsumed_tail
            file.seek(end)
    if max(expanded, size) > _MAX_BYTES:
        raise InputError(f"{path}: holds more than {_MAX_BYTES} bytes; save the ECG alone")
