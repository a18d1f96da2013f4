"""The true times of the frames, and the time scale of a trace.

The order of trust: what is on the screen (beats in the trace, their rate in words, the cursor), the R
waves that the file lists, the scale it declares for the trace, its frame times. Frame times are finer
than a rate in whole beats per minute, so they are kept where they agree with the others.
"""

from dataclasses import dataclass

import numpy as np

from echopulse.io.ultrasound.motion import Motion
from echopulse.io.ultrasound.source import Source

_AGREE = 0.10
_PERIODS_S = (0.5e-3, 5.0)


@dataclass(frozen=True, eq=False)
class Clock:
    """What was settled on time.

    Attributes:
        frame_times_s: of every frame, frame 0 at 0; float64 of shape (frames,).
        seconds_per_pixel: of the trace, or None where nothing says it.
        source: what the frame times rest on.
        scale_source: what the scale of the trace rests on, empty without one.
        agreeing: how many sources of the scale agree with the chosen one, itself included.
        warnings: one line for each disagreement.
    """

    frame_times_s: np.ndarray
    seconds_per_pixel: float | None
    source: str
    scale_source: str
    agreeing: int
    warnings: tuple[str, ...]


def settle_time(
    source: Source,
    count: int,
    *,
    beats_px: np.ndarray,
    motion: Motion | None,
    heart_rate: tuple[str, float] | None,
    declared_s: float | None,
) -> Clock:
    """Weighs the statements on time against each other.

    Args:
        source: the recording with its file's statements.
        count: number of frames.
        beats_px: columns of the R waves in the trace; empty without a trace.
        motion: how the instant moves along the trace, if it does.
        heart_rate: where a heart rate was found, and the rate in beats per minute.
        declared_s: seconds per pixel of the trace as the file declares it.

    Returns:
        The times, with a warning for each statement that is more than 10 % off.
    """
    warnings: list[str] = []
    name, times = _file_times(source, count, warnings)
    period = float(times[-1] / (count - 1)) if times is not None and count > 1 else None
    scales = _scales(beats_px, heart_rate, source.r_wave_times_s, declared_s)
    speed = motion.pixels_per_frame if motion else None
    if period and speed:
        scales.append((name, period / speed))
    if not scales:
        return _without_scale(count, name, times, warnings)
    intervals = np.diff(beats_px)
    spread = float(np.std(intervals) / np.mean(intervals)) if intervals.size > 1 else 0.0
    tolerance = max(_AGREE, 2 * spread)
    scale_name, scale = scales[0]
    agreeing = [(other, value) for other, value in scales if abs(value / scale - 1) <= tolerance]
    if speed and period and agreeing[-1][0] == name:
        scale_name, scale = name, period / speed
    for other, value in scales:
        if abs(value / scale - 1) > tolerance:
            warnings.append(f"{other} makes time run {value / scale:.2f} times as long as {scale_name}; it is not used")
    if not speed:
        if times is None:
            return _without_scale(count, name, None, warnings, scale, scale_name, len(agreeing))
        return Clock(times, scale, name, scale_name, len(agreeing), tuple(warnings))
    if scale_name != name:
        times = None
    uniform = np.arange(count) * scale * speed
    return Clock(
        uniform if times is None else times,
        scale,
        name if times is not None else f"the {motion.kind if motion else ''} of the trace and {scale_name}",
        scale_name,
        len(agreeing),
        tuple(warnings),
    )


def _without_scale(
    count: int,
    name: str,
    times: np.ndarray | None,
    warnings: list[str],
    scale: float | None = None,
    scale_name: str = "",
    agreeing: int = 0,
) -> Clock:
    if times is None:
        name = "an assumed rate"
        times = np.arange(count) / 30.0
        if count > 1:
            warnings.append("nothing says the frame rate; 30 frames/s are assumed")
    return Clock(times, scale, name, scale_name, agreeing, tuple(warnings))


def _file_times(source: Source, count: int, warnings: list[str]) -> tuple[str, np.ndarray | None]:
    """The file's most trusted statement as times of all frames, after a look at the others."""
    usable: list[tuple[str, np.ndarray]] = []
    for name, value in source.file_times:
        times = value if isinstance(value, np.ndarray) else np.arange(count) * float(value)
        if times.size == count and (count == 1 or _PERIODS_S[0] <= times[-1] / (count - 1) <= _PERIODS_S[1]):
            usable.append((name, times - times[0]))
    if not usable:
        return "", None
    first, times = usable[0]
    for name, others in usable[1:]:
        if count > 1 and abs(others[-1] / times[-1] - 1) > _AGREE:
            warnings.append(
                f"the file disagrees with itself: {first} says {1000 * times[-1] / (count - 1):.1f} ms a frame, "
                f"{name} {1000 * others[-1] / (count - 1):.1f} ms"
            )
    return first, times


def _scales(
    beats_px: np.ndarray,
    heart_rate: tuple[str, float] | None,
    r_wave_times_s: np.ndarray | None,
    declared_s: float | None,
) -> list[tuple[str, float]]:
    """Seconds per pixel by each source but the frame times, most trusted first."""
    scales = []
    if beats_px.size > 1:
        interval = float(np.median(np.diff(beats_px)))
        if heart_rate is not None:
            scales.append((heart_rate[0], 60 / heart_rate[1] / interval))
        if r_wave_times_s is not None and r_wave_times_s.size > 1:
            seconds = float(np.median(np.diff(np.sort(r_wave_times_s))))
            if 0.2 < seconds < 3:
                scales.append(("RWaveTimeVector", seconds / interval))
    if declared_s is not None:
        scales.append(("the region's scale", declared_s))
    return scales
