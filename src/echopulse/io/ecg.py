"""ECG files in: WFDB, DICOM, EDF/BDF, Apple Watch, CSV and NPY, told apart by content."""

import math
import warnings
from pathlib import Path

from echopulse.errors import InputError
from echopulse.io.ecg_formats import apple, dicom, edf, plain, wfdb
from echopulse.signals.ecg import EcgSignal
from echopulse.signals.leads import normalize_lead

FORMATS = "WFDB, DICOM waveform, EDF, BDF, Apple Watch CSV, plain CSV or NPY"

_MAX_TEXT_BYTES = 1 << 29
_RATE_RANGE_HZ = (40.0, 100_000.0)


def read_ecg(
    path: str | Path,
    *,
    sampling_rate_hz: float | None = None,
    leads: tuple[str, ...] | None = None,
    max_duration_s: float | None = None,
) -> EcgSignal:
    """Reads an ECG file of any supported format, in millivolts with normalized lead names.

    The format is recognized by content, not by ending. A WFDB record is named by its `.hea` file, one
    of its signal files, or its name without ending. The samples of CSV and NPY are taken as
    millivolts, 12 unnamed columns as the standard leads in their usual order.

    Args:
        path: the file.
        sampling_rate_hz: samples per second, for CSV and NPY, which do not say it.
        leads: names of the columns of CSV and NPY; of any other format, the leads to keep.
        max_duration_s: read only the beginning.

    Returns:
        The ECG; its clock starts at 0.

    Raises:
        InputError: the file is missing, damaged, of an unknown format, shorter than a second, or
            lacks what is needed to read it.
    """
    path = Path(path)
    if sampling_rate_hz is not None and not (math.isfinite(sampling_rate_hz) and sampling_rate_hz > 0):
        raise InputError(f"sampling rate is {sampling_rate_hz} Hz; expected a positive number")
    if max_duration_s is not None and not max_duration_s >= 1:
        raise InputError(f"max_duration_s is {max_duration_s}; expected at least 1 second")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a reader's remark on a file; what matters is checked here
            ecg = _read(path, sampling_rate_hz, leads, max_duration_s)
    except InputError as error:
        raise InputError(" ".join(str(error).split())) from error
    except Exception as error:  # whatever a reader makes of a damaged file
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: damaged or unreadable ({type(error).__name__}: {reason})") from error
    low, high = _RATE_RANGE_HZ
    if not low <= ecg.sampling_rate_hz <= high:
        raise InputError(f"{path}: sampling rate is {ecg.sampling_rate_hz:g} Hz; expected {low:g} to {high:g} Hz")
    if ecg.format in ("csv", "npy"):
        return ecg
    if sampling_rate_hz is not None and abs(sampling_rate_hz / ecg.sampling_rate_hz - 1) > 1e-3:
        raise InputError(
            f"{path}: a rate of {sampling_rate_hz:g} Hz was given, but the file says "
            f"{ecg.sampling_rate_hz:g} Hz; leave out --rate"
        )
    return ecg if leads is None else ecg.select(tuple(normalize_lead(name) for name in leads))


def _read(
    path: Path, sampling_rate_hz: float | None, leads: tuple[str, ...] | None, max_duration_s: float | None
) -> EcgSignal:
    record_header = None if path.is_dir() else wfdb.header_of(path)
    if not path.exists() and record_header is None:
        raise InputError(f"{path}: no such file")
    if path.is_dir():
        raise InputError(f"{path}: is a folder; expected an ECG file")
    if record_header is not None:
        return wfdb.read(record_header, max_duration_s)
    with path.open("rb") as file:
        head = file.read(65536)
    if not head.strip():
        raise InputError(f"{path}: is empty; expected {FORMATS}")
    if head[128:132] == b"DICM":
        return dicom.read(path, max_duration_s)
    if edf.is_edf(head):
        return edf.read(path, max_duration_s)
    if wfdb.is_header(head):
        return wfdb.read(path, max_duration_s)
    if plain.is_npy(head):
        return plain.read_npy(path, _need_rate(path, sampling_rate_hz), leads, max_duration_s)
    if b"\x00" not in head:
        text = _text(path)
        if apple.is_apple(text):
            return apple.read(path, text, max_duration_s)
        if plain.is_table(text):
            return plain.read_csv(path, text, _need_rate(path, sampling_rate_hz), leads, max_duration_s)
    hint = " (a WFDB signal file needs its .hea beside it)" if path.suffix in (".dat", ".mat") else ""
    raise InputError(f"{path}: unknown format; expected {FORMATS}{hint}")


def _need_rate(path: Path, sampling_rate_hz: float | None) -> float:
    if sampling_rate_hz is None:
        raise InputError(f"{path}: the file does not say its sampling rate; give it with --rate, as in --rate 500")
    return sampling_rate_hz


def _text(path: Path) -> str:
    if path.stat().st_size > _MAX_TEXT_BYTES:
        raise InputError(f"{path}: a text of {path.stat().st_size} bytes; expected at most {_MAX_TEXT_BYTES}")
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")
