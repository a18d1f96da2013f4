import numpy as np
import pytest

from echopulse.evaluation.privacy import aligned_correlation, copying, coverage, nearest, standardized, thumbnail


@pytest.fixture(scope="module")
def clips():
    """Twelve different textures that move."""
    rng = np.random.default_rng(0)
    base = rng.integers(0, 255, (12, 1, 64, 64))
    motion = 40 * np.sin(np.linspace(0, 6, 32))[None, :, None, None] * rng.random((12, 1, 64, 64))
    return np.clip(base + motion, 0, 255).astype(np.uint8)


def _bank(clips):
    return np.stack([thumbnail(clip) for clip in clips])


def test_a_moved_copy_is_found(clips):
    bank = _bank(clips)
    moved = thumbnail(np.roll(np.roll(clips[3], 8, axis=0), 4, axis=2))
    correlations = aligned_correlation(bank, moved)
    assert np.argmax(correlations) == 3
    assert correlations[3] > 0.97
    assert np.delete(correlations, 3).max() < 0.8


def test_a_constant_clip_is_like_nothing():
    assert not thumbnail(np.full((5, 20, 20), 7, np.uint8)).any()


def test_copies_of_training_clips_are_told_from_new_ones(clips):
    rng = np.random.default_rng(1)
    features = rng.normal(size=(12, 6))
    bank = _bank(clips)
    train, held_out = slice(0, 6), slice(6, 12)
    among = lambda f, t: nearest(f, t, features[train], bank[train])  # noqa: E731
    copies = copying(among(features[train] + 0.01, bank[train]), among(features[held_out], bank[held_out]))
    assert copies["share_copies"] == 1
    assert copies["pixels"]["share_closer"] == copies["features"]["share_closer"] == 1
    fair = copying(among(features[held_out], bank[held_out]), among(features[held_out], bank[held_out]))
    assert fair["share_copies"] == 0
    assert fair["pixels"]["share_closer"] == 0.5


def test_excluded_pairs_do_not_count(clips):
    bank = _bank(clips)
    features = np.random.default_rng(1).normal(size=(12, 6))
    found = nearest(features, bank, features, bank, excluded=np.eye(12, dtype=bool))
    assert (found["index"] != np.arange(12)).all()
    nothing = nearest(features, bank, features, bank, excluded=np.ones((12, 12), bool))
    assert np.isnan(nothing["cosine"]).all() and (nothing["index"] == -1).all()


def test_coverage_tells_a_missing_mode():
    rng = np.random.default_rng(0)
    reference = np.concatenate([rng.normal(0, 1, (200, 3)), rng.normal(12, 1, (200, 3))])
    same = np.concatenate([rng.normal(0, 1, (200, 3)), rng.normal(12, 1, (200, 3))])
    half = rng.normal(0, 1, (400, 3))
    assert coverage(reference, same)["coverage"] > 0.9
    assert coverage(reference, same)["density"] == pytest.approx(1, abs=0.15)
    collapsed = coverage(reference, half)
    assert collapsed["coverage"] < 0.55 and collapsed["recall"] < 0.6
    assert collapsed["precision"] > 0.9


def test_standardizing_takes_scale_out_and_leaves_constants():
    x = np.random.default_rng(0).normal(3, [1, 50, 1e-12], (100, 3))
    assert standardized(x, x)[:, :2].std(axis=0) == pytest.approx(1)
    assert np.isfinite(standardized(x + 1, x)).all()
