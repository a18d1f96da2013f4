"""The ECG-EF link: what the exact shapes tell is what the bound says, for every strength and residual."""

import time

import numpy as np
import pytest

from echopulse.errors import InputError
from echopulse.phantom import EcgEfLink, Patient, irreducible_error, sample_patient
from echopulse.phantom.population import EDV_RANGE_ML, EF_RANGE, draw_ef

INF = float("inf")


def _features(patients: list[Patient]) -> np.ndarray:
    """The exact shapes, linear in what the ECG shows, with a constant."""
    shapes = [patient.ecg_shape for patient in patients]
    return np.array([[1, np.log(s.voltage), s.qrs_width, s.t_amplitude, s.r_progression] for s in shapes])


def _read(link: EcgEfLink, rhythm: str | None = None, num: int = 1000) -> tuple[np.ndarray, np.ndarray]:
    """EF, and its linear estimate from the exact shapes, for patients of a link."""
    patients = [sample_patient(seed, rhythm=rhythm, link=link) for seed in range(num)]
    ef, features = np.array([patient.ef_percent for patient in patients]), _features(patients)
    return ef, features @ np.linalg.lstsq(features, ef, rcond=None)[0]


@pytest.fixture(scope="module")
def default() -> list[Patient]:
    return [sample_patient(seed) for seed in range(1000)]


def test_default_link_is_known_to_two_points() -> None:
    bound = irreducible_error(EcgEfLink())
    assert bound["rmse_points"] == pytest.approx(1.94, abs=0.02), "2 points, less what the edges of the range tell"
    assert bound["mae_points"] == pytest.approx(bound["rmse_points"] * np.sqrt(2 / np.pi), rel=0.02), "nearly normal"
    ef, estimate = _read(EcgEfLink())
    assert np.sqrt(np.mean((estimate - ef) ** 2)) == pytest.approx(2.0, abs=0.12)


@pytest.mark.parametrize("rhythm", ["af", "pvc", "lbbb", "paced"])
def test_every_rhythm_tells_as_much(rhythm: str) -> None:
    ef, estimate = _read(EcgEfLink(), rhythm, 400)
    assert np.sqrt(np.mean((estimate - ef) ** 2)) == pytest.approx(2.0, abs=0.2)
    assert irreducible_error(EcgEfLink())[f"rmse_points_{rhythm}"] == pytest.approx(1.94, abs=0.03)


def test_one_wave_tells_less_than_all(default: list[Patient]) -> None:
    ef = np.array([patient.ef_percent for patient in default])
    features = _features(default)
    for column in range(1, 5):
        one = features[:, [0, column]]
        error = np.std(one @ np.linalg.lstsq(one, ef, rcond=None)[0] - ef)
        assert 2.4 < error < 13


@pytest.mark.parametrize("link", [EcgEfLink(residual_points=0.0), EcgEfLink(strength=INF)])
def test_nothing_hidden(link: EcgEfLink) -> None:
    bound = irreducible_error(link)
    assert bound["rmse_points"] == bound["mae_points"] == bound["mae_points_lbbb"] == 0
    ef, estimate = _read(link, num=200)
    np.testing.assert_allclose(estimate, ef, atol=1e-6)


@pytest.mark.parametrize("link", [EcgEfLink(strength=0.0), EcgEfLink(residual_points=INF), EcgEfLink(0.0, 0.0)])
def test_nothing_told(link: EcgEfLink) -> None:
    bound = irreducible_error(link)
    assert bound["rmse_points"] == bound["prior_rmse_points"] == bound["rmse_points_lbbb"]
    assert bound["mae_points"] == bound["prior_mae_points"]
    patients = [sample_patient(seed, link=link) for seed in range(1000)]
    ef = np.array([patient.ef_percent for patient in patients])
    assert ef.std() == pytest.approx(bound["rmse_points"], rel=0.06)
    seen = np.c_[_features(patients)[:, 1:], [patient.heart_rate_bpm for patient in patients]]
    seen = np.c_[seen, [patient.rhythm == "sinus" for patient in patients]]
    assert all(abs(np.corrcoef(column, ef)[0, 1]) < 0.1 for column in seen.T)


@pytest.mark.parametrize(("strength", "residual"), [(1.0, 8.0), (0.5, 2.0), (0.1, 2.0), (3.0, 20.0)])
def test_bound_is_that_of_a_measurement_with_noise(strength: float, residual: float) -> None:
    """Against the mean of the posterior over sampled patients, each by brute force."""
    link = EcgEfLink(strength, residual)
    rng = np.random.default_rng(0)
    ef, others = np.split(np.array([draw_ef(rng) for _ in range(2500)]), [1500])
    seen = ef + residual / strength * rng.standard_normal(1500)
    weights = np.exp(-0.5 * ((seen[:, None] - others) / (residual / strength)) ** 2)
    estimate = weights @ others / weights.sum(1)  # the other patients are the prior
    assert np.sqrt(np.mean((estimate - ef) ** 2)) == pytest.approx(irreducible_error(link)["rmse_points"], rel=0.06)


def test_bound_grows_with_what_is_hidden() -> None:
    residuals = (0.0, 1e-6, 0.5, 2.0, 5.0, 9.9, 10.1, 50.0, 1e6, INF)
    errors = [irreducible_error(EcgEfLink(residual_points=points))["rmse_points"] for points in residuals]
    assert errors == sorted(errors)
    assert errors[-2] == pytest.approx(errors[-1], rel=1e-3) and errors[1] < 1e-3


def test_bound_is_cheap_and_repeats() -> None:
    start = time.perf_counter()
    first = irreducible_error(EcgEfLink(1.0, 3.0))
    assert time.perf_counter() - start < 2
    assert first == irreducible_error(EcgEfLink(1.0, 3.0))


@pytest.mark.parametrize("link", [EcgEfLink(), EcgEfLink(50.0), EcgEfLink(residual_points=INF), EcgEfLink(1.0, 100.0)])
def test_shapes_stay_possible(link: EcgEfLink) -> None:
    for seed in range(200):
        shape = sample_patient(seed, link=link).ecg_shape
        assert 0.5 < shape.voltage < 1.7 and 0.75 < shape.qrs_width < 1.4
        assert -1.2 < shape.t_amplitude < 2.2 and 0.2 < shape.r_progression < 1.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1.0, 2.0), "strength of the ECG-EF link is -1"),
        ((float("nan"), 2.0), "strength of the ECG-EF link is nan"),
        ((1.0, -0.1), "residual of the ECG-EF link is -0.1"),
        ((1.0, float("nan")), "residual of the ECG-EF link is nan"),
        ((INF, INF), "both infinite"),
    ],
)
def test_impossible_links_are_refused(arguments: tuple[float, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        EcgEfLink(*arguments)


def test_ejection_fraction_is_spread(default: list[Patient]) -> None:
    ef = np.array([patient.ef_percent for patient in default])
    sinus = ef[[patient.rhythm == "sinus" for patient in default]]
    assert np.mean(ef < 35) >= 0.1 and np.mean(ef > 65) >= 0.1
    assert 50 <= sinus.mean() <= 60
    assert EF_RANGE[0] <= ef.min() < 20 and 72 < ef.max() <= EF_RANGE[1]
    edv = [patient.edv_ml for patient in default]
    assert EDV_RANGE_ML[0] <= min(edv) and max(edv) <= EDV_RANGE_ML[1]
    lowest = {rhythm: np.mean([p.ef_percent for p in default if p.rhythm == rhythm]) for rhythm in ("sinus", "lbbb")}
    assert lowest["lbbb"] < lowest["sinus"] - 3


def test_link_changes_the_ecg_and_not_the_heart() -> None:
    usual, weak = (
        sample_patient(9, rhythm="sinus", ef_percent=25.0, link=EcgEfLink(strength)) for strength in (1.0, 0.0)
    )
    assert usual.ef_percent == weak.ef_percent == 25 and usual.edv_ml == weak.edv_ml
    assert usual.anatomy == weak.anatomy and usual.link != weak.link
    assert usual.ecg_shape.t_amplitude < weak.ecg_shape.t_amplitude - 0.5
