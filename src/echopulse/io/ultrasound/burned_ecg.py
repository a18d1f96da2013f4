"""From a trace in the picture to an `EcgSignal` on the frames' clock, and a picture of what was read."""

import numpy as np

from echopulse.errors import InputError
from echopulse.io.ultrasound.motion import Motion
from echopulse.io.ultrasound.timing import Clock
from echopulse.io.ultrasound.trace import Trace, heights, line_pixels
from echopulse.signals import EcgSignal
from echopulse.signals.processing import detect_r_peaks

_LEAST_RATE_HZ = 100.0
_BPM = (20.0, 300.0)
_ZOOM = 4


def to_signal(
    trace: Trace, motion: Motion | None, beats_px: np.ndarray, clock: Clock, r_wave_times_s: np.ndarray | None
) -> tuple[EcgSignal, float, tuple[str, ...]]:
    """Puts the trace on the clock. The picture has no scale of voltage: the typical R wave is set to 1 mV.

    Args:
        trace: the trace.
        motion: how the instant moves along it, if it does.
        beats_px: columns of its R waves, counted from the first one of `motion` or `trace`.
        clock: with a time scale.
        r_wave_times_s: R waves on the frames' clock as the file lists them; they place a trace without cursor.

    Returns:
        The ECG, a confidence from 0 to 1, and warnings.

    Raises:
        InputError: the trace is no plausible ECG on this scale.
    """
    assert clock.seconds_per_pixel is not None
    seconds = clock.seconds_per_pixel
    rows = trace.rows if motion is None else motion.rows
    values = heights(rows, trace.thickness)
    size = float(np.median(np.abs(values[beats_px])))
    columns = np.arange(values.size, dtype=np.float64)
    if 1 / seconds < _LEAST_RATE_HZ:
        columns = np.arange(0, values.size - 1 + 1e-9, 1 / (np.ceil(_LEAST_RATE_HZ * seconds)))
    samples = np.interp(columns, np.arange(values.size), values) / size
    rate = 1 / (seconds * (columns[1] - columns[0]))
    warnings: list[str] = []
    if motion is not None:
        start, placed = (motion.first - motion.now[0]) * seconds, True
    else:
        start, placed = _place(beats_px * seconds, r_wave_times_s, clock.frame_times_s[-1] - values.size * seconds)
    if not placed:
        warnings.append("nothing links the trace to the frames; its end is put at the last frame")
    ecg = EcgSignal(samples[None], ("ECG",), rate, start_s=start, source="burned-in trace", format="picture")
    beats = detect_r_peaks(ecg)
    if beats.size == 0:
        raise InputError("no heartbeats stand out of it")
    if beats.size > 1 and not _BPM[0] <= 60 / np.median(np.diff(beats)) <= _BPM[1]:
        raise InputError(f"its heart rate would be {60 / np.median(np.diff(beats)):.0f} a minute")
    if beats.size != beats_px.size:
        warnings.append(f"{beats.size} beats in the signal, {beats_px.size} spikes in the trace")
    found = min(beats.size, beats_px.size) / max(beats.size, beats_px.size)
    followed = motion.followed if motion is not None else 0.6
    known = float((~np.isnan(rows)).mean())
    confidence = trace.score * found * followed * known * (1.0 if clock.agreeing > 1 else 0.85)
    return ecg, round(float(np.clip(confidence, 0, 1)), 3), tuple(warnings)


def _place(beats_s: np.ndarray, r_wave_times_s: np.ndarray | None, otherwise: float) -> tuple[float, bool]:
    """Time of the trace's first column: that at which most of its R waves fall on listed ones."""
    if r_wave_times_s is None or beats_s.size == 0:
        return otherwise, False
    options = (r_wave_times_s[:, None] - beats_s[None]).ravel()
    misses = np.abs(options[:, None, None] + beats_s[None, :, None] - r_wave_times_s[None, None])
    matches = (misses.min(axis=1) < 0.06).sum(axis=1)
    if matches.max() < min(2, r_wave_times_s.size):
        return otherwise, False
    return float(options[matches == matches.max()].max()), True


def draw(picture: np.ndarray, trace: Trace, ecg: EcgSignal) -> np.ndarray:
    """What was read: the line's pixels above, the signal with its R waves marked below.

    Pixels of any other color stay out, so that no text comes along.

    Args:
        picture: uint8 RGB of shape (height, width, 3) that holds the trace.
        trace: the trace.
        ecg: the signal, which may be longer than the picture shows.

    Returns:
        uint8 RGB of shape (height, width, 3).
    """
    part = picture[trace.top : trace.bottom, trace.left : trace.right]
    part = np.where(line_pixels(part, trace.color)[..., None], part, 0).astype(np.uint8)
    upper = part.repeat(_ZOOM, axis=0).repeat(_ZOOM, axis=1)
    values = ecg.samples_mv[0]
    width, height = upper.shape[1], max(120, upper.shape[0])
    scale = (height - 17) / max(float(np.ptp(values)), 1e-6)
    wanted = np.linspace(0, values.size - 1, width)
    rows = 12 + (values.max() - np.interp(wanted, np.arange(values.size), values)) * scale
    lower = np.full((height, width, 3), 255, dtype=np.uint8)
    ends = np.rint(rows).astype(int).clip(0, height - 2)
    for column, (row, following) in enumerate(zip(ends, np.append(ends[1:], ends[-1]), strict=True)):
        lower[min(row, following) : max(row, following) + 2, column] = (20, 20, 20)
    for beat in detect_r_peaks(ecg):
        column = int((beat - ecg.start_s) / max(ecg.duration_s, 1e-9) * (width - 1))
        lower[:10, max(0, column - 1) : column + 2] = (200, 30, 30)
    return np.concatenate([upper, lower])
