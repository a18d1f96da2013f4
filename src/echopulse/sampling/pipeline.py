"""The whole chain from an `EcgSignal` to an `EchoClip`."""

import math
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from echopulse.axes import NOT_FOR_DIAGNOSIS, VIEWS
from echopulse.config import load_json
from echopulse.errors import InputError
from echopulse.models.checkpoints import load_network, locate_checkpoint
from echopulse.models.tokenizer import TokenizerConfig, VideoTokenizer
from echopulse.models.video_transformer import GeneratorConfig, VideoTransformer
from echopulse.sampling.decode import DecodeSettings
from echopulse.sampling.progressive import Scene, generate_codes
from echopulse.signals import EcgSignal, EchoClip
from echopulse.signals.track import EcgTrack

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
    """

    view: str = "a4c"
    seconds: float = 3.0
    fps: float = 25.0
    seed: int = 0
    start_s: float | None = None
    ef_percent: float | None = None

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


class Frames(NamedTuple):
    """A piece of a clip as it is generated: uint8 (frames, height, width), and seconds spent on it."""

    pictures: np.ndarray
    sample_s: float
    decode_s: float


class Pipeline:
    """Tokenizer and generator, ready to run.

    Args:
        tokenizer, generator: a pair trained together.
        info: the checkpoint's `index.json`: name, defaults of decoding, training data.
        dtype: of weights and activations.
    """

    def __init__(
        self, tokenizer: VideoTokenizer, generator: VideoTransformer, info: dict[str, Any], dtype: torch.dtype
    ) -> None:
        if tokenizer.factors != generator.config.factors:
            raise InputError(
                f"this generator predicts codes of factors {generator.config.factors}, "
                f"the tokenizer beside it makes {tokenizer.factors}; they were not trained together"
            )
        self.tokenizer, self.generator = tokenizer.to(dtype).eval(), generator.to(dtype).eval()
        self.info, self.dtype = info, dtype

    @classmethod
    def load(cls, checkpoint: str | Path = "compact", *, revision: str | None = None) -> "Pipeline":
        """Loads a checkpoint: a shipped name, a folder, or a hub repository id.

        Raises:
            InputError: nothing of that name, or an incomplete checkpoint.
        """
        folder = locate_checkpoint(checkpoint, revision=revision)
        info = load_json(folder / "index.json")
        tokenizer = load_network(VideoTokenizer, TokenizerConfig, folder / "tokenizer")
        generator = load_network(VideoTransformer, GeneratorConfig, folder / "generator")
        return cls(tokenizer, generator, info, fast_dtype())

    @property
    def default_settings(self) -> DecodeSettings:
        """The decoding that this checkpoint was tuned for."""
        return DecodeSettings(**self.info.get("decoding", {}))

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the pictures."""
        patch, c = self.tokenizer.config.patch, self.generator.config
        return c.rows * patch, c.columns * patch

    def stream(
        self,
        track: EcgTrack,
        request: GenerationRequest,
        *,
        image: np.ndarray | None = None,
        settings: DecodeSettings | None = None,
    ) -> Iterator[Frames]:
        """Generates frames while you watch; memory does not grow with the length.

        Args:
            track: the prepared ECG.
            request: what to generate.
            image: uint8 (height, width) first picture to start from, of `size`.
            settings: how codes are drawn; the checkpoint's if None.

        Yields:
            Pieces of the clip in order, `num_frames` in all.
        """
        start = track.start_s if request.start_s is None else request.start_s
        end = start + request.num_frames / request.fps
        half = self.generator.config.ecg.window_s / 2
        scene = Scene(
            track=track.extended(start - half, end + half + 1.0),
            start_s=start,
            fps=request.fps,
            view=VIEWS.index(request.view),
            ef=float("nan") if request.ef_percent is None else request.ef_percent / 100,
            first=None if image is None else self._encode_image(image),
        )
        clock = _Stopwatch()
        with torch.inference_mode():
            token_frames = request.num_frames // 2 + 1
            codes = generate_codes(self.generator, scene, token_frames, settings or self.default_settings, request.seed)
            left = request.num_frames
            for pixels in self.tokenizer.decode_stream(clock.watch(codes)):
                pictures = (pixels[0, :left, 0].float().clamp(0, 1) * 255).round().byte().numpy()
                left -= len(pictures)
                yield Frames(pictures, *clock.lap())
                clock.restart()

    def __call__(
        self,
        ecg: EcgSignal,
        request: GenerationRequest,
        *,
        image: np.ndarray | None = None,
        settings: DecodeSettings | None = None,
    ) -> tuple[EchoClip, dict[str, float]]:
        """Generates a whole clip.

        Returns:
            The clip on the ECG's clock, with provenance, and seconds spent by stage (`encode`, `sample`, `decode`).
        """
        clock = time.perf_counter()
        track = EcgTrack.from_signal(ecg)
        if request.start_s is None:
            request = replace(request, start_s=ecg.start_s)
        timing = {"encode": time.perf_counter() - clock, "sample": 0.0, "decode": 0.0}
        frames = np.empty((request.num_frames, *self.size), np.uint8)
        done = 0
        for piece in self.stream(track, request, image=image, settings=settings):
            frames[done : done + len(piece.pictures)] = piece.pictures
            done += len(piece.pictures)
            timing["sample"] += piece.sample_s
            timing["decode"] += piece.decode_s
        assert done == request.num_frames and request.start_s is not None
        clip = EchoClip(
            frames,
            fps=request.fps,
            start_s=request.start_s,
            view=request.view,
            ecg=ecg,
            provenance=self._provenance(ecg, track, request, image, settings or self.default_settings),
        )
        return clip, timing

    def _encode_image(self, image: np.ndarray) -> torch.Tensor:
        if image.dtype != np.uint8 or image.shape != self.size:
            raise InputError(f"first image is {image.dtype} of shape {image.shape}; expected uint8 of {self.size}")
        pixels = torch.from_numpy(np.array(image)).to(self.dtype)[None, None, None] / 255
        with torch.inference_mode():
            return self.tokenizer.encode(pixels)[0]

    def _provenance(
        self,
        ecg: EcgSignal,
        track: EcgTrack,
        request: GenerationRequest,
        image: np.ndarray | None,
        settings: DecodeSettings,
    ) -> dict[str, Any]:
        from echopulse import __version__

        start = request.start_s or 0.0
        end = start + request.num_frames / request.fps
        return {
            "statement": NOT_FOR_DIAGNOSIS,
            "echopulse": __version__,
            "model": self.info.get("name", "unnamed"),
            "condition": "ecg" if image is None else "ecg+image",
            "ecg_source": Path(ecg.source).name,
            "ecg_sha256": ecg.sha256(),
            "ecg_repeated": start < ecg.start_s or end > ecg.end_s,
            "r_times_s": [round(float(r), 4) for r in track.extended(start, end).r_times_s if start <= r < end],
            "precision": str(self.dtype).removeprefix("torch."),
            **asdict(request),
            **asdict(settings),
        }


class _Stopwatch:
    """Splits the time of a chain of iterators between its source (sampling) and its sink (decoding)."""

    def __init__(self) -> None:
        self._sample = 0.0
        self._last = time.perf_counter()

    def watch(self, codes: Iterator[torch.Tensor]) -> Iterator[torch.Tensor]:
        while True:
            begin = time.perf_counter()
            piece = next(codes, None)
            self._sample += time.perf_counter() - begin
            if piece is None:
                return
            yield piece

    def lap(self) -> tuple[float, float]:
        now = time.perf_counter()
        sample, decode = self._sample, now - self._last - self._sample
        return sample, decode

    def restart(self) -> None:
        """Leaves out what the consumer did since the last lap."""
        self._sample, self._last = 0.0, time.perf_counter()


def fast_dtype() -> torch.dtype:
    """bfloat16 where the processor multiplies it in hardware, else float32; `ECHOPULSE_DTYPE` overrides."""
    wanted = os.environ.get("ECHOPULSE_DTYPE", "")
    if wanted:
        if wanted not in ("bfloat16", "float32"):
            raise InputError(f"ECHOPULSE_DTYPE is {wanted!r}; expected bfloat16 or float32")
        return getattr(torch, wanted)
    supported = (
        getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
        or getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()
    )
    return torch.bfloat16 if supported else torch.float32
