"""The heart rate that a scanner writes into the picture: `61 bpm`, `85BPM`, `HR 72`, `72 HR`.

Bright pieces of the size of letters go through a small network that knows the digits and the few letters
of these words (`glyphs.npz`, trained by `benchmarks/train_glyphs.py` on rendered fonts). It answers only
where a whole pattern is read with no digit in doubt; anything else is no answer. It reads nothing but
this number.
"""

import re
from functools import cache
from pathlib import Path

import numpy as np
from scipy import ndimage

SHAPE = (16, 12)
"""Rows and columns of the normal form of a piece."""

_CERTAIN = 0.85
_LIKELY = 0.5
_WORD = r"(?:bpm|bp[^\d ]|b[^\d ]m|[^\d ]pm)(?:$| )"
"""`bpm` with one letter in doubt at most."""
_PATTERNS = (
    re.compile(rf"(?:^|(?<!\d) |hr)(\d{{2,3}}) ?{_WORD}", re.IGNORECASE),
    re.compile(rf"(?:^|[ ~])hr ?(\d{{2,3}})(?=$| (?!\d)|{_WORD})", re.IGNORECASE),
    re.compile(r"(?:^|(?<!\d) )(\d{2,3}) ?hr(?:$| )", re.IGNORECASE),
)
_BPM = (20, 300)

Glyph = tuple[int, int, int, int, np.ndarray]
"""Top, left, bottom and right of a piece, and its normal form."""


def read_heart_rate(picture: np.ndarray, sector: np.ndarray) -> float | None:
    """The heart rate in words, if it can be read beyond doubt.

    Args:
        picture: uint8 RGB of shape (height, width, 3).
        sector: bool of shape (height, width); not searched.

    Returns:
        Beats per minute, or None: no such text, unclear digits, or two different rates.
    """
    found = {rate for line in _lines(find_glyphs(picture, sector)) for rate in _rates(line)}
    return float(found.pop()) if len(found) == 1 else None


def find_glyphs(picture: np.ndarray, sector: np.ndarray, tallest: int | None = None) -> list[Glyph]:
    """Lit pieces with the size of letters.

    Args:
        picture: uint8 RGB of shape (height, width, 3).
        sector: bool of shape (height, width); not searched.
        tallest: rows of the largest letter; a sixteenth of the picture, at least 14, if None.
    """
    level = np.where(sector, 0, picture.max(axis=2)).astype(np.float32)
    peak = ndimage.maximum_filter(level, 15)
    labels = np.empty(level.shape, dtype=np.int32)
    ndimage.label(level > np.maximum(90, 0.55 * peak), np.ones((3, 3), dtype=bool), output=labels)
    tallest = tallest or max(14, picture.shape[0] // 16)
    glyphs = []
    for index, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
        height, width = rows.stop - rows.start, columns.stop - columns.start
        if 5 <= height <= tallest and 1 <= width <= 4 * height:
            ink = np.where(labels[rows, columns] == index, level[rows, columns], 0)
            glyphs.append((rows.start, columns.start, rows.stop, columns.stop, _normal(ink)))
    return glyphs if len(glyphs) <= 5000 else []


def _lines(glyphs: list[Glyph]) -> list[list[Glyph]]:
    """Glyphs grouped into lines of text, each from left to right."""
    lines: list[list[Glyph]] = []
    for glyph in sorted(glyphs, key=lambda glyph: glyph[1]):
        for line in lines:
            last = line[-1]
            height = max(glyph[2] - glyph[0], last[2] - last[0])
            overlap = min(glyph[2], last[2]) - max(glyph[0], last[0])
            if 0 <= glyph[1] - last[3] <= 1.6 * height and overlap > 0.5 * min(glyph[2] - glyph[0], last[2] - last[0]):
                line.append(glyph)
                break
        else:
            lines.append([glyph])
    return [line for line in lines if len(line) >= 3]


def _rates(line: list[Glyph]) -> list[int]:
    tall = max(bottom - top for top, _, bottom, _, _ in line)
    line = [glyph for glyph in line if glyph[2] - glyph[0] > 0.4 * tall]  # no dashes, no sign of equality
    text, doubtful = "", set()
    for index, (_, left, _, _, form) in enumerate(line):
        if index and left - line[index - 1][3] > 0.45 * tall:
            text += " "
        name, clear = _recognize(form)
        if not clear:
            doubtful.add(len(text))
        text += name
    rates = []
    for pattern in _PATTERNS:
        for match in pattern.finditer(text):
            digits = range(match.start(1), match.end(1))
            if doubtful.isdisjoint(digits) and _BPM[0] <= int(match[1]) <= _BPM[1]:
                rates.append(int(match[1]))
    return rates


def _recognize(form: np.ndarray) -> tuple[str, bool]:
    """The likeliest name of a piece, `~` for none, and whether it is one digit much rather than another."""
    names, hidden, hidden_bias, output, output_bias = _network()
    scores = np.maximum(form @ hidden + hidden_bias, 0) @ output + output_bias
    chances = np.exp(scores - scores.max())
    best = int(chances.argmax())
    digits = [index for index, name in enumerate(names) if name.isdigit()]
    clear = best in digits and chances[best] > _CERTAIN * chances[digits].sum()
    return (names[best] if chances[best] > _LIKELY * chances.sum() else "~"), bool(clear)


def _normal(ink: np.ndarray) -> np.ndarray:
    """The piece at one size, without its mean, of length 1, then its aspect; float32 of shape (193,)."""
    from PIL import Image

    image = Image.fromarray(ink.astype(np.float32)).resize((SHAPE[1], SHAPE[0]), Image.Resampling.BILINEAR)
    form = np.asarray(image, dtype=np.float32).ravel()
    form = form - form.mean()
    form = form / max(float(np.linalg.norm(form)), 1e-6)
    return np.append(form, np.float32(0.5 * np.log(ink.shape[1] / ink.shape[0])))


@cache
def _network() -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    with np.load(Path(__file__).with_name("glyphs.npz"), allow_pickle=False) as file:
        weights = [file[name].astype(np.float32) for name in ("hidden", "hidden_bias", "output", "output_bias")]
        return [str(name) for name in file["names"]], weights[0], weights[1], weights[2], weights[3]
