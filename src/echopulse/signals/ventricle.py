"""The left ventricle in masks: tidied cavities, volume curve, ejection fraction from its smoothed extremes.

Volumes follow Lang 2015 (ASE/EACVI): Simpson's disks from one or two apical views, or area-length. The extremes are
read from a smoothing spline whose stiffness follows from the curve's own noise (generalised cross-validation, Craven
and Wahba 1978): the largest and smallest of the raw values would read the ejection fraction too high, the more so the
noisier the curve and the more frames it has.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import ndimage
from scipy.interpolate import make_smoothing_spline
from scipy.signal import find_peaks

from echopulse.axes import MASK_CLASSES
from echopulse.errors import InputError

NUM_DISKS = 20
MIN_FRAMES = 8
"""Fewer frames give no curve."""

MIN_AMPLITUDE = 0.04
"""Least swing of a beating curve, as a share of its largest value."""

MIN_PROMINENCE = 0.25
"""Least depth of an end-systole, as a share of the curve's swing."""

_GRID_S = 0.004
_PLATEAU_S, _REFRACTORY_S, _ONSET_AFTER_START_S = 0.12, 0.25, 0.02
_ES_BEFORE_END_S = 0.04
_SUBPIXELS = 3
_BACKGROUND, _LV, _LA = (MASK_CLASSES.index(name) for name in ("background", "lv_cavity", "left_atrium"))


@dataclass(frozen=True, eq=False)
class LvBeats:
    """Beats read from one LV volume curve; every array has one entry a beat, sorted in time.

    Attributes:
        ed_s, es_s: end-diastole and the end-systole that follows it, seconds on the frames' clock.
        edv, esv: volumes there, in the curve's unit.
        ef_percent: mean EF over the beats; None where the curve cannot tell it.
        reason: why `ef_percent` is None, or why it is not per beat; empty otherwise.
        times_s, smoothed: the smoothed curve, finely sampled, for plots.
        period_s: mean time between the steepest falls of the curve; None with fewer than two.
    """

    ed_s: np.ndarray
    es_s: np.ndarray
    edv: np.ndarray
    esv: np.ndarray
    ef_percent: float | None
    reason: str
    times_s: np.ndarray
    smoothed: np.ndarray
    period_s: float | None


# masks --------------------------------------------------------------------------------------------------


def pieces_of(cavity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number of its connected piece at every pixel of a mask, 0 outside, and the pixels in each piece."""
    labels = np.asarray(ndimage.label(cavity)[0])  # type: ignore[index]
    return labels, np.bincount(labels.ravel())[1:]


def tidied(masks: np.ndarray) -> np.ndarray:
    """Fills holes of the cavity and takes crumbs away, pieces under a tenth of it; larger ones tell of bad masks."""
    for frame in masks:
        cavity = frame == _LV
        labels, sizes = pieces_of(cavity)
        crumbs = np.isin(labels, 1 + np.flatnonzero(sizes < 0.1 * sizes.sum()))
        frame[crumbs] = _BACKGROUND
        cavity &= ~crumbs
        frame[np.asarray(ndimage.binary_fill_holes(cavity)) & ~cavity] = _LV
    return masks


# volumes ------------------------------------------------------------------------------------------------


def lv_curve(
    masks: np.ndarray, *, method: Literal["disks", "area_length"] = "disks", spacing_cm: float | None = None
) -> np.ndarray:
    """LV volume of every frame from one view.

    `disks`: V = π/4 · Σ d² · L/20 with the diameter of each disk from the area of its slab. `area_length`:
    V = 8 A² / (3 π L). The direction of the long axis is one for the clip: from the apex to the middle of the mitral
    plane where the left atrium is seen, else the cavity's principal axis.

    Args:
        masks: uint8 (frames, height, width) of `axes.MASK_CLASSES`.
        method: `disks` (Simpson, 20 disks) or `area_length`.
        spacing_cm: side of a (square) pixel; None gives cubic pixels, which serve for EF and timing.

    Returns:
        float64 (frames,): millilitres or cubic pixels; NaN where there is no cavity.
    """
    scale = (spacing_cm or 1.0) ** 3
    if method == "area_length":
        areas, lengths = (masks == _LV).sum((1, 2)), _slabs(masks)[1]
        return scale * 8 * areas**2 / (3 * np.pi * lengths)
    diameters, lengths = _slabs(masks)
    return scale * np.pi / 4 * (diameters**2).sum(1) * lengths / NUM_DISKS


def biplane_curve(
    masks_a4c: np.ndarray, masks_a2c: np.ndarray, *, spacing_cm: tuple[float, float] | None = None
) -> np.ndarray:
    """LV volume from two views of the same instants: V = π/4 · Σ a b · L/20, L the longer axis (Lang 2015).

    Args:
        masks_a4c: uint8 (frames, height, width) of the four-chamber view.
        masks_a2c: the two-chamber view, as many frames.
        spacing_cm: side of a pixel in each view; None where both views have the same, unknown one.

    Returns:
        As `lv_curve`.

    Raises:
        InputError: another number of frames.
    """
    if len(masks_a4c) != len(masks_a2c):
        raise InputError(
            f"{len(masks_a4c)} frames of A4C and {len(masks_a2c)} of A2C; biplane volumes need the same instants"
        )
    four, two = spacing_cm or (1.0, 1.0)
    (a, length_a), (b, length_b) = _slabs(masks_a4c), _slabs(masks_a2c)
    longer = np.maximum(four * length_a, two * length_b)
    return np.pi / 4 * four * two * (a * b).sum(1) * longer / NUM_DISKS


def _slabs(masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Diameters of the disks (frames, 20) and length of the long axis (frames,) in pixels; NaN without a cavity."""
    diameters, lengths = np.full((len(masks), NUM_DISKS), np.nan), np.full(len(masks), np.nan)
    direction = _long_axis(masks)
    offsets = (np.arange(_SUBPIXELS) + 0.5) / _SUBPIXELS - 0.5
    within = (offsets[:, None] * direction[0] + offsets[None, :] * direction[1]).ravel()
    for i, frame in enumerate(masks):
        pixels = np.argwhere(frame == _LV)
        if len(pixels) < NUM_DISKS:
            continue
        along = ((pixels @ direction)[:, None] + within).ravel()
        top = along.min()
        lengths[i] = along.max() - top
        slab = np.minimum(((along - top) * (NUM_DISKS / lengths[i])).astype(np.int64), NUM_DISKS - 1)
        areas = np.bincount(slab, minlength=NUM_DISKS) / _SUBPIXELS**2
        diameters[i] = areas / (lengths[i] / NUM_DISKS)
    return diameters, lengths


def _long_axis(masks: np.ndarray) -> np.ndarray:
    """Unit vector (row, column) along the ventricle, from apex to base, the mean over the clip."""
    total = np.zeros(2)
    for frame in masks:
        cavity = frame == _LV
        pixels = np.argwhere(cavity)
        if len(pixels) < NUM_DISKS:
            continue
        valve = np.argwhere(cavity & ndimage.binary_dilation(frame == _LA, iterations=2))
        if len(valve) >= 3:
            base = valve.mean(0)
            apex = pixels[np.argmax(((pixels - base) ** 2).sum(1))]
            axis = base - apex
        else:
            axis = np.linalg.eigh(np.cov(pixels.T))[1][:, 1]
            axis = axis if axis[0] >= 0 else -axis
        total += axis / np.linalg.norm(axis)
    length = np.linalg.norm(total)
    return total / length if length else np.array([1.0, 0.0])


# beats ----------------------------------------------------------------------------------------------------


def find_beats(volumes: np.ndarray, times_s: np.ndarray) -> LvBeats:
    """Smooths a volume curve and reads ED and ES with sub-frame times, without a look at any ECG.

    ES is a minimum of the smoothed curve. ED is its maximum within 120 ms before ejection sets in, which is where the
    tangent of the steepest fall leaves the level of the maximum: without an atrial kick the curve is flat for long
    before ejection, and its largest value is anywhere. Only beats whose ED and ES both lie inside the clip count; of
    the filling after the last ES nothing needs to be seen.

    Args:
        volumes: (frames,) from `lv_curve`; NaN frames are left out.
        times_s: (frames,) seconds.

    Returns:
        The beats. A curve that beats too weakly to show one has none, and an EF by its extremes over the whole clip.
    """
    nothing = np.empty(0)
    known = np.isfinite(volumes)
    if known.sum() < MIN_FRAMES or known.mean() < 0.8:
        reason = f"a cavity in {known.sum()} of {known.size} frames; expected 80 % of them and {MIN_FRAMES} or more"
        return LvBeats(nothing, nothing, nothing, nothing, None, reason, nothing, nothing, None)
    times, curve = _smooth(np.asarray(times_s, np.float64)[known], np.asarray(volumes, np.float64)[known])
    ends, falls = _extremes(times, curve)
    ed, es = ends[:, 0], ends[:, 1]
    reason = ""
    if len(ends):
        ef = float(np.mean(100 * (1 - curve[es] / curve[ed])))
    else:
        ef = 100 * float(1 - curve.min() / curve.max())
        reason = "no complete beat stands out of the curve; EF by its extremes"
    period = float(np.diff(times[falls]).mean()) if falls.size > 1 else None
    return LvBeats(times[ed], times[es], curve[ed], curve[es], ef, reason, times, curve, period)


def _smooth(times: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A smoothing spline of the curve on a grid of about 4 ms, its stiffness by generalised cross-validation."""
    count = max(2, round((times[-1] - times[0]) / _GRID_S) + 1)
    grid = np.linspace(times[0], times[-1], count)
    level = float(values.mean())
    if np.ptp(values) < 1e-6 * level:
        return grid, np.full(count, level)
    step = (times[-1] - times[0]) / (times.size - 1)
    spline = make_smoothing_spline((times - times[0]) / step, values / level)
    return grid, level * spline((grid - times[0]) / step)


def _extremes(times: np.ndarray, curve: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the curve shows: positions of (ED, ES) of every beat, (beats, 2), and of the steepest fall of each."""
    swing = np.percentile(curve, 98) - np.percentile(curve, 2)
    if swing < MIN_AMPLITUDE * curve.max():
        return np.empty((0, 2), np.int64), np.empty(0, np.int64)
    step = times[1] - times[0]
    distance = max(1, round(_REFRACTORY_S / step))
    walled = np.append(curve, curve.max())  # the end of the clip is no sign that the ventricle does not fill
    troughs = find_peaks(-walled, prominence=MIN_PROMINENCE * swing, distance=distance)[0]
    troughs = troughs[troughs < curve.size - round(_ES_BEFORE_END_S / step)]  # still falling
    slope = np.gradient(curve, step)
    beats, falls = [], []
    for previous, trough in zip(np.append(0, troughs), troughs, strict=False):
        top = previous + int(np.argmax(curve[previous : trough + 1]))
        steepest = top + int(np.argmin(slope[top : trough + 1]))
        if steepest == 0 or slope[steepest] >= 0:
            continue
        falls.append(steepest)
        onset = steepest - round((curve[top] - curve[steepest]) / -slope[steepest] / step)
        if onset * step < _ONSET_AFTER_START_S:  # ejection was under way when the clip began
            continue
        first = max(previous, onset - round(_PLATEAU_S / step))
        beats.append((first + int(np.argmax(curve[first : onset + 1])), trough))
    return np.array(beats, np.int64).reshape(-1, 2), np.array(falls, np.int64)
