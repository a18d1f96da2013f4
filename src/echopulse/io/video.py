"""Video files out and in: .mp4 to look at, .gif for pages, .avi (lossless) and .npz to compute with.

Every file carries a note: where the clip came from and that it is not for diagnosis.
"""

import json
import math
import os
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from echopulse.axes import NOT_FOR_DIAGNOSIS
from echopulse.errors import InputError
from echopulse.io.files import read_npy_header, whole_file
from echopulse.signals import EcgSignal, EchoClip

MAX_SIDE = 8192
MAX_FRAMES = 100_000
MAX_BYTES = 2**31
"""Bounds on what is read: pixels a side, frames, and bytes of grey pictures in all."""
FPS_RANGE = (0.1, 1000.0)
GIF_MAX_FPS = 100.0
"""GIF counts delays in steps of 10 ms; a faster clip would need delays of none."""

_DEMUXERS = {".mp4": "mov", ".m4v": "mov", ".mov": "mov", ".avi": "avi", ".mkv": "matroska", ".webm": "matroska"}


def check_output(path: str | Path) -> Path:
    """Checks that a clip can be written to `path`, before any work is done for it.

    Raises:
        InputError: unknown ending, a folder of that name, or a parent that is missing or locked.
    """
    path = Path(path)
    if path.suffix.lower() not in _WRITERS:
        raise InputError(f"{path}: unknown ending {path.suffix!r}; expected {', '.join(_WRITERS)}")
    if path.is_dir():
        raise InputError(f"{path}: is a folder; expected the name of a file")
    if not path.parent.is_dir():
        raise InputError(f"{path}: no folder {path.parent}; make it first or write elsewhere")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise InputError(f"{path}: folder {path.parent} is not writable; choose another one")
    return path


def write_clip(clip: EchoClip, path: str | Path, *, overlay: bool = False) -> Path:
    """Writes a clip; the ending chooses the format. `EchoClip.save` calls this.

    - `.mp4`: H.264 at nearly invisible loss; odd sizes are padded to even ones.
    - `.gif`: loops; delays are multiples of 10 ms whose sum stays true, grey levels are exact.
      Browsers slow delays under 20 ms down, so prefer `.mp4` above 50 frames/s.
    - `.avi`: FFV1, every pixel exact.
    - `.npz`: exact frames with their times, and the ECG; opens with `numpy.load` without pickles.

    The same clip gives the same bytes.

    Args:
        clip: the clip.
        path: where to write; complete or not at all.
        overlay: draw the ECG under the picture, with a moving cursor (not for `.npz`).

    Returns:
        The path that was written.

    Raises:
        InputError: what `check_output` refuses, `overlay` without an ECG or into `.npz`, or a frame
            rate that the format cannot hold.
    """
    path = check_output(path)
    ending = path.suffix.lower()
    low, high = FPS_RANGE[0], GIF_MAX_FPS if ending == ".gif" else FPS_RANGE[1]
    if ending != ".npz" and not low <= clip.fps <= high:
        raise InputError(f"{path}: {clip.fps:g} frames/s; {ending} holds {low:g} to {high:g}; write .npz or resample")
    pictures: Iterable[np.ndarray] = clip.frames
    if overlay:
        if ending == ".npz":
            raise InputError(f"{path}: .npz holds numbers and takes no overlay; write .mp4, .gif or .avi")
        from echopulse.io.overlay import draw_overlay

        pictures = draw_overlay(clip)
    note = _note(clip)
    with whole_file(path) as temporary:
        _WRITERS[ending](clip, pictures, note, temporary)
    return path


def write_pictures(pictures: Iterable[np.ndarray], fps: float, path: Path) -> None:
    """Writes pictures to an .mp4 as they come, so that memory does not grow with their number.

    Args:
        pictures: uint8 (height, width), all of one size.
        fps: frames per second.
        path: where to write; complete or not at all.

    Raises:
        InputError: a frame rate that the format cannot hold.
    """
    if not FPS_RANGE[0] <= fps <= FPS_RANGE[1]:
        raise InputError(f"{path}: {fps:g} frames/s; .mp4 holds {FPS_RANGE[0]:g} to {FPS_RANGE[1]:g}")
    with whole_file(path) as temporary:
        _encode_mp4(temporary, pictures, fps, note="")


def read_video(path: str | Path) -> EchoClip:
    """Reads a video file as a grey clip, with the note that `write_clip` left in it.

    The ECG comes back from `.npz` only. Frames are taken as evenly spaced at the mean frame rate.

    Args:
        path: .mp4, .avi, .gif, .npz; also .m4v, .mov, .mkv and .webm.

    Raises:
        InputError: no such file, unknown ending, broken content, or too large.
    """
    path = Path(path)
    ending = path.suffix.lower()
    if ending not in (".gif", ".npz") and ending not in _DEMUXERS:
        known = ", ".join([*_DEMUXERS, ".gif", ".npz"])
        raise InputError(f"{path}: unknown ending {path.suffix!r}; expected {known}")
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a video")
    if ending == ".npz":
        return _read_npz(path)
    return _read_gif(path) if ending == ".gif" else _read_stream(path, _DEMUXERS[ending])


def _note(clip: EchoClip) -> str:
    fields = {
        "notice": NOT_FOR_DIAGNOSIS,
        "view": clip.view,
        "fps": clip.fps,
        "start_s": clip.start_s,
        "num_frames": clip.num_frames,
        "size": list(clip.frames.shape[1:]),
        "provenance": clip.provenance,
    }
    return json.dumps(fields, sort_keys=True)


def _parse_note(text: str) -> dict[str, Any]:
    """The fields of a note that hold what they should; none from a comment that is not ours."""
    try:
        note = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(note, dict) or note.get("notice") != NOT_FOR_DIAGNOSIS:
        return {}
    kinds = {"view": str, "fps": float, "start_s": float, "num_frames": int, "size": list, "provenance": dict}
    kept = {name: note[name] for name, kind in kinds.items() if type(note.get(name)) is kind}
    return {name: value for name, value in kept.items() if not isinstance(value, float) or math.isfinite(value)}


def _clip(frames: np.ndarray, fps: float, note: dict[str, Any]) -> EchoClip:
    return EchoClip(
        frames,
        fps,
        start_s=note.get("start_s", 0.0),
        view=note.get("view", "unknown"),
        provenance=note.get("provenance", {}),
    )


def _write_mp4(clip: EchoClip, pictures: Iterable[np.ndarray], note: str, path: Path) -> None:
    _encode_mp4(path, pictures, clip.fps, note)


def _encode_mp4(path: Path, pictures: Iterable[np.ndarray], fps: float, note: str) -> None:
    # One thread and no macroblock tree: with it, x264 gives other bytes from run to run on small pictures.
    options = {"crf": "14", "preset": "medium", "threads": "1", "mbtree": "0"}
    even = (_padded_to_even(picture) for picture in pictures)
    _encode(path, "mp4", "libx264", ("yuv420p", "yuv420p"), options, fps, even, note)


def _write_avi(clip: EchoClip, pictures: Iterable[np.ndarray], note: str, path: Path) -> None:
    options = {"level": "3", "g": "1", "threads": "1"}
    _encode(path, "avi", "ffv1", ("gray", "bgr0"), options, clip.fps, pictures, note)


def _padded_to_even(picture: np.ndarray) -> np.ndarray:
    height, width = picture.shape[:2]
    rest = [(0, height % 2), (0, width % 2)] + [(0, 0)] * (picture.ndim - 2)
    return np.pad(picture, rest, mode="edge")


def _encode(
    path: Path,
    muxer: str,
    codec: str,
    pixel_formats: tuple[str, str],
    options: dict[str, str],
    fps: float,
    pictures: Iterable[np.ndarray],
    note: str,
) -> None:
    """Encodes picture by picture, so that memory stays flat; `pixel_formats` for grey and for colour."""
    import av

    rate = Fraction(fps).limit_denominator(1001)  # keeps 30000/1001 as it is
    muxing = {"movflags": "faststart"} if muxer == "mp4" else {}
    with av.open(str(path), "w", format=muxer, options=muxing) as container:
        container.metadata.update({"title": NOT_FOR_DIAGNOSIS, "comment": note})
        stream: Any = None
        for index, picture in enumerate(pictures):
            grey = picture.ndim == 2
            if stream is None:
                stream = container.add_stream(codec, rate=rate, options=options)
                stream.height, stream.width = picture.shape[:2]
                stream.pix_fmt = pixel_formats[0 if grey else 1]
                stream.codec_context.time_base = 1 / rate
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="gray" if grey else "rgb24")
            frame = frame.reformat(format=stream.pix_fmt)
            frame.pts, frame.time_base = index, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _write_gif(clip: EchoClip, pictures: Iterable[np.ndarray], note: str, path: Path) -> None:
    from PIL import Image

    ends = [round(100 * (i + 1) / clip.fps) for i in range(clip.num_frames)]
    delays_ms = [10 * (end - start) for start, end in zip([0, *ends], ends, strict=False)]
    images = (Image.fromarray(picture) for picture in pictures)
    first = next(images)
    if first.mode == "RGB":  # one palette for all, so that colors do not flicker
        from echopulse.io.overlay import palette

        colors = Image.new("P", (1, 1))
        colors.putpalette(palette())
        images = (image.quantize(palette=colors, dither=Image.Dither.NONE) for image in chain([first], images))
        first = next(images)
    with path.open("wb") as file:
        first.save(
            file,
            format="GIF",
            save_all=True,
            append_images=images,
            duration=delays_ms,
            loop=0,
            comment=note.encode("ascii"),
            optimize=False,
        )


def _write_npz(clip: EchoClip, _pictures: Iterable[np.ndarray], _note: str, path: Path) -> None:
    arrays = {
        "frames": clip.frames,
        "fps": np.float64(clip.fps),
        "start_s": np.float64(clip.start_s),
        "frame_times_s": clip.frame_times_s,
        "view": np.str_(clip.view),
        "provenance": np.str_(json.dumps(clip.provenance, sort_keys=True)),
        "notice": np.str_(NOT_FOR_DIAGNOSIS),
    }
    if clip.ecg is not None:
        arrays |= {
            "ecg_samples_mv": clip.ecg.samples_mv,
            "ecg_leads": np.array(clip.ecg.leads, dtype=np.str_),
            "ecg_sampling_rate_hz": np.float64(clip.ecg.sampling_rate_hz),
            "ecg_start_s": np.float64(clip.ecg.start_s),
            "ecg_source": np.str_(clip.ecg.source),
        }
    with path.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


_WRITERS: dict[str, Callable[[EchoClip, Iterable[np.ndarray], str, Path], None]] = {
    ".mp4": _write_mp4,
    ".gif": _write_gif,
    ".avi": _write_avi,
    ".npz": _write_npz,
}


def _check_room(path: Path, num_frames: int, height: int, width: int) -> None:
    if max(height, width) > MAX_SIDE:
        raise InputError(f"{path}: pictures of {width} x {height}; expected at most {MAX_SIDE} a side")
    if num_frames > MAX_FRAMES or num_frames * height * width > MAX_BYTES:
        raise InputError(
            f"{path}: {num_frames} or more frames of {width} x {height}; expected at most {MAX_FRAMES} frames "
            f"and {MAX_BYTES // 2**20} MiB in grey; cut it into shorter clips"
        )


def _read_stream(path: Path, demuxer: str) -> EchoClip:
    import av
    from av.error import FFmpegError

    frames: list[np.ndarray] = []
    try:
        # A named demuxer: a playlist in disguise would open other files.
        with av.open(str(path), format=demuxer, metadata_errors="replace") as container:
            if not container.streams.video:
                raise InputError(f"{path}: no video stream in it")
            stream = container.streams.video[0]
            _check_room(path, 1, stream.height, stream.width)
            rate = stream.average_rate or stream.guessed_rate
            note = _parse_note(container.metadata.get("comment", ""))
            for frame in container.decode(stream):
                _check_room(path, len(frames) + 1, frame.height, frame.width)
                frames.append(frame.to_ndarray(format="gray"))
    except InputError:
        raise
    except (FFmpegError, OSError, ValueError) as error:
        raise InputError(f"{path}: not a complete {path.suffix.lower()} video ({error})".replace("\n", " ")) from error
    if not frames or not rate or len({frame.shape for frame in frames}) > 1:
        raise InputError(f"{path}: {len(frames)} frames at {rate} frames/s; expected frames of one size and a rate")
    height, width = frames[0].shape
    size = note.get("size")
    if demuxer == "mov" and size in ([height, width - 1], [height - 1, width], [height - 1, width - 1]):
        height, width = size  # take the padding off again
    return _clip(np.stack(frames)[:, :height, :width], float(rate), note)


def _read_gif(path: Path) -> EchoClip:
    from PIL import Image, ImageSequence

    frames: list[np.ndarray] = []
    ends_s = [0.0]
    comment = b""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=["GIF"]) as image:
                _check_room(path, 1, image.height, image.width)
                for page in ImageSequence.Iterator(image):
                    _check_room(path, len(frames) + 1, page.height, page.width)
                    comment = comment or page.info.get("comment", b"")
                    frames.append(np.asarray(page.convert("L")))
                    ends_s.append(ends_s[-1] + page.info.get("duration", 0) / 1000)
    except InputError:
        raise
    except (OSError, ValueError, EOFError, SyntaxError, Image.DecompressionBombError, Warning) as error:
        raise InputError(f"{path}: not a complete .gif picture ({error})".replace("\n", " ")) from error
    if ends_s[-1] <= 0 or len({frame.shape for frame in frames}) > 1:
        raise InputError(f"{path}: {len(frames)} frames in {ends_s[-1]} s; expected frames of one size with delays")
    note = _parse_note(comment.decode("utf-8", "replace"))
    fps, total = note.get("fps", 0.0), note.get("num_frames", 0)
    if fps > 0 and len(frames) <= total <= MAX_FRAMES and abs(total / fps - ends_s[-1]) < 0.02:
        _check_room(path, total, *frames[0].shape)
        # Equal neighbors were stored as one frame with the sum of their delays: repeat them.
        order = np.searchsorted(np.array(ends_s[1:]), (np.arange(total) + 0.5) / fps).clip(max=len(frames) - 1)
        return _clip(np.stack(frames)[order], fps, note)
    return _clip(np.stack(frames), len(frames) / ends_s[-1], note)


def _read_npz(path: Path) -> EchoClip:
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(info.file_size for info in archive.infolist()) > MAX_BYTES:
                raise InputError(f"{path}: arrays of more than {MAX_BYTES // 2**20} MiB; cut it into shorter clips")
            arrays = {
                info.filename.removesuffix(".npy"): _read_member(path, archive, info) for info in archive.infolist()
            }
        ecg = None
        if "ecg_samples_mv" in arrays:
            ecg = EcgSignal(
                arrays["ecg_samples_mv"],
                tuple(str(lead) for lead in arrays["ecg_leads"]),
                float(arrays["ecg_sampling_rate_hz"]),
                start_s=float(arrays["ecg_start_s"]),
                source=str(arrays["ecg_source"]),
                format="npz",
            )
        frames = arrays["frames"]
        if frames.ndim == 3:
            _check_room(path, *frames.shape)
        provenance = json.loads(str(arrays["provenance"]))
        if not isinstance(provenance, dict):
            raise InputError(f"{path}: provenance is a {type(provenance).__name__}; expected a JSON object")
        fps, start_s = float(arrays["fps"]), float(arrays["start_s"])
        return EchoClip(frames, fps, start_s, str(arrays["view"]), ecg, provenance)
    except InputError:
        raise
    except KeyError as error:
        raise InputError(f"{path}: no array {error} in it; expected a clip that was saved as .npz") from error
    except (OSError, ValueError, TypeError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path}: not a complete .npz clip ({error})".replace("\n", " ")) from error


def _read_member(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(info) as file:
        shape, fortran, dtype = read_npy_header(file)
        size = math.prod(shape) * dtype.itemsize
        if dtype.hasobject or size > info.file_size:
            raise InputError(f"{path}: array {info.filename} of {dtype} {shape}; expected complete plain numbers")
        return np.ndarray(shape, dtype, file.read(size), order="F" if fortran else "C")
