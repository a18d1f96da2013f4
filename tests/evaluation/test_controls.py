"""Controls break what they should break, and nothing else."""

import numpy as np
import pytest

from echopulse.errors import InputError
from echopulse.evaluation.controls import frozen, mean_beat, null_ecg, shift_regression, shifted_ecg, shuffled_pairs
from echopulse.signals import EcgSignal
from echopulse.signals.processing import detect_r_peaks


def ecg(num_beats: int = 6) -> EcgSignal:
    times = np.arange(500 * num_beats) / 500
    beat = np.exp(-0.5 * (((times % 1.0) - 0.5) / 0.012) ** 2)
    return EcgSignal(np.stack([beat, 0.5 * beat]), ("I", "II"), 500.0, start_s=-1.0)


@pytest.mark.parametrize(
    "subjects", [list("abcdef"), list("aaabbb"), list("aabbbc"), ["p", "q"], [f"s{i % 7}" for i in range(40)]]
)
def test_nobody_gets_an_own_ecg_and_each_is_used_once(subjects: list[str]) -> None:
    for seed in range(5):
        partner = shuffled_pairs(subjects, seed)
        assert sorted(partner) == list(range(len(subjects)))
        assert all(subjects[i] != subjects[k] for i, k in enumerate(partner))
    assert (shuffled_pairs(subjects, 1) == shuffled_pairs(subjects, 1)).all()


def test_shuffling_depends_on_the_seed() -> None:
    subjects = [f"s{i}" for i in range(40)]
    assert (shuffled_pairs(subjects, 1) != shuffled_pairs(subjects, 2)).any()


@pytest.mark.parametrize("subjects", [[], ["a"], ["a", "a", "b"]])
def test_shuffling_within_one_subject_is_refused(subjects: list[str]) -> None:
    with pytest.raises(InputError, match="other subjects"):
        shuffled_pairs(subjects)


def test_shift_moves_every_beat_and_null_has_none() -> None:
    plain = ecg()
    moved = shifted_ecg(plain, 0.2)
    np.testing.assert_allclose(detect_r_peaks(moved), detect_r_peaks(plain) + 0.2, atol=1e-6)
    flat = null_ecg(plain)
    assert not flat.samples_mv.any() and (flat.leads, flat.start_s) == (plain.leads, plain.start_s)


def test_frozen_repeats_the_first_frame() -> None:
    frames = np.random.default_rng(0).integers(0, 255, (5, 8, 8), dtype=np.uint8)
    still = frozen(frames)
    assert (still == frames[0]).all() and still.shape == frames.shape
    still[0] = 0
    assert frames[0].any()


def blinking(r_times_s: np.ndarray, times_s: np.ndarray) -> np.ndarray:
    """Brightness is the phase of the beat, from 0 to 200."""
    marks = np.concatenate([[r_times_s[0] - 1], r_times_s, [r_times_s[-1] + 1]])
    beat = np.searchsorted(marks, times_s, side="right") - 1
    phase = (times_s - marks[beat]) / np.diff(marks)[np.minimum(beat, marks.size - 2)]
    return np.broadcast_to(np.rint(200 * phase)[:, None, None], (times_s.size, 4, 4)).astype(np.uint8)


def test_mean_beat_of_a_regular_clip_is_the_clip() -> None:
    times, r = np.arange(75) / 25, np.array([0.4, 1.4, 2.4])
    frames = blinking(r, times)
    again = mean_beat(frames, times, r)
    assert again.dtype == np.uint8 and again.shape == frames.shape
    assert np.abs(again.astype(int) - frames).max() <= 3


def test_mean_beat_goes_on_at_the_mean_rate() -> None:
    times, r = np.arange(100) / 25, np.array([0.4, 1.0, 2.4, 3.0])
    brightness = mean_beat(blinking(r, times), times, r)[:, 0, 0].astype(int)
    starts = times[1:][np.diff(brightness) < -80]
    np.testing.assert_allclose(np.diff(starts), 2.6 / 3, atol=0.041)


def test_mean_beat_needs_two_beats() -> None:
    with pytest.raises(InputError, match="two R peaks"):
        mean_beat(np.zeros((5, 4, 4), np.uint8), np.arange(5) / 25, np.array([0.1]))


def test_shift_regression_by_hand() -> None:
    given = np.linspace(-0.3, 0.3, 13)
    line = shift_regression(given.tolist(), (0.8 * given + 0.02).tolist())
    assert line["slope"] == pytest.approx(0.8) and line["intercept_ms"] == pytest.approx(20)
    assert line["r"] == pytest.approx(1) and line["n"] == 13
    measured: list[float | None] = [None, *np.zeros(12).tolist()]
    blind = shift_regression(given.tolist(), measured)
    assert blind["slope"] == 0 and blind["r"] == 0 and blind["n"] == 12


def test_the_interval_of_the_slope_holds_the_truth() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(200):
        given = rng.uniform(-0.3, 0.3, 25)
        line = shift_regression(given.tolist(), (given + 0.05 * rng.standard_normal(25)).tolist())
        held += line["slope_ci95"][0] <= 1 <= line["slope_ci95"][1]
    assert 0.88 <= held / 200 <= 0.99


def test_regression_of_too_little_is_null() -> None:
    assert shift_regression([0.1, 0.2], [0.1, 0.2])["slope"] is None
    assert shift_regression([0.1, 0.1, 0.1], [0.1, 0.2, 0.1])["slope"] is None
