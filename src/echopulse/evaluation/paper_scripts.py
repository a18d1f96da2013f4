"""The numbers of the authors' published scripts, under names of their own, to compare with their tables only.

None of them is the metric that it was printed as. Each is a mean over pairs of one generated and one reference clip,
of their first 11 frames:

- `pair_frechet_over_11`, printed as "FID": Fréchet distance of 11 against 11 frame features of one pair, divided
  by 11. A rank of at most 10; measures reconstruction, not a distribution.
- `pair_frechet_minmax`, printed as "FVD": the same without the division, each clip's features first scaled to
  [0, 1] by themselves. Shuffling the frames does not change it, and no video network is in it.
- `ssim_uniform7_224`, printed as "SSIM": uniform 7x7 window on 8-bit frames resized to 224x224.

The scripts take features of an ImageNet network that is not shipped; here they come from whichever image network
the evaluation has, named beside the number.
"""

import numpy as np
from scipy import ndimage

from echopulse.evaluation.features import Extractor, resize
from echopulse.evaluation.frechet import frechet_distance

FRAMES = 11


def pair_features(extractor: Extractor, frames: np.ndarray, fps: float) -> np.ndarray:
    """Features of the first 11 frames, one row a frame."""
    return np.concatenate([extractor(frame[None], fps) for frame in frames[:FRAMES]])


def pair_frechet_over_11(reference: np.ndarray, generated: np.ndarray) -> float:
    """Fréchet distance of the frame features (11, d) of one pair, divided by 11."""
    return frechet_distance(reference, generated) / FRAMES


def pair_frechet_minmax(reference: np.ndarray, generated: np.ndarray) -> float:
    """Fréchet distance of one pair's frame features, each clip scaled to [0, 1] by itself."""
    return frechet_distance(_to_unit_range(reference), _to_unit_range(generated))


def ssim_uniform7_224(reference: np.ndarray, generated: np.ndarray) -> float:
    """Mean over the first 11 frames of SSIM as scikit-image computes it by default, at 224x224 and 8 bits."""
    x, y = (
        np.rint(255 * resize(frames[:FRAMES], 224, 224)[:, 0].numpy()).astype(np.float64)
        for frames in (reference, generated)
    )
    mean_x, mean_y, xx, yy, xy = (
        ndimage.uniform_filter(values, 7, axes=(1, 2))[:, 3:-3, 3:-3] for values in (x, y, x * x, y * y, x * y)
    )
    unbiased = 49 / 48
    variances = unbiased * (xx - mean_x**2 + yy - mean_y**2)
    covariance = unbiased * (xy - mean_x * mean_y)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    values = (2 * mean_x * mean_y + c1) * (2 * covariance + c2) / ((mean_x**2 + mean_y**2 + c1) * (variances + c2))
    return float(values.mean())


def _to_unit_range(features: np.ndarray) -> np.ndarray:
    low, span = features.min(axis=0), np.ptp(features, axis=0)
    return (features - low) / np.where(span > 0, span, 1)
