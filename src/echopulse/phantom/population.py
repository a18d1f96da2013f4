"""How ejection fraction, rhythm and wave shapes are spread over the virtual patients.

Failing hearts are more frequent than in a town, as in a clinic for them: a model must see enough of both kinds.
"""

import numpy as np

from echopulse.phantom.ecg import EcgShape
from echopulse.phantom.rhythm import Rhythm

EF_RANGE = (15.0, 75.0)
"""EF in percent. Normal is 52–72 (men) and 54–74 (women), under 30 severely abnormal (Lang 2015)."""

EDV_RANGE_ML = (60.0, 220.0)
"""End-diastolic volume. Normal is 62–150 ml (men) and 46–106 ml (women) (Lang 2015); failing hearts are larger."""

REFERENCE_EF = 55.0
"""The EF at which the ECG shows neither trouble nor vigour."""

_EF_MIXTURE = ((0.29, 34.0, 9.5), (0.71, 61.5, 7.0))  # share, mean, standard deviation of each part, cut at EF_RANGE

# share of each rhythm at the reference EF, and how much its log odds rise for 20 points less
_RHYTHMS: dict[Rhythm, tuple[float, float]] = {
    "sinus": (0.74, 0.0),
    "af": (0.085, 0.35),
    "pvc": (0.07, 0.2),
    "lbbb": (0.06, 0.8),
    "paced": (0.04, 0.6),
}

# value at the reference EF, change for 20 points more, and the error in points with which it tells the EF by itself
_SHAPES = {
    "voltage": (0.0, 0.16, 12.0),  # natural logarithm
    "qrs_width": (1.02, -0.10, 5.0),
    "t_amplitude": (0.85, 0.60, 2.5),
    "r_progression": (0.95, 0.18, 4.5),
}


def ef_density(ef: np.ndarray) -> np.ndarray:
    """Probability density of the EF (percent), up to a factor; 0 outside `EF_RANGE`. Same shape."""
    density = sum(share / sd * np.exp(-0.5 * ((ef - mean) / sd) ** 2) for share, mean, sd in _EF_MIXTURE)
    return np.where((ef >= EF_RANGE[0]) & (ef <= EF_RANGE[1]), density, 0.0)


def draw_ef(rng: np.random.Generator) -> float:
    """One EF in percent."""
    while True:
        _, mean, sd = _EF_MIXTURE[int(rng.uniform() > _EF_MIXTURE[0][0])]
        ef = float(rng.normal(mean, sd))
        if EF_RANGE[0] <= ef <= EF_RANGE[1]:
            return ef


def rhythm_shares(visible_points: np.ndarray) -> dict[Rhythm, np.ndarray]:
    """Probability of each rhythm, given what the ECG shows of the EF (`EcgEfLink.visible_points`); same shape."""
    worse = -visible_points / 20
    weights: dict[Rhythm, np.ndarray] = {
        rhythm: share * np.exp(slope * worse) for rhythm, (share, slope) in _RHYTHMS.items()
    }
    total = np.sum(list(weights.values()), axis=0)
    return {rhythm: weight / total for rhythm, weight in weights.items()}


def draw_shape(rng: np.random.Generator, visible_points: float) -> EcgShape:
    """Wave shapes: low EF goes with wide QRS, low voltage, flat or inverted T and poor R progression (Attia 2019).

    Each wave tells the EF with an error of its own, several points. The errors have a mean of exactly 0 when weighted
    by their precision, so all four waves together tell what is visible, and no more.
    """
    sds = np.array([sd for _, _, sd in _SHAPES.values()])
    errors = sds * rng.standard_normal(len(sds))
    errors -= np.average(errors, weights=sds**-2)
    value = {
        name: middle + slope * (visible_points + error) / 20
        for (name, (middle, slope, _)), error in zip(_SHAPES.items(), errors, strict=True)
    }
    return EcgShape(
        voltage=float(np.exp(value["voltage"])),
        qrs_width=float(value["qrs_width"]),
        t_amplitude=float(value["t_amplitude"]),
        r_progression=float(value["r_progression"]),
        p_amplitude=float(np.clip(rng.normal(1, 0.2), 0.5, 1.5)),
        axis_rad=float(np.clip(rng.normal(-0.22, 0.12), -0.45, 0.0)),
        transverse_rad=float(np.clip(rng.normal(0, 0.12), -0.3, 0.3)),
    )
