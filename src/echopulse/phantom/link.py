"""The ECG–EF link: what an ECG shows of the ejection fraction, and the error that no reader can avoid.

The ECG shows `strength · (EF − 55) + residual · N(0, 1)` points. Rhythm, heart rate and wave shapes follow from this
number alone, and the exact wave shapes give it back. A reader of the ECG therefore knows the EF as from one
measurement with an error of `residual / strength` points, and from how EF is spread over the patients.
"""

from dataclasses import dataclass

import numpy as np

from echopulse.errors import InputError
from echopulse.phantom.population import EF_RANGE, REFERENCE_EF, draw_ef, ef_density, rhythm_shares
from echopulse.phantom.rhythm import Rhythm

_FULL_SPREAD_POINTS = 15.0  # how far the shapes vary at strength 1: the EF's standard deviation and the residual


@dataclass(frozen=True)
class EcgEfLink:
    """How the ECG depends on the ejection fraction.

    Attributes:
        strength: scale of the changes that the EF makes; 0: the ECG tells nothing, infinity: it tells all.
        residual_points: standard deviation of what no reader can see, in points of EF at strength 1; 0: the ECG
            tells the EF exactly, infinity: nothing.
    """

    strength: float = 1.0
    residual_points: float = 2.0

    def __post_init__(self) -> None:
        if not self.strength >= 0:
            raise InputError(f"strength of the ECG-EF link is {self.strength}; expected 0 or more")
        if not self.residual_points >= 0:
            raise InputError(f"residual of the ECG-EF link is {self.residual_points} points; expected 0 or more")
        if np.isinf(self.strength) and np.isinf(self.residual_points):
            raise InputError("strength and residual of the ECG-EF link are both infinite; expected one at most")

    @property
    def error_points(self) -> float:
        """Standard deviation of the error with which the ECG measures the EF, 0 to infinity."""
        if self.strength == 0:
            return float("inf")
        return 0.0 if np.isinf(self.strength) else self.residual_points / self.strength

    def visible_points(self, ef_percent: float, residual: float) -> float:
        """What the ECG shows: points above (below: negative) the reference EF.

        Where signal and residual together would make shapes vary more than at strength 1, both are scaled down alike,
        which takes nothing from the information and keeps the shapes possible.

        Args:
            ef_percent: the true ejection fraction.
            residual: the patient's deviation, a standard normal number.
        """
        if np.isinf(self.strength):
            signal, noise = 1.0, 0.0
        elif np.isinf(self.residual_points):
            signal, noise = 0.0, _FULL_SPREAD_POINTS
        else:
            spread = np.hypot(self.strength * _FULL_SPREAD_POINTS, self.residual_points)
            scale = min(1.0, float(np.hypot(_FULL_SPREAD_POINTS, 2.0) / spread)) if spread else 1.0
            signal, noise = scale * self.strength, scale * self.residual_points
        return float(np.clip(signal * (ef_percent - REFERENCE_EF) + noise * residual, -55, 35))


def draw_condition(
    rng: np.random.Generator, link: EcgEfLink, rhythm: Rhythm | None, ef_percent: float | None
) -> tuple[float, Rhythm, float]:
    """A patient's EF, rhythm and what the ECG shows of the EF, in points.

    Rhythm follows from what the ECG shows. With a rhythm asked for, patients are drawn until one has it, so that the
    EF is spread as among patients of that rhythm; with an EF asked for, it is taken.
    """
    while True:
        drawn_ef, residual = draw_ef(rng), float(rng.standard_normal())
        ef = drawn_ef if ef_percent is None else ef_percent
        visible = link.visible_points(ef, residual)
        shares = rhythm_shares(np.array([visible]))
        drawn: Rhythm = list(shares)[int(rng.choice(len(shares), p=[float(share[0]) for share in shares.values()]))]
        if rhythm in (None, drawn):
            return ef, drawn, visible
        if ef_percent is not None:
            return ef, rhythm, visible


def irreducible_error(link: EcgEfLink) -> dict[str, float]:
    """The EF error of the best possible reader of a clean 12-lead ECG, over default patients.

    Exact up to numerical integration: patients at even quantiles of the EF, each with the residuals of a Gauss-Hermite
    rule; for each the posterior of the EF on a grid. The reader answers the posterior's mean (root mean square error)
    or its median (mean absolute error).

    Args:
        link: how the ECG depends on the EF.

    Returns:
        In points of EF: `rmse_points` and `mae_points` over all patients, the same with `_sinus`, `_af` ... appended
        among patients of that rhythm, and `prior_rmse_points` and `prior_mae_points` of a reader without the ECG.
    """
    grid = np.linspace(*EF_RANGE, 2401)
    cumulative = np.cumsum(ef_density(grid))
    patients = np.interp((np.arange(300) + 0.5) / 300, cumulative / cumulative[-1], grid)
    nodes, node_weights = np.polynomial.hermite_e.hermegauss(15)
    node_weights = node_weights / node_weights.sum()
    prior_squared, prior_mae = _posterior_error(patients[:1], float("inf"))
    seen = patients[:, None] + np.where(np.isinf(link.error_points), 0.0, link.error_points) * nodes
    squared, absolute = _posterior_error(seen.ravel(), link.error_points)
    visible = [[link.visible_points(ef, node) for node in nodes] for ef in patients]
    weights = np.tile(node_weights, len(patients))
    result = {
        "rmse_points": np.sqrt(np.average(squared, weights=weights)),
        "mae_points": np.average(absolute, weights=weights),
        "prior_rmse_points": np.sqrt(prior_squared[0]),
        "prior_mae_points": prior_mae[0],
    }
    for rhythm, share in rhythm_shares(np.array(visible)).items():
        among = weights * share.ravel()
        result[f"rmse_points_{rhythm}"] = np.sqrt(np.average(squared, weights=among))
        result[f"mae_points_{rhythm}"] = np.average(absolute, weights=among)
    return {name: round(float(value), 4) for name, value in result.items()}


def _posterior_error(seen_ef: np.ndarray, error_points: float) -> tuple[np.ndarray, np.ndarray]:
    """Variance, and mean absolute deviation from the median, of the EF given measurements of it, each (patients,)."""
    if error_points == 0:
        return np.zeros(len(seen_ef)), np.zeros(len(seen_ef))
    reach = 7 * error_points if error_points < 10 else np.inf
    low = np.clip(seen_ef - reach, EF_RANGE[0], EF_RANGE[1] - 1e-6)
    high = np.clip(seen_ef + reach, low + 1e-6, EF_RANGE[1])
    ef = low[:, None] + (high - low)[:, None] * np.linspace(0, 1, 301)
    log_likelihood = -0.5 * ((ef - seen_ef[:, None]) / error_points) ** 2
    posterior = ef_density(np.minimum(ef, EF_RANGE[1])) * np.exp(log_likelihood - log_likelihood.max(1, keepdims=True))
    posterior /= posterior.sum(1, keepdims=True)
    mean = np.sum(posterior * ef, axis=1, keepdims=True)
    median = np.take_along_axis(ef, np.argmax(np.cumsum(posterior, 1) >= 0.5, axis=1)[:, None], 1)
    return np.sum(posterior * (ef - mean) ** 2, axis=1), np.sum(posterior * np.abs(ef - median), axis=1)
