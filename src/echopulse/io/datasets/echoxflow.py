"""EchoXFlow: polar B-mode with its ECG, as Zarr stores or in the HDF5 files of zeahub.

Layouts: `exams/exam_*/recording_*.zarr` (Zarr 2, a folder or one zipped file; also whole exams as
`exams/exam_*.tar`) with `croissant.json` and `splits.csv`; `exam_*/recording_*.hdf5`.
The arrays hold beams, so they are scan converted here: x = r sin(a), y = r cos(a), in the plane of the beams.
Frames and ECG have time stamps on one clock. An exam is not a patient, but no closer name is given.
"""

import json
import math
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from echopulse.errors import InputError
from echopulse.io.datasets.item import (
    Found,
    Skipped,
    SourceClip,
    SourceItem,
    SourceOptions,
    check_room,
    known_view,
    need_reader,
    number,
    read_table,
    read_text,
)
from echopulse.signals import EcgSignal, EchoClip
from echopulse.signals.ecg import MIN_DURATION_S

SIDE = 256
"""Longer side of the converted picture in pixels."""
_MODE = "2d_brightness_mode"
_FOLDS = {0: "val", 1: "test", 2: "train", 3: "train", 4: "train"}
_MAX_ECG_SAMPLES = 10_000_000


def matches(root: Path) -> bool:
    """Whether the folder holds EchoXFlow recordings."""
    patterns = ("exams/exam_*.tar", "**/recording_*.zarr", "**/exam_*/recording_*.hdf5", "**/exam_*/recording_*.h5")
    return any(next(root.glob(pattern), None) is not None for pattern in patterns)


def find(root: Path, options: SourceOptions) -> Found:
    """Finds the recordings; views come from the links of strain recordings in `croissant.json`."""
    views, split_of = _linked_views(root / "croissant.json"), _folds(root)
    items, skipped = [], []
    for path in sorted(root.glob("**/recording_*")) + sorted(root.glob("exams/exam_*.tar")):
        if path.suffix not in (".zarr", ".hdf5", ".h5", ".tar"):
            continue
        exam = path.stem if path.suffix == ".tar" else path.parent.name
        try:
            names = _stores_in(path) if path.suffix == ".tar" else [""]
        except InputError as error:
            skipped.append(Skipped(path, str(error)))
            continue
        for name in names:
            recording = Path(name).stem if name else path.stem
            items.append(
                SourceItem(
                    key=f"{path.relative_to(root).as_posix()}|{name}",
                    path=path,
                    dataset="echoxflow",
                    subject=exam,
                    exam=exam,
                    split=split_of.get(exam, ""),
                    view=views.get(recording, "unknown"),
                    details={"member": name},
                )
            )
    note = "EchoXFlow names exams, not patients: two exams of one patient can be in different splits"
    return Found(items, skipped, notes=(note,), removed=("exam and recording names",))


def read(item: SourceItem) -> SourceClip:
    """Reads a recording, converted to a picture."""
    if item.path.suffix in (".hdf5", ".h5"):
        parts = _read_hdf5(item.path)
    else:
        with _store(item.path, item.details["member"]) as path:
            parts = _read_zarr(path, item.path)
    beams, sector, times_s, ecg_mv, ecg_times_s, r_times_s = parts
    _check_times(item.path, times_s, len(beams))
    frames = scan_convert(beams, sector)
    relative = times_s - times_s[0]
    fps = (len(frames) - 1) / float(relative[-1]) if len(frames) > 1 else 1.0
    warnings, ecg = [], None
    if ecg_mv is None or ecg_times_s is None:
        warnings.append("no ECG in the recording")
    else:
        try:
            ecg = even_ecg(ecg_mv, ecg_times_s - times_s[0])
        except InputError as error:
            warnings.append(f"its ECG cannot be used: {error}")
    clip = EchoClip(frames, fps, view=item.view, ecg=ecg)
    truth = {"r_times_s": [float(t - times_s[0]) for t in r_times_s]} if r_times_s is not None else {}
    facts = {"ecg_units": "arbitrary, scaled to 1.5 mV from peak to peak"} if ecg else {}
    return SourceClip(clip, frame_times_s=relative, truth=truth, facts=facts, warnings=tuple(warnings))


def scan_convert(beams: np.ndarray, sector: tuple[float, float, float, float]) -> np.ndarray:
    """Turns beams into pictures, bilinear, black outside the sector.

    Args:
        beams: uint8 of shape (frames, depth, beams).
        sector: first and last depth (any unit of length), first and last angle in radians, 0 straight down.

    Returns:
        uint8 of shape (frames, height, width) with square pixels; the longer side has `SIDE` pixels.
    """
    near, far, first, last = sector
    angles = np.linspace(first, last, 181)
    x = np.concatenate([near * np.sin(angles), far * np.sin(angles)])
    y = np.concatenate([near * np.cos(angles), far * np.cos(angles)])
    step = max(np.ptp(x), np.ptp(y)) / (SIDE - 1)
    columns = x.min() + step * np.arange(math.floor(np.ptp(x) / step + 1e-6) + 1)
    rows = y.min() + step * np.arange(math.floor(np.ptp(y) / step + 1e-6) + 1)
    depth, beam = np.hypot(columns, rows[:, None]), np.arctan2(columns, rows[:, None])
    row = (depth - near) / (far - near) * (beams.shape[1] - 1)
    column = (beam - first) / (last - first) * (beams.shape[2] - 1)
    edge = 1e-6
    inside = (row >= -edge) & (row <= beams.shape[1] - 1 + edge)
    inside &= (column >= -edge) & (column <= beams.shape[2] - 1 + edge)
    row, column = (v[inside].clip(0, n - 1) for v, n in ((row, beams.shape[1]), (column, beams.shape[2])))
    top = np.minimum(row.astype(np.int64), max(beams.shape[1] - 2, 0))
    left = np.minimum(column.astype(np.int64), max(beams.shape[2] - 2, 0))
    down, right = (row - top).astype(np.float32), (column - left).astype(np.float32)
    low, next_beam = np.minimum(top + 1, beams.shape[1] - 1), np.minimum(left + 1, beams.shape[2] - 1)
    frames = np.zeros((len(beams), *inside.shape), np.uint8)
    for i, polar in enumerate(beams):
        upper = polar[top, left] * (1 - right) + polar[top, next_beam] * right
        lower = polar[low, left] * (1 - right) + polar[low, next_beam] * right
        frames[i, inside] = np.rint(upper * (1 - down) + lower * down).astype(np.uint8)
    return frames


def even_ecg(samples: np.ndarray, times_s: np.ndarray) -> EcgSignal:
    """An ECG with its own time stamps at an even rate; 1.5 mV from peak to peak, since its unit is not stated.

    Raises:
        InputError: fewer samples than a second holds, times that do not rise, or nothing finite.
    """
    if samples.shape != times_s.shape or samples.ndim != 1 or samples.size < 2:
        raise InputError(f"ECG of shape {samples.shape} with times of shape {times_s.shape}")
    good = np.isfinite(samples) & np.isfinite(times_s)
    samples, times_s = samples[good].astype(np.float64), times_s[good]
    steps = np.diff(times_s)
    if samples.size < 2 or steps.min() < 0 or not (period := float(np.median(steps))) > 0:
        raise InputError("its times do not rise")
    count = (times_s[-1] - times_s[0]) / period + 1
    if not MIN_DURATION_S / period <= count <= _MAX_ECG_SAMPLES:
        raise InputError(f"{count * period:.2f} s at {1 / period:.4g} Hz; expected {MIN_DURATION_S:g} s or more")
    if steps.max() > 0.2:
        raise InputError(f"a gap of {steps.max():.2f} s")
    # A rate from the whole span: the median step of rounded stamps can be off by a percent.
    rate = (samples.size - 1) / float(times_s[-1] - times_s[0]) if steps.max() < 3 * period else 1 / period
    grid = times_s[0] + np.arange(math.floor((times_s[-1] - times_s[0]) * rate + 1e-6) + 1) / rate
    values = np.interp(grid, times_s, samples)
    low, high = np.percentile(values, [0.1, 99.9])
    scale = 1.5 / (high - low) if high > low else 0.0
    return EcgSignal((values - np.median(values))[None] * scale, ("ECG",), rate, start_s=float(times_s[0]))


def _check_times(path: Path, times_s: np.ndarray, frames: int) -> None:
    if times_s.shape != (frames,) or not np.isfinite(times_s).all() or (frames > 1 and np.diff(times_s).min() <= 0):
        raise InputError(f"{path}: times of the frames do not rise, or are not {frames}")


def _checked_sector(path: Path, values: list[Any]) -> tuple[float, float, float, float]:
    try:
        near, far, first, last = (float(value) for value in values)
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: the geometry of its sector is not stated ({error})") from error
    if not (0 <= near < far < 1e4 and first != last and max(abs(first), abs(last)) < math.pi):
        raise InputError(f"{path}: a sector from {near:g} to {far:g} m, {first:g} to {last:g} rad makes no sense")
    return near, far, first, last


def _read_zarr(path: Path, named: Path) -> tuple[Any, ...]:
    zarr = need_reader("zarr")
    store = zarr.storage.ZipStore(path, mode="r") if path.is_file() else zarr.storage.LocalStore(path, read_only=True)
    try:
        group = zarr.open_group(store, mode="r")
        manifest = group.attrs.get("recording_manifest", {})
        sectors = [part for part in manifest.get("sectors", []) if part.get("semantic_id") == "bmode"]
        part: dict[str, Any] = sectors[0] if sectors else {}
        array = group.get(part.get("frames", {}).get("array_path") or f"data/{_MODE}")
        if array is None:
            raise InputError(f"{named}: no 2D B-mode in it")
        check_room(named, tuple(array.shape))
        stamps = group.get(part.get("timestamps", {}).get("array_path") or f"timestamps/{_MODE}")
        if stamps is None or stamps.shape != array.shape[:1]:
            raise InputError(f"{named}: no times of its frames")
        geometry = part.get("geometry") or manifest.get("geometry") or dict(array.attrs).get("geometry") or {}
        sector = _checked_sector(named, _sector_values(geometry))
        _check_chunks(path, named)
        beams = np.asarray(array[:])
        times_s = np.asarray(stamps[:], np.float64)
        ecg = [None if (a := group.get(name)) is None else _small(named, a) for name in ("data/ecg", "timestamps/ecg")]
        metadata = manifest.get("metadata") or dict(group.attrs).get("metadata") or {}
        triggers = metadata.get("qrs_trigger_times") or metadata.get("ecg_qrs_trigger_times")
        marks = None if triggers is None else np.asarray(triggers, np.float64).ravel()
    except InputError:
        raise
    except Exception as error:  # whatever the reader makes of a damaged store
        raise InputError(f"{named}: not a complete Zarr store ({' '.join(str(error).split())[:200]})") from error
    finally:
        store.close()
    return _as_bytes(named, beams), sector, times_s, *ecg, marks


def _check_chunks(path: Path, named: Path) -> None:
    """Refuses Blosc chunks that are not as long as they say: the decoder reads on behind their end."""
    if path.is_file():
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                with archive.open(info) as file:
                    _check_chunk(named, info.filename, file.read(16), info.file_size)
        return
    for chunk in path.rglob("*"):
        if chunk.is_file():
            with chunk.open("rb") as file:
                _check_chunk(named, chunk.relative_to(path).as_posix(), file.read(16), chunk.stat().st_size)


def _check_chunk(named: Path, name: str, head: bytes, size: int) -> None:
    if name.rpartition("/")[2].startswith(".z"):
        return
    blosc = len(head) == 16 and head[0] in (1, 2) and head[1] == 1
    if size == 0 or (blosc and int.from_bytes(head[12:16], "little") != size):
        raise InputError(f"{named}: its chunk {name[:80]} is not complete")


def _sector_values(geometry: dict[str, Any]) -> list[Any]:
    if "Tilt" in geometry:
        middle, half = geometry["Tilt"], geometry["Width"] / 2
        return [geometry.get("DepthStart"), geometry.get("DepthEnd"), middle - half, middle + half]
    return [geometry.get(name) for name in ("depth_start_m", "depth_end_m", "angle_start_rad", "angle_end_rad")]


def _small(path: Path, array: Any) -> np.ndarray:
    if array.ndim != 1 or array.shape[0] > _MAX_ECG_SAMPLES:
        raise InputError(f"{path}: an ECG of shape {array.shape}; expected one row of at most {_MAX_ECG_SAMPLES}")
    return np.asarray(array[:], np.float64)


def _as_bytes(path: Path, beams: np.ndarray) -> np.ndarray:
    if beams.dtype != np.uint8:
        raise InputError(f"{path}: B-mode of {beams.dtype}; expected uint8")
    return beams


def _read_hdf5(path: Path) -> tuple[Any, ...]:
    h5py = need_reader("h5py")
    try:
        with h5py.File(path, "r") as file:
            values = file["data/image/values"]
            check_room(path, values.shape)
            if "data/image/coordinates" not in file:
                raise InputError(f"{path}: no coordinates in it, so its beams cannot be turned into a picture")
            sector = _checked_sector(path, _sector_of(path, file["data/image/coordinates"], values.shape[1:]))
            if values.shape[:1] != file["data/image/timestamps"].shape:
                raise InputError(f"{path}: no times of its frames")
            times_s = np.asarray(file["data/image/timestamps"][:], np.float64) + _offset(file, "data/image")
            ecg_mv = ecg_times_s = None
            if "metadata/ecg/samples" in file:
                ecg_mv, start_s = _small(path, file["metadata/ecg/samples"]), _offset(file, "metadata/ecg")
                if "metadata/ecg/timestamps" in file:
                    ecg_times_s = start_s + _small(path, file["metadata/ecg/timestamps"])
                elif "metadata/ecg/sampling_frequency" in file:
                    rate = float(file["metadata/ecg/sampling_frequency"][()])
                    ecg_times_s = start_s + np.arange(len(ecg_mv)) / rate
            beams = np.asarray(values[:])
    except InputError:
        raise
    except Exception as error:  # whatever the reader makes of a damaged file
        raise InputError(f"{path}: not a complete HDF5 recording ({' '.join(str(error).split())[:200]})") from error
    return _as_bytes(path, beams), sector, times_s, ecg_mv, ecg_times_s, None


def _offset(file: Any, group: str) -> float:
    """Start of a stream on the clock of the exam, 0 where it is not stated."""
    name = f"{group}/start_time_offset"
    return float(file[name][()]) if name in file else 0.0


def _sector_of(path: Path, coordinates: Any, shape: tuple[int, ...]) -> list[float]:
    """Depths and angles from the positions of the corners, in metres: x to the side, z down."""
    if coordinates.shape != (*shape, 3):
        raise InputError(f"{path}: coordinates of shape {coordinates.shape} for frames of {shape}")
    (x0, _, z0), (x1, _, z1) = np.asarray(coordinates[-1, 0], float), np.asarray(coordinates[-1, -1], float)
    near = float(np.linalg.norm(np.asarray(coordinates[0, 0], float)))
    return [near, math.hypot(x0, z0), math.atan2(x0, z0), math.atan2(x1, z1)]


def _linked_views(path: Path) -> dict[str, str]:
    """View of the recordings that are a panel of a strain recording, by recording id."""
    if not path.is_file():
        return {}
    try:
        sets = json.loads(read_text(path, 1 << 30)).get("recordSet", [])
        rows = next((part["data"] for part in sets if part.get("@id") == "recording_links"), [])
        names = ("recording_links/linked_recording_id", "recording_links/panel_role_id")
        found = {row.get(names[0]): known_view(str(row.get(names[1]))) for row in rows}
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: not the catalogue of EchoXFlow ({error})") from error
    return {str(recording): view for recording, view in found.items() if view != "unknown"}


def _folds(root: Path) -> dict[str, str]:
    path = next((path for name in ("splits.csv", "five_fold_split.csv") if (path := root / name).is_file()), None)
    rows = [] if path is None else read_table(path, "exam_id")
    folds = {row["exam_id"]: number(row.get("five_fold_split") or row.get("fold")) for row in rows}
    return {exam: _FOLDS.get(int(fold), "train") for exam, fold in folds.items() if fold is not None}


def _stores_in(path: Path) -> list[str]:
    """Names of the Zarr stores in the tar of an exam."""
    try:
        with tarfile.open(path, "r:") as archive:
            parts = [info.name.split("/") for info in archive]
    except (tarfile.TarError, OSError, ValueError) as error:
        raise InputError(f"{path}: not a complete uncompressed tar ({error})") from error
    stores = ((names, i) for names in parts for i, name in enumerate(names) if name.endswith(".zarr"))
    return sorted({"/".join(names[: i + 1]) for names, i in stores})


@contextmanager
def _store(path: Path, member: str) -> Iterator[Path]:
    """The store itself, or a copy of the member of a tar while it is read."""
    if not member:
        yield path
        return
    from echopulse.io.archives import extract_tar

    with TemporaryDirectory() as folder:
        extract_tar(path, Path(folder), prefix=member)
        yield Path(folder) / member
