"""How "now" moves along the trace from frame to frame: a cursor, an erase bar, or a trace that scrolls.

Positions are columns of the trace counted from its left end. They go on counting where a sweep starts
again at the left, and where a trace scrolls.
"""

import itertools
from dataclasses import dataclass
from typing import Literal

import numpy as np

from echopulse.io.ultrasound.trace import Trace, edges_to_rows, line_pixels

_MARGIN = 10
_CHANGED = 45
_FOLLOWED = 0.75


@dataclass(frozen=True, eq=False)
class Motion:
    """The trace on the clock of the frames, in columns.

    Attributes:
        kind: `cursor` over a drawn trace, `sweep` with an erase bar, or `scroll`.
        now: column of the instant of every frame, float64 of shape (frames,).
        first: column of the first row in `rows`.
        rows: the line's row for every column from `first` on, float64; nan where it was never seen.
        pixels_per_frame: mean speed of `now`.
        followed: 0 to 1, share of the frames that move with that speed.
        order: the order of the frames in time, int64 of shape (frames,).
    """

    kind: Literal["cursor", "sweep", "scroll"]
    now: np.ndarray
    first: int
    rows: np.ndarray
    pixels_per_frame: float
    followed: float
    order: np.ndarray


class Observer:
    """Watches the trace frame by frame, keeping a few numbers for each column.

    Args:
        trace: where to look.
        still: uint8 RGB of shape (height, width, 3): the picture without what moves.
        ignored: bool of shape (height, width): where no part of the trace is, as in the sector.
    """

    def __init__(self, trace: Trace, still: np.ndarray, ignored: np.ndarray) -> None:
        self.trace = trace
        top, bottom = max(0, trace.top - _MARGIN), trace.bottom + _MARGIN
        self._box = (slice(top, bottom), slice(trace.left, trace.right))
        self._still = still[self._box].astype(np.int16)
        self._wanted = ~ignored[self._box]
        self._rows: list[np.ndarray] = []
        self._changes: list[np.ndarray] = []

    def add(self, frame: np.ndarray) -> None:
        """Takes the next frame, uint8 RGB of the whole picture."""
        part = frame[self._box]
        line = line_pixels(part, self.trace.color) & self._wanted
        seen = line.any(axis=0)
        starts = np.where(seen, line.argmax(axis=0), np.nan)
        stops = np.where(seen, line.shape[0] - line[::-1].argmax(axis=0), np.nan)
        rows = edges_to_rows(starts, stops, self.trace.thickness) if seen.any() else starts
        self._rows.append((self._box[0].start + rows).astype(np.float32))
        changed = (np.abs(part - self._still).max(axis=2) > _CHANGED) & self._wanted
        self._changes.append(changed.sum(axis=0).astype(np.uint16))

    def motion(self) -> Motion | None:
        """What was seen, or None where nothing moves steadily."""
        if len(self._rows) < 3:
            return None
        rows = np.stack(self._rows)
        width = rows.shape[1]
        bars = _fit(np.array([_bar(changes) for changes in self._changes]), width)
        gaps = _fit(np.array([_gap(frame) for frame in rows]), width)
        order = np.arange(len(rows))
        if max(bars[1], gaps[1]) < _FOLLOWED:
            scrolled = _scroll(rows)
            if scrolled is not None:
                return _assemble("scroll", scrolled, 1.0, rows, order)
            positions = np.array([_bar(changes) for changes in self._changes])
            order = np.argsort(positions, kind="stable")
            ordered, followed = _fit(positions[order], width)
            if np.isnan(positions).any() or followed < 0.95:
                return None
            return Motion("cursor", ordered, 0, self.trace.rows, _speed(ordered), followed, order)
        now, followed = gaps if gaps[1] > bars[1] + 0.1 else bars
        if _rewritten(rows, now, self.trace):
            return _assemble("sweep", gaps[0] if gaps[1] >= _FOLLOWED else now, followed, rows, order)
        return Motion("cursor", now, 0, self.trace.rows, _speed(now), followed, order)


def _bar(changes: np.ndarray) -> float:
    """Middle of the column or columns that differ most from the still picture; nan where none does."""
    most = int(changes.max())
    if most < 3:
        return float("nan")
    peak = int(changes.argmax())
    strong = changes >= 0.6 * most
    left = right = peak
    while left > 0 and strong[left - 1]:
        left -= 1
    while right + 1 < changes.size and strong[right + 1]:
        right += 1
    return (left + right) / 2


def _gap(rows: np.ndarray) -> float:
    """The first column of the widest erased stretch; nan where there is none of 3 columns."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], np.isnan(rows).astype(np.int8), [0]))))
    if edges.size == 0:
        return float("nan")
    widths = edges[1::2] - edges[::2]
    widest = int(widths.argmax())
    return float(edges[2 * widest]) if widths[widest] >= 3 else float("nan")


def _fit(positions: np.ndarray, width: int) -> tuple[np.ndarray, float]:
    """Positions that go on where a sweep starts again, and the share of them on one straight line."""
    known = np.flatnonzero(~np.isnan(positions))
    if known.size < max(3, 0.6 * positions.size):
        return positions, 0.0
    steps = np.diff(positions[known])
    unwrapped = positions[known] + width * np.concatenate(([0], np.cumsum(steps < -0.5 * width)))
    pairs = [(0, known.size // 2), (known.size // 2, known.size - 1), (0, known.size - 1)]
    index = known.astype(np.float64)
    slopes = np.diff(unwrapped) / np.diff(index)
    choices = [float(np.median(slopes)), float(np.mean(slopes))]
    choices += [(unwrapped[j] - unwrapped[i]) / (index[j] - index[i]) for i, j in pairs if j > i]
    best, inliers = 0.0, np.zeros(known.size, dtype=bool)
    for slope in choices:
        rest = unwrapped - slope * index
        close = np.abs(rest - np.median(rest)) <= max(2.0, 0.4 * abs(slope))
        if close.sum() > inliers.sum():
            best, inliers = slope, close
    if best <= 0 or inliers.sum() < 3 or np.ptp(unwrapped[inliers]) < 4:
        return positions, 0.0
    slope, start = np.polyfit(index[inliers], unwrapped[inliers], 1)
    line = start + slope * np.arange(positions.size)
    return line, float(inliers.sum() / positions.size)


def _speed(now: np.ndarray) -> float:
    return float((now[-1] - now[0]) / (now.size - 1))


def _rewritten(rows: np.ndarray, now: np.ndarray, trace: Trace) -> bool:
    """Whether the line is another one after the cursor has passed."""
    width = rows.shape[1]
    before, after = [], []
    for column in range(width):
        passes = np.flatnonzero((now[:-1] % width <= column) & (now[1:] % width > column))
        for passed in passes[:1]:
            early, late = rows[max(0, passed - 6) : max(0, passed - 2), column], rows[passed + 3 : passed + 7, column]
            if early.size and late.size and not (np.isnan(early).all() or np.isnan(late).all()):
                before.append(np.nanmedian(early))
                after.append(np.nanmedian(late))
    if len(before) < 8:
        return False
    swing = np.nanmax(trace.rows) - np.nanmin(trace.rows)
    return bool(np.quantile(np.abs(np.array(before) - np.array(after)), 0.9) > max(1.5, 0.12 * swing))


def _scroll(rows: np.ndarray) -> np.ndarray | None:
    """The column of the instant of every frame of a trace that moves to the left, or None."""
    width = rows.shape[1]
    steps, certain = [], 0
    for earlier, later in itertools.pairwise(rows):
        errors = []
        for shift in range(min(60, width // 3)):
            distance = np.abs(earlier[shift:] - later[: width - shift])
            errors.append(float(np.nanmean(distance)) if (~np.isnan(distance)).sum() > width / 3 else np.inf)
        step = int(np.argmin(errors))
        certain += int(step > 0 and errors[step] < 0.4 * errors[0])
        steps.append(step)
    if certain < _FOLLOWED * len(steps):
        return None
    return width - 1.0 + np.concatenate(([0], np.cumsum(steps)))


def _assemble(
    kind: Literal["sweep", "scroll"], now: np.ndarray, followed: float, rows: np.ndarray, order: np.ndarray
) -> Motion:
    """Takes every column of the long trace from the first frame that shows it complete."""
    width = rows.shape[1]
    shifts = np.rint(now - (width - 1)).astype(int)
    first = int(shifts[0]) if kind == "scroll" else int(np.ceil(now[0])) - width + width // 12
    last = int(np.floor(now[-1]))
    result = np.full(last - first + 1, np.nan)
    for column in range(first, last + 1):
        frames = np.flatnonzero(now >= column + 2)[:6]
        for frame in frames if frames.size else [now.size - 1]:
            place = column - shifts[frame] if kind == "scroll" else column % width
            if 0 <= place < width and not np.isnan(rows[frame, place]):
                result[column - first] = rows[frame, place]
                break
    known = np.flatnonzero(~np.isnan(result))
    if known.size == 0:
        return Motion(kind, now, first, result, _speed(now), 0.0, order)
    result = result[known[0] : known[-1] + 1]
    return Motion(kind, now, first + int(known[0]), result, _speed(now), followed, order)
