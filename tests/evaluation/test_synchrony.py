"""Beats matched one to one, known delays read back, an oracle told from a generator that ignores the ECG."""

import numpy as np
import pytest

from echopulse.evaluation.controls import shift_regression
from echopulse.evaluation.synchrony import (
    circular_statistics,
    clip_synchrony,
    curve_shift_s,
    paired_ms,
    summarize_synchrony,
)
from echopulse.phantom.mechanics import simulate_volume
from echopulse.phantom.rhythm import Beats, simulate_beats
from echopulse.signals.ventricle import LvBeats, find_beats

FPS, SECONDS = 25.0, 3.0
TIMES = np.arange(round(FPS * SECONDS)) / FPS


def rhythm(seed: int, rhythm: str = "sinus", rate_bpm: float = 70.0) -> Beats:
    return simulate_beats(
        np.random.default_rng(seed),
        rhythm,  # type: ignore[arg-type]
        heart_rate_bpm=rate_bpm,
        duration_s=8.0,
        qtc_s=0.41,
        pr_s=0.16,
        respiration_hz=0.25,
    )


def volumes(beats: Beats, delay_s: float = 0.0, noise: float = 0.01, seed: int = 0) -> np.ndarray:
    """The phantom's volume curve of a rhythm, everything `delay_s` later, with the noise of a segmenter."""
    rng = np.random.default_rng((seed, 1))
    curve = simulate_volume(beats, edv_ml=120, ef=0.6).volume_ml(TIMES - delay_s)
    return curve * (1 + noise * rng.standard_normal(curve.size))


def score(curve: np.ndarray, beats: Beats):
    return clip_synchrony(find_beats(curve, TIMES), beats.r_s, beats.t_end_s, start_s=0, end_s=SECONDS, fps=FPS)


def lv_beats(ed: list[float], es: list[float]) -> LvBeats:
    none = np.empty(0)
    return LvBeats(np.array(ed), np.array(es), none, none, None, "", none, none, None)


@pytest.mark.parametrize("kind", ["sinus", "af", "lbbb", "pvc"])
def test_the_phantom_itself_is_in_time(kind: str) -> None:
    clips = [score(volumes(beats, seed=seed), beats) for seed in range(12) for beats in [rhythm(seed, kind)]]
    summary = summarize_synchrony(clips)
    assert summary["ed_ms"]["median_abs"] < 40 and abs(summary["ed_ms"]["bias"]) < 40
    assert summary["es_ms"]["median_abs"] < 40 and abs(summary["es_ms"]["bias"]) < 40
    assert summary["matched_beats"] > 30 and summary["missed_beats"] == summary["extra_beats"] == 0
    assert summary["phase"]["ed"]["resultant"] > 0.9


def test_a_known_delay_is_read_back() -> None:
    seeds = range(10)
    base, late = (
        summarize_synchrony([score(volumes(rhythm(s), delay, seed=s), rhythm(s)) for s in seeds])
        for delay in (0.0, 0.12)
    )
    for name in ("ed_ms", "es_ms"):
        assert late[name]["bias"] - base[name]["bias"] == pytest.approx(120, abs=12)
        assert late[name]["within_frame"] < base[name]["within_frame"]


def test_rate_by_the_curve_alone() -> None:
    for rate in (50.0, 75.0, 120.0):
        beats = rhythm(3, "paced", rate)
        assert score(volumes(beats), beats).curve_rate_bpm == pytest.approx(rate, rel=0.03)
        assert score(volumes(beats), beats).ecg_rate_bpm == pytest.approx(rate, rel=0.01)


def test_missed_and_extra_beats_are_counted() -> None:
    r = np.array([0.2, 1.0, 1.8, 2.6])
    t_end = r + 0.33
    found = clip_synchrony(lv_beats([0.22, 0.5, 1.85], [0.55, 0.8, 2.15]), r, t_end, start_s=0, end_s=3, fps=25)
    assert (found.matched, found.missed, found.extra) == (2, 1, 1)  # the fourth beat leaves the clip
    np.testing.assert_allclose(found.ed_ms, [20, 50])
    np.testing.assert_allclose(found.es_ms, [20, 20])


def test_a_beat_that_begins_with_the_clip_is_not_extra() -> None:
    r, ed, es = np.array([0.8, 1.6]), [0.03, 0.8, 1.6], [0.35, 1.1, 1.9]  # the first R peak, at 0, was cut off
    found = clip_synchrony(lv_beats(ed, es), r, r + 0.33, start_s=0, end_s=3, fps=25)
    assert (found.matched, found.missed, found.extra) == (2, 0, 0)


def test_missing_t_ends_are_left_out_and_not_invented() -> None:
    r = np.array([0.2, 1.0, 1.8])
    t_end = np.array([np.nan, 1.3, np.nan])
    found = clip_synchrony(lv_beats([0.2, 1.0, 1.8], [0.5, 1.35, 2.1]), r, t_end, start_s=0, end_s=3, fps=25)
    np.testing.assert_allclose(found.es_ms, [50])
    assert found.matched == 3


def test_nothing_found_and_no_ecg() -> None:
    nothing = lv_beats([], [])
    found = clip_synchrony(nothing, np.array([0.5, 1.3]), np.array([0.8, 1.6]), start_s=0, end_s=3, fps=25)
    assert (found.matched, found.missed, found.extra) == (0, 2, 0)
    found = clip_synchrony(lv_beats([0.5], [0.8]), np.empty(0), np.empty(0), start_s=0, end_s=3, fps=25)
    assert (found.matched, found.missed, found.extra) == (0, 0, 1)
    summary = summarize_synchrony([found])
    assert summary["ed_ms"] is None and summary["phase"]["ed"] is None and summary["heart_rate_bpm"] is None
    assert summarize_synchrony([])["matched_beats"] == 0


def test_pairs_of_the_same_beat() -> None:
    ed, es = paired_ms(lv_beats([0.25, 1.9], [0.6, 2.2]), lv_beats([0.2, 1.0, 1.8], [0.5, 1.3, 2.1]))
    np.testing.assert_allclose(ed, [50, 100])
    np.testing.assert_allclose(es, [100, 100])


def test_shuffled_ecg_gives_chance() -> None:
    beats = [rhythm(seed, rate_bpm=60 + 3 * seed) for seed in range(24)]
    own = summarize_synchrony([score(volumes(b, seed=s), b) for s, b in enumerate(beats)])
    other = summarize_synchrony([score(volumes(b, seed=s), beats[(s + 7) % 24]) for s, b in enumerate(beats)])
    assert own["phase"]["ed"]["resultant"] > 0.95
    assert other["phase"]["ed"]["resultant"] < 0.35
    assert other["ed_ms"]["median_abs"] > 100 > own["ed_ms"]["median_abs"]


def test_shift_slope_tells_an_oracle_from_a_blind_generator() -> None:
    rng = np.random.default_rng(5)
    given, oracle, blind = [], [], []
    for seed in range(30):
        beats = rhythm(seed, rate_bpm=float(rng.uniform(55, 100)))
        period = float(np.diff(beats.r_s).mean())
        shift = float(rng.uniform(-0.35, 0.35)) * period
        plain = volumes(beats, seed=seed)
        given.append(shift)
        oracle.append(curve_shift_s(volumes(beats, shift, seed=seed + 100), plain, FPS, period))
        blind.append(curve_shift_s(volumes(beats, seed=seed + 100), plain, FPS, period))
    assert shift_regression(given, oracle)["slope"] == pytest.approx(1, abs=0.05)
    assert abs(shift_regression(given, blind)["slope"]) < 0.05


def test_shift_of_a_flat_curve_is_none() -> None:
    curve = volumes(rhythm(1))
    assert curve_shift_s(np.full(75, 3.0), curve, FPS, 0.8) is None
    assert curve_shift_s(curve[:10], curve[:10], FPS, 0.8) is None
    curve[5] = np.nan
    assert curve_shift_s(curve, volumes(rhythm(1)), FPS, 0.8) == pytest.approx(0, abs=0.01)


def test_circular_statistics() -> None:
    same = circular_statistics(np.full(20, np.pi))
    assert same is not None and same["resultant"] == pytest.approx(1) and same["rayleigh_p"] < 1e-6
    assert abs(same["mean_deg"]) == pytest.approx(180)
    even = circular_statistics(np.linspace(0, 2 * np.pi, 20, endpoint=False))
    assert even is not None and even["resultant"] == pytest.approx(0, abs=1e-9) and even["rayleigh_p"] > 0.9
    rng = np.random.default_rng(0)
    uniform = [circular_statistics(rng.uniform(0, 2 * np.pi, 30)) for _ in range(300)]
    assert np.mean([x["rayleigh_p"] < 0.05 for x in uniform if x]) == pytest.approx(0.05, abs=0.035)
