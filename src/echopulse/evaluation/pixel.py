"""Pixel metrics of a generated clip against its reference, with the frozen first frame as baseline.

Pixels are grey in [0, 1]. Nothing here says that a heart moves well: a still picture scores high (`controls.frozen`).
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage

SSIM_WINDOW = 11
SSIM_SIGMA = 1.5
PSNR_CEILING_DB = 100.0
"""PSNR of equal clips, which is infinite, is reported as this."""
SECTOR_LEVEL = 10
"""Grey level above which a pixel counts as insonified."""


@dataclass(frozen=True)
class PixelScores:
    """Scores of one clip.

    Attributes:
        mse: mean squared error over all pixels of all frames.
        mae: mean absolute error.
        psnr: `10 log10(1 / mse)` of the clip in decibels, at most 100.
        ssim: mean over frames; None where a side is shorter than the window.
        sector_mse: mean squared error inside the ultrasound sector.
        sector_ssim: mean of the SSIM map inside the sector.
    """

    mse: float
    mae: float
    psnr: float
    ssim: float | None
    sector_mse: float
    sector_ssim: float | None


def pixel_scores(reference: np.ndarray, generated: np.ndarray, sector: np.ndarray | None = None) -> PixelScores:
    """Compares two clips frame by frame.

    Args:
        reference: uint8 (frames, height, width).
        generated: uint8 of the same shape.
        sector: bool (height, width); found in the reference if None.
    """
    assert reference.shape == generated.shape, (reference.shape, generated.shape)
    sector = sector_mask(reference) if sector is None else sector
    x, y = (torch.from_numpy(np.array(frames)).float() / 255 for frames in (reference, generated))
    difference = x - y
    square = difference.square()
    mse = float(square.double().mean())
    maps = ssim_map(x, y) if min(x.shape[1:]) >= SSIM_WINDOW else None
    inner = torch.from_numpy(sector)
    border = SSIM_WINDOW // 2
    inner_ssim = inner[border:-border, border:-border]
    return PixelScores(
        mse=mse,
        mae=float(difference.abs().double().mean()),
        psnr=float(min(-10 * np.log10(max(mse, 1e-30)), PSNR_CEILING_DB)),
        ssim=None if maps is None else float(maps.double().mean()),
        sector_mse=float(square[:, inner].double().mean()),
        sector_ssim=float(maps[:, inner_ssim].double().mean()) if maps is not None and inner_ssim.any() else None,
    )


def ssim_map(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Structural similarity (Wang 2004) of grey frames in [0, 1], window 11x11, sigma 1.5, population covariance.

    Only positions where the whole window lies inside the picture, as scikit-image with `gaussian_weights=True,
    sigma=1.5, use_sample_covariance=False, data_range=1`.

    Args:
        x: float (frames, height, width).
        y: the same shape.

    Returns:
        (frames, height - 10, width - 10).
    """
    stacked = torch.stack([x, y, x * x, y * y, x * y])
    stacked = _window_means(x.shape[1], x) @ stacked @ _window_means(x.shape[2], x).T
    mean_x, mean_y, xx, yy, xy = stacked
    variances = xx - mean_x**2 + yy - mean_y**2
    covariance = xy - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    return (2 * mean_x * mean_y + c1) * (2 * covariance + c2) / ((mean_x**2 + mean_y**2 + c1) * (variances + c2))


def _window_means(length: int, like: torch.Tensor) -> torch.Tensor:
    """Matrix (length - 10, length) whose product is the Gaussian-weighted mean of every whole window."""
    offsets = torch.arange(length) - torch.arange(length - SSIM_WINDOW + 1)[:, None] - SSIM_WINDOW // 2
    weights = torch.exp(-0.5 * (offsets.to(like) / SSIM_SIGMA) ** 2) * (offsets.abs() <= SSIM_WINDOW // 2)
    return weights / weights.sum(dim=1, keepdim=True)


def sector_mask(frames: np.ndarray) -> np.ndarray:
    """Where the ultrasound sector is: the filled largest region that is ever brighter than `SECTOR_LEVEL`.

    A burned-in trace or text that does not touch the sector is left out. The whole picture where nothing is bright.

    Args:
        frames: uint8 (frames, height, width).

    Returns:
        bool (height, width).
    """
    bright = ndimage.binary_closing(np.max(frames, axis=0) > SECTOR_LEVEL, iterations=2)
    if not bright.any():
        return np.ones(frames.shape[1:], bool)
    regions = np.asarray(ndimage.label(bright)[0])  # type: ignore[index]
    largest = 1 + int(np.argmax(np.bincount(regions.ravel())[1:]))
    return np.asarray(ndimage.binary_fill_holes(regions == largest))
