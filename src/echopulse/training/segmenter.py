"""The chamber segmenter: phantom pictures with masks, augmented so strongly that real and generated ones are inside."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from echopulse.axes import MASK_CLASSES
from echopulse.errors import InputError
from echopulse.models.checkpoints import save_network
from echopulse.models.segmenter import ChamberSegmenter, SegmenterConfig
from echopulse.training.data import ClipPool, batch_rng

_CLASSES = len(MASK_CLASSES)
_LV_MYOCARDIUM = MASK_CLASSES.index("lv_myocardium")
_BACKGROUND = MASK_CLASSES.index("background")


class SegmenterTask:
    """Label the pixels of single frames.

    Args:
        network: to train; a config makes a new one.
        folders: prepared sets with masks, square pictures.
        batch: frames a step.
        seed: of the batches.

    Raises:
        InputError: no set, or none of their clips has masks.
    """

    def __init__(
        self, network: ChamberSegmenter | SegmenterConfig, folders: Sequence[Path], *, batch: int, seed: int = 0
    ) -> None:
        torch.manual_seed(seed)
        self.model = network if isinstance(network, ChamberSegmenter) else ChamberSegmenter(network)
        self._entries = [(part, i) for part, i in ClipPool(folders, 1).entries if part.line(i)["masks"] is not None]
        if not self._entries:
            raise InputError(
                f"no clip with masks in {', '.join(map(str, folders))}; make some with `echopulse simulate`"
            )
        self._batch, self._seed, self._size = batch, seed, self.model.config.size

    def batch(self, step: int, rank: int) -> tuple[Tensor, Tensor]:
        """Augmented frames (batch, 1, size, size) and their classes (batch, size, size)."""
        rng = batch_rng(self._seed, step, rank)
        frames = np.empty((self._batch, self._size, self._size), np.uint8)
        masks = np.empty_like(frames)
        for row, entry in enumerate(rng.integers(len(self._entries), size=self._batch)):
            part, i = self._entries[entry]
            clip, labels = part.frames(i), part.masks(i)
            if clip.shape[1:] != (self._size, self._size):
                raise InputError(
                    f"{part.ids[i]}: frames of {clip.shape[1]}x{clip.shape[2]}; expected {self._size}x{self._size}"
                )
            assert labels is not None
            known = part.line(i)["truth"].get("mask_frames") or range(len(clip))
            t = known[int(rng.integers(len(known)))]
            frames[row], masks[row] = clip[t], labels[t]
        random = torch.Generator().manual_seed(int(rng.integers(2**63)))
        return augment(torch.from_numpy(frames)[:, None] / 255, torch.from_numpy(masks).long(), random)

    def losses(self, model: nn.Module, batch: tuple[Tensor, Tensor], step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy plus soft Dice (Milletari 2016); logs the hard Dice of cavity and muscle."""
        device = next(model.parameters()).device
        frames, masks = (x.to(device) for x in batch)
        scores = model(frames.contiguous(memory_format=torch.channels_last)).float()
        entropy = F.cross_entropy(scores, masks)
        truth = F.one_hot(masks, _CLASSES).permute(0, 3, 1, 2).float()
        overlap = dice(scores.softmax(1), truth)
        with torch.no_grad():
            hard = dice(F.one_hot(scores.argmax(1), _CLASSES).permute(0, 3, 1, 2).float(), truth)
        terms = {"entropy": entropy, "dice_loss": 1 - overlap[1:].mean()}
        return sum(terms.values()), terms | {"dice_lv": hard[1], "dice_muscle": hard[2]}  # type: ignore[return-value]

    def sample(self, model: nn.Module, folder: Path, step: int) -> None:
        """Frames above truth above answer, six augmented pictures."""
        frames, masks = (x[:6] for x in self.batch(0, 10_000))
        answer = model(frames).argmax(1)
        scale = 255 // (_CLASSES - 1)
        rows = [torch.cat(list(x), 1) for x in (255 * frames[:, 0], masks * scale, answer * scale)]
        Image.fromarray(torch.cat([row.byte() for row in rows]).numpy()).save(folder / f"{step:07d}.png")

    def export(self, model: nn.Module, folder: Path) -> None:
        """Writes `segmenter/` of a checkpoint folder, weights in half precision."""
        assert isinstance(model, ChamberSegmenter)
        half = ChamberSegmenter(model.config)
        half.load_state_dict(model.state_dict())
        save_network(half.half(), model.config, folder / "segmenter")


def dice(prediction: Tensor, truth: Tensor) -> Tensor:
    """Dice of every class over a batch, both (n, classes, h, w); 1 where a class is in neither."""
    both = (prediction * truth).sum((0, 2, 3))
    return (2 * both + 1) / (prediction.sum((0, 2, 3)) + truth.sum((0, 2, 3)) + 1)


def augment(frames: Tensor, masks: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Other shapes, other scanners, other windows, other resolutions; never mirrored, never inverted.

    One picture in two stays as it is: what is blurred away cannot be learned from the others. One in sixteen loses
    its heart to blank or noise and is background throughout, or the network would see hearts everywhere.

    Args:
        frames: (n, 1, size, size) in [0, 1].
        masks: classes (n, size, size), int64.
        random: source of all randomness here.

    Returns:
        New frames and masks of the same shapes.
    """
    changed = torch.cat([_repaint(frames, masks, random), _sector(frames)], 1)
    changed, labels = _warp(changed, masks, random)
    changed, labels = _crop_sector(changed, labels, random)
    changed, inside = changed.split(1, 1)
    changed = _degrade(_expose(changed, random), random) * inside
    kept = _chance(random, len(frames), 0.5).bool()
    frames, masks = torch.where(kept, frames, changed.clamp(0, 1)), torch.where(kept[:, 0], masks, labels)
    empty = _chance(random, len(frames), 1 / 16).bool()
    frames = torch.where(empty, _noise(random, *frames.shape[::3]) * inside, frames)
    return frames, masks.masked_fill(empty[:, 0], _BACKGROUND)


def _noise(random: torch.Generator, n: int, size: int) -> Tensor:
    """Pictures without a heart: blank or grainy, coarse or fine, dark or bright."""
    coarse, fine = (_smooth_field(random, n, size, cells) for cells in (size // 16, size // 3))
    mixture = _uniform(random, n, 0.0, 1.0)
    contrast = _chance(random, n, 0.7) * _uniform(random, n, 0.0, 0.4)
    level = _chance(random, n, 0.7) * _uniform(random, n, 0.0, 0.8)
    return (level + contrast * (mixture * coarse + (1 - mixture) * fine)).clamp(0, 1)


def _sector(frames: Tensor) -> Tensor:
    """1 between the first and the last lit pixel of every row, else 0."""
    lit = (frames > 0.01).float()
    return lit.cummax(-1).values * lit.flip(-1).cummax(-1).values.flip(-1)


def _uniform(random: torch.Generator, n: int, low: float, high: float) -> Tensor:
    """One value a picture, (n, 1, 1, 1)."""
    return low + (high - low) * torch.rand(n, 1, 1, 1, generator=random)


def _chance(random: torch.Generator, n: int, probability: float) -> Tensor:
    """1 or 0 a picture, (n, 1, 1, 1)."""
    return (torch.rand(n, 1, 1, 1, generator=random) < probability).float()


def _smooth_field(random: torch.Generator, n: int, size: int, cells: int, channels: int = 1) -> Tensor:
    """Smooth random fields of about unit deviation, (n, channels, size, size)."""
    coarse = torch.randn(n, channels, cells, cells, generator=random)
    return 1.3 * F.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=True)


def _grid(size: int) -> tuple[Tensor, Tensor]:
    """Rows and columns from -1 to 1, each (1, 1, size, size)."""
    line = torch.linspace(-1, 1, size)
    rows, columns = torch.meshgrid(line, line, indexing="ij")
    return rows[None, None], columns[None, None]


def _repaint(frames: Tensor, masks: Tensor, random: torch.Generator) -> Tensor:
    """Another brightness of muscle and of what lies around the heart, each fading in and out along the wall."""
    n, size = len(frames), frames.shape[-1]
    for label, low in ((_LV_MYOCARDIUM, 0.15), (_BACKGROUND, 0.05)):
        where = F.avg_pool2d((masks == label)[:, None].float(), 3, 1, 1)
        level = _uniform(random, n, low, 1.3) * (0.35 * _smooth_field(random, n, size, 5)).exp()
        factor = 1 + _chance(random, n, 0.6) * (level.clamp(0.05, 1.6) - 1)
        frames = frames * (1 + where * (factor - 1))
    return frames


def _warp(frames: Tensor, masks: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Rotation to 30 degrees, size, aspect, place, and a smooth random deformation."""
    n, size = len(frames), frames.shape[-1]
    rows, columns = _grid(size)
    angle = _uniform(random, n, -0.5, 0.5) * _uniform(random, n, 0.2, 1.0)
    zoom = 2 ** _uniform(random, n, -0.5, 0.45)
    aspect = 2 ** _uniform(random, n, -0.2, 0.2)
    y, x = rows + 1, columns  # about the tip of the sector
    turned_y, turned_x = angle.cos() * y - angle.sin() * x, angle.sin() * y + angle.cos() * x
    bend = _smooth_field(random, n, size, 4, 2) * _uniform(random, n, 0.0, 0.05)
    source_y = turned_y * zoom - 1 + _uniform(random, n, -0.12, 0.12) + bend[:, :1]
    source_x = turned_x * zoom * aspect + _uniform(random, n, -0.12, 0.12) + bend[:, 1:]
    grid = torch.cat([source_x, source_y], 1).permute(0, 2, 3, 1)
    warped = F.grid_sample(frames, grid, mode="bilinear", padding_mode="zeros", align_corners=True)
    labels = F.grid_sample(masks[:, None].float(), grid, mode="nearest", padding_mode="zeros", align_corners=True)
    return warped, labels[:, 0].long()


def _crop_sector(frames: Tensor, masks: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Half of the pictures seen through another, narrower sector; nothing has a class outside it."""
    n, size = len(frames), frames.shape[-1]
    rows, columns = _grid(size)
    y, x = rows + 1 - _uniform(random, n, -0.1, 0.1), columns - _uniform(random, n, -0.15, 0.15)
    angle = torch.atan2(x, y.clamp_min(1e-3)) - _uniform(random, n, -0.15, 0.15)
    inside = (angle.abs() < _uniform(random, n, 0.5, 0.85)) & (torch.hypot(x, y) < _uniform(random, n, 1.6, 2.2))
    inside = inside | ~_chance(random, n, 0.5).bool()
    return frames * inside, masks * inside[:, 0]


def _expose(frames: Tensor, random: torch.Generator) -> Tensor:
    """Gain over depth and angle, shadows along beams, near-field haze, black level, gamma."""
    n, size = len(frames), frames.shape[-1]
    rows, columns = _grid(size)
    curves = _smooth_field(random, n, size, 4)
    frames = frames * (0.3 * _chance(random, n, 0.6) * curves).exp()
    angle = torch.atan2(columns, rows + 1.02)
    for _ in range(2):
        beam = torch.exp(-(((angle - _uniform(random, n, -0.7, 0.7)) / _uniform(random, n, 0.03, 0.2)) ** 2))
        shadow = _chance(random, n, 0.4) * _uniform(random, n, 0.3, 1.0) * beam
        reach = torch.sigmoid(12 * (rows + 1 - _uniform(random, n, -0.2, 1.2)))
        frames = frames * (1 - shadow * reach)
    haze = torch.exp(-(((rows + 1) / _uniform(random, n, 0.15, 0.8)) ** 2)) * (
        1 + 0.5 * _smooth_field(random, n, size, 6)
    )
    frames = frames + _chance(random, n, 0.4) * _uniform(random, n, 0.0, 0.4) * haze.clamp_min(0)
    veil = _chance(random, n, 0.3) * _uniform(random, n, 0.0, 0.25)
    black = _chance(random, n, 0.5) * _uniform(random, n, 0.0, 0.3)
    frames = ((frames - black) / (1 - black)).clamp(0, 1.5) * (1 - veil) + veil
    gamma = 2 ** _uniform(random, n, -1.0, 1.2)
    return (_uniform(random, n, 0.7, 1.4) * frames.clamp_min(1e-4) ** gamma).clamp(0, 1)


def _degrade(frames: Tensor, random: torch.Generator) -> Tensor:
    """Speckle and electronic noise, then the blur of a coarse picture or of a codec, each in a part of the batch."""
    n, size = len(frames), frames.shape[-1]
    grain = torch.randn(n, 1, size, size, generator=random)
    coarse = F.interpolate(
        torch.randn(n, 1, size // 2, size // 2, generator=random), size=(size, size), mode="bilinear"
    )
    frames = frames * (1 + _chance(random, n, 0.5) * _uniform(random, n, 0.0, 0.6) * coarse)
    frames = frames + _chance(random, n, 0.4) * _uniform(random, n, 0.0, 0.1) * grain
    blurred = frames
    mixed = frames
    for step, kernel in enumerate((3, 3, 5, 5)):  # repeated box filters are nearly Gaussian, deviation up to 3 pixels
        blurred = F.avg_pool2d(blurred, kernel, 1, kernel // 2, count_include_pad=False)
        mixed = torch.where(_chance(random, n, 0.5 if step == 0 else 0.25).bool(), blurred, mixed)
    side = int(torch.randint(size // 3, size, (1,), generator=random))
    small = F.interpolate(mixed, size=(side, side), mode="bilinear", antialias=True)
    again = F.interpolate(small, size=(size, size), mode="bilinear")
    return torch.where(_chance(random, n, 0.5).bool(), again, mixed)
