import numpy as np
import pytest

from echopulse.evaluation.features import resize
from echopulse.evaluation.paper_scripts import pair_frechet_minmax, pair_frechet_over_11, ssim_uniform7_224


@pytest.fixture
def features():
    rng = np.random.default_rng(0)
    return rng.normal(size=(11, 40)), rng.normal(size=(11, 40))


def test_shuffled_frames_do_not_change_the_printed_fvd(features):
    x, y = features
    assert pair_frechet_minmax(x, y[::-1]) == pytest.approx(pair_frechet_minmax(x, y))


def test_the_printed_fvd_does_not_see_scale(features):
    x, _ = features
    assert pair_frechet_minmax(x, 7 * x + 3) == pytest.approx(0, abs=1e-9)
    assert pair_frechet_over_11(x, 7 * x + 3) > 1


def test_ssim_is_scikit_images_default():
    metrics = pytest.importorskip("skimage.metrics", reason="scikit-image is not installed")
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 255, (2, 12, 64, 64), dtype=np.uint8)
    big = [np.rint(255 * resize(clip[:11], 224, 224)[:, 0].numpy()).astype(np.uint8) for clip in (x, y)]
    expected = np.mean([metrics.structural_similarity(a, b) for a, b in zip(*big, strict=True)])
    assert ssim_uniform7_224(x, y) == pytest.approx(expected, abs=1e-9)
