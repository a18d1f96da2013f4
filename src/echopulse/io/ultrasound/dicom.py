"""Ultrasound DICOM: pictures frame by frame, and the few tags that matter. Read with pydicom.

Tags and their traps: DICOM PS3.3 C.7.6.5 (cine), C.7.6.6 (multi-frame), C.8.5.5 (ultrasound regions).
"""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from echopulse.errors import InputError
from echopulse.io.mapped import mapped
from echopulse.io.ultrasound.apart import decode_apart
from echopulse.io.ultrasound.container import decode_video, sniff_stream
from echopulse.io.ultrasound.source import MAX_FRAMES, Region, Source, check_picture, positive

_VIDEO_SYNTAXES = {f"1.2.840.10008.1.2.4.{number}" for number in (*range(100, 109), "100.1", "101.1", "102.1")} | {
    f"1.2.840.10008.1.2.4.{number}.1" for number in range(103, 107)
}
_NATIVE_SYNTAXES = {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"}
_DECODERS = ("pydicom", "pillow", "pyjpegls", "pylibjpeg", "gdcm")
"""pydicom's names of the decoders, in the order in which they are tried: the permissive and quick ones first."""

_FRAGILE_DECODERS = ("pyjpegls", "pylibjpeg", "gdcm")
"""Those in C and C++, which a damaged file may crash."""

_COLORS = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT")
_SECONDS_UNIT = 4
_KEPT = {
    "ActualFrameDuration",
    "BitsAllocated",
    "BitsStored",
    "CineRate",
    "Columns",
    "EffectiveDuration",
    "FrameIncrementPointer",
    "FrameTime",
    "FrameTimeVector",
    "HeartRate",
    "HighBit",
    "Modality",
    "NumberOfFrames",
    "PhotometricInterpretation",
    "PixelData",
    "PixelRepresentation",
    "PlanarConfiguration",
    "RWaveTimeVector",
    "RecommendedDisplayFrameRate",
    "Rows",
    "SOPClassUID",
    "SamplesPerPixel",
    "SequenceOfUltrasoundRegions",
}


def open_dicom(path: Path) -> Source:
    """Opens a DICOM file with pictures; pixels are decoded when asked for.

    Args:
        path: the file.

    Returns:
        The source.

    Raises:
        InputError: no pictures in it, absurd dimensions, or fewer bytes than the header promises.
    """
    import pydicom

    with mapped(path) as file:
        header = pydicom.dcmread(file, stop_before_pixels=True, force=False)
    height, width = _whole(header, "Rows"), _whole(header, "Columns")
    if not height or not width:
        raise InputError(f"{path}: a DICOM file without pictures; expected an ultrasound recording")
    check_picture(path, height, width)
    count = _whole(header, "NumberOfFrames") or 1
    if count > MAX_FRAMES:
        raise InputError(f"{path}: {count} frames; expected at most {MAX_FRAMES}; cut it into shorter clips")
    color = str(header.get("PhotometricInterpretation", ""))
    samples, bits = _whole(header, "SamplesPerPixel") or 1, _whole(header, "BitsAllocated") or 8
    if color not in _COLORS or samples not in (1, 3) or bits not in (8, 16):
        raise InputError(
            f"{path}: {samples} x {bits}-bit {color or 'unknown'} pixels; expected 8 or 16 bits of {', '.join(_COLORS)}"
        )
    syntax = str(header.file_meta.get("TransferSyntaxUID", ""))
    promised = height * width * samples * bits // 8 * count
    if color == "YBR_FULL_422":
        promised = promised * 2 // 3
    if syntax in _NATIVE_SYNTAXES - {"1.2.840.10008.1.2.1.99"} and promised > path.stat().st_size:
        raise InputError(
            f"{path}: {path.stat().st_size} bytes for {promised} bytes of pixels; the file is not complete"
        )

    def decode() -> Iterator[np.ndarray]:
        if syntax in _VIDEO_SYNTAXES:
            return _decode_video(path, header, syntax)
        return _decode_pictures(path, header, count, (height, width))

    return Source(
        path=path,
        container="dicom",
        height=height,
        width=width,
        decode=decode,
        file_times=_file_times(header, count),
        regions=_regions(header, height, width),
        heart_rate_bpm=_in_range(positive(header.get("HeartRate")), 20, 300),
        r_wave_times_s=_numbers(header, "RWaveTimeVector", 1e-3),
        removed=_left_behind(header),
    )


def _whole(header: Any, keyword: str) -> int | None:
    value = positive(header.get(keyword))
    return int(value) if value is not None and value < 1 << 40 else None


def _in_range(value: float | None, low: float, high: float) -> float | None:
    return value if value is not None and low <= value <= high else None


def _numbers(header: Any, keyword: str, scale: float) -> np.ndarray | None:
    """A tag of one or many numbers as float64, scaled; None where it is missing or broken."""
    try:
        values = np.atleast_1d(np.asarray(header.get(keyword), dtype=np.float64)) * scale
    except (TypeError, ValueError):
        return None
    return values if values.size and np.isfinite(values).all() else None


def _file_times(header: Any, count: int) -> list[tuple[str, np.ndarray | float]]:
    """The header's statements on time, the one that the frame increment pointer names first."""
    times: list[tuple[str, np.ndarray | float]] = []
    vector = _numbers(header, "FrameTimeVector", 1e-3)
    if vector is not None and vector.size == count and count > 1 and (vector[1:] > 0).all():
        times.append(("FrameTimeVector", np.cumsum(np.concatenate(([0.0], vector[1:])))))
    periods = {
        "FrameTime": (positive(header.get("FrameTime")), 1e-3),
        "ActualFrameDuration": (positive(header.get("ActualFrameDuration")), 1e-3),
    }
    times += [(name, value * unit) for name, (value, unit) in periods.items() if value]
    rates = {name: positive(header.get(name)) for name in ("CineRate", "RecommendedDisplayFrameRate")}
    times += [(name, 1 / rate) for name, rate in rates.items() if rate]
    duration = positive(header.get("EffectiveDuration"))
    if duration and count > 1:
        times.append(("EffectiveDuration", duration / count))
    return [(name, time) for name, time in times if not isinstance(time, float) or 1e-4 <= time <= 10]


def _regions(header: Any, height: int, width: int) -> list[Region]:
    regions = []
    for item in list(header.get("SequenceOfUltrasoundRegions") or [])[:100]:
        corners = [item.get(f"RegionLocation{name}") for name in ("MinX0", "MinY0", "MaxX1", "MaxY1")]
        if not all(isinstance(corner, int) for corner in corners):
            continue
        left, top, right, bottom = (max(0, int(corner)) for corner in corners)
        right, bottom = min(right + 1, width), min(bottom + 1, height)
        if right - left < 8 or bottom - top < 8:
            continue
        delta = positive(item.get("PhysicalDeltaX"))
        seconds = delta if item.get("PhysicalUnitsXDirection") == _SECONDS_UNIT else None
        kind = [item.get(name) for name in ("RegionSpatialFormat", "RegionDataType")]
        kind = [value if isinstance(value, int) else 0 for value in kind]
        regions.append(Region(kind[0], kind[1], top, left, bottom, right, seconds))
    return regions


def _left_behind(header: Any) -> list[str]:
    """Keywords of what the file tells beyond the few tags in use; never a value."""
    keywords, private = set(), 0
    for tag in header.keys():
        if tag.is_private:
            private += 1
        elif tag.element:
            from pydicom.datadict import keyword_for_tag

            keywords.add(keyword_for_tag(tag) or "unknown tag")
    return sorted(keywords - _KEPT) + ([f"{private} private tags"] if private else [])


def _decode_pictures(path: Path, header: Any, count: int, shape: tuple[int, int]) -> Iterator[np.ndarray]:
    plugin = _decoder(path, header)
    raws = decode_apart(path, plugin) if plugin in _FRAGILE_DECODERS else _decode_here(path, plugin)
    found = 0
    try:
        for found, raw in enumerate(raws, start=1):
            if raw.shape[:2] != shape:
                raise InputError(f"{path}: a frame of {raw.shape[1]} x {raw.shape[0]} among {shape[1]} x {shape[0]}")
            yield _to_rgb(raw, header)
            if found == count:
                break
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:150]
        raise InputError(f"{path}: frame {found + 1} of {count} cannot be decoded ({reason})") from error
    if found < count:
        raise InputError(f"{path}: {found} of {count} frames in the file; it is not complete")


def _decode_here(path: Path, plugin: str) -> Iterator[np.ndarray]:
    from pydicom.pixels.utils import iter_pixels

    with mapped(path) as file:
        yield from iter_pixels(file, decoding_plugin=plugin)


def _decoder(path: Path, header: Any) -> str:
    """Name of the decoder for the file's transfer syntax; empty for plain pixels."""
    from pydicom.pixels.decoders.base import get_decoder

    syntax = header.file_meta.TransferSyntaxUID
    if syntax in _NATIVE_SYNTAXES:
        return ""
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as error:
        raise InputError(f"{path}: no reader for pixels stored as {syntax.name}; store them plainly first") from error
    available = [name for name in _DECODERS if name in decoder.available_plugins]
    if not available:
        raise InputError(f'{path}: no decoder for {syntax.name} is installed; add it: pip install "echopulse[data]"')
    return available[0]


def _to_rgb(raw: np.ndarray, header: Any) -> np.ndarray:
    from pydicom.pixels.processing import apply_color_lut

    palette = header.PhotometricInterpretation == "PALETTE COLOR"
    picture = apply_color_lut(raw, header) if palette else raw
    if picture.dtype != np.uint8:
        stored = _whole(header, "BitsStored") or 8
        bits = (16 if picture.max() > 255 else 8) if palette else stored
        offset = 1 << (stored - 1) if picture.dtype.kind == "i" else 0
        picture = ((picture.astype(np.int32) + offset) >> max(0, bits - 8)).clip(0, 255).astype(np.uint8)
    if header.PhotometricInterpretation == "MONOCHROME1":
        picture = 255 - picture
    return np.repeat(picture[..., None], 3, axis=2) if picture.ndim == 2 else np.ascontiguousarray(picture[..., :3])


def _decode_video(path: Path, header: Any, syntax: str) -> Iterator[np.ndarray]:
    import pydicom
    from pydicom.encaps import generate_fragments

    with mapped(path) as file:
        fragments = generate_fragments(pydicom.dcmread(file).PixelData)
    next(fragments, None)  # the offset table
    stream = b"".join(fragments)
    return decode_video(path, io.BytesIO(stream), sniff_stream(stream[:4096], hevc=syntax[-3:] in ("107", "108")))
