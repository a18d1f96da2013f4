"""Video files, GIFs and bare arrays of frames as a `Source`. Video is decoded with PyAV (FFmpeg)."""

import math
import warnings
from collections.abc import Iterator
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import numpy as np

from echopulse.errors import InputError
from echopulse.io.files import read_npy_header
from echopulse.io.ultrasound.source import MAX_FRAMES, Source, check_picture

_ASSUMED_PERIOD_S = 1 / 30


def sniff_stream(head: bytes, *, hevc: bool = False) -> str | None:
    """FFmpeg's name of the container that starts with these bytes, or None.

    A named demuxer is safe where guessing is not: a playlist in disguise would open other files.

    Args:
        head: the first bytes, 4 KiB if there are as many.
        hevc: take a bare stream of NAL units for HEVC, not for H.264.
    """
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free"):
        return "mov"
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "avi"
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return "matroska"
    if head[:1] == b"\x47" and head[188:189] == b"\x47":
        return "mpegts"
    if head[:4] == b"\x00\x00\x01\xba":
        return "mpeg"
    if head[:4] == b"\x00\x00\x01\xb3":
        return "mpegvideo"
    if head[:16] == b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c":
        return "asf"
    if head[:3] == b"\x00\x00\x01" or head[:4] == b"\x00\x00\x00\x01":
        return "hevc" if hevc else "h264"
    return None


def open_video(path: Path, demuxer: str) -> Source:
    """Opens a video file; every picture's own time stamp is the file's statement on time.

    Raises:
        InputError: not a complete video, or pictures too large.
    """
    height, width, times, metadata = _inspect(path, demuxer)

    def decode() -> Iterator[np.ndarray]:
        with path.open("rb") as file:
            yield from decode_video(path, file, demuxer)

    return Source(path, "video", height, width, decode, file_times=times, removed=metadata)


def decode_video(path: Path, file: BufferedIOBase, demuxer: str | None) -> Iterator[np.ndarray]:
    """Decodes the first video stream picture by picture, RGB of shape (height, width, 3).

    Raises:
        InputError: an unknown container, broken content, or pictures of several sizes.
    """
    import av
    from av.error import FFmpegError

    if demuxer is None:
        raise InputError(f"{path}: a video stream of an unknown kind; expected MPEG-2, H.264 or HEVC")
    shape = None
    try:
        with av.open(file, "r", format=demuxer, metadata_errors="replace") as container:
            if not container.streams.video:
                raise InputError(f"{path}: no video stream in it")
            stream = container.streams.video[0]
            check_picture(path, stream.height, stream.width)
            for frame in container.decode(stream):
                check_picture(path, frame.height, frame.width)
                shape = shape or (frame.height, frame.width)
                if (frame.height, frame.width) != shape:
                    raise InputError(f"{path}: frames of several sizes; expected one")
                yield frame.to_ndarray(format="rgb24")
    except (FFmpegError, OSError) as error:
        raise InputError(f"{path}: not a complete video ({' '.join(str(error).split())[:150]})") from error


def _inspect(path: Path, demuxer: str) -> tuple[int, int, list[tuple[str, np.ndarray | float]], list[str]]:
    """Size, statements on time and names of metadata, from the headers of the packets alone."""
    import av
    from av.error import FFmpegError

    try:
        with av.open(str(path), format=demuxer, metadata_errors="replace") as container:
            if not container.streams.video:
                raise InputError(f"{path}: no video stream in it")
            stream = container.streams.video[0]
            check_picture(path, stream.height, stream.width)
            rate = stream.average_rate or stream.guessed_rate
            removed = sorted({*container.metadata, *stream.metadata})
            stamps = []
            for packet in container.demux(stream):
                if packet.pts is not None and packet.size:
                    stamps.append(packet.pts)
                if len(stamps) > MAX_FRAMES:
                    raise InputError(f"{path}: more than {MAX_FRAMES} frames; cut it into shorter clips")
            height, width, base = stream.height, stream.width, float(stream.time_base or 0)
    except (FFmpegError, OSError) as error:
        raise InputError(f"{path}: not a complete video ({' '.join(str(error).split())[:150]})") from error
    times: list[tuple[str, np.ndarray | float]] = []
    seconds = np.sort(np.array(stamps, dtype=np.float64)) * base
    if seconds.size > 1 and (np.diff(seconds) > 0).all():
        times.append(("time stamps", seconds - seconds[0]))
    if rate and math.isfinite(rate) and 0.1 <= rate <= 10_000:
        times.append(("frame rate", 1 / float(rate)))
    return height, width, times, removed


def open_gif(path: Path) -> Source:
    """Opens a GIF; its delays are the file's statement on time.

    Raises:
        InputError: not a complete GIF, or pictures too large.
    """
    from PIL import Image

    with _gif(path) as image:
        check_picture(path, image.height, image.width)
        height, width, count = image.height, image.width, getattr(image, "n_frames", 1)
        if count > MAX_FRAMES:
            raise InputError(f"{path}: {count} frames; expected at most {MAX_FRAMES}; cut it into shorter clips")
        delays = []
        for index in range(count):
            image.seek(index)
            delays.append(image.info.get("duration", 0) / 1000)

    def decode() -> Iterator[np.ndarray]:
        with _gif(path) as image:
            for index in range(count):
                try:
                    image.seek(index)
                    yield np.asarray(image.convert("RGB"))
                except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
                    raise InputError(f"{path}: not a complete GIF ({error})") from error

    times: list[tuple[str, np.ndarray | float]] = []
    if count > 1 and all(delay > 0 for delay in delays):
        times.append(("GIF delays", np.cumsum([0.0, *delays[:-1]])))
    return Source(path, "gif", height, width, decode, file_times=times)


def _gif(path: Path) -> Any:
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return Image.open(path, formats=["GIF"])
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Warning) as error:
        raise InputError(f"{path}: not a complete GIF ({error})") from error


def open_npy(path: Path) -> Source:
    """Opens a .npy of frames, uint8 (frames, height, width) or (frames, height, width, 3).

    Raises:
        InputError: other shapes or types, or an incomplete file.
    """
    with path.open("rb") as file:
        try:
            shape, fortran, dtype = read_npy_header(file)
        except ValueError as error:
            raise InputError(f"{path}: not a complete .npy file ({error})") from error
        start = file.tell()
    if dtype != np.uint8 or fortran or len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] != 3):
        raise InputError(f"{path}: {dtype} of shape {shape}; expected uint8 (frames, height, width) or (.., 3) for RGB")
    check_picture(path, shape[1], shape[2])
    if math.prod(shape) > path.stat().st_size - start:
        raise InputError(f"{path}: fewer bytes than frames of shape {shape} need; the file is not complete")
    if not 1 <= shape[0] <= MAX_FRAMES:
        raise InputError(f"{path}: {shape[0]} frames; expected 1 to {MAX_FRAMES}")

    def decode() -> Iterator[np.ndarray]:
        size = math.prod(shape[1:])
        with path.open("rb") as file:
            file.seek(start)
            for _ in range(shape[0]):
                picture = np.frombuffer(file.read(size), np.uint8).reshape(shape[1:])
                yield np.repeat(picture[..., None], 3, axis=2) if picture.ndim == 2 else picture

    return Source(path, "npy", shape[1], shape[2], decode)
