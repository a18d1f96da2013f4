"""Philips Sierra XML (`restingecgdata`, versions 1.03 and 1.04), compressed (XLI) or not.

An eleventh second, where it ends in a calibration pulse that is the same in all leads, is dropped.
"""

import base64
import binascii
import struct
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from echopulse.errors import InputError
from echopulse.io.ecg_formats.channels import check_size, stack_leads, wanted_samples
from echopulse.io.ecg_formats.xml_tree import number_of, read_tree, text_of
from echopulse.signals.ecg import EcgSignal
from echopulse.signals.leads import normalize_lead, unique_leads

_LIMB = ("I", "II", "III", "aVR", "aVL", "aVF")
_TWELVE = (*_LIMB, "V1", "V2", "V3", "V4", "V5", "V6")
_CODE_BITS = 10


def read(path: Path, max_duration_s: float | None) -> EcgSignal:
    """Reads the rhythm strip, in millivolts.

    Args:
        path: the XML file.
        max_duration_s: keep only the beginning.

    Raises:
        InputError: no waveform, or a damaged one.
    """
    root = read_tree(path)
    waveform = root.find(".//parsedwaveforms")
    if waveform is None:
        raise InputError(f"{path}: no parsedwaveforms in this Philips file; export it with its waveforms")
    signal = root.find(".//signalcharacteristics")
    rate = number_of(path, signal, "samplingrate")
    resolution = text_of(signal, "resolution") or text_of(signal, "signalresolution") or waveform.get("resolution", "")
    if not _positive(resolution):
        raise InputError(f"{path}: the resolution is {resolution[:40]!r}; expected microvolts a step")
    names = _lead_names(path, waveform, signal)
    counts = _counts(path, waveform, names, rate)
    names, values, notes = stack_leads(path, names, counts)
    second = round(rate)
    if values.shape[1] == 11 * second and _ends_in_calibration(values, second):
        values, notes = values[:, : 10 * second], (*notes, "calibration second dropped")
    values = values[:, : wanted_samples(values.shape[1], rate, max_duration_s)]
    millivolts = values * (float(resolution) / 1000)
    return EcgSignal(millivolts, unique_leads(names), rate, source=path.name, format="sierra_xml", notes=notes)


def _positive(text: str) -> bool:
    try:
        return 0 < float(text) < 1e6
    except ValueError:
        return False


def _lead_names(path: Path, waveform: Element, signal: Element | None) -> list[str]:
    labels = waveform.get("leadlabels", "").split()
    count = waveform.get("numberofleads") or text_of(signal, "numberchannelsvalid") or str(len(labels) or 12)
    if not count.isdigit() or not 1 <= int(count) <= 32:
        raise InputError(f"{path}: {count[:20]!r} leads; expected 1 to 32")
    return (labels or list(_TWELVE) + [f"lead_{number}" for number in range(13, 33)])[: int(count)]


def _counts(path: Path, waveform: Element, names: list[str], rate: float) -> list[np.ndarray]:
    """Samples of every lead in steps of the converter."""
    if waveform.get("dataencoding", "Base64") != "Base64":
        raise InputError(f"{path}: data encoding {waveform.get('dataencoding')!r}; expected Base64")
    try:
        content = base64.b64decode(waveform.text or "")
    except binascii.Error as error:
        raise InputError(f"{path}: the samples are damaged: {error}") from error
    duration = waveform.get("durationperchannel", "")
    if not _positive(duration):
        raise InputError(f"{path}: durationperchannel is {duration[:20]!r}; expected milliseconds")
    length = round(float(duration) * rate / 1000)
    check_size(path, len(names), length)
    method = (waveform.get("compression") or waveform.get("compressmethod") or "Uncompressed").upper()
    if waveform.get("compressflag", "True").upper() == "FALSE" or method in ("UNCOMPRESSED", "NONE"):
        if len(content) < 2 * length * len(names):
            raise InputError(f"{path}: cut short: {len(content)} bytes where {2 * length * len(names)} are declared")
        samples = np.frombuffer(content, dtype="<i2", count=length * len(names))
        return list(samples.reshape(len(names), length).astype(np.int64))
    if method != "XLI":
        raise InputError(f"{path}: compression {method[:20]!r}; expected XLI or none")
    leads = [lead[:length] for lead in _expand(path, content, len(names), length)]
    if tuple(map(normalize_lead, names[:6])) == _LIMB:  # stored as what I and II leave to say
        first, second, third = leads[0], leads[1], leads[1] - leads[0] - leads[2]
        residual_r, residual_l, residual_f = leads[3:6]
        leads[2:6] = [
            third,
            -((first + second) // 2) - residual_r,
            (first - third) // 2 - residual_l,
            (second + third) // 2 - residual_f,
        ]
    return leads


def _expand(path: Path, content: bytes, count: int, length: int) -> list[np.ndarray]:
    """XLI: a chunk a lead, each a header of 8 bytes and LZW codes of second differences."""
    leads, offset = [], 0
    while len(leads) < count:
        if offset + 8 > len(content):
            raise InputError(f"{path}: cut short: {len(leads)} of {count} leads")
        size, _, start = struct.unpack_from("<ihh", content, offset)
        offset += 8
        if not 0 < size <= len(content) - offset:
            raise InputError(f"{path}: cut short in lead {len(leads) + 1}")
        unpacked = _lzw(path, content[offset : offset + size], 2 * length + 4096)
        offset += size
        half = len(unpacked) // 2
        if half < max(length, 2):
            raise InputError(f"{path}: cut short: lead {len(leads) + 1} has {half} samples where {length} are declared")
        octets = np.frombuffer(unpacked, dtype=np.uint8).astype(np.int64)
        codes = (((octets[:half] << 8) | octets[half : 2 * half]) + 0x8000) % 0x10000 - 0x8000
        leads.append(_integrate(codes, start))
    return leads


def _integrate(codes: np.ndarray, start: int) -> np.ndarray:
    """Samples from second differences, of which every one but the first two is stored with 64 added."""
    # x[n] = 2 x[n-1] - x[n-2] - d[n-1], with d[1] = start
    steps = -np.concatenate(([start], codes[2:-1] - 64))
    slopes = (codes[1] - codes[0]) + np.concatenate(([0], np.cumsum(steps)))
    return codes[0] + np.concatenate(([0], np.cumsum(slopes)))


def _lzw(path: Path, packed: bytes, limit: int) -> bytes:
    """Expands LZW codes of 10 bits, most significant bit first, at most `limit` bytes."""
    table = [bytes([value]) for value in range(256)]
    last_code = (1 << _CODE_BITS) - 2
    result, previous = bytearray(), b""
    bits, held = 0, 0
    for octet in packed:
        bits, held = (bits << 8) | octet, held + 8
        if held < _CODE_BITS:
            continue
        held -= _CODE_BITS
        code, bits = bits >> held, bits & ((1 << held) - 1)
        if code > last_code or len(result) > limit:
            break
        if code < len(table):
            entry = table[code]
        elif previous and code == len(table):
            entry = previous + previous[:1]
        else:
            raise InputError(f"{path}: damaged XLI compression")
        result += entry
        if previous and len(table) <= last_code:
            table.append(previous + entry[:1])
        previous = entry
    return bytes(result)


def _ends_in_calibration(values: np.ndarray, second: int) -> bool:
    """Whether the last 0.4 s are one pulse, the same in all leads."""
    tail = values[:, -int(0.4 * second) :]
    return bool((tail == tail[0]).all() and len(np.unique(tail[0])) == 2)
