"""When the heart beats: rate, irregularity, premature beats, P waves; and the volume curve tied to it."""

import numpy as np
import pytest

from echopulse.phantom import RHYTHMS
from echopulse.phantom.mechanics import simulate_volume
from echopulse.phantom.rhythm import MARGIN_S, Beats, Rhythm, simulate_beats


def _beats(rhythm: Rhythm, heart_rate_bpm: float = 70.0, seed: int = 0) -> Beats:
    return simulate_beats(
        np.random.default_rng(seed),
        rhythm,
        heart_rate_bpm=heart_rate_bpm,
        duration_s=120.0,
        qtc_s=0.41,
        pr_s=0.16,
        respiration_hz=0.25,
    )


@pytest.mark.parametrize("rhythm", RHYTHMS)
@pytest.mark.parametrize("rate", [45.0, 75.0, 150.0])
def test_beats_are_in_order_and_cover_the_record(rhythm: Rhythm, rate: float) -> None:
    beats = _beats(rhythm, rate)
    assert beats.r_s[0] < 0 and beats.r_s[-1] > 120 + MARGIN_S - 0.01
    assert (np.diff(beats.r_s) > 0.25).all()
    np.testing.assert_allclose(beats.rr_s[1:], np.diff(beats.r_s))
    assert (beats.t_end_s > beats.r_s + 0.1).all() and (beats.t_end_s[:-1] < beats.r_s[1:]).all()
    p = beats.p_onset_s
    assert ((p < beats.r_s - 0.1) | np.isnan(p)).all()


@pytest.mark.parametrize("rhythm", RHYTHMS)
@pytest.mark.parametrize("rate", [40.0, 72.0, 130.0])
def test_heart_rate_is_the_one_asked_for(rhythm: Rhythm, rate: float) -> None:
    """Median over 2 minutes, within 5 %; fast fibrillation is slowed by the refractory 0.34 s."""
    measured = 60 / np.median(np.diff(_beats(rhythm, rate).r_s))
    assert measured == pytest.approx(rate, rel=0.05)


def test_sinus_and_paced_rhythms_are_regular() -> None:
    sinus, paced = (np.diff(_beats(rhythm).r_s) for rhythm in ("sinus", "paced"))  # type: ignore[arg-type]
    assert 0.01 < np.std(sinus) / np.mean(sinus) < 0.06
    assert np.ptp(paced) < 1e-9


def test_fibrillation_is_irregular_without_p_waves_and_without_memory() -> None:
    beats = _beats("af")
    intervals = np.diff(beats.r_s)
    assert np.std(intervals) / np.mean(intervals) > 0.1
    assert np.isnan(beats.p_onset_s).all()
    assert abs(np.corrcoef(intervals[:-1], intervals[1:])[0, 1]) < 0.25


@pytest.mark.parametrize(("rhythm", "has_p"), [("sinus", True), ("lbbb", True), ("paced", False)])
def test_p_waves(rhythm: Rhythm, has_p: bool) -> None:
    p = _beats(rhythm).p_onset_s
    assert np.isfinite(p).all() if has_p else np.isnan(p).all()


def test_ventricular_beats_are_premature_and_followed_by_a_full_pause() -> None:
    beats = _beats("pvc")
    early = [i for i, kind in enumerate(beats.kinds[:-1]) if kind == "pvc"]
    assert len(early) >= 5 and set(beats.kinds) == {"pvc", "sinus"}
    normal = 60 / 70
    for i in early:
        assert beats.kinds[i + 1] == "sinus", "two in a row"
        assert beats.rr_s[i] < 0.8 * normal and beats.rr_s[i + 1] > 1.2 * normal
        assert beats.rr_s[i] + beats.rr_s[i + 1] == pytest.approx(2 * normal, rel=0.12), "the sinus node keeps its beat"
        assert np.isnan(beats.p_onset_s[i]) and np.isfinite(beats.p_onset_s[i + 1])


def test_qt_follows_the_rate() -> None:
    qt = {rate: np.median(_beats("paced", rate).t_end_s - _beats("paced", rate).r_s) + 0.07 for rate in (50.0, 100.0)}
    assert qt[50.0] / qt[100.0] == pytest.approx(2 ** (1 / 3), rel=0.02)


# volume ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rhythm", RHYTHMS)
@pytest.mark.parametrize("rate", [45.0, 75.0, 140.0])
@pytest.mark.parametrize("ef", [0.2, 0.65])
def test_volume_has_its_extremes_at_r_and_t_end(rhythm: Rhythm, rate: float, ef: float) -> None:
    beats = _beats(rhythm, rate)
    curve = simulate_volume(beats, edv_ml=120.0, ef=ef)
    np.testing.assert_allclose(curve.volume_ml(beats.r_s[:-1]), curve.edv_ml[:-1], rtol=1e-6)
    np.testing.assert_allclose(curve.volume_ml(beats.t_end_s[:-1]), curve.esv_ml[:-1], rtol=1e-6)
    for i in range(1, len(beats.r_s) - 2):
        ejection = curve.volume_ml(np.linspace(beats.r_s[i], beats.t_end_s[i], 50))
        filling = curve.volume_ml(np.linspace(beats.t_end_s[i], beats.r_s[i + 1], 50))
        assert (np.diff(ejection) <= 1e-9).all(), "volume rises in systole"
        assert (np.diff(filling) >= -1e-9).all(), "volume falls in diastole"
    assert (curve.esv_ml > 0).all() and (curve.edv_ml < 1.09 * 120).all()


@pytest.mark.parametrize("ef", [0.2, 0.4, 0.65])
def test_regular_beats_have_the_nominal_ejection_fraction(ef: float) -> None:
    curve = simulate_volume(_beats("sinus"), edv_ml=120.0, ef=ef)
    np.testing.assert_allclose(1 - curve.esv_ml / curve.edv_ml, ef, atol=1e-6)


def test_premature_beat_ejects_less_than_the_one_after_the_pause() -> None:
    beats = _beats("pvc")
    curve = simulate_volume(beats, edv_ml=120.0, ef=0.6)
    stroke = curve.edv_ml - curve.esv_ml
    early = [i for i, kind in enumerate(beats.kinds[:-1]) if kind == "pvc" and i]
    assert all(stroke[i] < stroke[i - 1] and stroke[i] < 0.8 * stroke[i + 1] for i in early)


def test_atrial_kick_is_missing_without_p_waves() -> None:
    """Share of the filling in the last 80 ms before the R peak, at one regular rate."""
    shares = {}
    for rhythm in ("sinus", "paced"):
        beats = _beats(rhythm, 60.0)  # type: ignore[arg-type]
        curve = simulate_volume(beats, edv_ml=120.0, ef=0.6)
        late = curve.edv_ml[5:-5] - curve.volume_ml(beats.r_s[5:-5] - 0.08)
        shares[rhythm] = float(np.mean(late / (curve.edv_ml - curve.esv_ml)[5:-5]))
    assert shares["sinus"] > 2 * shares["paced"]
