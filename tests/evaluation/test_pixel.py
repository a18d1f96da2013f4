import numpy as np
import pytest
import torch

from echopulse.evaluation.pixel import PSNR_CEILING_DB, pixel_scores, sector_mask, ssim_map


@pytest.fixture
def clips():
    rng = np.random.default_rng(0)
    smooth = np.add.outer(np.linspace(20, 180, 40), np.linspace(0, 60, 48))
    x = np.clip(smooth + rng.normal(0, 12, (4, 40, 48)), 0, 255).astype(np.uint8)
    return x, np.clip(x + rng.normal(0, 25, x.shape), 0, 255).astype(np.uint8)


def test_ssim_by_its_definition(clips):
    """One window worked out by hand with a full 11x11 Gaussian."""
    x, y = (torch.from_numpy(c[:1]).double() / 255 for c in clips)
    offsets = torch.arange(-5.0, 6, dtype=torch.float64)
    weight = torch.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 1.5**2))
    weight /= weight.sum()
    a, b = x[0, 3:14, 7:18], y[0, 3:14, 7:18]
    mean_a, mean_b = (weight * a).sum(), (weight * b).sum()
    var_a, var_b = (weight * (a - mean_a) ** 2).sum(), (weight * (b - mean_b) ** 2).sum()
    cov = (weight * (a - mean_a) * (b - mean_b)).sum()
    expected = (
        (2 * mean_a * mean_b + 1e-4) * (2 * cov + 9e-4) / ((mean_a**2 + mean_b**2 + 1e-4) * (var_a + var_b + 9e-4))
    )
    assert float(ssim_map(x, y)[0, 3, 7]) == pytest.approx(float(expected), abs=1e-12)


def test_agrees_with_scikit_image(clips):
    """Tolerance 1e-5: single precision against double."""
    metrics = pytest.importorskip("skimage.metrics", reason="scikit-image is not installed")
    x, y = clips
    scores = pixel_scores(x, y)
    options = dict(gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255)
    expected = np.mean([metrics.structural_similarity(a, b, **options) for a, b in zip(x, y, strict=True)])
    assert scores.ssim == pytest.approx(expected, abs=1e-5)
    assert scores.psnr == pytest.approx(metrics.peak_signal_noise_ratio(x, y, data_range=255), abs=1e-5)
    assert scores.mse == pytest.approx(metrics.mean_squared_error(x / 255, y / 255), rel=1e-6)


def test_equal_clips_are_perfect(clips):
    scores = pixel_scores(clips[0], clips[0])
    assert (scores.mse, scores.mae, scores.psnr) == (0, 0, PSNR_CEILING_DB)
    assert scores.ssim == pytest.approx(1)


def test_errors_are_means_over_all_pixels():
    x, y = np.zeros((2, 12, 12), np.uint8), np.zeros((2, 12, 12), np.uint8)
    y[0] = 51
    scores = pixel_scores(x, y)
    assert scores.mse == pytest.approx(0.02)
    assert scores.mae == pytest.approx(0.1)
    assert scores.psnr == pytest.approx(10 * np.log10(50))


def test_small_pictures_have_no_ssim():
    x = np.full((2, 10, 30), 90, np.uint8)
    assert pixel_scores(x, x).ssim is None


def test_errors_outside_the_sector_do_not_count_inside():
    x = np.zeros((3, 40, 40), np.uint8)
    x[:, 8:32, 8:32] = 120
    y = x.copy()
    y[:, :4] = 200
    scores = pixel_scores(x, y)
    assert scores.mse > 0.01
    assert scores.sector_mse == 0


def test_sector_leaves_a_burned_in_trace_out_and_fills_holes():
    frames = np.zeros((2, 50, 50), np.uint8)
    frames[:, 5:30, 5:45] = 90
    frames[:, 12:18, 20:26] = 0
    frames[:, 44:46, 5:45] = 255
    mask = sector_mask(frames)
    assert mask[14, 22] and mask[10, 10]
    assert not mask[44:].any()
    assert sector_mask(np.zeros((2, 20, 20), np.uint8)).all()
