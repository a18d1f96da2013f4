"""`EchoClip` and `PairedClip`: video, and video with the ECG that beats with it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from echopulse.errors import InputError
from echopulse.signals.ecg import EcgSignal


@dataclass(frozen=True, eq=False)
class EchoClip:
    """A grey echocardiogram clip. Immutable: the array is copied and locked.

    Attributes:
        frames: uint8 array of shape (frames, height, width), display order.
        fps: frames per second.
        start_s: time of frame 0 in seconds, on the ECG's clock.
        view: `a4c`, `a2c` or `unknown`.
        ecg: the ECG on the same clock, where there is one.
        provenance: how the clip came to be; plain JSON values.
    """

    frames: np.ndarray
    fps: float
    start_s: float = 0.0
    view: str = "unknown"
    ecg: EcgSignal | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        frames = np.array(self.frames, copy=True)
        if frames.dtype != np.uint8 or frames.ndim != 3 or 0 in frames.shape:
            raise InputError(
                f"clip frames are {frames.dtype} of shape {frames.shape}; expected uint8 (frames, height, width)"
            )
        if not (np.isfinite(self.fps) and self.fps > 0):
            raise InputError(f"frame rate is {self.fps} frames/s; expected a positive number")
        frames.setflags(write=False)
        object.__setattr__(self, "frames", frames)
        object.__setattr__(self, "fps", float(self.fps))
        object.__setattr__(self, "start_s", float(self.start_s))

    @property
    def num_frames(self) -> int:
        """Frames in the clip."""
        return int(self.frames.shape[0])

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.num_frames / self.fps

    @property
    def frame_times_s(self) -> np.ndarray:
        """Time of every frame in seconds on the ECG's clock, float64 of shape (frames,)."""
        return self.start_s + np.arange(self.num_frames) / self.fps

    def save(self, path: str | Path, *, overlay: bool = False) -> Path:
        """Writes the clip; the ending chooses the format (.mp4 .gif .avi .npz).

        Args:
            path: where to write; written under a temporary name and renamed when complete.
            overlay: draw the ECG under the picture with a moving cursor.

        Returns:
            The path that was written.

        Raises:
            InputError: unknown ending, missing folder, or `overlay` without an ECG.
        """
        from echopulse.io.video import write_clip  # the one look upwards, named in the import contracts

        return write_clip(self, path, overlay=overlay)


@dataclass(frozen=True, eq=False)
class PairedClip:
    """A clip with its ECG, and with the truth where it is known.

    Attributes:
        clip: the video; `clip.ecg` is set and on the same clock.
        masks: uint8 of shape (frames, height, width), classes of `axes.MASK_CLASSES`, or None.
        truth: what is known (`ef_percent`, `r_times_s`, `lv_volume_ml`, ...); plain JSON values.
        id: name of the clip within its set.
        subject: name of the patient; splits never share one.
        split: `train`, `val`, `test` or empty.
    """

    clip: EchoClip
    masks: np.ndarray | None = None
    truth: dict[str, Any] = field(default_factory=dict)
    id: str = ""
    subject: str = ""
    split: str = ""

    def __post_init__(self) -> None:
        if self.clip.ecg is None:
            raise InputError(f"clip {self.id or '?'} has no ECG; a paired clip needs one")
        if self.masks is not None and self.masks.shape != self.clip.frames.shape:
            raise InputError(f"masks of shape {self.masks.shape} for frames of shape {self.clip.frames.shape}")
