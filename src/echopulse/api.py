"""The public class: files in, clips out."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from echopulse.axes import VIEWS
from echopulse.io.ecg import read_ecg
from echopulse.sampling.decode import DecodeSettings
from echopulse.sampling.pipeline import Pipeline
from echopulse.sampling.request import MAX_SECONDS, GenerationRequest
from echopulse.signals import EcgSignal, EchoClip
from echopulse.signals.track import EcgTrack


class EchoPulse:
    """Turns an ECG into an echocardiogram video.

    Example:
        >>> model = EchoPulse.from_pretrained()
        >>> clip = model(ecg="record.hea", view="a4c", seconds=3.0, seed=0)
        >>> clip.save("echo.mp4", overlay=True)
        >>> for frame in model.stream("record.hea", seconds=60.0):
        ...     show(frame)
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline

    @classmethod
    def from_pretrained(
        cls,
        checkpoint: str | Path = "compact",
        *,
        revision: str | None = None,
        text_encoder: str | Path | None = None,
    ) -> "EchoPulse":
        """Loads a checkpoint.

        Args:
            checkpoint: a shipped name (`compact`), a folder, or a hub repository id.
            revision: of the hub repository.
            text_encoder: folder of a T5 model, for checkpoints that were trained with text.

        Raises:
            InputError: there is no such checkpoint, or it is damaged.
        """
        return cls(Pipeline.load(checkpoint, revision=revision, text_encoder=text_encoder))

    def __call__(
        self,
        ecg: str | Path | EcgSignal,
        *,
        view: str | None = None,
        seconds: float = 3.0,
        fps: float | None = None,
        seed: int = 0,
        ef_percent: float | None = None,
        text: str | None = None,
        image: np.ndarray | None = None,
        continue_from: EchoClip | None = None,
        start_s: float | None = None,
        sampling_rate_hz: float | None = None,
        settings: DecodeSettings | None = None,
    ) -> EchoClip:
        """Generates a clip.

        Args:
            ecg: a file, or a signal. A shorter ECG than the clip is repeated from its first to its last R peak.
            view: `a4c` or `a2c`; None is that of the clip before, or `a4c`.
            seconds: length of the clip.
            fps: frames per second; None is that of the clip before, or 25.
            seed: another seed is another patient.
            ef_percent: wanted ejection fraction; None leaves it to the ECG.
            text: a description, for checkpoints that were trained with text.
            image: uint8 (height, width) picture to start from.
            continue_from: a clip to go on from, on the same ECG's clock. Its first picture is what is remembered of the
                heart. Only the new frames are returned.
            start_s: time of frame 0 on the ECG's clock; None is the end of the clip before, or the ECG's start.
            sampling_rate_hz: of files that do not say it (CSV, NPY).
            settings: steps, guidance and temperatures; None for the checkpoint's own.

        Returns:
            The clip, with its ECG on the same clock and its provenance.

        Raises:
            InputError: something about the ECG or the request is wrong; the message says what.
        """
        request = _request(view, seconds, fps, seed, start_s, ef_percent, text, continue_from)
        signal = _signal(ecg, sampling_rate_hz)
        return self.pipeline(signal, request, image=image, previous=continue_from, settings=settings)[0]

    def stream(
        self,
        ecg: str | Path | EcgSignal,
        *,
        view: str | None = None,
        seconds: float = MAX_SECONDS,
        fps: float | None = None,
        seed: int = 0,
        ef_percent: float | None = None,
        text: str | None = None,
        image: np.ndarray | None = None,
        continue_from: EchoClip | None = None,
        start_s: float | None = None,
        sampling_rate_hz: float | None = None,
        settings: DecodeSettings | None = None,
    ) -> Iterator[np.ndarray]:
        """Gives the frames of a clip while they are generated.

        The frames are those that calling the model with the same arguments and settings gives, and memory does not grow
        with their number; stop whenever you like. By default they come at once, without the rehearsals that calling
        makes first; give settings that have them where the ejection fraction matters more.

        Args:
            ecg: a file, or a signal.
            view: `a4c` or `a2c`; None is that of the clip before, or `a4c`.
            seconds: length of the clip; an hour if left out.
            fps: frames per second; None is that of the clip before, or 25.
            seed: another seed is another patient.
            ef_percent: wanted ejection fraction; None leaves it to the ECG.
            text: a description, for checkpoints that were trained with text.
            image: uint8 (height, width) picture to start from.
            continue_from: a clip to go on from.
            start_s: time of frame 0 on the ECG's clock.
            sampling_rate_hz: of files that do not say it (CSV, NPY).
            settings: steps, guidance and temperatures; None for the checkpoint's own without rehearsals.

        Returns:
            Frames in order, uint8 (height, width).

        Raises:
            InputError: something about the ECG or the request is wrong; raised before the first frame.
        """
        request = _request(view, seconds, fps, seed, start_s, ef_percent, text, continue_from)
        track = EcgTrack.from_signal(_signal(ecg, sampling_rate_hz))
        pieces = self.pipeline.stream(track, request, image=image, previous=continue_from, settings=settings)
        return (frame for piece in pieces for frame in piece.pictures)


def _signal(ecg: str | Path | EcgSignal, sampling_rate_hz: float | None) -> EcgSignal:
    return ecg if isinstance(ecg, EcgSignal) else read_ecg(ecg, sampling_rate_hz=sampling_rate_hz)


def _request(
    view: str | None,
    seconds: float,
    fps: float | None,
    seed: int,
    start_s: float | None,
    ef_percent: float | None,
    text: str | None,
    before: EchoClip | None,
) -> GenerationRequest:
    """The request, with view and frame rate of the clip before where they are not given."""
    if before is not None:
        view = before.view if view is None and before.view in VIEWS else view
        fps = before.fps if fps is None else fps
    return GenerationRequest(
        "a4c" if view is None else view, seconds, 25.0 if fps is None else fps, seed, start_s, ef_percent, text
    )
