"""Is the phantom's truth consistent? EF from the masks against `ef_percent`; volume extremes against R and T end.

The masks are measured as a reader would, from the pixels alone: the mitral plane is where cavity touches left atrium,
the apex is the farthest point of the cavity from its middle, and 20 disks stand across the line between the two
(single-plane Simpson, Lang 2015). Ratios of volumes need no pixel size. Per beat inside the clip, ED is the largest and
ES the smallest volume; EF is the mean over the beats. The second half moves sinus patients through 45-150 beats a
minute and asks on which frames the true volume and the cavity's area are largest and smallest.

    python benchmarks/phantom_truth.py [--patients 200] [--timing-patients 40] [--workers 2]

prints a table and, last, one line of JSON.
"""

import argparse
import json
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import pairwise

import numpy as np
from scipy.ndimage import binary_dilation

from echopulse.axes import MASK_CLASSES
from echopulse.phantom import sample_patient, simulate_clip

LV, LA = MASK_CLASSES.index("lv_cavity"), MASK_CLASSES.index("left_atrium")
NUM_DISKS = 20
SUBPIXELS = 4
RATES_BPM = (45.0, 60.0, 75.0, 90.0, 110.0, 130.0, 150.0)


def simpson_volume(mask: np.ndarray) -> float:
    """Volume of the cavity in cubic pixels, from one mask alone."""
    cavity = mask == LV
    valve = np.argwhere(cavity & binary_dilation(mask == LA, iterations=2)).mean(0)
    inner = (np.indices((SUBPIXELS, SUBPIXELS)).reshape(2, -1).T + 0.5) / SUBPIXELS - 0.5
    fine = (np.argwhere(cavity)[:, None] + inner).reshape(-1, 2)
    apex = fine[np.argmax(((fine - valve) ** 2).sum(1))]
    length = float(np.linalg.norm(apex - valve))
    along = (fine - valve) @ (apex - valve) / length
    thickness = np.ptp(along) / NUM_DISKS
    area = np.histogram(along, NUM_DISKS)[0] / SUBPIXELS**2
    return float(np.sum(np.pi / 4 * (area / thickness) ** 2) * thickness)


def beat_ef(volumes: np.ndarray, fps: float, truth: dict) -> float:
    """Mean EF in percent over the beats whose R and T end both lie inside; extremes within 0.1 s of them."""

    def near(time_s: float) -> np.ndarray:
        middle, reach = round(time_s * fps), round(0.1 * fps)
        return volumes[max(0, middle - reach) : middle + reach + 1]

    ends = np.array(truth["es_times_s"])
    beats = [(r, ends[ends > r][0]) for r in truth["ed_times_s"] if (ends > r).any()]
    return float(np.mean([100 * (1 - near(es).min() / near(ed).max()) for ed, es in beats]))


def ef_of_patient(seed: int, *, size: int, fps: float) -> dict:
    """Truth and measurements of one default patient."""
    paired = simulate_clip(sample_patient(seed), size=(size, size), fps=fps)
    assert paired.masks is not None
    volumes = np.array([simpson_volume(mask) for mask in paired.masks])
    true_volumes = np.array(paired.truth["lv_volume_ml"])
    return {
        "seed": seed,
        "rhythm": paired.truth["rhythm"],
        "true": paired.truth["ef_percent"],
        "masks": beat_ef(volumes, fps, paired.truth),
        "whole_clip": 100 * (1 - volumes.min() / volumes.max()),
        "volume_list": beat_ef(true_volumes, fps, paired.truth),
    }


def timing_of_patient(job: tuple[int, float], *, size: int, fps: float) -> dict[str, np.ndarray]:
    """Frames between the extremes and the fiducials, of every beat inside one sinus clip of six seconds."""
    seed, rate = job
    patient = sample_patient(seed, rhythm="sinus", heart_rate_bpm=rate)
    paired = simulate_clip(patient, size=(size, size), fps=fps, seconds=6.0)
    assert paired.masks is not None
    area = (paired.masks == LV).sum(axis=(1, 2)).astype(float)
    volume = np.array(paired.truth["lv_volume_ml"])
    times = np.arange(len(volume)) / fps
    r, es = np.array(paired.truth["r_times_s"]), np.array(paired.truth["t_end_times_s"])

    def offset(curve: np.ndarray, extreme: Callable, first_s: float, last_s: float, expected_s: float) -> float:
        inside = np.flatnonzero((times >= first_s) & (times <= last_s))
        return float((times[inside[extreme(curve[inside])]] - expected_s) * fps)

    found: dict[str, list[float]] = {"volume_ed": [], "volume_es": [], "area_ed": [], "area_es": []}
    for name, curve in (("volume", volume), ("area", area)):
        for before, at in pairwise(r):  # from one systole to the next lies one maximum
            ends = es[es > at]
            start = es[(es > before) & (es < at)]
            if len(ends) and len(start):
                found[f"{name}_ed"].append(offset(curve, np.argmax, start[0], ends[0], at))
            if len(start):
                found[f"{name}_es"].append(offset(curve, np.argmin, before, at, start[0]))
    return {name: np.array(values) for name, values in found.items()}


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description="Is the phantom's truth consistent?")
    parser.add_argument("--patients", type=int, default=200)
    parser.add_argument("--timing-patients", type=int, default=40, help="seeds at each heart rate")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--fps", type=float, default=25.0)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    setting = {"size": arguments.size, "fps": arguments.fps}
    jobs = [(seed, rate) for rate in RATES_BPM for seed in range(arguments.timing_patients)]
    with ProcessPoolExecutor(arguments.workers) as pool:
        patients = list(pool.map(partial(ef_of_patient, **setting), range(arguments.patients)))
        timings = list(pool.map(partial(timing_of_patient, **setting), jobs))

    true = np.array([patient["true"] for patient in patients])
    result: dict = {"patients": len(patients), **setting}
    for name, text in (
        ("masks", "masks, Simpson"),
        ("whole_clip", "masks, extremes of the clip"),
        ("volume_list", "lv_volume_ml"),
    ):
        error = np.array([patient[name] for patient in patients]) - true
        mae, worst = np.abs(error).mean(), np.abs(error).max()
        print(f"EF from {text:28} MAE {mae:5.2f}  bias {error.mean():+5.2f}  worst {worst:5.2f}")
        result[f"ef_mae_{name}"] = round(float(mae), 3)
    for rhythm in sorted({patient["rhythm"] for patient in patients}):
        error = [patient["masks"] - patient["true"] for patient in patients if patient["rhythm"] == rhythm]
        print(f"   {rhythm:6} {len(error):4} patients  MAE {np.abs(error).mean():5.2f}  bias {np.mean(error):+5.2f}")

    print("share of sinus beats whose extreme lies within one frame, by heart rate")
    print("rate  beats  volume ED  volume ES  area ED  area ES")
    for rate in RATES_BPM:
        pooled = _pooled([timing for job, timing in zip(jobs, timings, strict=True) if job[1] == rate])
        shares = "  ".join(f"{_share(pooled[name]):8.4f}" for name in pooled)
        print(f"{rate:4.0f}  {len(pooled['volume_ed']):5}  {shares}")
    for name, offsets in _pooled(timings).items():
        result[f"{name}_within_one_frame"] = round(_share(offsets), 4)
    print(json.dumps(result))


def _pooled(timings: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([timing[name] for timing in timings]) for name in timings[0]}


def _share(offsets: np.ndarray) -> float:
    return float(np.mean(np.abs(offsets) <= 1 + 1e-6))


if __name__ == "__main__":
    main()
