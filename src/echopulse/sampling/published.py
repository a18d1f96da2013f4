"""The released chain: published tokenizer, ST-MEM and generator, with the ECG prepared as the authors' scripts do.

Nothing here is on the clock of the ECG; `DEPARTURES` says where, and every clip's provenance repeats it.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from echopulse.axes import STANDARD_LEADS
from echopulse.errors import InputError
from echopulse.models.checkpoints import load_network
from echopulse.models.ecg_encoder import ECG_RATE_HZ, EcgEncoder, EcgEncoderConfig, EcgFeatures
from echopulse.models.published_generator import PublishedGenerator, PublishedGeneratorConfig
from echopulse.models.tokenizer import TokenizerConfig, VideoTokenizer
from echopulse.models.video_transformer import Conditions
from echopulse.nn.precision import fast_dtype
from echopulse.sampling.decode import DecodeSettings, decode_window
from echopulse.sampling.pipeline import Frames, Pipeline
from echopulse.sampling.request import Take
from echopulse.signals.track import TRACK_RATE_HZ, EcgTrack

WINDOW_FRAMES = 11
REPEATS = 16
_LEAD = STANDARD_LEADS.index("II")

DEPARTURES = (
    f"The ECG of each {WINDOW_FRAMES}-frame window is standardised, repeated {REPEATS} times and stretched to the "
    "encoder's window, so its time axis is not real: a second of encoder time is not a second of the clip.",
    "One lead is used, in the row of lead II; the rows of the others are zero.",
    "The network gets one vector, the mean over all patches, so where in the window a beat lies can hardly reach it: "
    "no R peak is tied to a frame.",
    "View and frame rate are unknown to the network; guidance has no effect in the released code and is left out.",
    "Longer clips go on from the last frame of the window before.",
)
"""Where a released clip leaves real time, one sentence each."""


class PublishedPipeline(Pipeline):
    """The released networks, asked in the same way as `Pipeline`.

    Args:
        tokenizer, generator, encoder: the converted networks.
        info: the checkpoint's `index.json`; `picture_side` in pixels, and `pixel_scale`: the networks see pixels of
            [0, 1] divided by it.
        dtype: of weights and activations.
    """

    generator: PublishedGenerator  # type: ignore[assignment]

    def __init__(
        self,
        tokenizer: VideoTokenizer,
        generator: PublishedGenerator,
        encoder: EcgEncoder,
        info: dict[str, Any],
        dtype: torch.dtype,
    ) -> None:
        if tokenizer.factors != generator.config.factors:
            made, taken = tokenizer.factors, generator.config.factors
            raise InputError(f"the tokenizer makes codes of factors {made}; this generator predicts {taken}")
        if encoder.config.width != generator.config.context_dim:
            made, taken = encoder.config.width, generator.config.context_dim
            raise InputError(f"the ECG encoder gives {made} values; this generator takes {taken}")
        self.tokenizer, self.generator = tokenizer.to(dtype).eval(), generator.to(dtype).eval()
        self.encoder = encoder.to(dtype).eval()
        self.info, self.dtype, self.critic = info, dtype, None

    @classmethod
    def from_folder(cls, folder: Path, info: dict[str, Any]) -> "PublishedPipeline":
        """Loads a folder that `echopulse convert` filled with all three networks.

        Raises:
            InputError: one of them has not been converted.
        """
        parts = {"tokenizer": "published-tokenizer", "generator": "published-generator", "ecg": "published-st-mem"}
        for part, verb in parts.items():
            if not (folder / part).is_dir():
                raise InputError(f"{folder} has no {part}; add it by `echopulse convert {verb} FILE -o {folder}`")
        return cls(
            load_network(VideoTokenizer, TokenizerConfig, folder / "tokenizer"),
            load_network(PublishedGenerator, PublishedGeneratorConfig, folder / "generator"),
            load_network(EcgEncoder, EcgEncoderConfig, folder / "ecg"),
            info,
            fast_dtype(),
        )

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the pictures."""
        return (self.info.get("picture_side", 128),) * 2

    def _generate(
        self, takes: Sequence[Take], tracks: Sequence[EcgTrack | None], settings: DecodeSettings
    ) -> Iterator[Frames]:
        for take in takes:
            if take.request.ef_percent is not None or take.request.text is not None or take.previous is not None:
                raise InputError("the released generator takes an ECG and an image; leave EF, text and clip out")
        settings = replace(settings, guidance=1.0)
        generators = [torch.Generator().manual_seed(take.request.seed) for take in takes]
        grid = self.tokenizer.grid_shape(WINDOW_FRAMES, *self.size)
        left, done, images = takes[0].request.num_frames, 0, [take.image for take in takes]
        if any((image is None) != (images[0] is None) for image in images):
            raise InputError("clips of one batch begin all with an image or all without")
        while left:
            begin = time.perf_counter()
            with torch.inference_mode():
                codes = torch.zeros(len(takes), *grid, dtype=torch.long)
                known = torch.zeros_like(codes, dtype=torch.bool)
                if images[0] is not None:
                    codes[:, 0] = torch.stack([self._encode(x[None])[0] for x in images if x is not None])
                    known[:, 0] = True
                ecg = torch.stack([self._prepare(*pair, done) for pair in zip(takes, tracks, strict=True)])
                conditions = self._conditions(self.encoder.pooled(ecg.to(self.dtype), _LEAD))
                codes = decode_window(self.generator, codes, known, conditions, settings, generators)
                sampled = time.perf_counter()
                pixels = self.tokenizer.decode(codes).mean(2).float() * self._pixel_scale
            pictures = (pixels.clamp(0, 1) * 255).round().byte().numpy()
            images = list(pictures[:, -1])
            pictures = pictures[:, int(done > 0) :][:, :left]
            left, done = left - pictures.shape[1], done + pictures.shape[1]
            yield Frames(pictures, sampled - begin, time.perf_counter() - sampled)

    @property
    def _pixel_scale(self) -> float:
        return float(self.info.get("pixel_scale", 1.0))

    def _prepare(self, take: Take, track: EcgTrack | None, first_frame: int) -> Tensor:
        """The encoder's input for the window that begins at a frame."""
        if track is None:
            raise InputError("the released generator cannot do without an ECG")
        start = take.start_s + max(first_frame - 1, 0) / take.request.fps
        seconds = WINDOW_FRAMES / take.request.fps
        rows, _ = track.extended(start, start + seconds).window(start + seconds / 2, round(seconds * TRACK_RATE_HZ))
        row = int(np.flatnonzero(track.lead_ids == _LEAD)[0]) if _LEAD in track.lead_ids else 0
        return torch.from_numpy(prepare_ecg(rows[row], self.encoder.config.num_samples))

    def _conditions(self, vectors: Tensor) -> Conditions:
        """The ECG vector as a context of length 1; all else is unknown to this network."""
        batch = len(vectors)
        zero, there = torch.zeros(batch, 1), torch.ones(batch, 1, dtype=torch.bool)
        return Conditions(
            ecg=EcgFeatures(vectors[:, None], zero, there, vectors.new_zeros(batch, 1, 1)),
            has_ecg=there[:, 0],
            frame_times_s=torch.zeros(batch, 1, 2),
            first_gap_s=zero[:, 0],
            view=torch.full((batch,), -1),
            ef=torch.full((batch,), torch.nan),
        )

    def _encode(self, frames: np.ndarray) -> Tensor:
        pixels = torch.from_numpy(np.array(frames)).to(self.dtype)[None, :, None] / (255 * self._pixel_scale)
        return self.tokenizer.encode(pixels.expand(-1, -1, self.tokenizer.config.channels, -1, -1))[0]

    def _provenance(self, take: Take, track: EcgTrack | None, settings: DecodeSettings) -> dict[str, Any]:
        stretch = self.encoder.config.num_samples / ECG_RATE_HZ / (REPEATS * WINDOW_FRAMES / take.request.fps)
        about = super()._provenance(take, track, replace(settings, guidance=1.0, rehearsals=0, auditions=1))
        return about | {
            "not_in_real_time": list(DEPARTURES),
            "encoder_seconds_per_clip_second": round(stretch, 4),
            "pixel_scale": self._pixel_scale,
        }


def prepare_ecg(samples: np.ndarray, length: int) -> np.ndarray:
    """The authors' preparation of one lead over a clip: standardise, repeat, stretch, all other leads zero.

    Args:
        samples: the lead during the clip, any rate.
        length: samples of the encoder's window (2250 in full size).

    Returns:
        float32 of shape (12, length); a flat lead stays zero.
    """
    centred = samples - samples.mean()
    repeated = np.tile(centred / max(float(centred.std()), 1e-8), REPEATS)
    out = np.zeros((len(STANDARD_LEADS), length), np.float32)
    out[_LEAD] = np.interp(np.linspace(0, len(repeated) - 1, length), np.arange(len(repeated)), repeated)
    return out
