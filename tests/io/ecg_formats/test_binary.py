"""SCP-ECG and ISHNE, written here bit by bit."""

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from echopulse.axes import STANDARD_LEADS
from echopulse.errors import InputError
from echopulse.io.ecg import read_ecg

CODES = (1, 2, *range(3, 9))
EIGHT = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
COUNTS = np.random.default_rng(2).integers(-300, 300, (8, 1000)).cumsum(axis=1) // 8
DEFAULT = {
    0: "0",
    **{sign * size: "1" * size + "0" + bit for size in range(1, 9) for sign, bit in ((1, "0"), (-1, "1"))},
}


def differences(row: np.ndarray, order: int) -> np.ndarray:
    if order == 0:
        return row
    if order == 1:
        return np.concatenate((row[:1], np.diff(row)))
    return np.concatenate((row[:2], np.diff(row, n=2)))


def huffman(row: np.ndarray) -> bytes:
    """The code of the standard; what it has no code for is written in 8 or 16 bits."""
    bits = ""
    for value in row.tolist():
        if value in DEFAULT:
            bits += DEFAULT[value]
        elif -128 <= value < 128:
            bits += f"1111111110{value & 255:08b}"
        else:
            bits += f"1111111111{value & 65535:016b}"
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


def own_table() -> tuple[bytes, Callable[[np.ndarray], bytes]]:
    """Two tables: the first knows only how to switch to the second, which writes 12 bits after `10`."""
    codes = [(1, 1, 0, 2, 0b0)], [(2, 14, 1, 0, 0b01), (1, 1, 0, 1, 0b0)]
    section = struct.pack("<H", 2)
    for table in codes:
        section += struct.pack("<H", len(table)) + b"".join(struct.pack("<BBBhI", *code) for code in table)

    def encode(row: np.ndarray) -> bytes:
        bits = "0" + "".join(f"10{value & 4095:012b}" for value in row.tolist())
        bits += "0" * (-len(bits) % 8)
        return int(bits, 2).to_bytes(len(bits) // 8, "big")

    return section, encode


def scp(
    folder: Path, order: int = 2, coding: str = "default", beats: bool = False, bimodal: bool = False, short: int = 0
) -> Path:
    """A record; with `beats`, a reference beat of 100 samples is subtracted at samples 200 and 600."""
    residual = COUNTS.copy()
    shape = np.outer(np.arange(1, 9), np.hanning(100) * 40).astype(np.int64)
    if beats:
        for start in (200, 600):
            residual[:, start : start + 100] -= 2 * shape  # the beat has steps of 5000 nV, the rhythm of 2500
    encode = {"default": huffman, "none": lambda row: row.astype("<i2").tobytes()}.get(coding)
    sections: dict[int, bytes] = {1: b"\xff\x00\x00"}
    if coding == "default":
        sections[2] = struct.pack("<H", 19999)
    elif coding == "own":
        sections[2], encode = own_table()
    assert encode is not None

    def waveform(rows: np.ndarray, nanovolts: int) -> bytes:
        packed = [encode(differences(row, order)) for row in rows]
        sizes = struct.pack(f"<{len(rows)}H", *map(len, packed))
        return struct.pack("<HHBB", nanovolts, 2000, order, bimodal) + sizes + b"".join(packed)

    lengths = [1000 - short * (number == 7) for number in range(8)]
    definitions = b"".join(struct.pack("<IIB", 1, size, code) for size, code in zip(lengths, CODES, strict=True))
    sections[3] = bytes([8, 0x44 | beats]) + definitions
    if beats:
        places = ((0, 201, 251, 300), (0, 601, 651, 700), (1, 801, 851, 900))
        sections[4] = struct.pack("<HHH", 200, 51, 3) + b"".join(struct.pack("<HIII", *place) for place in places)
        sections[5] = waveform(shape, 5000)
    sections[6] = waveform(residual, 2500)
    pointers, bodies, offset = b"", b"", 6 + 16 + 120
    for number in range(12):
        body = sections.get(number)
        if number == 0:
            pointers += struct.pack("<HII", 0, 136, 7)
        elif body is None:
            pointers += struct.pack("<HII", number, 0, 0)
        else:
            body += bytes(len(body) % 2)
            pointers += struct.pack("<HII", number, 16 + len(body), offset + 1)
            bodies += struct.pack("<HHIBB6x", 0, number, 16 + len(body), 20, 20) + body
            offset += 16 + len(body)
    content = struct.pack("<HHIBB6s", 0, 0, 136, 20, 20, b"SCPECG") + pointers + bodies
    path = folder / "record.bin"
    path.write_bytes(struct.pack("<HI", 0, 6 + len(content)) + content)
    return path


def ishne(folder: Path, declared: int | None = None, leads: tuple[int, ...] = (6, 11), gain: int = 2500) -> Path:
    header = bytearray(522)
    header[:8] = b"ISHNE1.0"
    frames = COUNTS.shape[1]
    struct.pack_into("<iii", header, 14, frames * len(leads) if declared is None else declared, 522, 522)
    struct.pack_into(f"<h{len(leads)}h", header, 156, len(leads), *leads)
    struct.pack_into(f"<{len(leads)}h", header, 206, *([gain] * len(leads)))
    struct.pack_into("<h", header, 272, 250)
    path = folder / "holter.bin"
    path.write_bytes(bytes(header) + COUNTS[: len(leads)].T.astype("<i2").tobytes())
    return path


@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize("coding", ["none", "default", "own"])
def test_scp_codings(order: int, coding: str, tmp_path: Path) -> None:
    ecg = read_ecg(scp(tmp_path, order, coding))
    assert (ecg.format, ecg.leads, ecg.sampling_rate_hz, ecg.num_samples) == ("scp", STANDARD_LEADS, 500, 1000)
    assert ecg.notes == ("derived: III, aVR, aVL, aVF",)
    np.testing.assert_allclose(ecg.select(EIGHT).samples_mv, COUNTS * 2.5e-3, atol=1e-6)


def test_scp_adds_the_reference_beat_back(tmp_path: Path) -> None:
    ecg = read_ecg(scp(tmp_path, beats=True))
    np.testing.assert_allclose(ecg.select(EIGHT).samples_mv, COUNTS * 2.5e-3, atol=1e-6)


def test_scp_leaves_out_a_shorter_lead(tmp_path: Path) -> None:
    ecg = read_ecg(scp(tmp_path, short=400))
    assert ecg.leads == EIGHT[:7]
    assert ecg.notes == ("leads recorded at another time left out: V6",)


@pytest.mark.parametrize("declared", [None, 1000])
def test_ishne_counts_one_lead_or_all(declared: int | None, tmp_path: Path) -> None:
    ecg = read_ecg(ishne(tmp_path, declared))
    assert (ecg.format, ecg.leads, ecg.sampling_rate_hz, ecg.num_samples) == ("ishne", ("II", "V1"), 250, 1000)
    np.testing.assert_allclose(ecg.samples_mv, COUNTS[:2] * 2.5e-3, atol=1e-6)
    assert read_ecg(ishne(tmp_path), max_duration_s=2).num_samples == 500


def overwritten(write: Callable[[Path], Path], start: int, value: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = write(folder)
        content = bytearray(path.read_bytes())
        content[start : start + len(value)] = value
        path.write_bytes(content)
        return path

    return make


def cut(write: Callable[[Path], Path], size: int) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = write(folder)
        path.write_bytes(path.read_bytes()[:size])
        return path

    return make


BAD: dict[str, tuple[Callable[[Path], Path], str]] = {
    "scp cut": (cut(scp, 700), "section 6 of .* where there is none"),
    "scp cut in its table": (cut(scp, 60), "section 3 is missing|where there is none"),
    "scp thinned out": (lambda folder: scp(folder, bimodal=True), "sections 4 and 5"),
    "scp no leads": (overwritten(scp, 6 + 136 + 20 + 18 + 16, b"\x00"), "defines no lead"),
    "scp pointer": (overwritten(scp, 6 + 16 + 36, b"\xff\xff\xff\x7f"), "section 3 of .* where there is none"),
    "scp steps": (overwritten(scp, 6 + 136 + 20 + 18 + 16 + 74 + 16, b"\x00\x00"), "steps of 0 nV"),
    "ishne cut": (cut(ishne, 3000), "cut short: 619 samples a lead where 1000"),
    "ishne header cut": (cut(ishne, 300), "an ISHNE header has 522 bytes"),
    "ishne leads": (overwritten(ishne, 156, b"\xff\x00"), "255 leads"),
    "ishne gain": (lambda folder: ishne(folder, gain=-9), "resolution of a lead is -9 nV"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_records_are_refused_in_one_line(case: str, tmp_path: Path) -> None:
    write, message = BAD[case]
    with pytest.raises(InputError, match=message) as caught:
        read_ecg(write(tmp_path))
    assert "\n" not in str(caught.value)
