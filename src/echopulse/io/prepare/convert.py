"""One clip of a source to the files of a set."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from echopulse import __version__
from echopulse.config import save_json
from echopulse.errors import InputError
from echopulse.io.datasets import SourceClip, SourceItem, read_item
from echopulse.io.prepare.pseudonyms import Pseudonyms, split_of
from echopulse.io.sets import write_clip_files
from echopulse.signals import EcgSignal, EchoClip

ECG_MARGIN_S = 10.0
"""Of an ECG that is longer than its clip, so much is kept on both sides."""
_EDGE_S = 0.1  # the trace on a still ends where the still was taken
TRUTH = ("ef_percent", "edv_ml", "esv_ml", "ed_times_s", "es_times_s", "r_times_s", "t_end_times_s", "lv_volume_ml")
RHYTHMS = ("sinus", "af", "pvc", "lbbb", "paced")


@dataclass(frozen=True)
class Job:
    """One clip to convert.

    Attributes:
        item: the clip.
        folder: the set.
        part: where to write the outcome.
        size: picture side in pixels.
        max_seconds: longest clip; None for any.
        names: gives the pseudonyms.
    """

    item: SourceItem
    folder: Path
    part: Path
    size: int
    max_seconds: float | None
    names: Pseudonyms


def convert(job: Job) -> None:
    """Reads, checks and writes a clip; the outcome, good or bad, is in `job.part` when all is written."""
    item = job.item
    try:
        source = read_item(item)
        line = _write(job, fitted(evened(source, job.max_seconds), job.size))
        outcome = {"line": line, "removed": list(source.removed)}
    except InputError as error:
        outcome = {"path": str(item.path), "reason": str(error)}
    except MemoryError:
        outcome = {"path": str(item.path), "reason": "larger than the memory"}
    except Exception as error:  # a reader's own mistake on one file must not end the run
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        outcome = {"path": str(item.path), "reason": f"could not be read ({reason[:300]})"}
    save_json(job.part, outcome)


def evened(source: SourceClip, max_seconds: float | None) -> SourceClip:
    """The clip at an even frame rate from 0 s, cut to a length.

    A clip whose times leave an even rate by more than 0.4 frames gets the frame that is nearest in time to each
    step of its median period.
    """
    clip, times_s = source.clip, source.frame_times_s
    if times_s is None or clip.num_frames == 1:
        times_s = np.arange(clip.num_frames) / clip.fps
    if times_s.shape != (clip.num_frames,) or not np.isfinite(times_s).all() or np.any(np.diff(times_s) <= 0):
        raise InputError("the times of its frames do not rise")
    times_s = times_s - times_s[0]
    fps = (clip.num_frames - 1) / float(times_s[-1]) if clip.num_frames > 1 else clip.fps
    fps = clip.fps if math.isclose(fps, clip.fps, rel_tol=1e-6) else fps
    order, warnings = np.arange(clip.num_frames), list(source.warnings)
    if np.abs(times_s - order / fps).max() > 0.4 / fps:
        fps = 1 / float(np.median(np.diff(times_s)))
        steps = np.arange(math.floor(times_s[-1] * fps + 1e-6) + 1) / fps
        middles = (times_s[1:] + times_s[:-1]) / 2
        order = np.searchsorted(middles, steps)
        times_s = steps
        warnings.append("the frames were not evenly spaced: the nearest in time to each step were taken")
    if max_seconds is not None:
        kept = max(1, int(np.count_nonzero(times_s < max_seconds - 1e-9)))
        order, times_s = order[:kept], times_s[:kept]
    truth = dict(source.truth)
    for name in ("mask_frames", "lv_volume_ml"):
        if isinstance(truth.get(name), list):
            known = truth[name]
            truth[name] = (
                [i for i, frame in enumerate(order.tolist()) if frame in set(known)]
                if name == "mask_frames"
                else [known[i] for i in order if i < len(known)]
            )
    ecg = None if clip.ecg is None else _cut(clip.ecg.shifted(clip.ecg.start_s - clip.start_s), len(order) / fps)
    frames = clip.frames if np.array_equal(order, np.arange(clip.num_frames)) else clip.frames[order]
    even = bool(np.abs(times_s - np.arange(len(order)) / fps).max() < 0.01 / fps)
    return replace(
        source,
        clip=EchoClip(frames, fps, view=clip.view, ecg=ecg, provenance=clip.provenance),
        frame_times_s=None if even else times_s,
        masks=None if source.masks is None else source.masks[order],
        truth=truth,
        warnings=tuple(warnings),
    )


def fitted(source: SourceClip, size: int) -> SourceClip:
    """The clip in a square: pixels made square, scaled to fit, black at the sides."""
    from PIL import Image

    frames = source.clip.frames
    height, width = frames.shape[1] * source.pixel_height, float(frames.shape[2])
    scale = size / max(height, width)
    inner = max(1, round(height * scale)), max(1, round(width * scale))
    if frames.shape[1:] == inner == (size, size):
        return source
    top, left = (size - inner[0]) // 2, (size - inner[1]) // 2

    def fit(pictures: np.ndarray, way: Image.Resampling) -> np.ndarray:
        square = np.zeros((len(pictures), size, size), np.uint8)
        for i, picture in enumerate(pictures):
            small = Image.fromarray(picture).resize((inner[1], inner[0]), way)
            square[i, top : top + inner[0], left : left + inner[1]] = np.asarray(small)
        return square

    masks = None if source.masks is None else fit(source.masks, Image.Resampling.NEAREST)
    return replace(source, clip=replace(source.clip, frames=fit(frames, Image.Resampling.BILINEAR)), masks=masks)


def clean_truth(truth: dict[str, Any], duration_s: float) -> dict[str, Any]:
    """What is known by name and type, nothing else; marks within the clip only."""
    kept: dict[str, Any] = {}
    for name in TRUTH:
        value = truth.get(name)
        if isinstance(value, list):
            numbers = [float(v) for v in value if isinstance(v, int | float) and math.isfinite(v)]
            if name.endswith("_times_s"):
                numbers = [v for v in numbers if -1e-6 <= v <= duration_s]
            kept[name] = numbers
        elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            kept[name] = float(value)
    if truth.get("rhythm") in RHYTHMS:
        kept["rhythm"] = truth["rhythm"]
    frames = truth.get("mask_frames")
    if isinstance(frames, list) and all(type(frame) is int for frame in frames):
        kept["mask_frames"] = frames
    return kept


def _cut(ecg: EcgSignal, duration_s: float) -> EcgSignal:
    if ecg.start_s >= duration_s + _EDGE_S or ecg.end_s <= -_EDGE_S:
        raise InputError(
            f"its ECG covers {ecg.start_s:.2f} to {ecg.end_s:.2f} s and the video 0 to {duration_s:.2f} s; "
            "expected an overlap: correct the start of the ECG"
        )
    if ecg.start_s < -ECG_MARGIN_S or ecg.end_s > duration_s + ECG_MARGIN_S:
        return ecg.crop(-ECG_MARGIN_S, duration_s + ECG_MARGIN_S)
    return ecg


def _write(job: Job, source: SourceClip) -> dict[str, Any]:
    from echopulse.signals.processing import assess_quality

    item, clip = job.item, source.clip
    subject = source.subject or item.subject or item.key
    exam = source.exam or item.exam
    provenance = {"prepared_by": f"echopulse {__version__}", **source.facts}
    if clip.ecg is not None:
        quality = assess_quality(clip.ecg)
        provenance["ecg_quality"] = quality.verdict
        if quality.heart_rate_bpm is not None:
            provenance["ecg_heart_rate_bpm"] = round(quality.heart_rate_bpm, 1)
    if source.warnings:
        provenance["warnings"] = [_without_names(text, item.path) for text in source.warnings]
    truth = clean_truth(source.truth, clip.duration_s)
    return write_clip_files(
        job.folder,
        replace(clip, provenance=provenance),
        name=job.names.name("c", item.key),
        subject=job.names.name("s", subject),
        split=item.split or split_of(subject),
        source=item.dataset,
        exam=job.names.name("e", exam) if exam else "",
        masks=source.masks if source.masks is None or truth.get("mask_frames") != [] else None,
        truth=truth,
        frame_times_s=None if source.frame_times_s is None else [round(float(t), 6) for t in source.frame_times_s],
    )


def _without_names(text: str, path: Path) -> str:
    for name in (str(path), str(path.parent), path.name, path.stem):
        if len(name) > 3:
            text = text.replace(name, "the file")
    return text
