"""Rehearsals: the first seconds of a clip are generated to be measured, and what the generator is told is corrected.

Told an ejection fraction, the generator shows another one. The error belongs to the patient and the picture far more
than to the draw, so the clip's own first seconds tell it, and the generator is told as much more or less. Where they
are the whole clip, corrections are tried out too, and what came nearest is the clip.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from echopulse.models.segmenter import ChamberSegmenter
from echopulse.sampling.decode import EF_RANGE
from echopulse.sampling.progressive import OVERLAP, Scene
from echopulse.signals.ventricle import find_beats, lv_curve

_SECONDS = 3.0
"""Length of a rehearsal: two beats of three seconds are read a point off what the three seconds show."""

_BEATS = 2
"""Beats that a rehearsal shows whole at least."""

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
    scenes: Sequence[Scene], play: Play, segmenter: ChamberSegmenter, rounds: int, *, num_frames: int, slots: int
) -> list[Scene]:
    """Scenes whose told ejection fraction makes their first seconds show the wanted one, as nearly as `rounds` allow.

    Left as they are: scenes of which no ejection fraction is wanted, whose ECG has no beats, or whose clips are shorter
    than one; and those whose rehearsal cannot be read.

    Args:
        scenes: with a first picture.
        play: generates; the same draws every time.
        segmenter: finds the ventricle in what is generated. It should not be the one that judges the clips later.
        rounds: how often to correct, at most: a scene that is within a point is done. The last correction is tried out
            where the rehearsal is the whole clip, and what came nearest is told; else it is trusted.
        num_frames: of the clips.
        slots: of the generator's windows.
    """
    scenes = list(scenes)
    begun = [scene.ef for scene in scenes]
    tried: list[list[tuple[float, float]]] = [[] for _ in scenes]  # what was told and shown, by scene
    rows = [i for i, s in enumerate(scenes) if not math.isnan(s.wanted_ef) and _period(s) <= num_frames / s.fps]
    whole = num_frames // 2 + 1
    lengths = {i: min(_token_frames(scenes[i], slots), whole) for i in rows}
    shows_all = {i for i in rows if lengths[i] == whole and scenes[i].past is None}
    for turn in range(rounds + 1):
        rows = [i for i in rows if turn < rounds or i in shows_all]
        if not rows:
            break
        trial = [replace(scenes[i], past=None, past_length=0) for i in rows]
        going_on = []
        for i, clip in zip(rows, play(rows, trial, max(lengths[i] for i in rows)), strict=True):
            told, wanted = scenes[i].ef, scenes[i].wanted_ef
            shown = _shown_ef(clip[: min(2 * lengths[i] - 1, num_frames)], scenes[i].fps, segmenter)
            if math.isnan(shown):
                continue
            tried[i].append((told, shown))
            if abs(wanted - shown) > _NEAR:
                ef = told + (wanted - shown) / _slope(tried[i])
                low, high = max(begun[i] - _FARTHEST, EF_RANGE[0]), min(begun[i] + _FARTHEST, EF_RANGE[1])
                ef = min(max(ef, low), high)
                scenes[i] = replace(scenes[i], ef=ef)
                if ef != told:
                    going_on.append(i)
        rows = going_on
    for i in shows_all:
        if tried[i]:
            nearest, _ = min(tried[i], key=lambda one: abs(scenes[i].wanted_ef - one[1]))
            scenes[i] = replace(scenes[i], ef=nearest)
    return scenes


def _slope(tried: Sequence[tuple[float, float]]) -> float:
    """How much more is shown for each bit more that is told, from the last two rehearsals; 1 until there are two."""
    (told, shown), (told_before, shown_before) = tried[-1], tried[-2:][0]
    if abs(told - told_before) < _NEAR:
        return 1.0
    return min(max((shown - shown_before) / (told - told_before), _SLOPE_RANGE[0]), _SLOPE_RANGE[1])


def _period(scene: Scene) -> float:
    """Median time between beats, taken for two seconds at most; infinite where the ECG has none."""
    period = math.inf if scene.track is None else scene.track.period_s
    return period if math.isinf(period) else min(period, _LONGEST_PERIOD_S)


def _token_frames(scene: Scene, slots: int) -> int:
    """Token frames of the whole windows that a rehearsal's seconds and beats are certainly in."""
    length_s = max(_SECONDS, _BEATS * _period(scene) + _SYSTOLE_S)
    enough, step = (length_s * scene.fps + 1) / 2, slots - 1 - OVERLAP
    return slots + step * max(math.ceil((enough - slots) / step), 0)


def _shown_ef(pictures: np.ndarray, fps: float, segmenter: ChamberSegmenter) -> float:
    """Ejection fraction of a piece of a clip, between 0 and 1; NaN where it cannot be read."""
    beats = find_beats(lv_curve(segmenter.label(pictures)), np.arange(len(pictures)) / fps)
    return math.nan if beats.ef_percent is None else beats.ef_percent / 100
