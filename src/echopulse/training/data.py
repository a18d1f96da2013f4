"""Batches from prepared sets: a function of (seed, step, rank), so that resuming needs no state."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from echopulse.errors import InputError
from echopulse.io.sets import PreparedSet
from echopulse.training.phantom_data import PhantomDataset


class ClipPool:
    """All clips of several prepared sets.

    Args:
        folders: prepared sets.
        min_frames: shorter clips are left out.

    Raises:
        InputError: no set, or none of their clips is long enough.
    """

    def __init__(self, folders: Sequence[Path], min_frames: int) -> None:
        self.sets = [PreparedSet(folder) for folder in folders]
        self.entries = [
            (part, i) for part in self.sets for i in range(len(part)) if part.line(i)["num_frames"] >= min_frames
        ]
        if not self.entries:
            raise InputError(
                f"no clip of {min_frames} frames or more in {', '.join(map(str, folders)) or 'no set'}; "
                "make one with `echopulse simulate`"
            )

    def __len__(self) -> int:
        return len(self.entries)

    def name(self, entry: int) -> str:
        """Name of a clip within its set."""
        part, i = self.entries[entry]
        return part.ids[i]

    def frames(self, entry: int) -> np.ndarray:
        """Pictures of a clip, uint8 of shape (frames, height, width)."""
        part, i = self.entries[entry]
        return part.frames(i)

    def segmented(self, entry: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Pictures of a clip and, if its set has them, masks; uint8 of shape (frames, height, width) each."""
        part, i = self.entries[entry]
        return part.frames(i), part.masks(i)


def batch_rng(seed: int, step: int, rank: int) -> np.random.Generator:
    """The generator that all randomness of one batch comes from."""
    return np.random.default_rng((seed, step, rank))


def sample_videos(
    pool: ClipPool | PhantomDataset, rng: np.random.Generator, batch: int, frames: int, size: int
) -> Tensor:
    """Random pieces of random clips with random contrast (as in the paper's appendix) and left–right flips.

    Returns:
        float32 of shape (batch, frames, 1, size, size) in [0, 1].

    Raises:
        InputError: a clip has another size or too few frames.
    """
    videos = np.empty((batch, frames, 1, size, size), np.float32)
    for i, entry in enumerate(rng.integers(len(pool), size=batch).tolist()):
        clip = pool.frames(entry)
        if len(clip) < frames:
            raise InputError(f"{pool.name(entry)}: {len(clip)} frames; expected {frames} or more, in longer clips")
        if clip.shape[1:] != (size, size):
            raise InputError(f"{pool.name(entry)}: frames of {clip.shape[1]}x{clip.shape[2]}; expected {size}x{size}")
        stride = 2 if len(clip) >= 2 * frames and rng.uniform() < 0.25 else 1
        start = rng.integers(len(clip) - (frames - 1) * stride)
        piece = clip[start : start + (frames - 1) * stride + 1 : stride].astype(np.float32) / 255
        piece = np.clip(rng.uniform(0.75, 1.25) * piece ** rng.uniform(0.8, 1.25), 0, 1)
        videos[i, :, 0] = piece[..., ::-1] if rng.uniform() < 0.5 else piece
    return torch.from_numpy(videos)
