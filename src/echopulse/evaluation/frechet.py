"""Distances between two sets of feature vectors: Fréchet, unbiased kernel (MMD), and their spread.

Features have the shape (clips, dimensions), or (clips, frames, dimensions) where a clip gives several vectors.
Sub-samples are drawn of whole clips: the frames of one clip are not independent.
"""

from collections.abc import Callable

import numpy as np

MIN_CLIPS = 2
Distance = Callable[[np.ndarray, np.ndarray], float]


def gaussian_frechet(mean_x: np.ndarray, cov_x: np.ndarray, mean_y: np.ndarray, cov_y: np.ndarray) -> float:
    """Squared Fréchet (2-Wasserstein) distance of two Gaussians given by their moments.

    `|m_x - m_y|² + tr(C_x + C_y - 2 (C_x C_y)^½)` (Dowson and Landau, 1982).

    Args:
        mean_x: shape (d,).
        cov_x: shape (d, d), symmetric and positive semi-definite.
        mean_y: shape (d,).
        cov_y: shape (d, d).
    """
    return _from_factors(mean_x, _root(cov_x), mean_y, _root(cov_y))


def frechet_distance(x: np.ndarray, y: np.ndarray) -> float:
    """Squared Fréchet distance of the Gaussians fitted to two feature sets, without a matrix square root.

    With centred and scaled features `X = (x - mean) / sqrt(n - 1)` the trace of `(C_x C_y)^½` is the nuclear norm of
    `X Yᵀ`. That is exact at any rank and never complex, unlike the usual `sqrtm` of a singular product.

    Args:
        x: features (clips, d) or (clips, frames, d).
        y: the other set; the same d.
    """
    return _from_factors(*_moments(x), *_moments(y))


def kernel_distance(x: np.ndarray, y: np.ndarray, standardize: bool = True) -> float:
    """Unbiased squared maximum mean discrepancy with the kernel `(a·b / d + 1)³` (Binkowski 2018, "KID").

    Unbiased: no sample is compared with itself, so equal distributions give 0 on average and values below 0 occur.
    Differs from KID: one statistic over all pairs instead of a mean over subsets, and by default features are
    standardized by the first set, without which large activations make the cubic kernel explode.

    Args:
        x: reference features (clips, d) or (clips, frames, d).
        y: the other set.
        standardize: subtract the mean and divide by the standard deviation of `x`, each dimension by itself.
    """
    x, y = _rows(x), _rows(y)
    if standardize:
        mean, deviation = x.mean(axis=0), x.std(axis=0)
        keep = deviation > 1e-6 * max(deviation.max(), 1e-30)
        x, y = ((values[:, keep] - mean[keep]) / deviation[keep] for values in (x, y))
    within = sum((_kernel_sum(a, a) - _kernel_diagonal(a)) / (len(a) * (len(a) - 1)) for a in (x, y))
    return float(within - 2 * _kernel_sum(x, y) / (len(x) * len(y)))


def frechet_infinite(x: np.ndarray, y: np.ndarray, seed: int = 0, points: int = 8) -> float:
    """Fréchet distance extrapolated to infinitely many clips (Chong and Forsyth 2020, arXiv 1911.07023).

    The bias of the distance falls as 1 / n: it is measured at several n between a quarter and all of the clips, and
    the straight line through it over 1 / n is read at 0. May fall slightly below 0 where the sets are alike.
    """
    count = min(len(x), len(y))
    rng = np.random.default_rng(seed)
    sizes = np.unique(np.linspace(max(count // 4, MIN_CLIPS), count, points).round().astype(int))
    if len(sizes) < 3:
        return float("nan")
    values = [frechet_distance(x[rng.permutation(len(x))[:size]], y[rng.permutation(len(y))[:size]]) for size in sizes]
    return float(np.polyfit(1 / sizes, values, 1)[1])


def split_in_half(groups: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Indices of two disjoint halves of equal size; no group (patient) is in both, where there are two groups.

    Args:
        groups: one label a clip.
        rng: source of the shuffle.
    """
    _, labels = np.unique(groups, return_inverse=True)
    order = rng.permutation(labels.max() + 1)
    if len(order) == 1:
        shuffled, middle = rng.permutation(len(labels)), len(labels) // 2
        return shuffled[:middle], shuffled[middle : 2 * middle]
    sizes = np.bincount(labels)[order].cumsum()
    first = order[: max(1, int(np.searchsorted(sizes, len(labels) / 2, side="right")))]
    in_first = np.isin(labels, first)
    one, other = np.flatnonzero(in_first), np.flatnonzero(~in_first)
    size = min(len(one), len(other))
    return rng.permutation(one)[:size], rng.permutation(other)[:size]


def floor_and_fair_value(
    reference: np.ndarray, generated: np.ndarray, groups: np.ndarray, distance: Distance, seed: int, repeats: int = 4
) -> tuple[float, float]:
    """Distance between two disjoint halves of the reference, and generated against reference at that same count.

    Args:
        reference: features of the reference.
        generated: features of the generated clips, in the order of `generated`'s own groups.
        groups: patient of every reference clip.
        distance: such as `frechet_distance`.
        seed: of the splits.
        repeats: splits that are averaged.

    Returns:
        (floor, value at the floor's count); nan where a half has fewer than two clips.
    """
    rng = np.random.default_rng(seed)
    floors, values = [], []
    for _ in range(repeats):
        one, other = split_in_half(groups, rng)
        size = min(len(one), len(generated))
        if size < MIN_CLIPS:
            return float("nan"), float("nan")
        floors.append(distance(reference[one], reference[other]))
        values.append(distance(reference[one], generated[rng.permutation(len(generated))[:size]]))
    return float(np.mean(floors)), float(np.mean(values))


def half_sample_error(x: np.ndarray, y: np.ndarray, distance: Distance, seed: int, repeats: int = 20) -> float:
    """Standard error of a distance by the delete-half jackknife (Shao and Wu 1989).

    Halves are drawn without replacement: a bootstrap would repeat clips, which moves a Fréchet distance upward. The
    same positions are drawn from both sets, so that matched sets stay matched.

    Args:
        x: features of the reference.
        y: features of as many generated clips.
        distance: such as `frechet_distance`.
        seed: of the halves.
        repeats: halves that are drawn.
    """
    rng = np.random.default_rng(seed)
    assert len(x) == len(y), (len(x), len(y))
    if len(x) < 2 * MIN_CLIPS:
        return float("nan")
    halves = (rng.permutation(len(x))[: len(x) // 2] for _ in range(repeats))
    return float(np.std([distance(x[half], y[half]) for half in halves]))


def _rows(features: np.ndarray) -> np.ndarray:
    return np.asarray(features, np.float64).reshape(-1, features.shape[-1])


def _moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean, and a factor F with FᵀF = covariance, of at most d rows."""
    rows = _rows(features)
    mean = rows.mean(axis=0)
    centered = (rows - mean) / np.sqrt(len(rows) - 1)
    if len(rows) > rows.shape[1]:
        centered = np.asarray(np.linalg.qr(centered, mode="r"))
    return mean, centered


def _from_factors(mean_x: np.ndarray, x: np.ndarray, mean_y: np.ndarray, y: np.ndarray) -> float:
    nuclear = np.linalg.svd(x @ y.T, compute_uv=False).sum()
    value = np.sum((mean_x - mean_y) ** 2) + np.sum(x**2) + np.sum(y**2) - 2 * nuclear
    return max(float(value), 0.0)


def _root(cov: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(np.asarray(cov, np.float64))
    return np.sqrt(np.clip(values, 0, None))[:, None] * vectors.T


def _kernel_sum(a: np.ndarray, b: np.ndarray, block: int = 1024) -> float:
    """Sum of the kernel over all pairs, by blocks so that memory stays small."""
    return float(sum(((a[i : i + block] @ b.T / a.shape[1] + 1) ** 3).sum() for i in range(0, len(a), block)))


def _kernel_diagonal(a: np.ndarray) -> float:
    return float(((np.sum(a**2, axis=1) / a.shape[1] + 1) ** 3).sum())
