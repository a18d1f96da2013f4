import numpy as np
import pytest

from echopulse.evaluation.statistics import cluster_bootstrap, ef_agreement, size_warnings


def test_interval_covers_the_mean_of_independent_patients():
    rng = np.random.default_rng(0)
    values = rng.normal(5, 2, 200)
    low, high = cluster_bootstrap(lambda i: values[i].mean(), [str(i) for i in range(200)], draws=500)
    assert low < 5 < high
    assert high - low == pytest.approx(2 * 1.96 * 2 / np.sqrt(200), rel=0.3)


def test_clips_of_one_patient_do_not_count_as_independent():
    rng = np.random.default_rng(0)
    values = np.repeat(rng.normal(size=20), 10)
    patients = [f"p{i // 10}" for i in range(200)]
    clustered = cluster_bootstrap(lambda i: values[i].mean(), patients, draws=500)
    naive = cluster_bootstrap(lambda i: values[i].mean(), [str(i) for i in range(200)], draws=500)
    assert np.diff(clustered) > 2 * np.diff(naive)


def test_no_interval_where_it_would_mean_nothing():
    assert cluster_bootstrap(lambda i: 1.0, ["a", "a"], draws=100) is None
    assert cluster_bootstrap(lambda i: float("nan"), ["a", "b"], draws=100) is None


def test_same_seed_same_interval():
    values = np.arange(30.0)
    patients = [str(i) for i in range(30)]
    intervals = [cluster_bootstrap(lambda i: values[i].mean(), patients, draws=100, seed=s) for s in (1, 1, 2)]
    assert intervals[0] == intervals[1] != intervals[2]


def test_small_sets_are_warned_about():
    assert any("fewer than 500" in text for text in size_warnings(499, 499))
    assert not size_warnings(500, 500)


def test_agreement_by_hand() -> None:
    result = ef_agreement([52.0, 44.0, 63.0], [50.0, 40.0, 60.0])
    assert result["mae"] == pytest.approx(3) and result["bias"] == pytest.approx(3) and result["n"] == 3
    assert result["rmse"] == pytest.approx(np.sqrt(29 / 3))
    assert result["r2"] == pytest.approx(1 - 29 / 200)
    assert result["spread"] == pytest.approx(10)
    assert result["loa"] == pytest.approx([3 - 1.96, 3 + 1.96])


def test_r2_is_lowered_by_a_bias() -> None:
    reference = [30.0, 50.0, 70.0]
    assert ef_agreement([x + 20 for x in reference], reference)["r2"] == pytest.approx(1 - 1200 / 800)


def test_agreement_of_nothing_and_of_one() -> None:
    assert set(ef_agreement([], []).values()) == {None, 0}
    one = ef_agreement([50.0], [48.0])
    assert one["mae"] == 2 and one["r2"] is None and one["loa"] is None
    assert ef_agreement([50.0, 51.0], [48.0, 48.0])["r2"] is None
