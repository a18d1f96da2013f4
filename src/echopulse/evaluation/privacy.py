"""Diversity and copying: how much of the reference is covered, and whether generated clips are copies."""

from typing import Any

import numpy as np

from echopulse.evaluation.features import evenly_spaced, resize

CANDIDATES = 8
"""Neighbours by features whose pixels are aligned and compared."""
THUMBNAIL = (16, 32, 32)
MAX_SHIFT = 3
COPY_CORRELATION = 0.995
"""Aligned thumbnails that correlate more than this are the same recording."""


def standardized(features: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Features (clips, d) with the reference's mean and deviation taken out of every dimension."""
    deviation = reference.std(axis=0)
    return (features - reference.mean(axis=0)) / np.where(deviation > 1e-6 * max(deviation.max(), 1e-30), deviation, 1)


def coverage(reference: np.ndarray, generated: np.ndarray, k: int = 5) -> dict[str, float]:
    """Density and coverage (Naeem 2020), precision and recall (Kynkäänniemi 2019).

    `coverage`: share of reference clips with a generated one nearer than their k-th reference neighbour.
    `density`: mean number of such balls around reference clips that hold a generated clip, over k; 1 is expected.
    `recall`: share of reference clips inside a ball around a generated clip; `precision`: the other way round.

    Args:
        reference: features (n, d).
        generated: features (m, d).
        k: neighbours; lowered where a set is smaller.
    """
    k = min(k, len(reference) - 1, len(generated) - 1)
    across = distances(reference, generated)
    radius_r = np.sort(distances(reference, reference), axis=1)[:, k]
    radius_g = np.sort(distances(generated, generated), axis=1)[:, k]
    inside = across < radius_r[:, None]
    return {
        "precision": float(inside.any(axis=0).mean()),
        "recall": float((across < radius_g).any(axis=1).mean()),
        "density": float(inside.sum(axis=0).mean() / k),
        "coverage": float((across.min(axis=1) < radius_r).mean()),
        "k": k,
    }


def distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Euclidean distances of all pairs, (n, m)."""
    squares = np.sum(x**2, axis=1)[:, None] + np.sum(y**2, axis=1) - 2 * x @ y.T
    return np.sqrt(np.clip(squares, 0, None))


def thumbnail(frames: np.ndarray) -> np.ndarray:
    """A clip reduced to `THUMBNAIL`, zero mean and unit length, float16; zeros where it is constant."""
    count, height, width = THUMBNAIL
    small = resize(frames[evenly_spaced(len(frames), count)], height, width)[:, 0].numpy()
    small = small[np.arange(count) * len(small) // count]  # shorter clips repeat frames
    small = small - small.mean()
    length = np.linalg.norm(small)
    return (small / length if length > 1e-6 else np.zeros_like(small)).astype(np.float16)


def aligned_correlation(thumbnails: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Largest correlation over all circular shifts in time and up to 3 thumbnail pixels in space.

    Args:
        thumbnails: (n, 16, 32, 32) from `thumbnail`.
        other: one thumbnail.

    Returns:
        (n,) in [-1, 1].
    """
    axes = (1, 2, 3)
    product = np.fft.rfftn(thumbnails.astype(np.float32), axes=axes) * np.conj(
        np.fft.rfftn(other[None].astype(np.float32), axes=axes)
    )
    correlation = np.fft.irfftn(product, s=THUMBNAIL, axes=axes)
    near = np.r_[: MAX_SHIFT + 1, -MAX_SHIFT:0]
    return correlation[:, :, near][:, :, :, near].max(axis=axes)


def nearest(
    features: np.ndarray,
    thumbnails: np.ndarray,
    bank_features: np.ndarray,
    bank_thumbnails: np.ndarray,
    excluded: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """The most similar clip of a bank for every clip.

    Args:
        features: standardized features (n, d).
        thumbnails: (n, 16, 32, 32).
        bank_features: (m, d), standardized in the same way.
        bank_thumbnails: (m, 16, 32, 32).
        excluded: bool (n, m); pairs that do not count.

    Returns:
        `cosine`: largest cosine similarity of features; `correlation`: largest aligned correlation of pixels among
        the `CANDIDATES` nearest by features; `index`: the clip that has it. Each (n,); nan and -1 where none counts.
    """
    cosine = _unit(features) @ _unit(bank_features).T
    if excluded is not None:
        cosine = np.where(excluded, -np.inf, cosine)
    best, index = np.full(len(features), np.nan), np.full(len(features), -1)
    for i, row in enumerate(cosine):
        candidates = np.argsort(-row)[:CANDIDATES]
        candidates = candidates[np.isfinite(row[candidates])]
        if candidates.size:
            correlations = aligned_correlation(bank_thumbnails[candidates], thumbnails[i])
            best[i], index[i] = correlations.max(), candidates[np.argmax(correlations)]
    largest = cosine.max(axis=1)
    return {"cosine": np.where(np.isfinite(largest), largest, np.nan), "correlation": best, "index": index}


def copying(generated: dict[str, np.ndarray], held_out: dict[str, np.ndarray]) -> dict[str, Any]:
    """Are generated clips closer to the training clips than clips that were held out of training are?

    Args:
        generated: `nearest` of the generated clips among the training clips.
        held_out: `nearest` of clips that were never trained on, among the same.

    Returns:
        By pixels and by features: `share_closer`, the chance that a generated clip is closer to training than a
        held-out clip (0.5 is expected, more hints at copying), and `share_above_95th`, the share closer than 95 % of
        the held-out clips (0.05 is expected); `share_copies`, the share whose aligned correlation exceeds 0.995.
    """
    result: dict[str, Any] = {}
    for name, key in (("pixels", "correlation"), ("features", "cosine")):
        mine, theirs = generated[key], held_out[key]
        wins = (mine[:, None] > theirs).mean() + 0.5 * (mine[:, None] == theirs).mean()
        result[name] = {
            "share_closer": float(wins),
            "share_above_95th": float((mine > np.percentile(theirs, 95)).mean()),
        }
    result["share_copies"] = float((generated["correlation"] > COPY_CORRELATION).mean())
    return result


def _unit(features: np.ndarray) -> np.ndarray:
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
