"""What the shipped segmenter reads in a generated clip: masks, ejection fraction, ED and ES. Never called truth."""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class Measurement:
    """One clip as the segmenter sees it.

    Attributes:
        masks: uint8 (frames, height, width) of `axes.MASK_CLASSES`; None where nothing could be segmented.
        ef_percent: mean over the beats, or None.
        ed_times_s, es_times_s: of every beat of the volume curve, or None.
        null_because: why a value is None; empty where none is.
    """

    masks: np.ndarray | None
    ef_percent: float | None = None
    ed_times_s: tuple[float, ...] | None = None
    es_times_s: tuple[float, ...] | None = None
    null_because: str = ""

    def plain(self) -> dict[str, Any]:
        """The values as JSON, without the masks."""
        times = {"ed_times_s": self.ed_times_s, "es_times_s": self.es_times_s}
        return {
            "ef_percent": None if self.ef_percent is None else round(self.ef_percent, 2),
            **{k: None if v is None else [round(t, 4) for t in v] for k, v in times.items()},
            **({"null_because": self.null_because} if self.null_because else {}),
        }


def measure(frames: np.ndarray, times_s: np.ndarray) -> Measurement:
    """Segments a clip and reads its beats, as `echopulse evaluate` does.

    Args:
        frames: uint8 (frames, height, width).
        times_s: (frames,) seconds.
    """
    from echopulse.evaluation.segmentation import SHIPPED_SEGMENTER, quality, segment_clip
    from echopulse.signals.ventricle import find_beats, lv_curve

    if not (SHIPPED_SEGMENTER / "model.safetensors").is_file():
        return Measurement(None, null_because="this installation has no segmenter")
    masks = segment_clip(frames)
    verdict = quality(masks)
    if not verdict.accepted:
        return Measurement(masks, null_because="; ".join(verdict.reasons))
    beats = find_beats(lv_curve(masks), times_s)
    if beats.ef_percent is None:
        return Measurement(masks, null_because=beats.reason)
    return Measurement(masks, beats.ef_percent, tuple(beats.ed_s.tolist()), tuple(beats.es_s.tolist()))
