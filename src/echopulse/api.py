"""The public class: files in, clips out."""

from pathlib import Path

import numpy as np

from echopulse.io.ecg import read_ecg
from echopulse.sampling.decode import DecodeSettings
from echopulse.sampling.pipeline import GenerationRequest, Pipeline
from echopulse.signals import EcgSignal, EchoClip


class EchoPulse:
    """Turns an ECG into an echocardiogram video.

    Example:
        >>> model = EchoPulse.from_pretrained()
        >>> clip = model(ecg="record.hea", view="a4c", seconds=3.0, seed=0)
        >>> clip.save("echo.mp4", overlay=True)
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline

    @classmethod
    def from_pretrained(cls, checkpoint: str | Path = "compact", *, revision: str | None = None) -> "EchoPulse":
        """Loads a checkpoint.

        Args:
            checkpoint: a shipped name (`compact`), a folder, or a hub repository id.
            revision: of the hub repository.

        Raises:
            InputError: there is no such checkpoint, or it is damaged.
        """
        return cls(Pipeline.load(checkpoint, revision=revision))

    def __call__(
        self,
        ecg: str | Path | EcgSignal,
        *,
        view: str = "a4c",
        seconds: float = 3.0,
        fps: float = 25.0,
        seed: int = 0,
        ef_percent: float | None = None,
        image: np.ndarray | None = None,
        start_s: float | None = None,
        sampling_rate_hz: float | None = None,
        settings: DecodeSettings | None = None,
    ) -> EchoClip:
        """Generates a clip.

        Args:
            ecg: a file, or a signal. A shorter ECG than the clip is repeated from its first to its last R peak.
            view: `a4c` or `a2c`.
            seconds: length of the clip.
            fps: frames per second.
            seed: another seed is another patient.
            ef_percent: wanted ejection fraction; None leaves it to the ECG.
            image: uint8 (height, width) picture to start from.
            start_s: time of frame 0 on the ECG's clock; None is the ECG's start.
            sampling_rate_hz: of files that do not say it (CSV, NPY).
            settings: steps, guidance and temperatures; None for the checkpoint's own.

        Returns:
            The clip, with its ECG on the same clock and its provenance.

        Raises:
            InputError: something about the ECG or the request is wrong; the message says what.
        """
        request = GenerationRequest(view, seconds, fps, seed, start_s, ef_percent)
        signal = ecg if isinstance(ecg, EcgSignal) else read_ecg(ecg, sampling_rate_hz=sampling_rate_hz)
        return self.pipeline(signal, request, image=image, settings=settings)[0]
