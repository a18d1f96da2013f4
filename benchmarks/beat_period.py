"""Does the picture beat with the ECG? Period of the cavity's size in generated clips against the RR interval.

Measure: `cavity_size` is the mean darkness (255 - grey) of the central part of the sector, rows 15-65 % and columns
30-70 %, in which the left ventricle lies: muscle is bright and moves in when it contracts, so darkness follows cavity
size. The period is the lag of the highest autocorrelation peak of the detrended curve between 0.3 and 1.7 s, refined by
a parabola. Phantom ECGs of known rate drive the shipped model; the truth is the mean RR interval.

    python benchmarks/beat_period.py [--checkpoint compact] [--seeds 4]

prints a table and, last, one line of JSON.
"""

import argparse
import json

import numpy as np
from scipy.signal import detrend, find_peaks

from echopulse.phantom import sample_patient, simulate_clip
from echopulse.sampling.pipeline import GenerationRequest, Pipeline

RATES_BPM = (50.0, 75.0, 110.0)


def cavity_size(frames: np.ndarray) -> np.ndarray:
    """Mean darkness of the middle of the picture, one value a frame."""
    height, width = frames.shape[1:]
    part = frames[:, int(0.15 * height) : int(0.65 * height), int(0.3 * width) : int(0.7 * width)]
    return 255 - part.reshape(len(frames), -1).mean(1)


def period_s(curve: np.ndarray, fps: float) -> float:
    """Lag of the highest autocorrelation peak between 0.3 and 1.7 s; NaN where there is none."""
    x = detrend(curve)
    full = np.correlate(x, x, "full")[len(x) - 1 :] / (x @ x) * (len(x) / np.arange(len(x), 0, -1))
    low, high = int(0.3 * fps), min(int(1.7 * fps) + 2, len(x) - 2)
    peaks = find_peaks(full[low:high])[0] + low
    if not len(peaks):
        return float("nan")
    best = max(full[p] for p in peaks)
    lag = next(p for p in peaks if full[p] >= 0.85 * best)  # the first of nearly equal peaks, not its multiple
    left, mid, right = full[lag - 1 : lag + 2]
    return (lag + 0.5 * (left - right) / (left - 2 * mid + right)) / fps


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", default="compact")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=6.0)
    arguments = parser.parse_args()
    pipeline = Pipeline.load(arguments.checkpoint)
    rows, error = [], []
    for rate in RATES_BPM:
        for seed in range(arguments.seeds):
            patient = sample_patient(1_000_000 + seed, rhythm="sinus", heart_rate_bpm=rate, ef_percent=60)
            paired = simulate_clip(patient, seconds=arguments.seconds, with_masks=False)
            assert paired.clip.ecg is not None
            rr = float(np.mean(np.diff(paired.truth["r_times_s"])))
            for view in ("a4c", "a2c"):
                request = GenerationRequest(view, arguments.seconds, 25.0, seed, start_s=0.0)
                clip, _ = pipeline(paired.clip.ecg, request)
                found = period_s(cavity_size(clip.frames), clip.fps)
                error.append(abs(found / rr - 1))
                rows.append((rate, seed, view, rr, found, 100 * error[-1]))
    print("rate/min  seed  view  RR s    period s  error %")
    for row in rows:
        print("{:8.0f}  {:4d}  {}   {:.3f}   {:.3f}     {:5.1f}".format(*row))
    within = float(np.mean(np.array(error) <= 0.1))
    by_rate = {
        f"{rate:.0f}": float(np.median([e for r, e in zip(rows, error, strict=True) if r[0] == rate]))
        for rate in RATES_BPM
    }
    print(json.dumps({"clips": len(rows), "share_within_10_percent": within, "median_error_by_rate": by_rate}))


if __name__ == "__main__":
    main()
