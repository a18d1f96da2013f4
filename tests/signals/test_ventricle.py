"""Volumes of known bodies, EF and times of known curves, no bias by noise, agreement by hand."""

import numpy as np
import pytest

from echopulse.axes import MASK_CLASSES
from echopulse.errors import InputError
from echopulse.phantom import sample_patient, simulate_clip
from echopulse.signals.ventricle import LvBeats, biplane_curve, find_beats, lv_curve

LV, LA = MASK_CLASSES.index("lv_cavity"), MASK_CLASSES.index("left_atrium")


def ellipse(half_length: float, half_width: float, turn_rad: float = 0.0, size: int = 128) -> np.ndarray:
    """One frame whose cavity is an ellipse, its long axis turned away from the vertical."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    along, across = y * np.cos(turn_rad) + x * np.sin(turn_rad), x * np.cos(turn_rad) - y * np.sin(turn_rad)
    return np.where((along / half_length) ** 2 + (across / half_width) ** 2 <= 1, LV, 0).astype(np.uint8)


def beating(
    fps: float = 25.0, seconds: float = 3.0, rate_bpm: float = 70.0, ef: float = 60.0, first_s: float = 0.3
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A smooth volume curve: times, volumes and the times of its maxima; the minima lie 0.35 s later."""
    times = np.arange(round(seconds * fps)) / fps
    rr = 60 / rate_bpm
    phase = (times - first_s) % rr
    down = 0.5 * (1 - np.cos(np.pi * phase / 0.35))
    up = 0.5 * (1 + np.cos(np.pi * (phase - 0.35) / (rr - 0.35)))
    volumes = 120 * (1 - ef / 100 * np.where(phase < 0.35, down, up))
    return times, volumes, first_s + rr * np.arange(np.ceil((seconds - first_s) / rr))


# volumes


@pytest.mark.parametrize("turn_rad", [0.0, 0.3, -0.5])
def test_disks_and_area_length_give_the_volume_of_an_ellipsoid(turn_rad: float) -> None:
    true = 4 / 3 * np.pi * 40 * 20**2
    masks = ellipse(40, 20, turn_rad)[None]
    assert lv_curve(masks)[0] == pytest.approx(true, rel=0.02)
    assert lv_curve(masks, method="area_length")[0] == pytest.approx(true, rel=0.02)


def test_spacing_gives_millilitres() -> None:
    masks = ellipse(40, 20)[None]
    assert lv_curve(masks, spacing_cm=0.1)[0] == pytest.approx(lv_curve(masks)[0] / 1000)


def test_biplane_takes_both_widths_and_the_longer_axis() -> None:
    four, two = ellipse(40, 20)[None], ellipse(40, 26)[None]
    assert biplane_curve(four, two)[0] == pytest.approx(4 / 3 * np.pi * 40 * 20 * 26, rel=0.02)
    finer = ellipse(60, 39, size=160)[None]
    assert biplane_curve(four, finer, spacing_cm=(0.15, 0.1))[0] == pytest.approx(4 / 3 * np.pi * 6 * 3 * 3.9, rel=0.02)
    assert biplane_curve(four, ellipse(36, 26)[None])[0] == pytest.approx(4 / 3 * np.pi * 40 * 20 * 26, rel=0.02)


def test_biplane_refuses_other_instants() -> None:
    with pytest.raises(InputError, match="same instants"):
        biplane_curve(np.zeros((3, 64, 64), np.uint8), np.zeros((4, 64, 64), np.uint8))


def test_a_frame_without_cavity_is_nan_and_spoils_no_other() -> None:
    masks = np.stack([ellipse(40, 20), np.zeros((128, 128), np.uint8)])
    volumes = lv_curve(masks)
    assert np.isnan(volumes[1]) and volumes[0] == pytest.approx(4 / 3 * np.pi * 40 * 20**2, rel=0.02)


def test_left_atrium_sets_the_axis_of_a_round_ventricle() -> None:
    frame = ellipse(30, 30)
    frame[95:110, 50:78] = LA
    assert lv_curve(frame[None])[0] == pytest.approx(4 / 3 * np.pi * 30**3, rel=0.03)


def test_ef_of_the_phantom_from_its_masks() -> None:
    errors = []
    for seed, view in ((1_000_100, "a4c"), (1_000_101, "a2c"), (1_000_102, "a4c")):
        paired = simulate_clip(sample_patient(seed, view=view, rhythm="sinus"), seconds=2.4)
        assert paired.masks is not None
        beats = find_beats(lv_curve(paired.masks), paired.clip.frame_times_s)
        assert beats.ef_percent is not None
        errors.append(beats.ef_percent - paired.truth["ef_percent"])
    assert np.abs(errors).max() < 1.5


# beats


@pytest.mark.parametrize("fps", [15.0, 25.0, 50.0])
def test_extremes_are_found_between_the_frames(fps: float) -> None:
    times, volumes, peaks = beating(fps)
    beats = find_beats(volumes, times)
    whole = peaks[peaks + 0.4 < 3.0]
    np.testing.assert_allclose(beats.ed_s, whole, atol=0.02)
    np.testing.assert_allclose(beats.es_s, whole + 0.35, atol=0.02)
    assert beats.ef_percent == pytest.approx(60, abs=0.5) and beats.reason == ""
    assert beats.period_s == pytest.approx(60 / 70, abs=0.01)


def test_noise_does_not_raise_the_ef_as_argmax_does() -> None:
    rng = np.random.default_rng(0)
    times, volumes, _ = beating(30.0, 2.5)
    found, bare = [], []
    for _ in range(60):
        noisy = volumes * (1 + 0.04 * rng.standard_normal(volumes.size))
        found.append((find_beats(noisy, times).ef_percent or 0) - 60)
        bare.append(100 * (1 - noisy.min() / noisy.max()) - 60)
    assert np.mean(bare) > 3
    assert abs(np.mean(found)) < 1


def test_a_beat_cut_by_the_start_of_the_clip_does_not_count() -> None:
    times, volumes, _ = beating(first_s=-0.15)
    beats = find_beats(volumes, times)
    assert beats.ed_s[0] > 0.5


@pytest.mark.parametrize(("end_s", "count"), [(2.95, 3), (3.05, 3), (3.15, 3), (3.21, 3), (3.33, 4), (3.45, 4)])
def test_the_last_beat_counts_once_its_ejection_is_seen(end_s: float, count: int) -> None:
    times, volumes, peaks = beating(seconds=end_s)  # the fourth ejection lasts from 2.87 to 3.22 s
    beats = find_beats(volumes, times)
    np.testing.assert_allclose(beats.es_s, peaks[:count] + 0.35, atol=0.03)
    assert beats.ef_percent == pytest.approx(60, abs=1)


def test_ed_without_atrial_kick_is_near_the_fall_and_not_anywhere_on_the_plateau() -> None:
    times = np.arange(90) / 30
    rng = np.random.default_rng(3)
    phase = (times - 0.7) % 1.2
    shape = np.interp(phase, [0, 0.06, 0.35, 0.6, 1.2], [0, 0, 1, 0, 0])
    beats = find_beats(120 - 60 * shape + 1.5 * rng.standard_normal(90), times)
    np.testing.assert_allclose(beats.ed_s, [0.7, 1.9], atol=0.13)


def test_frozen_clip_has_no_beat_and_no_ef() -> None:
    times = np.arange(75) / 25
    for volumes in (np.full(75, 100.0), 100 + 0.2 * np.random.default_rng(1).standard_normal(75)):
        beats = find_beats(volumes, times)
        assert beats.ed_s.size == 0 and beats.period_s is None
        assert beats.ef_percent is not None and beats.ef_percent < 1 and "no complete beat" in beats.reason


def test_gaps_are_bridged_and_too_many_are_refused() -> None:
    times, volumes, _ = beating()
    volumes[[3, 20, 21]] = np.nan
    assert find_beats(volumes, times).ef_percent == pytest.approx(60, abs=1)
    volumes[10:50] = np.nan
    beats = find_beats(volumes, times)
    assert beats.ef_percent is None and "34 of 75 frames" in beats.reason
    assert isinstance(find_beats(volumes[:3], times[:3]), LvBeats)
