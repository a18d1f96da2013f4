"""SCP-ECG: amplitudes, differences, Huffman codes and subtracted reference beats.

Reference: EN 1064 (ISO 11073-91064), sections 2 to 6.
"""

import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np

from echopulse.errors import InputError
from echopulse.io.ecg_formats.channels import LEAD_NUMBERS, check_size, wanted_samples
from echopulse.signals.ecg import EcgSignal
from echopulse.signals.leads import unique_leads

_MAX_BYTES = 1 << 26
_DEFAULT_TABLE = 19999


class _Lead(NamedTuple):
    first: int
    last: int
    code: int


class _Code(NamedTuple):
    """What a Huffman prefix stands for: a value, to which `extra` more bits are added, or another table."""

    value: int
    extra: int
    is_switch: bool


class _Waveform(NamedTuple):
    """Section 5 or 6: leads in steps of `nanovolts`."""

    nanovolts: int
    interval_us: int
    leads: list[np.ndarray]


def is_scp(head: bytes) -> bool:
    """Whether a file begins like SCP-ECG: by its signature, or by a section 0 that points at itself."""
    if len(head) < 32:
        return False
    section, length = struct.unpack_from("<HI", head, 8)
    pointed, pointed_length = struct.unpack_from("<HI", head, 22)
    return head[16:22] == b"SCPECG" or (section == pointed == 0 and 0 < length == pointed_length < 4096)


def read(path: Path, max_duration_s: float | None) -> EcgSignal:
    """Reads the rhythm of section 6, in millivolts.

    Args:
        path: the file.
        max_duration_s: keep only the beginning.

    Raises:
        InputError: a section is missing or damaged, or its compression is not supported.
    """
    if path.stat().st_size > _MAX_BYTES:
        raise InputError(f"{path}: {path.stat().st_size} bytes; expected at most {_MAX_BYTES} of an SCP-ECG record")
    content = path.read_bytes()
    try:
        return _read(path, content, max_duration_s)
    except struct.error as error:
        raise InputError(f"{path}: not valid SCP-ECG: a section is cut short") from error


def _read(path: Path, content: bytes, max_duration_s: float | None) -> EcgSignal:
    sections, protocol = _sections(path, content)
    leads, is_subtracted = _lead_definitions(path, sections[3])
    tables = _huffman_tables(path, sections[2]) if 2 in sections else None
    lengths = [lead.last - lead.first + 1 for lead in leads]
    rhythm = _waveform(path, sections[6], lengths, tables)
    microvolts = [lead * (rhythm.nanovolts / 1000) for lead in rhythm.leads]
    is_bimodal = protocol < 30 and sections[6][5] != 0
    if is_subtracted or is_bimodal:
        if 4 not in sections or 5 not in sections:
            raise InputError(f"{path}: not valid SCP-ECG: sections 4 and 5, which its compression needs, are missing")
        beat_ms, fiducial, count = struct.unpack_from("<HHH", sections[4])
        _, beat_interval_us = struct.unpack_from("<HH", sections[5])
        if beat_interval_us != rhythm.interval_us:
            raise InputError(f"{path}: this SCP-ECG thins out its samples (bimodal compression); export it without")
        if is_subtracted:
            beat_length = round(1000 * beat_ms / beat_interval_us)
            beat = _waveform(path, sections[5], [beat_length] * len(leads), tables)
            places = [struct.unpack_from("<HIII", sections[4], 6 + 14 * number) for number in range(count)]
            for lead, samples, shape in zip(leads, microvolts, beat.leads, strict=True):
                _add_beats(samples, lead, shape * (beat.nanovolts / 1000), places, fiducial)
    longest = max(zip(lengths, leads, strict=True), key=lambda pair: pair[0])[1]
    kept = [index for index, lead in enumerate(leads) if lead[:2] == longest[:2]]
    names = unique_leads([LEAD_NUMBERS.get(lead.code, "") for lead in leads])
    left_out = [name for index, name in enumerate(names) if index not in kept]
    rate = 1e6 / rhythm.interval_us
    samples = wanted_samples(lengths[kept[0]], rate, max_duration_s)
    return EcgSignal(
        np.stack([microvolts[index][:samples] for index in kept]) / 1000,
        tuple(names[index] for index in kept),
        rate,
        source=path.name,
        format="scp",
        notes=(f"leads recorded at another time left out: {', '.join(left_out)}",) if left_out else (),
    )


def _sections(path: Path, content: bytes) -> tuple[dict[int, bytes], int]:
    """Contents of the sections without their headers, and the version of the protocol (times 10)."""
    length, protocol = struct.unpack_from("<I", content, 10)[0], content[15]
    found: dict[int, bytes] = {}
    for position in range(22, min(6 + length, len(content)) - 9, 10):
        section, size, start = struct.unpack_from("<HII", content, position)
        if size == 0:
            continue
        inside = size >= 16 and 7 <= start <= start + size - 1 <= len(content)
        if not inside or struct.unpack_from("<H", content, start + 1)[0] != section:
            raise InputError(
                f"{path}: not valid SCP-ECG: its table points to a section {section} of {size} bytes at byte {start}, "
                "where there is none"
            )
        found[section] = content[start + 15 : start - 1 + size]
    for needed in (3, 6):
        if needed not in found:
            raise InputError(f"{path}: not valid SCP-ECG: section {needed} is missing, so it holds no rhythm")
    return found, protocol


def _lead_definitions(path: Path, section: bytes) -> tuple[list[_Lead], bool]:
    """The leads, and whether reference beats were subtracted."""
    count, flags = section[0], section[1]
    leads = [_Lead(*struct.unpack_from("<IIB", section, 2 + 9 * number)) for number in range(count)]
    if not leads or any(not 1 <= lead.first <= lead.last for lead in leads):
        raise InputError(f"{path}: not valid SCP-ECG: section 3 defines no lead, or one that ends before it begins")
    check_size(path, count, max(lead.last for lead in leads))
    return leads, bool(flags & 1)


def _waveform(path: Path, section: bytes, lengths: list[int], tables: list[dict[str, _Code]] | None) -> _Waveform:
    nanovolts, interval_us, order = struct.unpack_from("<HHB", section)
    if nanovolts == 0 or interval_us == 0 or order > 2:
        raise InputError(
            f"{path}: not valid SCP-ECG: steps of {nanovolts} nV every {interval_us} us, differences {order}"
        )
    sizes = struct.unpack_from(f"<{len(lengths)}H", section, 6)
    start = 6 + 2 * len(lengths)
    leads = []
    for size, length in zip(sizes, lengths, strict=True):
        packed = section[start : start + size]
        start += size
        if tables is not None:
            values = _huffman(path, packed, length, tables)
        elif len(packed) < 2 * length:
            raise InputError(f"{path}: cut short: a lead has {len(packed) // 2} samples where {length} are declared")
        else:
            values = np.frombuffer(packed, dtype="<i2", count=length).astype(np.int64)
        leads.append(_integrate(values, order))
    return _Waveform(nanovolts, interval_us, leads)


def _integrate(values: np.ndarray, order: int) -> np.ndarray:
    """Amplitudes from first or second differences; the arithmetic has 16 bits."""
    if order == 1:
        values = np.cumsum(values)
    elif order == 2 and values.size > 1:
        slopes = np.cumsum(np.concatenate(([values[1] - values[0]], values[2:])))
        values = values[0] + np.concatenate(([0], np.cumsum(slopes)))
    return values.astype(np.int16).astype(np.int64)


def _add_beats(
    samples: np.ndarray, lead: _Lead, beat: np.ndarray, places: list[tuple[int, ...]], fiducial: int
) -> None:
    """Adds the reference beat back, in place, where a beat of its type (0) was subtracted."""
    for kind, first, center, last in places:
        origin = center - fiducial + 1  # number of the sample under the first of the reference beat
        low, high = max(first, lead.first, origin), min(last, lead.last, origin + beat.size - 1)
        if kind == 0 and low <= high:
            samples[low - lead.first : high - lead.first + 1] += beat[low - origin : high - origin + 1]


def _huffman_tables(path: Path, section: bytes) -> list[dict[str, _Code]]:
    (count,) = struct.unpack_from("<H", section)
    if count == _DEFAULT_TABLE:
        return [_default_table()]
    tables, position = [], 2
    for _ in range(count):
        (codes,) = struct.unpack_from("<H", section, position)
        table = {}
        for number in range(codes):
            prefix, total, mode, value, base = struct.unpack_from("<BBBhI", section, position + 2 + 9 * number)
            if not 1 <= prefix <= 32 or not prefix <= total <= prefix + 32:
                raise InputError(f"{path}: not valid SCP-ECG: a Huffman code of {prefix} and {total} bits")
            bits = f"{base & ((1 << prefix) - 1):0{prefix}b}"[::-1]  # stored with its first bit lowest
            table[bits] = _Code(value, total - prefix, mode == 0)
        tables.append(table)
        position += 2 + 9 * codes
    if not tables:
        raise InputError(f"{path}: not valid SCP-ECG: section 2 holds no Huffman table")
    return tables


def _default_table() -> dict[str, _Code]:
    table = {"0": _Code(0, 0, False), "1111111110": _Code(0, 8, False), "1111111111": _Code(0, 16, False)}
    for size in range(1, 9):
        for sign, value in (("0", size), ("1", -size)):
            table["1" * size + "0" + sign] = _Code(value, 0, False)
    return table


def _huffman(path: Path, packed: bytes, length: int, tables: list[dict[str, _Code]]) -> np.ndarray:
    if length > 8 * len(packed):
        raise InputError(f"{path}: cut short: {len(packed)} bytes of Huffman codes for {length} samples")
    bits = f"{int.from_bytes(packed, 'big'):0{8 * len(packed)}b}"
    table, longest = tables[0], max(map(len, tables[0]), default=0)
    values = np.empty(length, dtype=np.int64)
    position, number = 0, 0
    while number < length:
        end = position + 1
        while (code := table.get(bits[position:end])) is None:
            end += 1
            if end - position > longest or end > len(bits):
                raise InputError(f"{path}: not valid SCP-ECG: damaged Huffman codes after {number} of {length} samples")
        position = end + code.extra
        if code.is_switch:
            if not 1 <= code.value <= len(tables):
                raise InputError(f"{path}: not valid SCP-ECG: there is no Huffman table {code.value}")
            table = tables[code.value - 1]
            longest = max(map(len, table), default=0)
            continue
        if position > len(bits):
            raise InputError(f"{path}: cut short: Huffman codes end after {number} of {length} samples")
        offset = int(bits[end:position], 2) if code.extra else 0
        values[number] = code.value + offset - ((offset >> (code.extra - 1)) << code.extra if code.extra else 0)
        number += 1
    return values
