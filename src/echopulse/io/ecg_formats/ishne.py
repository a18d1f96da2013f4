"""ISHNE Holter files.

Reference: Badilini, "The ISHNE Holter standard output file format", 1998.
"""

import struct
from pathlib import Path

import numpy as np

from echopulse.errors import InputError
from echopulse.io.ecg_formats.channels import check_size, wanted_samples
from echopulse.signals.ecg import EcgSignal
from echopulse.signals.leads import unique_leads

_HEADER_BYTES = 522
_MAX_LEADS = 12
_LEADS = {
    **{2: "X", 3: "Y", 4: "Z", 5: "I", 6: "II", 7: "III", 8: "aVR", 9: "aVL", 10: "aVF"},
    **{number + 10: f"V{number}" for number in range(1, 7)},
    **{17: "ES", 18: "AS", 19: "AI"},
}


def is_ishne(head: bytes) -> bool:
    """Whether a file begins like an ISHNE recording."""
    return head[:8] == b"ISHNE1.0"


def read(path: Path, max_duration_s: float | None) -> EcgSignal:
    """Reads all leads, in millivolts.

    Args:
        path: the file.
        max_duration_s: read only the beginning.

    Raises:
        InputError: a damaged header, or fewer samples than it declares.
    """
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
    if len(header) < _HEADER_BYTES:
        raise InputError(f"{path}: cut short: an ISHNE header has {_HEADER_BYTES} bytes, this file {len(header)}")
    declared, _, offset = struct.unpack_from("<iii", header, 14)
    (leads,) = struct.unpack_from("<h", header, 156)
    (rate,) = struct.unpack_from("<H", header, 272)
    if not 1 <= leads <= _MAX_LEADS or rate < 1 or not _HEADER_BYTES <= offset <= path.stat().st_size:
        raise InputError(f"{path}: damaged ISHNE header: {leads} leads at {rate} Hz from byte {offset}")
    codes = struct.unpack_from(f"<{leads}h", header, 158)
    nanovolts = struct.unpack_from(f"<{leads}h", header, 206)
    if min(nanovolts) < 1:
        raise InputError(f"{path}: the resolution of a lead is {min(nanovolts)} nV; expected a positive number")
    # The standard says neither that the declared size counts all leads nor that it counts one.
    stored = (path.stat().st_size - offset) // (2 * leads)
    frames = declared if 0 < declared <= stored else declared // leads
    if not 0 < frames <= stored:
        raise InputError(
            f"{path}: cut short: {stored} samples a lead where {frames} are declared; copy the recording again"
        )
    notes = () if frames == stored else (f"the header declares {frames} of the {stored} samples in the file",)
    frames = wanted_samples(frames, rate, max_duration_s)
    check_size(path, leads, frames)
    counts = np.fromfile(path, dtype="<i2", count=frames * leads, offset=offset).reshape(frames, leads).T
    millivolts = counts * (np.array(nanovolts, dtype=np.float64) * 1e-6)[:, None]
    names = unique_leads([_LEADS.get(code, "") for code in codes])
    return EcgSignal(millivolts, names, float(rate), source=path.name, format="ishne", notes=notes)
