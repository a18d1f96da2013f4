"""Rehearsals: the first beats of a clip are generated to be measured, and what the generator is told is corrected.

Told an ejection fraction, the generator shows another one. The error belongs to the patient and the picture far more
than to the draw, so the clip's own first beats tell it, and the generator is told as much more or less.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from echopulse.models.segmenter import ChamberSegmenter
from echopulse.sampling.decode import EF_RANGE
from echopulse.sampling.progressive import OVERLAP, Scene
from echopulse.signals.ventricle import find_beats, lv_curve

_BEATS = 2
"""Beats that a rehearsal shows whole, for they differ."""

_SYSTOLE_S = 0.5
"""From an R peak to end-systole, at most."""

_LONGEST_PERIOD_S = 2.0

_NEAR = 0.01
"""Error of the ejection fraction that is left as it is."""

_FARTHEST = 0.2
"""What is told is never corrected by more: a heart that answers so little answers by leaps."""

_SLOPE_RANGE = 0.6, 1.4
"""How much more a heart can be taken to contract for each bit more that it is told."""

Play = Callable[[Sequence[int], Sequence[Scene], int], np.ndarray]
"""Clips of a batch, their scenes, and how many token frames: their pictures, uint8 (clips, frames, height, width)."""


def rehearsed(
    scenes: Sequence[Scene], play: Play, segmenter: ChamberSegmenter, rounds: int, *, seconds: float, slots: int
) -> list[Scene]:
    """Scenes whose told ejection fraction makes their first beats show the wanted one, as nearly as `rounds` allow.

    Left as they are: scenes of which no ejection fraction is wanted, whose ECG has no beats, or whose clips are shorter
    than one; and those whose rehearsal cannot be read.

    Args:
        scenes: with a first picture.
        play: generates; the same draws every time.
        segmenter: finds the ventricle in what is generated. It should not be the one that judges the clips later.
        rounds: how often to rehearse and correct, at most: a scene that is within a point is done.
        seconds: length of the clips.
        slots: of the generator's windows.
    """
    scenes = list(scenes)
    begun = [scene.ef for scene in scenes]
    before: dict[int, tuple[float, float]] = {}  # what was told and shown in the rehearsal before
    rows = [i for i, scene in enumerate(scenes) if not math.isnan(scene.wanted_ef) and _period(scene) <= seconds]
    for _ in range(rounds):
        if not rows:
            break
        lengths = [_token_frames(scenes[i], seconds, slots) for i in rows]
        pictures = play(rows, [replace(scenes[i], past=None, past_length=0) for i in rows], max(lengths))
        going_on = []
        for i, length, clip in zip(rows, lengths, pictures, strict=True):
            told, wanted = scenes[i].ef, scenes[i].wanted_ef
            shown = _shown_ef(clip[: 2 * length - 1], scenes[i].fps, segmenter)
            if abs(wanted - shown) > _NEAR:  # and not where nothing can be read
                ef = told + (wanted - shown) / _slope(before.get(i), (told, shown))
                low, high = max(begun[i] - _FARTHEST, EF_RANGE[0]), min(begun[i] + _FARTHEST, EF_RANGE[1])
                scenes[i] = replace(scenes[i], ef=min(max(ef, low), high))
                before[i] = told, shown
                going_on.append(i)
        rows = going_on
    return scenes


def _slope(before: tuple[float, float] | None, now: tuple[float, float]) -> float:
    """How much more is shown for each bit more that is told, from two rehearsals; 1 until there are two."""
    if before is None or abs(now[0] - before[0]) < _NEAR:
        return 1.0
    return min(max((now[1] - before[1]) / (now[0] - before[0]), _SLOPE_RANGE[0]), _SLOPE_RANGE[1])


def _period(scene: Scene) -> float:
    """Median time between beats; infinite where the ECG has none."""
    if scene.track is None or len(scene.track.r_times_s) < 2:
        return math.inf
    return min(float(np.median(np.diff(scene.track.r_times_s))), _LONGEST_PERIOD_S)


def _token_frames(scene: Scene, seconds: float, slots: int) -> int:
    """Token frames of the whole windows that so many complete ejections are certainly in; not more than the clip's."""
    length_s = min(_BEATS * _period(scene) + _SYSTOLE_S, seconds)
    enough, step = (length_s * scene.fps + 1) / 2, slots - 1 - OVERLAP
    return slots + step * max(math.ceil((enough - slots) / step), 0)


def _shown_ef(pictures: np.ndarray, fps: float, segmenter: ChamberSegmenter) -> float:
    """Ejection fraction of a piece of a clip, between 0 and 1; NaN where it cannot be read."""
    beats = find_beats(lv_curve(segmenter.label(pictures)), np.arange(len(pictures)) / fps)
    return math.nan if beats.ef_percent is None else beats.ef_percent / 100
