"""A series of clips, numbered by seed: which patients are drawn and how each is rendered."""

from dataclasses import dataclass, field

from echopulse.errors import InputError
from echopulse.phantom.devices import find_device
from echopulse.phantom.link import EcgEfLink
from echopulse.phantom.patient import Patient, check_rendering, sample_patient, simulate_clip
from echopulse.signals import PairedClip

MAX_PIXELS = 2**28
"""Pixels of one clip; rendering holds about five bytes for each."""


@dataclass(frozen=True)
class ClipSeries:
    """Patients and scanner settings; together with a seed they determine every byte of a clip.

    Attributes:
        view: `a4c` or `a2c`; mixed if None.
        rhythm: one of `RHYTHMS`; mixed if None.
        device: the ECG recorder, one of `DEVICES`.
        link: how the ECG depends on the ejection fraction.
        fps: frames per second.
        seconds: length of each clip.
        size: picture side in pixels.
        masks: also make the masks.

    Raises:
        InputError: a value outside its range, or a clip too large to hold in memory.
    """

    view: str | None = None
    rhythm: str | None = None
    device: str = "hospital"
    link: EcgEfLink = field(default_factory=EcgEfLink)
    fps: float = 25.0
    seconds: float = 3.0
    size: int = 128
    masks: bool = True

    def __post_init__(self) -> None:
        check_rendering(fps=self.fps, seconds=self.seconds, size=(self.size, self.size))
        if self.num_frames * self.size**2 > MAX_PIXELS:
            raise InputError(
                f"{self.num_frames} frames of {self.size}x{self.size} are {self.num_frames * self.size**2} pixels; "
                f"expected at most {MAX_PIXELS} in a clip: ask for fewer seconds, frames/s or a smaller size"
            )
        find_device(self.device)
        self.patient(0)

    @property
    def num_frames(self) -> int:
        """Frames of every clip."""
        return round(self.seconds * self.fps)

    def patient(self, seed: int) -> Patient:
        """Draws the patient of a seed."""
        return sample_patient(seed, view=self.view, rhythm=self.rhythm, link=self.link)

    def clip(self, seed: int) -> PairedClip:
        """Renders the patient of a seed."""
        return simulate_clip(
            self.patient(seed),
            fps=self.fps,
            seconds=self.seconds,
            size=(self.size, self.size),
            with_masks=self.masks,
            device=self.device,
        )
