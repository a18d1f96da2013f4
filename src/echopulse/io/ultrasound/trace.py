"""The ECG trace in a picture: a thin line of one color, wider than high, with spikes.

Every picture of line art is a candidate; text, frames, scales and arcs fail one of the tests of
`_measure`, each of which an ECG passes by its nature: one line from left to right without breaks, flat
for most of the time, with narrow spikes of one height.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage, signal

_VIVID = 45
_BRIGHT = 85
_MAX_RUNS = 6
_SAME_COLOR = 0.2


@dataclass(frozen=True, eq=False)
class Trace:
    """A trace as columns of pixels.

    Attributes:
        top, bottom: rows of the picture between which it lies (last row excluded).
        left: the column of the first value.
        rows: the row of the line in every column, float64 of shape (columns,); nan where it is covered.
        color: RGB of the line, float64 of shape (3,).
        thickness: of the line in pixels.
        score: 0 to 1, how much it looks like an ECG.
    """

    top: int
    bottom: int
    left: int
    rows: np.ndarray
    color: np.ndarray
    thickness: float
    score: float

    @property
    def right(self) -> int:
        """The column after the last value."""
        return self.left + self.rows.size


def find_trace(picture: np.ndarray, sector: np.ndarray) -> Trace | None:
    """The trace that looks most like an ECG.

    Args:
        picture: uint8 RGB of shape (height, width, 3), free of moving cursors where possible.
        sector: bool of shape (height, width), the ultrasound itself; only vivid lines are looked for in it.

    Returns:
        The trace, or None.
    """
    best = None
    for mask in _line_art(picture, sector):
        for box in _wide_boxes(mask):
            trace = _measure(picture, mask, box)
            if trace is not None and (best is None or trace.score > best.score):
                best = trace
    return best


def line_pixels(picture: np.ndarray, color: np.ndarray) -> np.ndarray:
    """Pixels of a line of this color on black, its dimmer edges included; bool of the picture's shape."""
    level = picture.astype(np.float32) @ (color / (color @ color)).astype(np.float32)
    rest = np.abs(picture - level[..., None] * color.astype(np.float32)).max(axis=-1)
    return (level > 0.4) & (level < 1 + _SAME_COLOR) & (rest < 40)


def spikes(values: np.ndarray) -> np.ndarray:
    """Positions of the R waves in a trace whose time scale is not known yet.

    They are the peaks that are high and narrow compared with the sharpest one.

    Args:
        values: height of the trace above its baseline, float64 of shape (columns,).

    Returns:
        Columns, int64 of shape (spikes,).
    """
    best = np.empty(0, dtype=np.int64)
    strongest = 0.0
    for sign in (1, -1):
        padded = np.pad(sign * values, 3, constant_values=float(np.median(sign * values)))
        peaks, facts = signal.find_peaks(padded, prominence=0.35 * np.ptp(values), width=1, distance=4)
        if peaks.size == 0:
            continue
        sharpness = facts["prominences"] / (facts["widths"] + 2)
        kept = (sharpness > 0.45 * sharpness.max()) & (facts["prominences"] > 0.5 * facts["prominences"].max())
        if sharpness.max() > 1.3 * strongest:
            best, strongest = peaks[kept] - 3, sharpness.max()
    return best


def _line_art(picture: np.ndarray, sector: np.ndarray) -> list[np.ndarray]:
    """Masks to search: vivid pixels anywhere, one mask for each hue; grey and white ones outside the sector."""
    bright = picture.max(axis=2).astype(np.int16)
    vivid = bright - picture.min(axis=2) > _VIVID
    outside = np.logical_not(ndimage.binary_dilation(sector, iterations=3))
    masks = []
    dominant = picture.argmax(axis=2)
    weakest = picture.argmin(axis=2)
    for strong, weak in ((1, (0, 2)), (2, (0,)), (0, (2,)), (0, (1,)), (2, (1,))):
        masks.append(vivid & (dominant == strong) & np.isin(weakest, weak))
    masks.append(vivid & (weakest == 0))  # green to blue, cyan in between
    masks.append(vivid & (weakest == 2))  # red to green, yellow in between
    masks.append((bright > _BRIGHT) & ~vivid & outside)
    masks.append((bright > _BRIGHT) & outside)
    return [mask for mask in masks if mask.sum() > 40]


def _wide_boxes(mask: np.ndarray) -> list[tuple[int, int, int, int]]:
    """Boxes (top, left, bottom, right) of pieces of line, neighbors merged, that are wide enough."""
    height, width = mask.shape
    closed = ndimage.binary_dilation(mask, np.ones((3, 5), dtype=bool))
    labels = np.empty(mask.shape, dtype=np.int32)
    ndimage.label(closed, np.ones((3, 3), dtype=bool), output=labels)
    boxes = []
    for rows, columns in ndimage.find_objects(labels):
        if columns.stop - columns.start >= 12 and rows.stop - rows.start < 0.4 * height:
            boxes.append([rows.start, columns.start, rows.stop, columns.stop])
    boxes.sort(key=lambda box: box[1])
    gap = 0.03 * width + 6
    merged: list[list[int]] = []
    for box in boxes:
        for other in merged:
            overlap = min(box[2], other[2]) - max(box[0], other[0])
            if -2 < box[1] - other[3] < gap and overlap > 0:
                other[:] = [min(box[0], other[0]), other[1], max(box[2], other[2]), max(box[3], other[3])]
                break
        else:
            merged.append(list(box))
    wide = max(40, 0.08 * width)
    unique = {tuple(box) for box in [*boxes, *merged] if box[3] - box[1] >= wide and box[2] - box[0] >= 8}
    return [(box[0], box[1], box[2], box[3]) for box in sorted(unique)][:60]


def _measure(picture: np.ndarray, mask: np.ndarray, box: tuple[int, int, int, int]) -> Trace | None:
    """Follows the line through the box; None where what is there is no ECG."""
    top, left, bottom, right = box
    part = picture[top:bottom, left:right]
    inside = mask[top:bottom, left:right]
    if not 20 <= inside.sum() <= 0.35 * inside.size + 12 * (right - left):
        return None
    pixels = part[inside]
    bright = pixels.max(axis=1)
    color = np.median(pixels[bright >= np.quantile(bright, 0.5)], axis=0).astype(np.float64)
    line = line_pixels(part, color)
    runs = [_runs(line[:, column]) for column in range(right - left)]
    filled = np.array([len(column) > 0 for column in runs])
    if not filled.any():
        return None
    thickness = float(np.median([max(stop - start for start, stop in column) for column in runs if column]))
    if thickness > max(4.0, 0.008 * picture.shape[0]):
        return None
    runs = runs[: _end_marker(line, thickness)]
    rows, lonely = follow(runs, thickness)
    known = np.flatnonzero(~np.isnan(rows))
    rows = rows[known[0] : known[-1] + 1]
    covered = _coverage(rows)
    values = heights(rows, thickness)
    swing = float(np.ptp(values))
    if rows.size < 40 or covered < 0.9 or lonely < 0.75 or swing < max(6.0, 3 * thickness):
        return None
    found = spikes(values)
    flat = float((np.abs(values - np.median(values)) < 0.35 * swing).mean())
    if found.size == 0 or found.size > rows.size / 12 or flat < 0.6:
        return None
    spread = float(np.std(values[found]) / abs(np.mean(values[found])))
    if spread > 0.4:
        return None
    score = covered * lonely * flat * (1 - spread) * (0.5 if found.size < 2 else 1.0)
    return Trace(top, bottom, left + int(known[0]), top + rows, color, thickness, score)


def _end_marker(line: np.ndarray, thickness: float) -> int:
    """The column where a mark that hangs below the end of the line begins; the width where there is none."""
    width = line.shape[1]
    lit = line.any(axis=0)
    lowest = np.where(lit, line.shape[0] - 1 - line[::-1].argmax(axis=0), -1)
    hanging = (lowest > np.median(lowest[lit]) + 2 * thickness + 2) & (line.sum(axis=0) > 2 * thickness)
    first = np.flatnonzero(hanging[-12:])
    return width - 12 + int(first[0]) - 3 if first.size and width > 60 else width


def _runs(column: np.ndarray) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate(([0], column.astype(np.int8), [0]))))
    pairs = list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
    return sorted(pairs, key=lambda run: run[0] - run[1])[:_MAX_RUNS]


def follow(runs: list[list[tuple[int, int]]], thickness: float) -> tuple[np.ndarray, float]:
    """The smoothest way from left to right through the runs of lit pixels of every column.

    A column's value is the end of its run that lies farther from the baseline, less half the line's
    thickness, so that the tip of an R wave counts and not the middle of its flank.

    Args:
        runs: for every column the (first, last + 1) rows of its runs.
        thickness: of the line in pixels.

    Returns:
        Rows of the line, nan where a column is empty, and the share of columns without another run.
    """
    costs: list[list[float]] = []
    origins: list[list[tuple[int, int]]] = []
    last = -1
    for index, column in enumerate(runs):
        column_costs, column_origins = [], []
        for start, stop in column:
            cost, origin = float(index), (-1, -1)
            if last >= 0:
                options = []
                for choice, (other_start, other_stop) in enumerate(runs[last]):
                    distance = max(0, start - other_stop, other_start - stop)
                    options.append((costs[last][choice] + distance, choice))
                cost, choice = min(options)
                origin = (last, choice)
            column_costs.append(cost - 0.05 * min(stop - start, 8))
            column_origins.append(origin)
        costs.append(column_costs)
        origins.append(column_origins)
        last = index if column else last
    chosen: dict[int, tuple[int, int]] = {}
    index, choice = last, int(np.argmin(costs[last]))
    while index >= 0:
        chosen[index] = runs[index][choice]
        index, choice = origins[index][choice]
    starts = np.array([chosen.get(index, (np.nan, np.nan))[0] for index in range(len(runs))])
    stops = np.array([chosen.get(index, (np.nan, np.nan))[1] for index in range(len(runs))])
    lonely = float(np.mean([len(column) <= 1 for column in runs if column]))
    return edges_to_rows(starts, stops, thickness), lonely


def edges_to_rows(starts: np.ndarray, stops: np.ndarray, thickness: float) -> np.ndarray:
    """The line's row in every column from the first and last + 1 lit rows, which may be nan."""
    middle = (starts + stops - 1) / 2
    baseline = np.nanmedian(middle)
    half = (thickness - 1) / 2
    up = baseline - (starts + half) >= (stops - 1 - half) - baseline
    tall = stops - starts > thickness + 1
    return np.where(tall, np.where(up, starts + half, stops - 1 - half), middle)


def heights(rows: np.ndarray, thickness: float) -> np.ndarray:
    """Height above the baseline in pixels, covered columns filled in; shape as `rows`."""
    known = ~np.isnan(rows)
    filled = np.interp(np.arange(rows.size), np.flatnonzero(known), rows[known])
    return np.median(filled) - filled


def _coverage(rows: np.ndarray) -> float:
    """Share of the columns that hold the line; the widest gap, where a cursor erases, is forgiven."""
    empty = np.isnan(rows).astype(np.int8)
    edges = np.flatnonzero(np.diff(np.concatenate(([0], empty, [0]))))
    gaps = edges[1::2] - edges[::2]
    widest = int(gaps.max()) if gaps.size else 0
    return float(1 - (empty.sum() - min(widest, rows.size // 8)) / rows.size)
