"""The PDF that Apple Health makes of an ECG: strips of 10 s, drawn as lines at 25 mm/s and 10 mm/mV.

The lines are vectors, so their points are the samples. A strip hangs where the page has room for
it, which tells nothing about the zero line: each is set so that it continues the one before, and
the median of the whole is zero.
"""

import itertools
import re
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np

from echopulse.errors import InputError
from echopulse.io.ecg_formats.channels import bridge_gaps, check_size, wanted_samples
from echopulse.signals.ecg import EcgSignal

STRIP_S = 10.0

_MM_PER_POINT = 25.4 / 72
_MAX_CONTENT_BYTES = 1 << 23
_MAX_FORMS = 100
_MIN_POINTS = 100
_ROW_POINTS = 40.0  # strips lie farther apart than this, lines of one strip nearer
_STROKES = {"S", "s", "B", "B*", "b", "b*"}
_FILLS = {"f", "F", "f*", "n"}


def is_pdf(head: bytes) -> bool:
    """Whether a file begins like PDF."""
    return b"%PDF-" in head[:1024]


def read(path: Path, max_duration_s: float | None) -> EcgSignal:
    """Reads the strips of the first page that has any, as one signal in millivolts.

    Args:
        path: the PDF.
        max_duration_s: keep only the beginning.

    Raises:
        InputError: pypdf is missing, or the file has no strips.
    """
    try:
        import pypdf
    except ImportError as error:
        raise InputError(f"{path}: PDF needs pypdf; install it with: pip install 'echopulse[data]'") from error
    reader = pypdf.PdfReader(path)
    for page in itertools.islice(reader.pages, 4):
        strips = _strips(_lines(path, page))
        if strips:
            return _signal(path, strips, unicodedata.normalize("NFKC", page.extract_text()), max_duration_s)
    raise InputError(f"{path}: no ECG strips drawn as lines in this PDF; a scan or a picture cannot be read")


def _signal(path: Path, strips: list[np.ndarray], text: str, max_duration_s: float | None) -> EcgSignal:
    speed_mm = _stated(r"mm\s*/\s*s", text, 25.0)
    gain_mm = _stated(r"mm\s*/\s*mV", text, 10.0)
    rate = _stated("Hz", text, 512.0, least=100.0)  # less is the edge of a filter
    left = min(strip[0, 0] for strip in strips)
    width_s = (max(strip[-1, 0] for strip in strips) - left) * _MM_PER_POINT / speed_mm
    # All strips but the last are full, so a page printed at another size shows in their length.
    scale, notes = 1.0, ()
    if len(strips) > 1 and abs(width_s / STRIP_S - 1) > 0.03:
        scale = (STRIP_S - 1 / rate) / width_s
        notes = (f"the page is drawn at {1 / scale:.3g} of its size; measured by its strips of 10 s",)
    times, levels = [], []
    for number, strip in enumerate(strips):
        level = strip[:, 1] * (_MM_PER_POINT / gain_mm * scale)
        time = (strip[:, 0] - left) * (_MM_PER_POINT / speed_mm * scale) + number * STRIP_S
        if levels and time[0] - times[-1][-1] < 0.1:
            slope = (levels[-1][-1] - levels[-1][-2]) / max(times[-1][-1] - times[-1][-2], 1e-6)
            level += levels[-1][-1] + slope * (time[0] - times[-1][-1]) - level[0]
        else:
            level -= np.median(level)
        times.append(time)
        levels.append(level)
    time, level = np.concatenate(times), np.concatenate(levels)
    length = round((time[-1] - time[0]) * rate) + 1
    check_size(path, 1, length)
    grid = time[0] + np.arange(length) / rate
    values = np.interp(grid, time, level)
    after = np.clip(np.searchsorted(time, grid), 1, time.size - 1)
    values[time[after] - time[after - 1] > 0.1] = np.nan
    values -= np.nanmedian(values)
    values = values[None, : wanted_samples(length, rate, max_duration_s)]
    _, values, _, gaps = bridge_gaps(path, ["I"], values, rate)
    return EcgSignal(values, ("I",), rate, source=path.name, format="apple_watch_pdf", notes=notes, gaps_s=gaps)


def _stated(unit: str, text: str, otherwise: float, least: float = 1.0) -> float:
    """The first number of some size that is printed before a unit, such as 25 before mm/s."""
    found = (float(number.replace(",", ".")) for number in re.findall(rf"(\d+(?:[.,]\d+)?)\s*{unit}", text))
    return next((number for number in found if number >= least), otherwise)


def _strips(lines: list[np.ndarray]) -> list[np.ndarray]:
    """Lines that run from left to right in many points, joined to strips, the upper one first."""
    joined: list[np.ndarray] = []
    for line in lines:
        if len(line) < 3 or np.any(np.diff(line[:, 0]) < -1e-3) or np.ptp(line[:, 0]) == 0:
            continue
        if joined and 0 <= line[0, 0] - joined[-1][-1, 0] + 1e-3 < 1 and abs(line[0, 1] - joined[-1][-1, 1]) < 10:
            joined[-1] = np.concatenate((joined[-1], line))
        else:
            joined.append(line)
    traces = sorted((line for line in joined if len(line) >= _MIN_POINTS), key=lambda line: -np.median(line[:, 1]))
    strips: list[list[np.ndarray]] = []
    for trace in traces:
        if strips and np.median(strips[-1][0][:, 1]) - np.median(trace[:, 1]) < _ROW_POINTS:
            strips[-1].append(trace)
        else:
            strips.append([trace])
    whole = [np.concatenate(sorted(parts, key=lambda part: part[0, 0])) for parts in strips]
    return [_increasing(strip) for strip in whole]


def _increasing(strip: np.ndarray) -> np.ndarray:
    """Points that lie right of all points before them."""
    reached = np.maximum.accumulate(strip[:, 0])
    return strip[np.concatenate(([True], strip[1:, 0] > reached[:-1]))]


def _lines(path: Path, page: Any) -> list[np.ndarray]:
    """Every open line stroked on a page: points of shape (points, 2), in points of 1/72 inch, y upwards."""
    lines: list[np.ndarray] = []
    budget = itertools.count()
    _collect(path, page, page.get_contents(), page.get("/Resources"), np.eye(3), lines, budget)
    turn = np.deg2rad(-(page.rotation % 360))
    rotation = np.round([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    return [line @ rotation * float(page.user_unit) for line in lines]


def _collect(
    path: Path, page: Any, content: Any, resources: Any, matrix: np.ndarray, lines: list[np.ndarray], budget: Any
) -> None:
    """Adds the lines of a content stream, those of the forms it draws included."""
    from pypdf.generic import ContentStream

    if content is None or next(budget) >= _MAX_FORMS:
        return
    if len(content.get_data()) > _MAX_CONTENT_BYTES:
        raise InputError(f"{path}: a page of more than {_MAX_CONTENT_BYTES} bytes is no ECG report")
    stack: list[np.ndarray] = []
    open_paths: list[list[tuple[float, float]]] = []
    for operands, name in ContentStream(content, page.pdf).operations:
        operator = name.decode("latin-1")
        if operator == "q":
            stack.append(matrix)
        elif operator == "Q" and stack:
            matrix = stack.pop()
        elif operator == "cm":
            matrix = _matrix(operands) @ matrix
        elif operator == "m":
            open_paths.append([_point(operands)])
        elif operator in ("l", "c", "v", "y") and open_paths:
            open_paths[-1].append(_point(operands[-2:]))
        elif operator == "h" and open_paths:
            open_paths.pop()
        elif operator in _STROKES:
            points = [np.column_stack((np.array(line), np.ones(len(line)))) for line in open_paths]
            lines += [(line @ matrix)[:, :2] for line in points]
            open_paths = []
        elif operator in _FILLS:
            open_paths = []
        elif operator == "Do" and resources is not None:
            form = (resources.get_object().get("/XObject") or {}).get(operands[0])
            form = None if form is None else form.get_object()
            if form is not None and form.get("/Subtype") == "/Form":
                inner = _matrix(form.get("/Matrix", (1, 0, 0, 1, 0, 0))) @ matrix
                _collect(path, page, form, form.get("/Resources", resources), inner, lines, budget)


def _point(operands: Any) -> tuple[float, float]:
    return float(operands[0]), float(operands[1])


def _matrix(operands: Any) -> np.ndarray:
    a, b, c, d, e, f = map(float, operands)
    return np.array([[a, b, 0.0], [c, d, 0.0], [e, f, 1.0]])
