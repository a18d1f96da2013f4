"""The truth agrees with itself: volumes, masks and times of the same clip tell the same story."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from echopulse.axes import MASK_CLASSES
from echopulse.phantom import RHYTHMS, sample_patient, simulate_clip
from echopulse.phantom.mechanics import simulate_volume
from echopulse.phantom.patient import patient_beats

LV, LA = MASK_CLASSES.index("lv_cavity"), MASK_CLASSES.index("left_atrium")


def simpson_volume(mask: np.ndarray, num_disks: int = 20, subpixels: int = 4) -> float:
    """Single-plane Simpson on one mask alone, cubic pixels: disks across the line from mitral plane to apex."""
    valve = np.argwhere((mask == LV) & binary_dilation(mask == LA, iterations=2)).mean(0)
    inner = (np.indices((subpixels, subpixels)).reshape(2, -1).T + 0.5) / subpixels - 0.5
    points = (np.argwhere(mask == LV)[:, None] + inner).reshape(-1, 2) - valve
    apex = points[np.argmax((points**2).sum(1))]
    along = points @ apex / np.linalg.norm(apex)
    thickness = np.ptp(along) / num_disks
    area = np.histogram(along, num_disks)[0] / subpixels**2
    return float(np.sum(np.pi / 4 * (area / thickness) ** 2) * thickness)


@pytest.mark.parametrize("seed", range(4))
def test_ejection_fraction_can_be_read_from_the_masks(seed: int) -> None:
    """Within 2 points for each, in frames 20 ms from the extremes at most; 0.3 is usual."""
    paired = simulate_clip(sample_patient(seed, rhythm="sinus"), fps=25.0, seconds=1.4)
    assert paired.masks is not None
    ends = np.array(paired.truth["es_times_s"])
    beats = [(r, ends[ends > r][0]) for r in paired.truth["ed_times_s"] if (ends > r).any()]
    found = []
    for ed, es in beats:
        volumes = [simpson_volume(paired.masks[min(round(time * 25), 34)]) for time in (ed, es)]
        found.append(100 * (1 - volumes[1] / volumes[0]))
    assert np.mean(found) == pytest.approx(paired.truth["ef_percent"], abs=2.0)


@pytest.mark.parametrize("rate", [45.0, 80.0, 115.0, 150.0])
def test_extremes_of_the_volume_lie_within_a_frame_of_r_and_t_end(rate: float) -> None:
    """However the beat is delimited: from systole to systole, or by a share of the RR interval."""
    for seed in range(5):
        patient = sample_patient(seed, rhythm="sinus", heart_rate_bpm=rate)
        beats = patient_beats(patient)
        times = np.arange(500) / 25
        curve = simulate_volume(beats, edv_ml=patient.edv_ml, ef=patient.ef_percent / 100)
        volume = curve.volume_ml(times)

        def extreme_s(kind: Callable, first_s: float, last_s: float, volume=volume, times=times) -> float:
            inside = np.flatnonzero((times >= first_s) & (times <= last_s))
            return float(times[inside[kind(volume[inside])]])

        r, ends = beats.r_s, beats.t_end_s
        for i in np.flatnonzero((r > 2) & (r < 17)):
            rr = r[i + 1] - r[i]
            assert abs(extreme_s(np.argmin, r[i], r[i + 1]) - ends[i]) <= 0.04
            assert abs(extreme_s(np.argmin, ends[i] - 0.3 * rr, ends[i] + 0.3 * rr) - ends[i]) <= 0.04
            assert abs(extreme_s(np.argmax, ends[i - 1], ends[i]) - r[i]) <= 0.04
            assert abs(extreme_s(np.argmax, r[i] - 0.3 * rr, r[i] + 0.3 * rr) - r[i]) <= 0.04


@pytest.mark.parametrize("rhythm", RHYTHMS)
def test_ejection_fraction_is_the_mean_over_the_beats_inside(rhythm: str) -> None:
    patient = sample_patient(3, rhythm=rhythm)
    truth = simulate_clip(patient, fps=1.0, seconds=12.0, size=(32, 32), with_masks=False).truth
    curve = simulate_volume(patient_beats(patient), edv_ml=patient.edv_ml, ef=patient.ef_percent / 100)
    ends = np.array(truth["es_times_s"])
    inside = np.array([(r, ends[ends > r][0]) for r in truth["ed_times_s"] if (ends > r).any()])
    largest, smallest = curve.volume_ml(inside[:, 0]), curve.volume_ml(inside[:, 1])
    assert truth["ef_percent"] == pytest.approx(100 * np.mean(1 - smallest / largest), abs=0.05)
    assert truth["edv_ml"] == pytest.approx(largest.mean(), abs=0.05)
    assert truth["esv_ml"] == pytest.approx(smallest.mean(), abs=0.05)
