import numpy as np
import pytest

from echopulse.evaluation.frechet import (
    floor_and_fair_value,
    frechet_distance,
    frechet_infinite,
    gaussian_frechet,
    half_sample_error,
    kernel_distance,
    split_in_half,
)


def _features(seed: int, count: int = 200, dims: int = 12) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, dims)) @ np.diag(np.linspace(0.2, 2, dims))


def test_distance_to_itself_vanishes_beside_the_distance_to_noise():
    x = _features(0)
    noise = x + np.random.default_rng(1).normal(size=x.shape)
    assert frechet_distance(x, x) < 1e-6 * frechet_distance(x, noise)


def test_closed_form_of_diagonal_gaussians():
    a, b = np.array([1.0, 4.0, 0.25]), np.array([9.0, 1.0, 0.25])
    expected = 2.0**2 + np.sum((np.sqrt(a) - np.sqrt(b)) ** 2)
    assert gaussian_frechet(np.zeros(3), np.diag(a), np.array([0, 2.0, 0]), np.diag(b)) == pytest.approx(expected, 1e-9)


@pytest.mark.parametrize("count", [8, 60])  # fewer and more samples than dimensions
def test_features_and_moments_agree(count):
    x, y = _features(0, count), _features(1, count) + 0.3
    expected = gaussian_frechet(x.mean(0), np.cov(x.T), y.mean(0), np.cov(y.T))
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-6)


def test_agrees_with_the_matrix_square_root():
    x, y = _features(0), 1.3 * _features(1)
    values = np.linalg.eigvals(np.cov(x.T) @ np.cov(y.T)).real
    root = np.sqrt(np.clip(values, 0, None)).sum()
    expected = np.sum((x.mean(0) - y.mean(0)) ** 2) + np.trace(np.cov(x.T)) + np.trace(np.cov(y.T)) - 2 * root
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-9)


def test_frames_of_a_clip_are_rows():
    x, y = _features(0, 60), _features(1, 60)
    assert frechet_distance(x.reshape(20, 3, 12), y.reshape(20, 3, 12)) == pytest.approx(frechet_distance(x, y))


def test_kernel_distance_is_unbiased():
    values = [kernel_distance(_features(2 * i, 30), _features(2 * i + 1, 30)) for i in range(40)]
    spread = np.std(values) / np.sqrt(len(values))
    assert abs(np.mean(values)) < 4 * spread
    assert min(values) < 0
    assert kernel_distance(_features(0), _features(1) + 1) > 0.3


def test_kernel_distance_equals_its_definition():
    x, y = _features(0, 7, 4), _features(1, 5, 4)
    k = lambda a, b: (a @ b / 4 + 1) ** 3  # noqa: E731
    xx = np.mean([k(x[i], x[j]) for i in range(7) for j in range(7) if i != j])
    yy = np.mean([k(y[i], y[j]) for i in range(5) for j in range(5) if i != j])
    xy = np.mean([k(a, b) for a in x for b in y])
    assert kernel_distance(x, y, standardize=False) == pytest.approx(xx + yy - 2 * xy)


def test_a_constant_dimension_does_not_explode():
    x, y = _features(0), _features(1)
    x[:, 0], y[:, 0] = 3.0, 4.0
    assert np.isfinite(kernel_distance(x, y))


def test_extrapolation_removes_most_of_the_bias():
    x, y = _features(0, 400, 60), _features(1, 400, 60)
    assert abs(frechet_infinite(x, y)) < 0.3 * frechet_distance(x, y)
    assert np.isnan(frechet_infinite(x[:3], y[:3]))


def test_halves_share_no_patient():
    groups = np.repeat([f"p{i}" for i in range(9)], 3)
    one, other = split_in_half(groups, np.random.default_rng(0))
    assert len(one) == len(other) >= 9
    assert not set(groups[one]) & set(groups[other])


def test_one_patient_is_split_by_clips():
    one, other = split_in_half(np.array(["p"] * 7), np.random.default_rng(0))
    assert len(one) == len(other) == 3
    assert not set(one) & set(other)


def test_floor_equals_the_value_of_a_perfect_generator():
    x, y = _features(0, 400), _features(1, 400)
    groups = np.arange(400).astype(str)
    floor, value = floor_and_fair_value(x, y, groups, frechet_distance, 0)
    assert value == pytest.approx(floor, rel=0.5)
    assert floor_and_fair_value(x, 2 * y, groups, frechet_distance, 0)[1] > 3 * floor
    assert np.isnan(floor_and_fair_value(x[:2], y[:2], groups[:2], frechet_distance, 0)[0])


def test_jackknife_matches_the_spread_over_repetitions():
    pairs = [(_features(2 * i, 100, 4), _features(2 * i + 1, 100, 4) + 1) for i in range(60)]
    spread = np.std([frechet_distance(x, y) for x, y in pairs])
    assert half_sample_error(*pairs[0], frechet_distance, 0, repeats=100) == pytest.approx(spread, rel=0.5)
