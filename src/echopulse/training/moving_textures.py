"""Synthetic clips that are no heart: textured patches that drift, turn and swell, so that a tokenizer stays general."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


def moving_textures(rng: np.random.Generator, num: int, frames: int, size: int) -> Tensor:
    """Clips of two layers of random texture with their own motion, parted by a moving blob.

    Textures are noise with a power-law spectrum (natural pictures have about `1/f²` in power) of random slope, contrast
    and brightness; a layer's motion is a random affine map that oscillates or drifts.

    Args:
        rng: where all randomness comes from.
        num: clips.
        frames: frames a clip.
        size: picture side in pixels.

    Returns:
        float32 of shape (num, frames, 1, size, size) in [0, 1].
    """
    back, front, shape = (_moved(_textures(rng, num, 2 * size, steepest), rng, frames, size) for steepest in (2, 2, 4))
    level = torch.from_numpy(rng.uniform(-1, 1, (num, 1, 1, 1, 1))).float()
    blob = torch.sigmoid(8 * (shape - level))
    contrast, brightness = (
        torch.from_numpy(rng.uniform(*limits, (2, num, 1, 1, 1, 1))).float() for limits in ((0.03, 0.25), (0.05, 0.6))
    )
    layers = [brightness[i] + contrast[i] * layer for i, layer in enumerate((back, front))]
    return (blob * layers[0] + (1 - blob) * layers[1]).clamp(0, 1)


def _textures(rng: np.random.Generator, num: int, size: int, steepest: float) -> Tensor:
    """Noise of unit variance with amplitudes falling as `1/f^a`, `a` up to `steepest`; (num, 1, size, size)."""
    slope = rng.uniform(steepest / 4, steepest, (num, 1, 1))
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(rng.standard_normal((num, size, size))) * (frequency * size) ** -slope
    noise = np.fft.irfft2(spectrum, (size, size))
    return torch.from_numpy(noise / noise.std((1, 2), keepdims=True)).float().unsqueeze(1)


def _moved(texture: Tensor, rng: np.random.Generator, frames: int, size: int) -> Tensor:
    """The texture under an affine map that changes in time; (num, frames, 1, size, size)."""
    num = len(texture)
    phase = 2 * np.pi * (rng.uniform(0, 1, (num, 1)) + rng.uniform(0, 0.1, (num, 1)) * np.arange(frames))
    swing = np.sin(phase)[..., None] * rng.normal(0, 1, (num, 1, 4)) * (0.12, 0.08, 0.06, 0.06)
    turn, swell, right, down = np.moveaxis(swing, -1, 0)
    scale = rng.uniform(0.4, 0.6, (num, 1)) * np.exp(swell)
    rows = [scale * np.cos(turn), -scale * np.sin(turn), right, scale * np.sin(turn), scale * np.cos(turn), down]
    maps = torch.from_numpy(np.stack(rows, -1)).float().view(num * frames, 2, 3)
    grid = F.affine_grid(maps, [num * frames, 1, size, size], align_corners=False)
    repeated = texture.repeat_interleave(frames, dim=0)
    moved = F.grid_sample(repeated, grid, padding_mode="reflection", align_corners=False)
    return moved.view(num, frames, 1, size, size)
