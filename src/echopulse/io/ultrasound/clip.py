"""What comes out of an ultrasound file: the sector as a grey clip, its clock, and the ECG of its picture."""

from dataclasses import dataclass

import numpy as np

from echopulse.signals import EchoClip


@dataclass(frozen=True, eq=False)
class EchoReading:
    """An ultrasound recording without its identifiers.

    Attributes:
        clip: grey frames cropped to the sector, black outside it; `fps` is the true rate; `ecg` is the
            ECG that was read from the picture, on the frames' clock, or None. The provenance holds no
            identifier.
        frame_times_s: true time of every frame in seconds, frame 0 at 0; float64 of shape (frames,).
        heart_rate_bpm: beats per minute as the file, its picture or the trace say; None if unknown.
        color_doppler: whether the sector holds colors of flow.
        crop: top, left, height and width of the clip in pixels of the source.
        ecg_confidence: 0 to 1, how far the ECG can be trusted; None without one.
        warnings: one line each: sources of time that disagree, text that remains in the crop, ...
        removed: what was left behind: keywords of tags, areas of the picture.
        ecg_picture: RGB uint8 picture of what was read of the trace, (height, width, 3); None without one.
    """

    clip: EchoClip
    frame_times_s: np.ndarray
    heart_rate_bpm: float | None
    color_doppler: bool
    crop: tuple[int, int, int, int]
    ecg_confidence: float | None
    warnings: tuple[str, ...]
    removed: tuple[str, ...]
    ecg_picture: np.ndarray | None
