"""An ECG on paper: its leads below each other, with R peaks and T ends marked."""

import math

import numpy as np

from echopulse.signals import EcgSignal

MAX_SHOWN_S = 10.0
"""Longer recordings are drawn from their beginning."""
MAX_SHOWN_LEADS = 15
R_COLOR, T_COLOR = (214, 92, 0), (0, 104, 178)

_PAPER, _GRID, _GRID_STRONG, _TRACE, _TEXT = (
    (255, 252, 250),
    (250, 226, 222),
    (240, 190, 184),
    (20, 22, 26),
    (70, 70, 76),
)
_FINE = 2  # drawn this much larger and shrunk, for smooth lines


def draw_ecg(ecg: EcgSignal, r_times_s: np.ndarray, t_ends_s: np.ndarray, width: int = 1200):
    """Draws an ECG on a grid of 0.2 s and 0.5 mV.

    Args:
        ecg: any ECG; its first 10 s and 15 leads are drawn.
        r_times_s: R peaks on its clock, marked by dots.
        t_ends_s: ends of the T waves, marked by ticks; nan is left out.
        width: of the picture in pixels.

    Returns:
        An RGB picture (PIL).
    """
    from PIL import Image, ImageDraw, ImageFont

    leads = ecg.leads[:MAX_SHOWN_LEADS]
    shown_s = min(ecg.duration_s, MAX_SHOWN_S)
    row = 220 if len(leads) == 1 else 150 if len(leads) <= 3 else 84
    header = 34
    image = Image.new("RGB", (_FINE * width, _FINE * (header + row * len(leads))), _PAPER)
    draw = ImageDraw.Draw(image)
    for number in range(math.floor(shown_s / 0.2) + 1):
        x = _FINE * width * number * 0.2 / shown_s
        color = _GRID_STRONG if number % 5 == 0 else _GRID
        draw.line((x, _FINE * header, x, image.height), fill=color, width=_FINE)
    font = ImageFont.load_default(14 * _FINE)
    for position, name in enumerate(leads):
        _draw_lead(
            draw, ecg, name, (r_times_s, t_ends_s), (_FINE * width, _FINE * row), _FINE * (header + row * position)
        )
        draw.text((12, _FINE * (header + row * position) + 8), name, font=font, fill=_TEXT)
    text = f"{ecg.duration_s:.1f} s at {ecg.sampling_rate_hz:g} Hz, {len(ecg.leads)} leads; boxes 0.2 s x 0.5 mV"
    draw.text((12, _FINE * header / 2), text, font=font, fill=_TEXT, anchor="lm")
    draw.text((image.width - 150, _FINE * header / 2), "R peak", font=font, fill=R_COLOR, anchor="rm")
    draw.text((image.width - 12, _FINE * header / 2), "T end", font=font, fill=T_COLOR, anchor="rm")
    return image.reduce(_FINE)


def sparkline(ecg: EcgSignal, r_times_s: np.ndarray, t_ends_s: np.ndarray, width: int = 100) -> str:
    """An ECG in two lines of text: marks (R, and t where a T wave ends) above the largest swings of its main lead."""
    name = "II" if "II" in ecg.leads else ecg.leads[0]
    shown_s = min(ecg.duration_s, width / 25)  # 25 columns a second tell P, QRS and T apart
    values = ecg.lead(name)[: max(1, round(shown_s * ecg.sampling_rate_hz))].astype(np.float64)
    middle = np.median(values)
    cells = [cell[np.argmax(np.abs(cell - middle))] for cell in np.array_split(values, min(width, values.size))]
    low, high = min(cells), max(cells)
    levels = [round(7 * (cell - low) / (high - low)) if high > low else 0 for cell in cells]
    marks = [" "] * len(cells)
    for times, letter in ((t_ends_s, "t"), (r_times_s, "R")):
        for time_s in times[np.isfinite(times)]:
            column = int((time_s - ecg.start_s) / shown_s * len(cells))
            if 0 <= column < len(cells):
                marks[column] = letter
    return f"{''.join(marks).rstrip()}\n{''.join('▁▂▃▄▅▆▇█'[level] for level in levels)}"


def _draw_lead(draw, ecg: EcgSignal, name: str, marks: tuple[np.ndarray, np.ndarray], size: tuple[int, int], top: int):
    width, height = size
    shown_s = min(ecg.duration_s, MAX_SHOWN_S)
    values = ecg.lead(name)[: round(shown_s * ecg.sampling_rate_hz) + 1].astype(np.float64)
    low, high = float(values.min()), float(values.max())
    middle, span = (low + high) / 2, max(1.2 * (high - low), 1.0)

    def y(value_mv: float) -> float:
        return top + height / 2 - (value_mv - middle) / span * height * 0.9

    step = 0.5 * max(1, math.ceil(span / 10))  # wider for huge signals
    for number in range(math.ceil((middle - span / 2) / step), math.floor((middle + span / 2) / step) + 1):
        draw.line((0, y(step * number), width, y(step * number)), fill=_GRID, width=_FINE)
    times_s = np.arange(values.size) / ecg.sampling_rate_hz
    points = [(width * t / shown_s, y(v)) for t, v in zip(times_s, values, strict=True)]
    if len(points) > 1:
        draw.line(points, fill=_TRACE, width=round(1.5 * _FINE), joint="curve")
    for times, color in zip(marks, (R_COLOR, T_COLOR), strict=True):
        for time_s in times[np.isfinite(times)] - ecg.start_s:
            if not 0 <= time_s <= shown_s:
                continue
            x, value = width * time_s / shown_s, float(np.interp(time_s, times_s, values))
            if color is R_COLOR:
                at = max(y(value) - 12, top + 8)
                draw.ellipse((x - 6, at - 6, x + 6, at + 6), fill=color)
            else:
                draw.line((x, y(value) - 14, x, y(value) + 14), fill=color, width=2 * _FINE)
