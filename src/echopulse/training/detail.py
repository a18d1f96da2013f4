"""Stage one and a half: the detail network beside a trained tokenizer."""

import copy
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from echopulse.errors import InputError
from echopulse.models.checkpoints import save_network
from echopulse.models.detail import DetailConfig, DetailNetwork, displaced
from echopulse.models.tokenizer import VideoTokenizer
from echopulse.nn.precision import fast_dtype
from echopulse.objectives.detail import energy_score, spectral_error, structural_dissimilarity
from echopulse.objectives.walls import VENTRICLE, overlap_errors
from echopulse.training.data import ClipPool, batch_rng
from echopulse.training.phantom_data import PhantomDataset

_FRAMES = 41
"""Of a clip; a beat at 25 frames/s and 40 beats a minute fits."""

_KNOWN = 4
"""Pictures of a clip that serve as the known one."""

_CLIPS = 512
"""Clips that are kept decoded, 5 MB each."""

_CLIPS_A_STEP = 4

_DRAWS = 2
"""Of speckle for every frame; the energy score needs two."""

_OUTLINE = 4
"""Side of the blocks of pixels in which the displaced picture alone is compared: the grain in them cancels."""

_ABSOLUTE, _ROUGHNESS, _SPECKLE, _SPECTRUM, _WALLS = 2.0, 0.02, 2.0, 1.0, 4.0
"""Weights of terms beside the dissimilarity, which is near 0.3."""


class DecodedClip(NamedTuple):
    """A clip (frames, 1, h, w), its masks, it as decoded, and some frames (n,) decoded alone; pixels in [0, 1].

    Masks (frames, 2, h, w) are of the left ventricle's cavity and muscle; all False where a set has none.
    """

    frames: Tensor
    masks: Tensor
    decoded: Tensor
    chosen: Tensor
    alone: Tensor


class DetailBatch(NamedTuple):
    """Inputs of the network for b triples of frames, (b, 3): two consecutive ones, and the known one, unknown here.

    With the masks (b, 3, 2, h, w) of the left ventricle.
    """

    true: Tensor
    masks: Tensor
    decoded: Tensor
    known: Tensor
    known_decoded: Tensor
    has_known: Tensor
    material: Tensor
    fresh: Tensor

    def to(self, device: torch.device) -> "DetailBatch":
        """The same batch on a device."""
        return DetailBatch(*(x.to(device) for x in self))


class DetailTask:
    """Carry the detail of one picture to others, and draw the speckle that is missing.

    The carried picture is judged by structural similarity, the displacements also by where they bring the ventricle's
    walls, if the data have masks: a few pixels of wall are most of the ejection fraction and little of a picture.
    Speckle is judged by the energy score of two draws and by its power spectrum, which leave the rest as it is.

    Args:
        network: to train; a config makes a new one.
        tokenizer: trained; stays as it is.
        data: prepared sets, or phantom patients.
        batch: pairs of frames a step.
        seed: of the batches.

    Raises:
        InputError: pictures of a size that the network cannot take, or clips of fewer than three frames.
    """

    def __init__(
        self,
        network: DetailNetwork | DetailConfig,
        tokenizer: VideoTokenizer,
        data: Sequence[Path] | PhantomDataset,
        *,
        batch: int,
        seed: int = 0,
    ) -> None:
        torch.manual_seed(seed)
        self.model = network if isinstance(network, DetailNetwork) else DetailNetwork(network)
        self._tokenizer = tokenizer
        self._coder = copy.deepcopy(tokenizer).to(fast_dtype()).eval()
        self._pool = data if isinstance(data, PhantomDataset) else ClipPool(data, 3)
        self._batch, self._seed = batch, seed
        self._decoded = lru_cache(_CLIPS)(self._decode)

    def _decode(self, entry: int) -> DecodedClip:
        """A piece of a clip with a contrast of its own, coded and decoded; a function of seed and clip."""
        frames, masks = self._pool.segmented(entry)
        patch, reduction = self._tokenizer.config.patch, self.model.config.reduction
        if any(side % patch or side % reduction for side in frames.shape[1:]):
            raise InputError(
                f"{self._pool.name(entry)}: frames of {frames.shape[1]}x{frames.shape[2]}; "
                f"expected multiples of {patch} and {reduction}"
            )
        rng = np.random.default_rng((self._seed, entry))
        odd = min(len(frames), _FRAMES) - 1 | 1
        masks = np.zeros_like(frames[:odd]) if masks is None else np.array(masks[:odd])
        frames = frames[:odd].astype(np.float32) / 255
        frames = np.clip(rng.uniform(0.85, 1.15) * frames ** rng.uniform(0.9, 1.1), 0, 1)
        video = torch.from_numpy(frames)[:, None]
        chosen = torch.from_numpy(rng.permutation(len(frames))[:_KNOWN])
        wide = video.to(fast_dtype()).expand(-1, self._tokenizer.config.channels, -1, -1)
        with torch.inference_mode():
            decoded = self._coder.decode(self._coder.encode(wide[None]))[0].mean(1, keepdim=True)
            alone = self._coder.decode(self._coder.encode(wide[chosen, None]))[:, 0].mean(1, keepdim=True)
        ventricle = torch.from_numpy(masks[:, None] == np.array(VENTRICLE)[:, None, None])
        return DecodedClip(video.half(), ventricle, decoded.half().clone(), chosen, alone.half().clone())

    def batch(self, step: int, rank: int) -> DetailBatch:
        """Pairs of frames of a few random clips."""
        rng = batch_rng(self._seed, step, rank)
        clips = [self._decoded(int(i)) for i in rng.integers(len(self._pool), size=_CLIPS_A_STEP)]
        rows = []
        for i in range(self._batch):
            clip = clips[i % len(clips)]
            place, pick = int(rng.integers(len(clip.frames) - 1)), int(rng.integers(len(clip.chosen)))
            known, alone = clip.frames[clip.chosen[pick]][None], clip.alone[pick][None]
            true = torch.cat([clip.frames[place : place + 2], known])
            masks = torch.cat([clip.masks[place : place + 2], clip.masks[clip.chosen[pick]][None]])
            decoded = torch.cat([clip.decoded[place : place + 2], alone])
            rows.append((true, masks, decoded, known.expand_as(true), alone.expand_as(true)))
        true, masks, *coded = (torch.stack(column) for column in zip(*rows, strict=True))
        decoded, known, alone = (x.float() for x in coded)
        has_known = torch.tensor([True, True, False]).expand(self._batch, -1)
        draws = torch.Generator().manual_seed(int(rng.integers(2**62)))
        count, (height, width) = _DRAWS * self._batch, true.shape[-2:]
        material = self.model.draw_noise(count, height, width, draws).unflatten(0, (_DRAWS, -1))[:, :, None]
        fresh = self.model.draw_noise(3 * count, height, width, draws).unflatten(0, (_DRAWS, -1, 3))
        return DetailBatch(true.float(), masks, decoded, known, alone, has_known, material.expand_as(fresh), fresh)

    def losses(self, model: nn.Module, batch: DetailBatch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Dissimilarity and absolute error of carried frames, outlines and walls of moved ones; speckle."""
        b = batch.to(next(model.parameters()).device)
        inputs = (b.decoded, b.known, b.known_decoded, b.has_known)
        carried, drawn = model(*(x.flatten(0, 1) for x in inputs), b.material.flatten(1, 2), b.fresh.flatten(1, 2))
        pixels, moved, _, flow = (x.unflatten(0, (-1, 3))[:, :2].flatten(0, 1) for x in carried)
        true, walls = (x[:, :2].flatten(0, 1) for x in (b.true, b.masks))
        moved_walls = displaced(b.masks[:, 2:].float().expand(-1, 2, -1, -1, -1).flatten(0, 1), flow, "bilinear")
        drawn = drawn.unflatten(1, (-1, 3)).squeeze(3)
        terms = {
            "dissimilarity": structural_dissimilarity(true, pixels),
            "absolute": _ABSOLUTE * (true - pixels).abs().mean(),
            "outlines": _ABSOLUTE * F.avg_pool2d(true - moved, _OUTLINE).abs().mean(),
            "walls": _WALLS * overlap_errors(walls, moved_walls),
            "roughness": _ROUGHNESS * (flow.diff(dim=-1).square().mean() + flow.diff(dim=-2).square().mean()),
            "speckle": _SPECKLE * energy_score(b.true[:, :2, 0], drawn[0, :, :2], drawn[1, :, :2]),
            "first_speckle": _SPECKLE * energy_score(b.true[:, 2:, 0], drawn[0, :, 2:], drawn[1, :, 2:]),
            "spectrum": _SPECTRUM * spectral_error(b.true[:, :2, 0], drawn[0, :, :2]),
            "first_spectrum": _SPECTRUM * spectral_error(b.true[:, 2:, 0], drawn[0, :, 2:]),
        }
        return torch.stack(list(terms.values())).sum(), terms

    def sample(self, model: nn.Module, folder: Path, step: int) -> None:
        """Rows for three clips: known picture, a frame, the same decoded, carried, with speckle, and speckle alone."""
        rows = []
        draws = torch.Generator().manual_seed(step)
        for entry in range(min(3, len(self._pool))):
            clip = self._decoded(entry)
            pair = [min(9, len(clip.frames) - 1)] * 2
            height, width = clip.frames.shape[-2:]
            decoded, known = clip.decoded[pair].float(), clip.frames[clip.chosen[[0, 0]]].float()
            noise = [self.model.draw_noise(2, height, width, draws)[None] for _ in range(2)]
            with torch.inference_mode():
                alone = clip.alone[[0, 0]].float()
                carried, drawn = model(decoded, known, alone, torch.tensor([True, False]), *noise)
            row = (known[0], clip.frames[pair[0]].float(), decoded[0], carried.pixels[0], drawn[0, 0], drawn[0, 1])
            rows.append(torch.cat([x[0] for x in row], dim=1))
        picture = (torch.cat(rows).clamp(0, 1) * 255).round().byte().numpy()
        Image.fromarray(picture).save(folder / f"{step:07d}.png")

    def export(self, model: nn.Module, folder: Path) -> None:
        """Writes `tokenizer/` and `detail/` of a checkpoint folder."""
        assert isinstance(model, DetailNetwork)
        save_network(self._tokenizer.float(), self._tokenizer.config, folder / "tokenizer")
        save_network(model, model.config, folder / "detail")
