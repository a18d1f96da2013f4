"""The whole chain from an `EcgSignal` to an `EchoClip`."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from echopulse.axes import VIEWS
from echopulse.config import load_json
from echopulse.errors import InputError
from echopulse.models.checkpoints import locate_checkpoint
from echopulse.models.critic import TokenCritic
from echopulse.models.detail import DetailNetwork
from echopulse.models.ef_reader import EfReader
from echopulse.models.segmenter import ChamberSegmenter
from echopulse.models.text_encoder import TextEncoder
from echopulse.models.tokenizer import VideoTokenizer
from echopulse.models.video_transformer import CodePredictor, TextFeatures, VideoTransformer
from echopulse.nn.precision import fast_dtype
from echopulse.sampling.audition import auditioned
from echopulse.sampling.decode import DecodeSettings
from echopulse.sampling.detail import DetailStream
from echopulse.sampling.networks import load_networks
from echopulse.sampling.progressive import (
    OVERLAP,
    Scene,
    generate_batch,
    picture_drawing,
    read_contraction,
    read_ef,
    with_first_pictures,
)
from echopulse.sampling.provenance import about_take
from echopulse.sampling.rehearsal import rehearsed
from echopulse.sampling.request import GenerationRequest, Take
from echopulse.sampling.stopwatch import Stopwatch
from echopulse.signals import EcgSignal, EchoClip
from echopulse.signals.track import EcgTrack


class Frames(NamedTuple):
    """A piece of a clip as it is generated: uint8 (frames, height, width), and seconds spent on it."""

    pictures: np.ndarray
    sample_s: float
    decode_s: float


class Pipeline:
    """Tokenizer and generator, ready to run.

    Args:
        tokenizer, generator: a pair trained together.
        text_encoder: for checkpoints that were trained with text.
        info: the checkpoint's `index.json`: name, defaults of decoding, training data.
        dtype: of weights and activations.
        critic: the generator's, where there is one.
        ef_reader: reads the ejection fraction where none is asked for; else the generator's encoder does, if it can.
        detail: puts into decoded frames what codes leave out.
        segmenter: judges auditions and rehearsals; without it there are none.
        picture_network: draws first pictures; without it the generator does.
    """

    def __init__(
        self,
        tokenizer: VideoTokenizer,
        generator: VideoTransformer,
        info: dict[str, Any],
        dtype: torch.dtype,
        text_encoder: TextEncoder | None = None,
        critic: TokenCritic | None = None,
        ef_reader: EfReader | None = None,
        detail: DetailNetwork | None = None,
        segmenter: ChamberSegmenter | None = None,
        picture_network: CodePredictor | None = None,
    ) -> None:
        if tokenizer.factors != generator.config.factors:
            raise InputError(
                f"this generator predicts codes of factors {generator.config.factors}, "
                f"the tokenizer beside it makes {tokenizer.factors}; they were not trained together"
            )
        self.tokenizer, self.generator = tokenizer.to(dtype).eval(), generator.to(dtype).eval()
        if text_encoder is not None and text_encoder.width != generator.config.text_width:
            raise InputError(
                f"the text encoder is {text_encoder.width} wide; this checkpoint was trained with "
                f"{generator.config.text_width or 'no text'}"
            )
        self.info, self.dtype, self._text_encoder = info, dtype, text_encoder
        self.critic = None if critic is None else critic.to(dtype).eval()
        self.ef_reader = None if ef_reader is None else ef_reader.float().eval()
        if detail is not None:
            detail.config.check_size(*self.size)
        self.detail = None if detail is None else detail.to(dtype).eval()
        self.segmenter = None if segmenter is None else segmenter.to(dtype).eval()
        if picture_network is not None and picture_network.config != generator.config:
            raise InputError("the picture network of this checkpoint belongs to a generator of another shape")
        self.picture_network = None if picture_network is None else picture_network.to(dtype).eval()

    @classmethod
    def load(
        cls,
        checkpoint: str | Path = "compact",
        *,
        revision: str | None = None,
        text_encoder: str | Path | None = None,
    ) -> "Pipeline":
        """Loads a checkpoint: a shipped name, a folder, or a hub repository id.

        Args:
            checkpoint: which.
            revision: of the hub repository.
            text_encoder: folder of a T5 model, see `TextEncoder`.

        Raises:
            InputError: nothing of that name, or an incomplete checkpoint.
        """
        folder = locate_checkpoint(checkpoint, revision=revision)
        info = load_json(folder / "index.json")
        if info.get("kind") == "published":
            from echopulse.sampling.published import PublishedPipeline

            return PublishedPipeline.from_folder(folder, info)
        encoder = TextEncoder(text_encoder) if text_encoder else None
        return cls(**load_networks(folder), info=info, dtype=fast_dtype(), text_encoder=encoder)

    @property
    def default_settings(self) -> DecodeSettings:
        """The decoding that this checkpoint was tuned for."""
        return DecodeSettings.from_index(self.info)

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
        previous: EchoClip | None = None,
        settings: DecodeSettings | None = None,
    ) -> Iterator[Frames]:
        """Generates frames while you watch; memory does not grow with the length.

        Args:
            track: the prepared ECG.
            request: what to generate.
            image: uint8 (height, width) first picture to start from, of `size`.
            previous: a clip to go on from.
            settings: how codes are drawn; the checkpoint's, but without rehearsals, if None.

        Yields:
            Pieces of the clip in order, `num_frames` in all.
        """
        take = Take(None, request, image, previous)
        if request.start_s is None and previous is None:
            take = replace(take, request=replace(request, start_s=track.start_s))
        settings = settings or replace(self.default_settings, rehearsals=0)
        for piece in self._generate([take], [track], settings):
            yield piece._replace(pictures=piece.pictures[0])

    def __call__(
        self,
        ecg: EcgSignal | None,
        request: GenerationRequest,
        *,
        image: np.ndarray | None = None,
        previous: EchoClip | None = None,
        settings: DecodeSettings | None = None,
    ) -> tuple[EchoClip, dict[str, float]]:
        """Generates a whole clip.

        Returns:
            The clip on the ECG's clock, with provenance, and seconds spent by stage (`encode`, `sample`, `decode`).
        """
        clips, timing = self.generate([Take(ecg, request, image, previous)], settings)
        return clips[0], timing

    def generate(
        self, takes: Sequence[Take], settings: DecodeSettings | None = None
    ) -> tuple[list[EchoClip], dict[str, float]]:
        """Generates several clips in the same passes through the networks.

        Args:
            takes: what to generate: as many frames each, and all from an image, all from a clip, or none.
            settings: how codes are drawn; the checkpoint's if None.

        Returns:
            The clips with their ECGs and provenance, and seconds spent by stage on all of them.
        """
        settings = settings or self.default_settings
        clock = time.perf_counter()
        tracks = [None if take.ecg is None else EcgTrack.from_signal(take.ecg) for take in takes]
        timing = {"encode": time.perf_counter() - clock, "sample": 0.0, "decode": 0.0}
        frames = np.empty((len(takes), takes[0].request.num_frames, *self.size), np.uint8)
        done = 0
        for piece in self._generate(takes, tracks, settings):
            frames[:, done : done + piece.pictures.shape[1]] = piece.pictures
            done += piece.pictures.shape[1]
            timing["sample"] += piece.sample_s
            timing["decode"] += piece.decode_s
        assert done == frames.shape[1]
        clips = [
            EchoClip(
                pictures,
                fps=take.request.fps,
                start_s=take.start_s,
                view=take.request.view,
                ecg=take.ecg,
                provenance=self._provenance(take, track, settings),
            )
            for pictures, take, track in zip(frames, takes, tracks, strict=True)
        ]
        return clips, timing

    def _generate(
        self, takes: Sequence[Take], tracks: Sequence[EcgTrack | None], settings: DecodeSettings
    ) -> Iterator[Frames]:
        """Pieces of all clips at once: pictures of shape (clips, frames, height, width)."""
        left = takes[0].request.num_frames
        assert all(take.request.num_frames == left for take in takes)
        clock = Stopwatch()
        with torch.inference_mode():
            scenes = [self._scene(take, track, settings) for take, track in zip(takes, tracks, strict=True)]
            if scenes[0].first is None and settings.guidance_alone is not None:
                settings = replace(settings, guidance=settings.guidance_alone)
            wanted = (left + 1) // 2 if scenes[0].past is not None else left // 2 + 1
            codes = clock.watch(self._codes(takes, scenes, wanted, settings))
            for pictures in self._show(takes, scenes, codes, settings):
                yield Frames(pictures[:, :left], *clock.lap())
                left -= pictures.shape[1]
                clock.restart()

    def _codes(
        self, takes: Sequence[Take], scenes: Sequence[Scene], wanted: int, settings: DecodeSettings
    ) -> Iterator[torch.Tensor]:
        """New token frames of all clips, `wanted` in all, after auditions and rehearsals."""
        auditions = settings.auditions > 1 and picture_drawing(scenes, settings) is not None
        if self.segmenter is None and (settings.rehearsals or auditions):
            raise InputError(
                "rehearsals and auditions are judged by a segmenter, but this checkpoint has none; "
                "set rehearsals to 0 and auditions to 1"
            )
        generators = [torch.Generator().manual_seed(take.request.seed) for take in takes]
        if auditions:
            scenes = self._auditioned(takes, scenes, settings, generators)
        else:
            scenes = with_first_pictures(self.generator, scenes, settings, generators, self.picture_network)
        if settings.rehearsals:
            scenes, begun = self._rehearsed(takes, scenes, wanted, settings, generators)
            yield from begun
            wanted -= sum(piece.shape[1] for piece in begun)
        if wanted:
            yield from generate_batch(self.generator, scenes, wanted, settings, generators, self.critic)

    def _auditioned(
        self,
        takes: Sequence[Take],
        scenes: Sequence[Scene],
        settings: DecodeSettings,
        generators: list[torch.Generator],
    ) -> Sequence[Scene]:
        """The scenes with the clearest of several first pictures."""
        assert self.segmenter is not None

        def show(rows: Sequence[int], candidates: Sequence[Scene]) -> np.ndarray:
            codes = torch.stack([scene.first for scene in candidates if scene.first is not None])
            return next(self._show([takes[row] for row in rows], candidates, iter([codes]), settings))[:, 0]

        return auditioned(self.generator, scenes, settings, generators, show, self.segmenter, self.picture_network)

    def _rehearsed(
        self,
        takes: Sequence[Take],
        scenes: Sequence[Scene],
        wanted: int,
        settings: DecodeSettings,
        generators: list[torch.Generator],
    ) -> tuple[Sequence[Scene], list[torch.Tensor]]:
        """The scenes with what is told corrected by rehearsals, and the codes that the clips begin with.

        Where each clip has been played as it is told now, the scenes go on from there; else there are no codes. Scenes
        stay as they are where they have no first picture.
        """
        assert self.segmenter is not None
        if scenes[0].first is None:
            return scenes, []
        played: dict[tuple[int, float], tuple[list[torch.Tensor], torch.Generator]] = {}  # by clip and what it was told

        def play(rows: Sequence[int], trial: Sequence[Scene], length: int) -> np.ndarray:
            draws = [generators[row].clone_state() for row in rows]
            windows = list(generate_batch(self.generator, trial, length, settings, draws, self.critic))
            if scenes[0].past is None:
                for row, one, draw, *clip in zip(rows, trial, draws, *windows, strict=True):
                    played[row, one.ef] = clip, draw
            pieces = self._show([takes[row] for row in rows], trial, iter(windows), settings)
            return np.concatenate(list(pieces), axis=1)

        frames, slots = takes[0].request.num_frames, self.generator.config.slots
        told = rehearsed(scenes, play, self.segmenter, settings.rehearsals, num_frames=frames, slots=slots)
        begun = [played[row, scene.ef] for row, scene in enumerate(told) if (row, scene.ef) in played]
        if len(begun) < len(told) or len({len(clip) for clip, _ in begun}) > 1:
            return told, []
        generators[:] = [draw for _, draw in begun]
        told = [scene.after(torch.cat(clip)) for scene, (clip, _) in zip(told, begun, strict=True)]
        return told, [torch.stack(window) for window in zip(*(clip for clip, _ in begun), strict=True)]

    def _show(
        self, takes: Sequence[Take], scenes: Sequence[Scene], codes: Iterator[torch.Tensor], settings: DecodeSettings
    ) -> Iterator[np.ndarray]:
        """Pictures of new token frames as they come, uint8 (clips, frames, height, width)."""
        if scenes[0].past is not None:  # the decoder has to see what it goes on from
            codes = chain([torch.stack([scene.past for scene in scenes if scene.past is not None])], codes)
        pieces = self.tokenizer.decode_stream(codes)
        if scenes[0].past is not None:
            next(pieces)
        given = [take.image for take in takes if take.image is not None and take.previous is None]
        detail = self._detail_stream(takes, scenes, settings)
        for pixels in pieces:
            grey = pixels.mean(2) if detail is None else detail(pixels)[:, :, 0]
            pictures = (grey.float().clamp(0, 1) * 255).round().byte().numpy()
            if detail is not None and given:
                pictures[:, 0], given = np.stack(given), []  # what was given is what is seen
            yield pictures

    def _scene(self, take: Take, track: EcgTrack | None, settings: DecodeSettings) -> Scene:
        request, previous, start = take.request, take.previous, take.start_s
        end, half = start + request.num_frames / request.fps, self.generator.config.ecg.window_s / 2
        first, past, length = None if take.image is None else self._encode(take.image[None])[:1], None, 0
        if previous is not None:
            take.check_previous()
            frames = _odd(previous.frames)
            length, start = len(frames) // 2 + 1, start - len(frames) / request.fps
            count = 2 * (self.tokenizer.reach + OVERLAP)  # with these, codes and new pictures are as of the whole clip
            first, past = self._encode(frames[:1]), self._encode(frames[-count:])
        asked = None if request.ef_percent is None else request.ef_percent / 100
        shown = contraction = float("nan")
        if track is not None:
            shown = read_ef(track, self.generator, self.ef_reader)
            track = track.extended(start - half, end + half + 1.0)
            contraction = read_contraction(track, self.generator, start)
        return Scene(
            track=track,
            start_s=start,
            fps=request.fps,
            view=VIEWS.index(request.view),
            ef=settings.told_ef(asked, shown),
            wanted_ef=shown if asked is None else asked,
            first=first,
            past=past,
            past_length=length,
            text=self._text(request.text),
            first_contraction=contraction,
        )

    def _detail_stream(
        self, takes: Sequence[Take], scenes: Sequence[Scene], settings: DecodeSettings
    ) -> DetailStream | None:
        """What adds detail to the decoded frames; it knows the pictures that clips begin with, if any were given."""
        if self.detail is None or settings.detail == 0:
            return None
        seeds = [take.request.seed for take in takes]
        given = [take.image if take.previous is None else _odd(take.previous.frames)[0] for take in takes]
        pictures = [picture for picture in given if picture is not None]
        if not pictures:
            return DetailStream(self.detail, seeds, share=settings.detail)
        true = torch.from_numpy(np.stack(pictures)) / 255
        codes = torch.stack([scene.first for scene in scenes if scene.first is not None])
        decoded = self.tokenizer.decode(codes)[:, 0].mean(1, keepdim=True)
        return DetailStream(self.detail, seeds, (true[:, None], decoded), settings.detail)

    def _text(self, text: str | None) -> TextFeatures | None:
        if text is None:
            return None
        if not self.generator.config.text_width:
            raise InputError(f"checkpoint {self.info.get('name', 'unnamed')} was trained without text; leave it out")
        if self._text_encoder is None:
            raise InputError("a text needs its encoder; give the folder of the T5 model that the checkpoint names")
        return self._text_encoder([text])

    def _encode(self, frames: np.ndarray) -> torch.Tensor:
        """Codes (token frames, rows, columns) of `1 + 2k` pictures, or of `2k` from the middle of a clip."""
        if frames.dtype != np.uint8 or frames.shape[1:] != self.size:
            raise InputError(
                f"first image is {frames.dtype} of shape {frames.shape[1:]}; expected uint8 of {self.size}"
            )
        pixels = torch.from_numpy(np.array(frames)).to(self.dtype)[None, :, None] / 255
        pixels = pixels.expand(-1, -1, self.tokenizer.config.channels, -1, -1)
        return self.tokenizer.encode(pixels, continuation=len(frames) % 2 == 0)[0]

    def _provenance(self, take: Take, track: EcgTrack | None, settings: DecodeSettings) -> dict[str, Any]:
        about = {"model": self.info.get("name", "unnamed"), "precision": str(self.dtype).removeprefix("torch.")}
        return about_take(take, track, settings) | about


def _odd(frames: np.ndarray) -> np.ndarray:
    """An odd number of frames: an even clip goes without its first one."""
    return frames[(len(frames) + 1) % 2 :]
