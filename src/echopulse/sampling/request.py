"""What can be asked for: the request beside the ECG, and one clip with all that it is generated from."""

import math
from dataclasses import dataclass

import numpy as np

from echopulse.axes import VIEWS
from echopulse.errors import InputError
from echopulse.sampling.progressive import OVERLAP
from echopulse.signals import EcgSignal, EchoClip

MAX_SECONDS = 3600.0
FPS_RANGE = (10.0, 60.0)
"""Frame rates that the generator was trained near; its windows of 15 frames must fit the ECG window."""


@dataclass(frozen=True)
class GenerationRequest:
    """What to generate beside the ECG; checked before any work.

    Attributes:
        view: `a4c` or `a2c`.
        seconds: length of the clip.
        fps: frames per second.
        seed: of all randomness; another seed is another patient.
        start_s: time of frame 0 on the ECG's clock.
        ef_percent: wanted ejection fraction, or None for "as the ECG says".
        text: a description, for checkpoints that were trained with text.
    """

    view: str = "a4c"
    seconds: float = 3.0
    fps: float = 25.0
    seed: int = 0
    start_s: float | None = None
    ef_percent: float | None = None
    text: str | None = None

    def __post_init__(self) -> None:
        if self.view not in VIEWS:
            raise InputError(f"unknown view {self.view!r}; expected one of {', '.join(VIEWS)}")
        if not FPS_RANGE[0] <= self.fps <= FPS_RANGE[1]:
            raise InputError(f"frame rate is {self.fps:g}; expected {FPS_RANGE[0]:g} to {FPS_RANGE[1]:g} frames/s")
        if not 1 / self.fps <= self.seconds <= MAX_SECONDS:
            raise InputError(f"length is {self.seconds:g} s; expected at least one frame and at most {MAX_SECONDS:g} s")
        if not 0 <= self.seed < 2**63:
            raise InputError(f"seed is {self.seed}; expected 0 to 2^63 - 1")
        if self.start_s is not None and not math.isfinite(self.start_s):
            raise InputError(f"start is {self.start_s} s; expected a finite time on the ECG's clock")
        if self.ef_percent is not None and not 10 <= self.ef_percent <= 80:
            raise InputError(f"ejection fraction is {self.ef_percent:g} %; expected 10 to 80")

    @property
    def num_frames(self) -> int:
        """Frames of the clip."""
        return max(1, round(self.seconds * self.fps))


@dataclass(frozen=True, eq=False)
class Take:
    """One clip to generate.

    Attributes:
        ecg: what drives it; None hides the ECG, and the motion is anybody's.
        request: what is asked for.
        image: uint8 (height, width) first picture, of the pipeline's size.
        previous: a clip to go on from, on the ECG's clock: its first picture is remembered, its last ones go on.
    """

    ecg: EcgSignal | None
    request: GenerationRequest
    image: np.ndarray | None = None
    previous: EchoClip | None = None

    def __post_init__(self) -> None:
        if self.image is not None and self.previous is not None:
            raise InputError("got a first image and a clip to go on from; expected one of them")

    @property
    def start_s(self) -> float:
        """Time of frame 0: as asked, or right after the clip before, or where the ECG starts."""
        if self.request.start_s is not None:
            return self.request.start_s
        if self.previous is not None:
            return self.previous.start_s + self.previous.duration_s
        return 0.0 if self.ecg is None else self.ecg.start_s

    @property
    def condition(self) -> str:
        """What the clip is generated from, such as `ecg+image`."""
        named = {"ecg": self.ecg, "image": self.image, "clip": self.previous, "text": self.request.text}
        return "+".join(name for name, value in named.items() if value is not None) or "nothing"

    def check_previous(self) -> None:
        """Says what is wrong with the clip to go on from, if anything.

        Raises:
            InputError: it is too short, of another frame rate, or does not end where this clip starts.
        """
        previous = self.previous
        if previous is None:
            return
        if previous.num_frames < 2 * OVERLAP + 2:
            raise InputError(f"clip to go on from has {previous.num_frames} frames; expected {2 * OVERLAP + 2} or more")
        if abs(previous.fps - self.request.fps) > 1e-6:
            raise InputError(f"clip to go on from has {previous.fps:g} frames/s; {self.request.fps:g} were asked for")
        if abs(self.start_s - previous.start_s - previous.duration_s) > 0.5 / previous.fps:
            raise InputError(
                f"start is {self.start_s:g} s; the clip to go on from ends at "
                f"{previous.start_s + previous.duration_s:g} s: leave the start out"
            )
