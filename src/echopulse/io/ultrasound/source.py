"""`Source`: what a reader of one container hands on, whatever the container was."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from echopulse.errors import InputError

MAX_PIXELS = 1 << 23
MAX_FRAMES = 20_000
MAX_FILE_BYTES = 1 << 31
"""Bounds on what is read: pixels a picture (4K video fits), pictures, and bytes of a file."""

_CACHE_BYTES = 192 << 20


@dataclass(frozen=True)
class Region:
    """One box of the sequence of ultrasound regions (DICOM PS3.3 C.8.5.5), clipped to the picture.

    Attributes:
        spatial_format: 1 for a 2-D picture, 4 for a wave form.
        data_type: 1 for tissue, 2 for color flow, 10 for an ECG.
        top, left, bottom, right: the box in pixels, last row and column excluded.
        seconds_per_pixel: the horizontal scale where its unit is seconds.
    """

    spatial_format: int
    data_type: int
    top: int
    left: int
    bottom: int
    right: int
    seconds_per_pixel: float | None = None


@dataclass(eq=False)
class Source:
    """Pictures of a recording and what its file says about them.

    Attributes:
        path: the file, for messages.
        container: `dicom`, `video`, `gif` or `npy`.
        height, width: pixels of a picture.
        decode: gives the pictures one by one, uint8 RGB of shape (height, width, 3); may be called again.
        file_times: for each statement of the file on time, its name and the time of every frame in
            seconds, or the one period in seconds; most trusted first.
        regions: what the file says on areas of the picture.
        heart_rate_bpm: as the file says it.
        r_wave_times_s: times of R waves on the frames' clock, as the file says them.
        removed: what is left behind: keywords of tags.
    """

    path: Path
    container: str
    height: int
    width: int
    decode: Callable[[], Iterator[np.ndarray]]
    file_times: list[tuple[str, np.ndarray | float]] = field(default_factory=list)
    regions: list[Region] = field(default_factory=list)
    heart_rate_bpm: float | None = None
    r_wave_times_s: np.ndarray | None = None
    removed: list[str] = field(default_factory=list)
    _kept: list[np.ndarray] | None = None

    def frames(self) -> Iterator[np.ndarray]:
        """The pictures in order; small recordings are decoded only once.

        Raises:
            InputError: more pictures than `MAX_FRAMES`.
        """
        if self._kept is not None:
            yield from self._kept
            return
        kept: list[np.ndarray] | None = []
        for count, frame in enumerate(self.decode(), start=1):
            if count > MAX_FRAMES:
                raise InputError(f"{self.path}: more than {MAX_FRAMES} frames; cut it into shorter clips")
            if kept is not None:
                kept.append(frame)
                if count * frame.nbytes > _CACHE_BYTES:
                    kept = None
            yield frame
        self._kept = kept

    def sample(self, most: int) -> tuple[np.ndarray, int]:
        """Evenly spread pictures, and how many there are in all.

        Args:
            most: upper bound on the number of pictures; large ones are sampled more sparsely.

        Returns:
            uint8 of shape (pictures, height, width, 3), and the number of frames.
        """
        most = max(3, min(most, _CACHE_BYTES // (2 * self.height * self.width * 3)))
        kept: list[np.ndarray] = []
        stride, count = 1, 0
        for frame in self.frames():
            if count % stride == 0:
                kept.append(frame)
                if len(kept) > most:
                    kept, stride = kept[::2], 2 * stride
            count += 1
        if not kept:
            raise InputError(f"{self.path}: no picture in it; expected an ultrasound recording")
        return np.stack(kept), count


def check_picture(path: Path, height: int, width: int) -> None:
    """Refuses absurd dimensions before anything is allocated.

    Raises:
        InputError: no picture at all, or more pixels than `MAX_PIXELS`.
    """
    if not (8 <= height and 8 <= width and height * width <= MAX_PIXELS):
        raise InputError(f"{path}: pictures of {width} x {height}; expected 8 x 8 to {MAX_PIXELS} pixels in all")


def positive(value: object) -> float | None:
    """A tag's value as a finite number above 0, or None."""
    try:
        number = float(value)  # pyright: ignore[reportArgumentType]
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and number > 0 else None
