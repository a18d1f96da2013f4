"""Stage two: the masked generative transformer, on cached codes."""

import math
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from echopulse.axes import STANDARD_LEADS, VIEWS
from echopulse.config import save_json
from echopulse.errors import InputError
from echopulse.models.checkpoints import save_network
from echopulse.models.detail import DetailNetwork
from echopulse.models.ecg_encoder import EcgEncoder, sample_contraction
from echopulse.models.ef_reader import EfReader
from echopulse.models.segmenter import ChamberSegmenter
from echopulse.models.text_encoder import TextEncoder, describe
from echopulse.models.tokenizer import VideoTokenizer
from echopulse.models.video_transformer import (
    Conditions,
    EcgWindow,
    GeneratorConfig,
    VideoTransformer,
    WindowTransformer,
)
from echopulse.objectives.masked import masked_code_loss
from echopulse.objectives.motion import motion_loss
from echopulse.sampling.decode import DecodeSettings
from echopulse.sampling.progressive import OVERLAP, Scene, frame_numbers, generate_codes
from echopulse.sampling.request import FPS_RANGE
from echopulse.sampling.schedule import cosine_share
from echopulse.signals.track import TRACK_RATE_HZ, EcgTrack
from echopulse.training.data import batch_rng
from echopulse.training.ecg_devices import add_gain_and_noise, draw_leads, draw_marks
from echopulse.training.token_cache import CachedClip

_PICTURE_STEPS = 2
"""Every how many steps are pictures alone, the first ones of clips: they cost an eighth of windows, and to draw them is
what a clip from the ECG alone begins with."""

_PICTURES = 2
"""Of them for each window of other steps."""

_RATES_FPS = (12.5, 25.0, 40.0)
"""Of videos that pictures of sets with fewer frames are the first ones of."""


class GeneratorBatch(NamedTuple):
    """One step's inputs, batch first; contraction (b, slots, 2) and EF are the truth, NaN where there is none."""

    codes: Tensor
    seen: Tensor
    known: Tensor
    hidden: Tensor
    conditions: Conditions
    contraction: Tensor
    ef: Tensor

    def to(self, device: torch.device) -> "GeneratorBatch":
        """The same batch on a device."""
        codes, seen, known, hidden, contraction, ef = (x.to(device) for x in (*self[:4], self.contraction, self.ef))
        return GeneratorBatch(codes, seen, known, hidden, self.conditions.to(device), contraction, ef)


Row = Callable[[np.random.Generator, CachedClip], tuple[np.ndarray, ...]]
"""Makes one row of a batch from a clip."""


class GeneratorTask:
    """Predict hidden codes.

    A batch mixes the three uses: from the ECG alone, from the ECG and the first frame, and going on from earlier
    token frames; every other batch is of pictures alone. Given codes are corrupted at random (up to 10 %), since at
    generation they are the model's own.

    Args:
        network: to train; a config makes a new one.
        clips: from `token_cache.build_token_cache`.
        tokenizer: decodes the sample pictures.
        batch: windows a step.
        seed: of the batches.
        ecg: pre-trained encoder to start from, of the network's shape.
        text: frozen; half of the windows then come with a description of view and EF.
        ef_reader, detail, segmenter: trained; the export holds them beside the generator.
        ecg_mask: hide leads and spans of the ECG.
        decoding: the export's; without a segmenter, nothing is rehearsed and one first picture drawn.

    Raises:
        InputError: no clip is long enough, or an encoder has another shape.
    """

    _pictures = True  # among the batches

    def __init__(
        self,
        network: VideoTransformer | GeneratorConfig,
        clips: list[CachedClip],
        tokenizer: VideoTokenizer,
        *,
        batch: int,
        seed: int = 0,
        ecg: EcgEncoder | None = None,
        text: TextEncoder | None = None,
        ef_reader: EfReader | None = None,
        detail: DetailNetwork | None = None,
        segmenter: ChamberSegmenter | None = None,
        ecg_mask: bool = True,
        decoding: DecodeSettings = DecodeSettings(),  # noqa: B008 - immutable
    ) -> None:
        torch.manual_seed(seed)
        self.model: WindowTransformer = network if isinstance(network, VideoTransformer) else VideoTransformer(network)
        if ecg is not None:
            if ecg.config != self.model.config.ecg:
                raise InputError("the pre-trained ECG encoder has another shape than this generator's")
            assert self.model.ecg is not None
            self.model.ecg.load_state_dict(ecg.state_dict())
        if text is not None and text.width != self.model.config.text_width:
            raise InputError(f"texts are {text.width} wide; the generator expects {self.model.config.text_width}")
        self.clips = self._usable(clips)
        self._tokenizer, self._batch, self._seed = tokenizer, batch, seed
        self._text, self._ecg_mask = text, ecg_mask
        self._beside = {"ef_reader": ef_reader, "detail": detail, "segmenter": segmenter}
        self._decoding = decoding if segmenter else replace(decoding, rehearsals=0, auditions=1)

    def batch(self, step: int, rank: int) -> GeneratorBatch:
        """Windows of random clips with their ECG, conditions and masks."""
        rng = batch_rng(self._seed, step, rank)
        if self._pictures and step % _PICTURE_STEPS == _PICTURE_STEPS - 1:
            return self._collated(rng, self._batch * _PICTURES, self._picture)
        return self._collated(rng, self._batch, self._window)

    def _usable(self, clips: list[CachedClip]) -> list[CachedClip]:
        """Clips that are long enough for a window."""
        slots = self.model.config.slots
        usable = [clip for clip in clips if clip.codes.shape[0] >= slots]
        if not usable:
            raise InputError(f"no clip of {2 * slots - 1} frames or more to train on")
        return usable

    def _collated(self, rng: np.random.Generator, count: int, make: Row) -> GeneratorBatch:
        """A batch of rows from random clips."""
        rows, texts = [], []
        for _ in range(count):
            clip = self.clips[rng.integers(len(self.clips))]
            rows.append(make(rng, clip))
            texts.append(describe((*VIEWS, "unknown")[clip.view], None if math.isnan(clip.ef) else 100 * clip.ef))
        columns = [torch.from_numpy(np.stack(column)) for column in zip(*rows, strict=True)]
        codes, seen, known, hidden, ecg, marks, present, *told, first, contraction, true_ef = columns
        lead_ids = torch.arange(len(STANDARD_LEADS)).expand(count, -1)
        window = EcgWindow(ecg, marks, lead_ids, present)
        text = None if self._text is None else self._text(texts)
        if text is not None:
            heard = torch.from_numpy(rng.uniform(size=(count, 1)) < 0.5)
            text = text._replace(visible=text.visible & heard)
        has_ecg, times, gap, view, ef = told
        conditions = Conditions(window, has_ecg, times, gap, view, ef, text, first)
        return GeneratorBatch(codes, seen, known, hidden, conditions, contraction, true_ef)

    def _picture(self, rng: np.random.Generator, clip: CachedClip) -> tuple[np.ndarray, ...]:
        """A window's first slot, without the others."""
        number = int(rng.integers(len(clip.pictures)))
        codes = clip.pictures[number : number + 1].astype(np.int64)
        hidden = rng.uniform(size=codes.shape) < cosine_share(rng.uniform())
        if not hidden.any():
            hidden[:] = True
        frame = number * clip.picture_stride
        fps = clip.fps if clip.fps >= FPS_RANGE[0] else rng.choice(_RATES_FPS)  # of the video that would begin here
        times = frame / clip.fps + frame_numbers(self.model.config.slots, 1) / fps
        return self._row(rng, clip, codes, codes, hidden, times, clip.contraction[[[frame, frame]]])

    def _window(self, rng: np.random.Generator, clip: CachedClip) -> tuple[np.ndarray, ...]:
        c = self.model.config
        use = rng.choice(3, p=(0.35, 0.25, 0.4))  # ECG alone, ECG + first frame, going on
        latest = clip.codes.shape[0] - c.slots + 1
        position = 1 if use < 2 else int(rng.integers(1, latest + 1))
        codes = np.concatenate([clip.codes[:1], clip.codes[position : position + c.slots - 1]]).astype(np.int64)
        given = np.zeros(codes.shape, bool)
        given[: (0, 1, 1 + OVERLAP)[use]] = True
        wrong = rng.uniform(size=codes.shape) < rng.uniform(0, 0.1)
        seen = np.where(wrong & given, rng.permutation(codes.ravel()).reshape(codes.shape), codes)
        hidden = ~given & (rng.uniform(size=codes.shape) < cosine_share(rng.uniform()))
        if not hidden.any():
            hidden = ~given
        numbers = frame_numbers(c.slots, position)
        return self._row(rng, clip, codes, seen, hidden, numbers / clip.fps, clip.contraction[numbers])

    def _row(
        self,
        rng: np.random.Generator,
        clip: CachedClip,
        codes: np.ndarray,
        seen: np.ndarray,
        hidden: np.ndarray,
        times: np.ndarray,
        contraction: np.ndarray,
    ) -> tuple[np.ndarray, ...]:
        """One row of a batch: the first slots of the window of these frame times, and what is told of it.

        `times` is (slots, 2) in seconds on the clip's clock, `contraction` the truth at those of the codes.
        """
        c = self.model.config
        middle = float(times[1:].mean())
        ecg, marks, present = self._ecg(rng, clip.track, middle)
        has_ecg = rng.uniform() > 0.12
        knows_ef = rng.uniform() < (0.9 if has_ecg else 0.2)  # generation asks for one or reads it from the whole ECG
        half = c.ecg.window_s / 2
        gap = times[1, 0] - times[0, 0]
        times = times[: len(codes)]
        return (
            codes,
            seen,
            ~hidden,
            hidden,
            ecg,
            marks,
            present,
            np.array(has_ecg),
            np.clip(times - middle, -half, half).astype(np.float32),
            np.array(gap, np.float32),
            np.array(clip.view if rng.uniform() < 0.9 else -1, np.int64),
            np.array(clip.ef if knows_ef else math.nan, np.float32),
            np.array(contraction[0, 0] if rng.uniform() < 0.9 else math.nan, np.float32),
            np.where(np.abs(times - middle) < half, contraction, np.nan).astype(np.float32),
            np.array(clip.ef, np.float32),
        )

    def _ecg(self, rng: np.random.Generator, track: EcgTrack, middle_s: float) -> tuple[np.ndarray, ...]:
        """A window with what devices do to it: leads missing, noise, gain, lost spans, beat marks off or absent."""
        samples = self.model.config.ecg.num_samples
        rows, _ = track.window(middle_s, samples)
        ecg = np.zeros((len(STANDARD_LEADS), samples), np.float32)
        ecg[track.lead_ids] = rows
        present = np.zeros(len(STANDARD_LEADS), bool)
        present[draw_leads(rng, track.lead_ids) if self._ecg_mask else track.lead_ids] = True
        ecg = add_gain_and_noise(rng, ecg)
        times = middle_s + (np.arange(samples) - samples // 2) / TRACK_RATE_HZ
        marks = draw_marks(rng, track.r_times_s, times)
        if self._ecg_mask and rng.uniform() < 0.3:
            start, length = rng.integers(samples), int(rng.uniform(0.1, 1.2) * TRACK_RATE_HZ)
            ecg[:, start : start + length] = 0
            if rng.uniform() < 0.5:
                marks[start : start + length] = 0
        return ecg * present[:, None], marks, present

    def count(self, batch: GeneratorBatch) -> float:
        """Hidden codes, of which the loss is the mean."""
        return float(batch.hidden.sum())

    def losses(self, model: nn.Module, batch: GeneratorBatch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy of the hidden codes (paper eq. 7), and the errors of the motion that the ECG encoder reads."""
        b = batch.to(next(model.parameters()).device)
        network = self.model
        assert isinstance(network, VideoTransformer) and isinstance(b.conditions.ecg, EcgWindow)
        features = network.encode_ecg(b.conditions.ecg)
        logits = model(b.seen, b.known, b.conditions._replace(ecg=features), b.codes)
        terms = masked_code_loss(logits, b.codes, b.hidden, network.config.factors)
        loss = terms["cross_entropy"]
        if features.ef is not None:
            read = sample_contraction(features, b.conditions.frame_times_s, network.config.ecg.window_s)
            motion = motion_loss(read.flatten(1), features.ef, b.contraction.flatten(1), b.ef)
            loss, terms = loss + torch.stack(list(motion.values())).sum(), terms | motion
        return loss, terms

    def sample(self, model: nn.Module, folder: Path, step: int) -> None:
        """True frames above generated ones, for the first clip: eight frames of a window."""
        assert isinstance(model, VideoTransformer)
        clip, c = self.clips[0], self.model.config
        scene = Scene(clip.track, 0.0, clip.fps, clip.view, clip.ef, first=torch.from_numpy(clip.codes[:1]).long())
        made = torch.cat(list(generate_codes(model, scene, c.slots, DecodeSettings(), seed=0)), dim=1)
        true = torch.from_numpy(clip.codes[: c.slots]).long()[None]
        rows = [torch.cat(list(self._tokenizer.decode(codes)[0, ::2, 0].float()), dim=1) for codes in (true, made)]
        picture = (torch.cat(rows).clamp(0, 1) * 255).round().byte().numpy()
        Image.fromarray(picture).save(folder / f"{step:07d}.png")

    def export(self, model: nn.Module, folder: Path) -> None:
        """Writes a whole checkpoint folder: `tokenizer/`, `generator/`, `index.json`."""
        assert isinstance(model, VideoTransformer)
        save_network(self._tokenizer.float(), self._tokenizer.config, folder / "tokenizer")
        save_network(model, model.config, folder / "generator")
        for name, network in self._beside.items():
            if network is not None:
                save_network(network, network.config, folder / name)
        save_json(
            folder / "index.json",
            {
                "name": folder.resolve().parent.name,
                "training_data": f"{len(self.clips)} clips of prepared sets",
                "licence": "",
                "decoding": asdict(self._decoding),
            },
        )
