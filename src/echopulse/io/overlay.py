"""The picture with its ECG below: a strip on which a cursor moves with the heart."""

import math
from collections.abc import Iterator

import numpy as np

from echopulse.errors import InputError
from echopulse.signals import EcgSignal, EchoClip

MIN_WIDTH = 384
"""Smaller pictures are enlarged by a whole factor, so that the strip can be read."""
MAX_WINDOW_S = 6.0
"""Longer clips turn the page of the strip."""
GRID_S, GRID_MV = 0.2, 0.5

_FINE = 3  # the strip is drawn this much larger and shrunk, for smooth lines
_BACKGROUND, _GRID, _GRID_STRONG, _EDGE = (8, 12, 14), (30, 46, 48), (48, 70, 72), (58, 76, 78)
_TRACE, _TRACE_AHEAD = (74, 255, 138), (30, 104, 62)
_PEAK, _PEAK_AHEAD = (255, 190, 60), (120, 90, 34)
_CURSOR, _TEXT, _TEXT_DIM = (235, 240, 240), (226, 232, 232), (128, 146, 148)


def draw_overlay(clip: EchoClip) -> Iterator[np.ndarray]:
    """Draws each frame with the ECG below it.

    The strip shows lead II where there is one, otherwise the first lead, over the time of the clip (pages
    of at most 6 s, all equally long), with boxes of 0.2 s and 0.5 mV. What is past is bright, what is
    to come is dim. R peaks of `clip.provenance["r_times_s"]` are dotted.

    Args:
        clip: a clip with its ECG.

    Returns:
        One uint8 RGB picture of shape (height, width, 3) a frame, drawn when asked for.

    Raises:
        InputError: there is no ECG, or none during the clip.
    """
    if clip.ecg is None:
        raise InputError("the overlay draws the ECG, and this clip has none; leave the overlay out or pair an ECG")
    if clip.ecg.start_s >= clip.start_s + clip.duration_s or clip.ecg.end_s <= clip.start_s:
        raise InputError(
            f"the ECG covers {clip.ecg.start_s:g} to {clip.ecg.end_s:g} s and the clip {clip.start_s:g} to "
            f"{clip.start_s + clip.duration_s:g} s; the overlay needs an ECG during the clip"
        )
    return _pictures(clip, clip.ecg)


def palette() -> bytes:
    """256 RGB colors for formats that hold no more: 160 grays for the picture, the rest for the strip."""
    grays = np.repeat(np.linspace(0, 255, 160), 3).reshape(-1, 3)
    marks = np.array([_TRACE, _TRACE_AHEAD, _PEAK, _PEAK_AHEAD, _CURSOR, _TEXT_DIM])
    ramps = [np.linspace(_BACKGROUND, mark, 16) for mark in marks]
    return np.concatenate([grays, *ramps]).round().astype(np.uint8).tobytes()


def _pictures(clip: EchoClip, ecg: EcgSignal) -> Iterator[np.ndarray]:
    from PIL import Image

    height, width = clip.frames.shape[1:]
    scale = math.ceil(MIN_WIDTH / width)
    strip = _Strip(clip, ecg, width * scale)
    picture = Image.new("RGB", (width * scale, height * scale + strip.height))
    for frame, time_s in zip(clip.frames, clip.frame_times_s, strict=True):
        large = Image.fromarray(frame)
        if scale > 1:
            large = large.resize((width * scale, height * scale), Image.Resampling.BILINEAR)
        picture.paste(large.convert("RGB"), (0, 0))
        picture.paste(strip.at(float(time_s)), (0, height * scale))
        yield np.array(picture)


class _Strip:
    """The ECG strip: drawn once a page, bright and dim; each frame joins the two at its cursor."""

    def __init__(self, clip: EchoClip, ecg: EcgSignal, width: int) -> None:
        from PIL import ImageFont

        lead = "II" if "II" in ecg.leads else ecg.leads[0]
        self.width = width
        self.font_size = min(20, max(12, width // 36))
        self.font = ImageFont.load_default(self.font_size)
        self.header = round(1.9 * self.font_size)
        self.height = self.header + round(min(0.24 * width, 240))
        self.label = f"{clip.view.upper() if clip.view != 'unknown' else 'Echo'}   lead {lead}"
        self.times_s, self.values_mv = ecg.times_s, ecg.lead(lead).astype(np.float64)
        self.start_s = clip.start_s
        self.page_s = clip.duration_s / math.ceil(clip.duration_s / MAX_WINDOW_S)
        self.ecg_span_s = (ecg.start_s, ecg.times_s[-1])
        try:
            peaks_s = np.array(clip.provenance.get("r_times_s") or [], dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise InputError(
                "provenance r_times_s is not a list of numbers; expected seconds, or leave it out"
            ) from error
        self.peaks_s = peaks_s[(peaks_s >= ecg.start_s) & (peaks_s <= ecg.end_s)].tolist()
        shown = (self.times_s >= clip.start_s) & (self.times_s <= clip.start_s + clip.duration_s)
        seen = self.values_mv[shown] if shown.any() else self.values_mv
        middle, span = (seen.max() + seen.min()) / 2, max(1.5, 1.25 * (seen.max() - seen.min()))
        self.low_mv, self.high_mv = float(middle - span / 2), float(middle + span / 2)
        self.page = -1

    def at(self, time_s: float):
        """The strip with the cursor at this time, an RGB picture."""
        from PIL import ImageDraw

        page = int((time_s - self.start_s) / self.page_s + 1e-9)
        if page != self.page:
            self.page = page
            self.past, self.ahead = self._draw_page(_TRACE, _PEAK), self._draw_page(_TRACE_AHEAD, _PEAK_AHEAD)
        x, radius = round(self._x(time_s)), max(3, self.width // 130)
        strip = self.ahead.copy()
        strip.paste(self.past.crop((0, 0, x, self.height)), (0, 0))
        draw = ImageDraw.Draw(strip)
        draw.line((x, self.header, x, self.height - 1), fill=_CURSOR)
        if self.ecg_span_s[0] <= time_s <= self.ecg_span_s[1]:
            y = self._y(float(np.interp(time_s, self.times_s, self.values_mv)))
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=_CURSOR)
        text = f"{time_s:.2f} s"
        draw.text((0.5 * self.width, self.header / 2), text, font=self.font, fill=_TEXT, anchor="mm")
        return strip

    def _x(self, time_s: float) -> float:
        return (time_s - self.start_s - max(self.page, 0) * self.page_s) / self.page_s * (self.width - 1)

    def _y(self, value_mv: float) -> float:
        return self.height - 1 - (value_mv - self.low_mv) / (self.high_mv - self.low_mv) * (self.height - self.header)

    def _draw_page(self, trace: tuple[int, int, int], peak: tuple[int, int, int]):
        from PIL import Image, ImageDraw

        image = Image.new("RGB", (_FINE * self.width, _FINE * self.height), _BACKGROUND)
        draw = ImageDraw.Draw(image)
        start_s = self.start_s + self.page * self.page_s
        self._draw_grid(draw, start_s)
        margin_s = 2 / len(self.times_s) * (self.times_s[-1] - self.times_s[0]) + 0.02
        shown = (self.times_s >= start_s - margin_s) & (self.times_s <= start_s + self.page_s + margin_s)
        points = [
            (_FINE * self._x(time_s), _FINE * self._y(value_mv))
            for time_s, value_mv in zip(self.times_s[shown], self.values_mv[shown], strict=True)
        ]
        line = max(_FINE, round(_FINE * self.width / 260))
        if len(points) > 1:
            draw.line(points, fill=trace, width=line, joint="curve")
        radius = 1.3 * line
        for time_s in self.peaks_s:
            x, y = _FINE * self._x(time_s), _FINE * self._y(float(np.interp(time_s, self.times_s, self.values_mv)))
            y = max(y - 3 * radius, _FINE * self.header + radius)
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=peak)
        draw.rectangle((0, 0, image.width, _FINE * self.header), fill=_BACKGROUND)
        draw.line((0, _FINE * self.header, image.width, _FINE * self.header), fill=_EDGE, width=_FINE)
        image = image.reduce(_FINE)
        draw, pad = ImageDraw.Draw(image), round(0.7 * self.font_size)
        draw.text((pad, self.header / 2), self.label, font=self.font, fill=_TEXT, anchor="lm")
        draw.text((self.width - pad, self.header / 2), "synthetic", font=self.font, fill=_TEXT_DIM, anchor="rm")
        return image

    def _draw_grid(self, draw, start_s: float) -> None:
        bottom, top, right = _FINE * self.height, _FINE * self.header, _FINE * self.width
        for number in range(math.ceil(start_s / GRID_S - 1e-6), math.floor((start_s + self.page_s) / GRID_S) + 1):
            x = _FINE * self._x(number * GRID_S)
            draw.line((x, top, x, bottom), fill=_GRID_STRONG if number % 5 == 0 else _GRID, width=_FINE)
        step_mv = GRID_MV * max(1, math.ceil((self.high_mv - self.low_mv) / (20 * GRID_MV)))  # wider for huge signals
        for number in range(math.ceil(self.low_mv / step_mv), math.floor(self.high_mv / step_mv) + 1):
            y = _FINE * self._y(number * step_mv)
            draw.line((0, y, right, y), fill=_GRID_STRONG if number == 0 else _GRID, width=_FINE)
