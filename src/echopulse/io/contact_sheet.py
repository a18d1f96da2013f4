"""A page of small pictures of a prepared set: one look tells whether pictures and ECG are what they should be."""

from pathlib import Path

import numpy as np

from echopulse.io.ecg_plot import R_COLOR
from echopulse.io.files import whole_file
from echopulse.io.sets import PreparedSet
from echopulse.signals import EcgSignal

MAX_CLIPS = 48
COLUMNS = 8
_SIDE, _STRIP, _LINE = 160, 44, 16
_TRACE, _INSIDE, _TEXT = (74, 255, 138), (26, 40, 42), (200, 208, 208)


def write_contact_sheet(prepared: PreparedSet, path: Path) -> Path:
    """Draws up to 48 clips, evenly picked: the middle frame, view, length and rate, and the ECG with its R peaks.

    The time of the clip is the lighter part of the strip; the dot marks the frame that is shown.

    Args:
        prepared: the set.
        path: a PNG, written whole or not at all.

    Returns:
        The path.
    """
    from PIL import Image

    count = min(len(prepared), MAX_CLIPS)
    chosen = sorted({round(i) for i in np.linspace(0, len(prepared) - 1, count)})
    columns = min(COLUMNS, len(chosen))
    rows = -(-len(chosen) // columns)
    page = Image.new("RGB", (columns * _SIDE, rows * (_SIDE + _STRIP + _LINE)))
    for place, i in enumerate(chosen):
        tile = _tile(prepared, i)
        page.paste(tile, ((place % columns) * _SIDE, (place // columns) * tile.height))
    with whole_file(path) as temporary:
        page.save(temporary, format="PNG")
    return path


def _tile(prepared: PreparedSet, i: int):
    from PIL import Image, ImageDraw, ImageFont, ImageOps

    line, frames = prepared.line(i), prepared.frames(i)
    tile = Image.new("RGB", (_SIDE, _SIDE + _STRIP + _LINE))
    picture = Image.fromarray(np.array(frames[len(frames) // 2]))
    tile.paste(ImageOps.pad(picture, (_SIDE, _SIDE), Image.Resampling.BILINEAR).convert("RGB"))
    draw = ImageDraw.Draw(tile)
    font = ImageFont.load_default(11)
    text = f"{line['view']}  {len(frames)} frames  {line['fps']:.0f}/s"
    draw.text((4, _SIDE + _STRIP + _LINE / 2), text, font=font, fill=_TEXT, anchor="lm")
    if line["ecg"] is None:
        draw.text((4, _SIDE + _STRIP / 2), "no ECG", font=font, fill=_TEXT, anchor="lm")
    else:
        _draw_strip(draw, prepared.ecg(i), len(frames) / line["fps"], len(frames) // 2 / line["fps"])
    return tile


def _draw_strip(draw, ecg: EcgSignal, duration_s: float, middle_s: float) -> None:
    from echopulse.signals.processing import detect_r_peaks

    start, end = max(ecg.start_s, -0.5), min(ecg.end_s, duration_s + 0.5)
    samples = ecg.lead("II" if "II" in ecg.leads else ecg.leads[0])
    times = ecg.times_s
    shown = (times >= start) & (times <= end)
    times, samples = times[shown], samples[shown]
    if times.size < 2:
        return
    low, high = float(samples.min()), float(samples.max())

    def place(time_s: float, value: float) -> tuple[float, float]:
        up = (value - low) / (high - low) if high > low else 0.5
        return (time_s - start) / (end - start) * (_SIDE - 1), _SIDE + _STRIP - 5 - up * (_STRIP - 12)

    edges = sorted((place(max(0.0, start), low)[0], place(min(duration_s, end), low)[0]))
    draw.rectangle((edges[0], _SIDE + 1, edges[1], _SIDE + _STRIP - 1), fill=_INSIDE)
    draw.line([place(float(t), float(v)) for t, v in zip(times, samples, strict=True)], fill=_TRACE)
    for time_s in detect_r_peaks(ecg):
        if start <= time_s <= end:
            x, y = place(time_s, float(np.interp(time_s, times, samples)))
            draw.ellipse((x - 2, y - 6, x + 2, y - 2), fill=R_COLOR)
    if start <= middle_s <= end:
        x, y = place(middle_s, float(np.interp(middle_s, times, samples)))
        draw.ellipse((x - 2, y - 2, x + 2, y + 2), fill=(255, 255, 255))
