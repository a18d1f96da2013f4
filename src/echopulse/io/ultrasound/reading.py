"""`read_echo`: from an ultrasound file to a clip without identifiers, on its true clock, with its ECG."""

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from echopulse.errors import InputError
from echopulse.io.mapped import mapped
from echopulse.io.ultrasound.burned_ecg import draw, to_signal
from echopulse.io.ultrasound.clip import EchoReading
from echopulse.io.ultrasound.container import open_gif, open_npy, open_video, sniff_stream
from echopulse.io.ultrasound.dicom import open_dicom
from echopulse.io.ultrasound.motion import Motion, Observer
from echopulse.io.ultrasound.region import Sector, find_sector
from echopulse.io.ultrasound.source import MAX_FILE_BYTES, Source
from echopulse.io.ultrasound.text import read_heart_rate
from echopulse.io.ultrasound.timing import Clock, settle_time
from echopulse.io.ultrasound.trace import Trace, find_trace, heights, spikes
from echopulse.signals import EcgSignal, EchoClip

_SAMPLE_FRAMES = 24
_MAX_CLIP_BYTES = 1 << 29
_GRAPHICS = 8
_OVERLAP = 0.02
_FPS = (0.1, 1000.0)
_NO_ECG = "no ECG found in the picture"


@dataclass(frozen=True, eq=False)
class _Trace:
    """A trace with its motion, its beats, and the still picture it was found in."""

    line: Trace
    motion: Motion | None
    beats_px: np.ndarray
    picture: np.ndarray


def is_ultrasound(path: str | Path) -> bool:
    """Whether the file is a DICOM with pictures, a video, a GIF or a .npy of frames, judged by its content.

    Args:
        path: any file; a missing one, a folder or an unreadable one gives False.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            head = file.read(4096)
        if head[128:132] == b"DICM":
            import pydicom

            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with mapped(path) as file:
                    header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=["Rows", "Columns"])
            return "Rows" in header and "Columns" in header
        if head.startswith(b"\x93NUMPY"):
            open_npy(path)
            return True
    except Exception:  # whatever a reader makes of a damaged file
        return False
    return head[:6] in (b"GIF87a", b"GIF89a") or sniff_stream(head) is not None


def read_echo(path: str | Path, *, size: tuple[int, int] | None = None, with_ecg: bool = True) -> EchoReading:
    """Reads an ultrasound recording: the sector in grey, true times, and the ECG in the picture.

    Everything outside the sector is black; what the file says beyond the pixels is left behind. The
    ECG's scale of time comes from the screen and the file as `timing` weighs them; its voltage has no
    scale there, so that the typical R wave is set to 1 mV.

    Args:
        path: DICOM, video, GIF or .npy of frames.
        size: height and width to bring the sector to, by area averaging, its shape kept between black
            borders; the sector's own size if None.
        with_ecg: look for an ECG trace in the picture.

    Returns:
        The reading.

    Raises:
        InputError: damaged, of an unknown kind, too large, or in need of a decoder that is not installed.
    """
    path = Path(path)
    if size is not None and not all(8 <= side <= 4096 for side in size):
        raise InputError(f"size is {size}; expected a height and a width of 8 to 4096 pixels")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a decoder's remark on a file; what matters is checked here
            return _read(_open(path), size, with_ecg)
    except InputError as error:
        raise InputError(" ".join(str(error).split())) from error
    except Exception as error:  # whatever a decoder makes of a damaged file
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: damaged or unreadable ({type(error).__name__}: {reason})") from error


def _open(path: Path) -> Source:
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected an ultrasound recording")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise InputError(f"{path}: {path.stat().st_size} bytes; expected at most {MAX_FILE_BYTES}")
    with path.open("rb") as file:
        head = file.read(4096)
    if head[128:132] == b"DICM":
        return open_dicom(path)
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return open_gif(path)
    if head.startswith(b"\x93NUMPY"):
        return open_npy(path)
    demuxer = sniff_stream(head)
    if demuxer is None:
        raise InputError(f"{path}: unknown format; expected an ultrasound DICOM, a video, a GIF or a .npy of frames")
    return open_video(path, demuxer)


def _read(source: Source, size: tuple[int, int] | None, with_ecg: bool) -> EchoReading:
    pictures, count = source.sample(_SAMPLE_FRAMES)
    sector = find_sector(pictures, source.regions)
    _check_room(source.path, count, size or sector.crop[2:])
    trace, observer = None, None
    if with_ecg:
        trace, still = _look_for_trace(pictures, sector)
        if trace is not None:
            inside = _share_inside(trace, sector) > _OVERLAP
            observer = Observer(trace, still, np.zeros_like(sector.mask) if inside else sector.mask)
    else:
        still = np.median(pictures, axis=0).astype(np.uint8)
    heart_rate = None
    if with_ecg and source.heart_rate_bpm:
        heart_rate = ("the heart rate tag", source.heart_rate_bpm)
    elif with_ecg and (rate := read_heart_rate(pictures[0], sector.mask)):
        heart_rate = ("the heart rate on the screen", rate)
    first = pictures[0].copy()
    del pictures
    frames = np.stack([_crop(frame, sector, size, observer) for frame in source.frames()])
    found = _follow(trace, observer, first)
    clock = settle_time(
        source,
        count,
        beats_px=found.beats_px if found else np.empty(0),
        motion=found.motion if found else None,
        heart_rate=heart_rate,
        declared_s=_declared_scale(source, found),
    )
    notes = [*clock.warnings, *_look_around(sector, trace)]
    ecg, confidence, drawing = None, None, None
    if found is not None:
        ecg, confidence, more = _signal(found, clock, source)
        notes += more
        if ecg is not None:
            drawing = draw(found.picture, found.line, ecg)
            if found.motion is not None and (np.diff(found.motion.order) < 0).any():
                frames = frames[found.motion.order]
                notes.append("the frames were stored out of order; they follow the cursor now")
    elif with_ecg:
        notes.append(_NO_ECG)
    return _assemble(source, sector, frames, clock, found, ecg, confidence, drawing, heart_rate, notes)


def _check_room(path: Path, count: int, size: tuple[int, ...]) -> None:
    if count * size[0] * size[1] > _MAX_CLIP_BYTES:
        raise InputError(
            f"{path}: {count} frames of {size[1]} x {size[0]}; expected at most {_MAX_CLIP_BYTES >> 20} MiB in grey; "
            "give a smaller size or cut it into shorter clips"
        )


def _look_for_trace(pictures: np.ndarray, sector: Sector) -> tuple[Trace | None, np.ndarray]:
    """The best trace in the picture without what moves, or in the first one where a sweep rewrites it."""
    still = np.median(pictures, axis=0).astype(np.uint8)
    choices = [(find_trace(picture, sector.mask), picture) for picture in (still, pictures[0])]
    found = [(trace, picture) for trace, picture in choices if trace is not None]
    if not found:
        return None, still
    widest = max(trace.rows.size for trace, _ in found)
    wide = [(trace, picture) for trace, picture in found if trace.rows.size > 0.9 * widest]
    return max(wide, key=lambda pair: pair[0].score)[0], still


def _follow(trace: Trace | None, observer: Observer | None, picture: np.ndarray) -> _Trace | None:
    if trace is None or observer is None:
        return None
    motion = observer.motion()
    rows = trace.rows if motion is None else motion.rows
    return _Trace(trace, motion, spikes(heights(rows, trace.thickness)), picture)


def _declared_scale(source: Source, found: _Trace | None) -> float | None:
    """Seconds per pixel of a region of waves that holds the trace."""
    if found is None:
        return None
    middle = (found.line.left + found.line.right) / 2
    for region in source.regions:
        inside = region.left <= middle < region.right and region.top - 10 <= found.line.top < region.bottom
        if region.spatial_format == 4 and region.seconds_per_pixel and inside:
            return region.seconds_per_pixel
    return None


def _look_around(sector: Sector, trace: Trace | None) -> list[str]:
    """Warnings on what a model would learn that is not the heart."""
    notes = []
    if not sector.found:
        notes.append("no sector stands out of the picture; the whole picture is kept, with any text in it")
    elif sector.graphics > _GRAPHICS:
        notes.append(f"text or drawings remain inside the sector ({sector.graphics} pixels)")
    if trace is not None and _share_inside(trace, sector) > _OVERLAP:
        notes.append("a part of the burned-in ECG remains inside the sector")
    return notes


def _share_inside(trace: Trace, sector: Sector) -> float:
    known = np.flatnonzero(~np.isnan(trace.rows))
    rows = np.rint(trace.rows[known]).astype(int).clip(0, sector.mask.shape[0] - 1)
    return float(sector.mask[rows, trace.left + known].mean())


def _crop(frame: np.ndarray, sector: Sector, size: tuple[int, int] | None, observer: Observer | None) -> np.ndarray:
    """The sector of one frame in grey, black around it; the observer sees the whole frame first."""
    from PIL import Image

    if observer is not None:
        observer.add(frame)
    top, left, height, width = sector.crop
    box = (slice(top, top + height), slice(left, left + width))
    weights = np.array([0.299, 0.587, 0.114], dtype=np.float32)
    grey = np.rint(frame[box].astype(np.float32) @ weights).astype(np.uint8) * sector.mask[box]
    if size is None:
        return grey
    scale = min(size[0] / height, size[1] / width)
    shape = (max(1, round(height * scale)), max(1, round(width * scale)))
    filtering = Image.Resampling.BOX if scale <= 1 else Image.Resampling.BILINEAR
    small = np.asarray(Image.fromarray(grey).resize((shape[1], shape[0]), filtering))
    result = np.zeros(size, dtype=np.uint8)
    corner = ((size[0] - shape[0]) // 2, (size[1] - shape[1]) // 2)
    result[corner[0] : corner[0] + shape[0], corner[1] : corner[1] + shape[1]] = small
    return result


def _signal(found: _Trace, clock: Clock, source: Source) -> tuple[EcgSignal | None, float | None, list[str]]:
    if clock.seconds_per_pixel is None:
        return None, None, ["there is a trace like an ECG, but nothing says its time scale; it is not used"]
    if found.beats_px.size == 0 or (found.beats_px.size < 2 and found.motion is None):
        return None, None, [_NO_ECG]
    try:
        ecg, confidence, notes = to_signal(found.line, found.motion, found.beats_px, clock, source.r_wave_times_s)
    except InputError as error:
        return None, None, [f"there is a trace like an ECG, but {error}; it is not used"]
    return ecg, confidence, list(notes)


def _assemble(
    source: Source,
    sector: Sector,
    frames: np.ndarray,
    clock: Clock,
    found: _Trace | None,
    ecg: EcgSignal | None,
    confidence: float | None,
    drawing: np.ndarray | None,
    heart_rate: tuple[str, float] | None,
    notes: list[str],
) -> EchoReading:
    times = clock.frame_times_s
    fps = (times.size - 1) / times[-1] if times.size > 1 and times[-1] > 0 else 1.0
    if not _FPS[0] <= fps <= _FPS[1]:
        raise InputError(f"{source.path}: {fps:.3g} frames/s by {clock.source}; expected {_FPS[0]:g} to {_FPS[1]:g}")
    if times.size > 2 and np.abs(times - np.arange(times.size) / fps).max() > 0.5 / fps:
        notes.append("the frames are not evenly spaced; the clip's rate is their mean")
    rate = heart_rate[1] if heart_rate else None
    if rate is None and source.r_wave_times_s is not None and source.r_wave_times_s.size > 1:
        rate = 60 / float(np.median(np.diff(np.sort(source.r_wave_times_s))))
    if ecg is not None and found is not None and found.beats_px.size > 1 and clock.seconds_per_pixel:
        rate = 60 / (float(np.median(np.diff(found.beats_px))) * clock.seconds_per_pixel)
    provenance = {
        "container": source.container,
        "source_frames": int(times.size),
        "crop": list(sector.crop),
        "color_doppler": sector.color_doppler,
        "frame_times": clock.source,
        "frame_period_ms": round(1000 / fps, 4),
    }
    if ecg is not None:
        provenance["ecg"] = {
            "from": "trace in the picture",
            "time_scale": clock.scale_source,
            "seconds_per_pixel": clock.seconds_per_pixel,
            "voltage": "the typical R wave is set to 1 mV; the picture has no scale",
            "confidence": confidence,
        }
    outside = 100 * (1 - float(sector.mask.mean()))
    return EchoReading(
        clip=EchoClip(frames, fps, ecg=ecg, provenance=provenance),
        frame_times_s=times,
        heart_rate_bpm=rate,
        color_doppler=sector.color_doppler,
        crop=sector.crop,
        ecg_confidence=confidence,
        warnings=tuple(dict.fromkeys(notes)),
        removed=(*source.removed, f"picture outside the sector ({outside:.0f} %)"),
        ecg_picture=drawing,
    )
