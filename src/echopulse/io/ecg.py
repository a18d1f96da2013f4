"""ECG files in, whatever recorder, cart or watch wrote them; told apart by content, not by ending."""

import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from echopulse.errors import InputError
from echopulse.io.ecg_formats import (
    aecg,
    apple,
    dicom,
    edf,
    exports,
    fitbit,
    ge,
    ishne,
    mat,
    pdf_strips,
    plain,
    scp,
    sierra,
    wfdb,
    xml_tree,
)
from echopulse.signals.ecg import EcgSignal
from echopulse.signals.leads import derive_limb_leads, normalize_lead

FORMATS = (
    "WFDB, DICOM waveform, EDF, BDF, ISHNE, SCP-ECG, HL7 aECG, GE MUSE XML, GE CardioSoft XML, Philips Sierra XML, "
    "Apple Watch CSV, PDF or export, Fitbit CSV, plain CSV, NPY or MAT"
)

_Result = TypeVar("_Result")
_MAX_TEXT_BYTES = 1 << 29
_RATE_RANGE_HZ = (40.0, 100_000.0)
_TABLES = ("csv", "npy", "mat")
_BINARY: tuple[tuple[Callable[[bytes], bool], Callable[[Path, float | None], EcgSignal]], ...] = (
    (dicom.is_dicom, dicom.read),
    (edf.is_edf, edf.read),
    (ishne.is_ishne, ishne.read),
    (scp.is_scp, scp.read),
    (pdf_strips.is_pdf, pdf_strips.read),
    (wfdb.is_header, wfdb.read),
)
_XML: dict[str, Callable[[Path, float | None], EcgSignal]] = {
    "RestingECG": ge.read_muse,
    "CardiologyXML": ge.read_cardiosoft,
    "restingecgdata": sierra.read,
    "AnnotatedECG": aecg.read,
}


def read_ecg(
    path: str | Path,
    *,
    sampling_rate_hz: float | None = None,
    leads: tuple[str, ...] | None = None,
    max_duration_s: float | None = None,
) -> EcgSignal:
    """Reads an ECG file of any supported format, in millivolts with normalized lead names.

    The format is recognized by content, not by ending (`FORMATS`, docs/ecg-formats.md). A WFDB record is
    named by its `.hea` file, one of its signal files, or its name without ending. An Apple Health
    export or a Google Takeout (zip archive or folder) is read where it holds one recording; of several
    one is named as if the archive were a folder, `export.zip/electrocardiograms/ecg_2024-01-31.csv`
    (see `list_recordings`). The samples of CSV, NPY and MAT are taken as millivolts, 12 unnamed columns
    as the standard leads in their usual order. Where I, II and V1 to V6 are stored alone, as carts do,
    III, aVR, aVL and aVF are derived.

    Args:
        path: the file.
        sampling_rate_hz: samples per second, for CSV, NPY and MAT, which do not say it.
        leads: names of the columns of CSV, NPY and MAT; of any other format, the leads to keep.
        max_duration_s: read only the beginning.

    Returns:
        The ECG; its clock starts at 0. `notes` tells what was derived, dropped or assumed, `gaps_s`
        where the recording has holes.

    Raises:
        InputError: the file is missing, damaged, of an unknown format, shorter than a second, or
            lacks what is needed to read it.
    """
    path = Path(path)
    if sampling_rate_hz is not None and not (math.isfinite(sampling_rate_hz) and sampling_rate_hz > 0):
        raise InputError(f"sampling rate is {sampling_rate_hz} Hz; expected a positive number")
    if max_duration_s is not None and not max_duration_s >= 1:
        raise InputError(f"max_duration_s is {max_duration_s}; expected at least 1 second")
    ecg = _guarded(path, lambda: _read(path, sampling_rate_hz, leads, max_duration_s))
    low, high = _RATE_RANGE_HZ
    if not low <= ecg.sampling_rate_hz <= high:
        raise InputError(f"{path}: sampling rate is {ecg.sampling_rate_hz:g} Hz; expected {low:g} to {high:g} Hz")
    if ecg.format not in _TABLES and sampling_rate_hz and abs(sampling_rate_hz / ecg.sampling_rate_hz - 1) > 1e-3:
        raise InputError(
            f"{path}: a rate of {sampling_rate_hz:g} Hz was given, but the file says "
            f"{ecg.sampling_rate_hz:g} Hz; leave out --rate"
        )
    ecg = _complete(ecg)
    return ecg if leads is None or ecg.format in _TABLES else ecg.select(tuple(map(normalize_lead, leads)))


def list_recordings(path: str | Path) -> tuple[Path, ...]:
    """ECG recordings in the data export of a watch: an Apple Health export or a Google Takeout.

    Args:
        path: a zip archive or a folder.

    Returns:
        Paths that `read_ecg` takes, sorted; empty where there is none.

    Raises:
        InputError: nothing there, or an archive that is damaged or unsafe.
    """
    path = Path(path)
    if path.is_dir():
        return tuple(exports.recordings_in_folder(path))
    if not path.is_file():
        raise InputError(f"{path}: no such file or folder")
    return _guarded(path, lambda: tuple(exports.recordings_in_archive(path)))


def _guarded(path: Path, action: Callable[[], _Result]) -> _Result:
    """Runs a reader; whatever it makes of a damaged file becomes an InputError of one line."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a reader's remark on a file; what matters is checked here
            return action()
    except InputError as error:
        raise InputError(" ".join(str(error).split())) from error
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: damaged or unreadable ({type(error).__name__}: {reason})") from error


def _complete(ecg: EcgSignal) -> EcgSignal:
    """The ECG with the limb leads that its recorder left out."""
    leads, samples = derive_limb_leads(ecg.leads, ecg.samples_mv)
    derived = [name for name in leads if name not in ecg.leads]
    if not derived:
        return ecg
    return replace(ecg, leads=leads, samples_mv=samples, notes=(*ecg.notes, f"derived: {', '.join(derived)}"))


def _read(
    path: Path, sampling_rate_hz: float | None, leads: tuple[str, ...] | None, max_duration_s: float | None
) -> EcgSignal:
    archive = exports.archive_of(path)
    if archive is not None:
        return _read_text(path, _decode(exports.read_member(archive, path)), sampling_rate_hz, leads, max_duration_s)
    if path.is_dir():
        return _read_only_recording(path, exports.recordings_in_folder(path), sampling_rate_hz, leads, max_duration_s)
    record_header = wfdb.header_of(path)
    if record_header is not None:
        return wfdb.read(record_header, max_duration_s)
    if not path.exists():
        raise InputError(f"{path}: no such file")
    with path.open("rb") as file:
        head = file.read(65536)
    if not head.strip():
        raise InputError(f"{path}: is empty; expected {FORMATS}")
    for recognizes, read in _BINARY:
        if recognizes(head):
            return read(path, max_duration_s)
    if exports.is_zip(head):
        found = exports.recordings_in_archive(path)
        return _read_only_recording(path, found, sampling_rate_hz, leads, max_duration_s)
    if plain.is_npy(head):
        rate = plain.need_rate(path, sampling_rate_hz)
        return plain.read_npy(path, rate, leads, max_duration_s)
    if mat.is_mat(head):
        return mat.read(path, sampling_rate_hz, leads, max_duration_s)
    root = xml_tree.root_name(head)
    if root in _XML:
        return _XML[root](path, max_duration_s)
    if root is not None:
        raise InputError(f"{path}: XML with the root {root[:40]!r}; expected one of {', '.join(_XML)}")
    if b"\x00" not in head:
        if path.stat().st_size > _MAX_TEXT_BYTES:
            raise InputError(f"{path}: a text of {path.stat().st_size} bytes; expected at most {_MAX_TEXT_BYTES}")
        return _read_text(path, _decode(path.read_bytes()), sampling_rate_hz, leads, max_duration_s)
    raise _unknown(path)


def _read_only_recording(
    path: Path,
    recordings: list[Path],
    sampling_rate_hz: float | None,
    leads: tuple[str, ...] | None,
    max_duration_s: float | None,
) -> EcgSignal:
    if not recordings:
        raise InputError(f"{path}: no ECG of a watch in it; expected an ECG file, or a health export with recordings")
    if len(recordings) > 1:
        names = ", ".join(str(each.relative_to(path)) for each in recordings[:5])
        more = ", ..." if len(recordings) > 5 else ""
        raise InputError(
            f"{path}: holds {len(recordings)} ECG recordings ({names}{more}); name one, as in {recordings[-1]}"
        )
    return _read(recordings[0], sampling_rate_hz, leads, max_duration_s)


def _read_text(
    path: Path,
    text: str,
    sampling_rate_hz: float | None,
    leads: tuple[str, ...] | None,
    max_duration_s: float | None,
) -> EcgSignal:
    if apple.is_apple(text):
        return apple.read(path, text, max_duration_s)
    if fitbit.is_fitbit(text):
        return fitbit.read(path, text, max_duration_s)
    if text.startswith("com.samsung.health.ecg"):
        raise InputError(
            f"{path}: Samsung Health lists its ECGs here without their samples; "
            "give the report in files/com.samsung.health.ecg instead"
        )
    if plain.is_table(text):
        rate = plain.need_rate(path, sampling_rate_hz)
        return plain.read_csv(path, text, rate, leads, max_duration_s)
    raise _unknown(path)


def _unknown(path: Path) -> InputError:
    hint = " (a WFDB signal file needs its .hea beside it)" if path.suffix in (".dat", ".mat") else ""
    return InputError(f"{path}: unknown format; expected {FORMATS}{hint}")


def _decode(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")
