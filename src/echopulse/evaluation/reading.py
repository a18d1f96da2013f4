"""Reads the clips of a set once: features, LV volume curve, ECG marks. What was measured is kept and reused."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, cast

import numpy as np

from echopulse.errors import InputError
from echopulse.evaluation.features import Extractor
from echopulse.evaluation.privacy import thumbnail
from echopulse.evaluation.segmentation import SHIPPED_SEGMENTER, Backend, quality, segment_clip
from echopulse.io.files import whole_file
from echopulse.io.sets import PreparedSet
from echopulse.signals.processing import detect_r_peaks, detect_t_ends
from echopulse.signals.ventricle import LvBeats, find_beats, lv_curve

VERSION = 3
"""Part of every key of the cache; raised when a measurement of this package changes."""


class Cache:
    """Arrays by key in a folder, each file whole or absent, so that an interrupted run goes on where it stopped."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, key: Sequence[str], compute: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """The arrays of `key`; computed and kept where they are not there yet."""
        name = hashlib.sha256("\0".join((str(VERSION), *key)).encode()).hexdigest()
        path = self.folder / name[:2] / f"{name[2:32]}.npz"
        try:
            with np.load(path, allow_pickle=False) as file:
                return dict(file)
        except FileNotFoundError:
            pass
        except (OSError, ValueError, EOFError):  # damaged: made again
            path.unlink(missing_ok=True)
        arrays = compute()
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as temporary, temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, **cast(dict[str, Any], arrays))
        return arrays


@dataclass(frozen=True, eq=False)
class ClipSource:
    """One clip to read.

    Attributes:
        id: name of the clip.
        source_id: name of the reference clip that it belongs to.
        patient: whom resampling keeps together.
        view: `a4c`, `a2c` or `unknown`.
        fps: frames per second.
        times_s: time of every frame.
        shape: (frames, height, width).
        load: gives the pictures, uint8; not kept, so that memory does not grow with the set.
        load_masks: gives the classes of the same shape; None without masks.
        r_times_s, t_end_times_s: of the ECG that drives it; T ends may be nan.
        ecg_digest: of the ECG's samples and clock; empty without an ECG.
        truth: of the manifest.
        provenance: of the manifest.
    """

    id: str
    source_id: str
    patient: str
    view: str
    fps: float
    times_s: np.ndarray
    shape: tuple[int, ...]
    load: Callable[[], np.ndarray]
    load_masks: Callable[[], np.ndarray | None] | None
    r_times_s: np.ndarray
    t_end_times_s: np.ndarray
    ecg_digest: str
    truth: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def end_s(self) -> float:
        """Time just after the last frame."""
        return float(self.times_s[-1]) + 1 / self.fps


@dataclass(frozen=True, eq=False)
class ClipReading:
    """What was measured on one clip.

    Attributes:
        source: the clip.
        digest: SHA-256 of its pixels.
        features: by extractor name, float32 (rows, d).
        thumbnail: for the search for copies.
        volumes: LV volume of every frame, cubic pixels; None where nothing could be segmented.
        accepted: the masks passed quality control.
        reasons: why not.
        beats: found in the volume curve alone; None without a curve.
    """

    source: ClipSource
    digest: str
    features: dict[str, np.ndarray]
    thumbnail: np.ndarray
    volumes: np.ndarray | None
    accepted: bool
    reasons: tuple[str, ...]
    beats: LvBeats | None

    @property
    def ef_percent(self) -> float | None:
        """Of the volume curve alone; None without one, or where it cannot tell."""
        return None if self.beats is None else self.beats.ef_percent


@dataclass(frozen=True)
class Reader:
    """Measures clips.

    Attributes:
        extractors: networks that make features.
        cache: where measurements are kept.
        backend: segmenter; None leaves the ventricle out.
        weights: of the segmenter; None for the shipped one.
    """

    extractors: Sequence[Extractor]
    cache: Cache
    backend: Backend | None
    weights: str | None = None

    def read(self, source: ClipSource) -> ClipReading:
        """Measures one clip; a clip too short for a network has no features of it."""
        frames = source.load()
        digest = _digest(frames)
        key = (digest, str(frames.shape))
        features = {
            extractor.name: self.cache.get(
                (*key, str(source.fps), extractor.identity),
                lambda network=extractor: {"features": network(frames, source.fps)},
            )["features"]
            for extractor in self.extractors
            if len(extractor.chosen(frames, source.fps)) >= extractor.min_frames
        }
        small = self.cache.get((*key, "thumbnail"), lambda: {"thumbnail": thumbnail(frames)})["thumbnail"]
        volumes, accepted, reasons = self._volumes(source, frames, key)
        beats = None if volumes is None else find_beats(volumes, source.times_s)
        return ClipReading(source, digest, features, small, volumes, accepted, reasons, beats)

    def _volumes(
        self, source: ClipSource, frames: np.ndarray, key: tuple[str, ...]
    ) -> tuple[np.ndarray | None, bool, tuple[str, ...]]:
        if self.backend is None:
            return None, False, ("not segmented",)
        masks, made_by = None, segmenter_identity(self.backend, self.weights)
        if self.backend == "masks":
            masks = source.load_masks() if source.load_masks else None
            if masks is None:
                return None, False, ("the set has no masks for this clip",)
            made_by = _digest(masks)

        def compute(backend: Backend = self.backend) -> dict[str, np.ndarray]:
            found = segment_clip(frames, backend, weights=self.weights, masks=masks)
            verdict = json.dumps(asdict(quality(found)))
            return {"volumes": lv_curve(found), "quality": np.array(verdict)}

        try:
            kept = self.cache.get((*key, "lv curve", self.backend, made_by), compute)
        except InputError as error:  # the clip's other measurements stand
            return None, False, (" ".join(str(error).split()),)
        verdict = json.loads(str(kept["quality"]))
        return kept["volumes"], bool(verdict["accepted"]), tuple(verdict["reasons"])


@lru_cache(maxsize=4)
def segmenter_identity(backend: Backend, weights: str | None) -> str:
    """What tells one segmenter from another: the hash of its weights where they are a local file."""
    folder = Path(weights) if weights else SHIPPED_SEGMENTER
    file = folder / "model.safetensors"
    if backend == "echopulse" and file.is_file():
        return hashlib.sha256(file.read_bytes()).hexdigest()
    return f"{backend} {weights}"


Marks = dict[str, tuple[np.ndarray, np.ndarray]]


def clip_source(
    clips: PreparedSet, i: int, cache: Cache, *, known_marks: Marks | None = None, with_masks: bool = False
) -> ClipSource:
    """Clip `i` of a set, ready to read.

    R peaks and T ends come from the truth of the set where it has them, else they are detected in the ECG. A clip
    that carries the very ECG of a reference clip takes the marks of that clip.

    Args:
        clips: the set.
        i: position in its manifest.
        cache: keeps detected marks.
        known_marks: of the reference by ECG digest; None when the reference itself is read, and then the truth is
            believed. The truth of a generated clip may be copied from another ECG, so it is not.
        with_masks: also offer the masks of the set.

    Raises:
        InputError: a part of the clip cannot be read.
    """
    line = clips.line(i)
    shape = clips.frames(i).shape
    times = line["frame_times_s"] or [n / line["fps"] for n in range(shape[0])]
    r_times, t_ends, digest = np.empty(0), np.empty(0), ""
    if line["ecg"]:
        ecg = clips.ecg(i)
        parts = (ecg.samples_mv.tobytes(), str((ecg.leads, ecg.sampling_rate_hz, round(ecg.start_s, 4))).encode())
        digest = hashlib.sha256(b"".join(parts)).hexdigest()
        if known_marks is not None and digest in known_marks:
            r_times, t_ends = known_marks[digest]
        elif known_marks is None and line["truth"].get("r_times_s"):
            r_times = np.asarray(line["truth"]["r_times_s"], np.float64)
            t_ends = np.asarray(line["truth"].get("t_end_times_s") or [], np.float64)
        else:

            def compute() -> dict[str, np.ndarray]:
                peaks = detect_r_peaks(ecg)
                return {"r": peaks, "t": detect_t_ends(ecg, peaks)}

            marks = cache.get((digest, "ecg marks"), compute)
            r_times, t_ends = marks["r"], marks["t"]
    provenance = line["provenance"]
    return ClipSource(
        id=line["id"],
        source_id=str(provenance.get("source_id") or line["id"]),
        patient=line["subject"] or line["id"],
        view=line["view"],
        fps=float(line["fps"]),
        times_s=np.asarray(times, np.float64),
        shape=shape,
        load=partial(clips.frames, i),
        load_masks=partial(clips.masks, i) if with_masks else None,
        r_times_s=r_times,
        t_end_times_s=t_ends,
        ecg_digest=digest,
        truth=line["truth"],
        provenance=provenance,
    )


def _digest(pictures: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(pictures).data).hexdigest()
