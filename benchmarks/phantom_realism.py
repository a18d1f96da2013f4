"""How far phantom clips are from real ones, in units of how far real ones are from each other.

Every statistic is computed on a group of clips. The distance between phantom and real clips is divided by the
distance between two random halves of the real clips (mean over many splits); phantom groups have the size of a half,
so that both distances carry the same sampling noise. A ratio of 1 means that the phantom cannot be told from real
clips by this statistic.

    python benchmarks/phantom_realism.py REAL.npy [--num 60]

REAL.npy: uint8 (clips, frames, height, width), apical four-chamber, 8 frames/s, as `../shared/data/echo` has it.
"""

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from scipy.ndimage import binary_opening, gaussian_filter, label

from echopulse.phantom import sample_patient, simulate_clip

FPS = 8.0
FIRST_SEED = 2_000_000
NUM_SPLITS = 200
LAGS = (1, 2, 3, 4)
SMOOTH_PX = 3.0
NEAR, FAR = (0.22, 0.5), (0.6, 0.88)


def phantom_clip(seed: int, num_frames: int, size: tuple[int, int]) -> np.ndarray:
    """One A4C clip of the default population at the real clips' size and frame rate, uint8 (frames, height, width)."""
    patient = sample_patient(seed, view="a4c")
    seconds = num_frames / FPS
    return simulate_clip(patient, fps=FPS, seconds=seconds, size=size, with_masks=False).clip.frames


def sector(frames: np.ndarray) -> np.ndarray:
    """Pixels of the scanned sector: the largest region ever lit, without the screen's marks, (height, width)."""
    lit = binary_opening(frames.max(axis=0) > 8, iterations=2)
    regions, count = label(lit)
    if count == 0:
        return np.ones(frames.shape[1:], bool)
    return regions == 1 + np.argmax(np.bincount(regions.reshape(-1))[1:])


def tissue(frames: np.ndarray) -> np.ndarray:
    """Pixels that stay bright, mostly muscle: above the 70th percentile of the sector's temporal mean."""
    mean, inside = frames.mean(axis=0), sector(frames)
    return inside & (mean > np.percentile(mean[inside], 70))


def grey_levels(frames: np.ndarray) -> np.ndarray:
    """Cumulative share of pixels at each grey level, (256,)."""
    return np.cumsum(np.bincount(frames.reshape(-1), minlength=256)) / frames.size


def sector_grey_levels(frames: np.ndarray) -> np.ndarray:
    """The same within the sector."""
    return grey_levels(frames[:, sector(frames)])


def radial_spectrum(frames: np.ndarray) -> np.ndarray:
    """Power in decibels over radial frequency, from 2 cycles per image to Nyquist."""
    height, width = frames.shape[1:]
    window = np.hanning(height)[:, None] * np.hanning(width)
    power = (np.abs(np.fft.fft2((frames / 255.0) * window)) ** 2).mean(axis=0)
    fy, fx = np.fft.fftfreq(height) * height, np.fft.fftfreq(width) * width
    radius = np.rint(np.hypot(fy[:, None], fx[None])).astype(int)
    sums = np.bincount(radius.reshape(-1), power.reshape(-1))
    return 10 * np.log10(sums / np.bincount(radius.reshape(-1)))[2 : min(height, width) // 2]


def correlation_lengths(frames: np.ndarray) -> np.ndarray:
    """Log of the speckle's correlation length in pixels: (near across, near along, far across, far along).

    Width at half height of the autocorrelation of the picture less its smooth part.
    """
    rough = _rough(frames)
    inside = sector(frames)
    height = frames.shape[1]
    lengths = []
    for first, last in (NEAR, FAR):
        rows = slice(int(first * height), int(last * height))
        part = rough[:, rows] * inside[rows]
        for axis in (2, 1):
            curve = [np.mean(part * part)]
            for lag in range(1, 8):
                a, b = (
                    np.take(part, range(part.shape[axis] - lag), axis),
                    np.take(part, range(lag, part.shape[axis]), axis),
                )
                curve.append(np.mean(a * b))
            curve = np.array(curve) / curve[0]
            below = int(np.argmax(curve < 0.5)) or len(curve) - 1
            step = curve[below - 1] - curve[below]
            exact = below - 1 + np.clip((curve[below - 1] - 0.5) / max(step, 1e-6), 0, 1)
            lengths.append(np.log(2 * exact))
    return np.array(lengths)


def decorrelation(frames: np.ndarray) -> np.ndarray:
    """Correlation of the tissue's speckle with itself `LAGS` frames later."""
    rough, where = _rough(frames), tissue(frames)
    values = rough[:, where]
    values = values - values.mean(axis=1, keepdims=True)
    values /= np.sqrt((values**2).mean(axis=1, keepdims=True)) + 1e-6
    return np.array([np.mean(values[lag:] * values[:-lag]) for lag in LAGS])


def _rough(frames: np.ndarray) -> np.ndarray:
    x = frames.astype(np.float32)
    return x - gaussian_filter(x, (0, SMOOTH_PX, SMOOTH_PX))


STATISTICS = {
    "grey_levels": grey_levels,  # the mean absolute difference of cumulative shares, times 255, is Wasserstein-1
    "sector_grey_levels": sector_grey_levels,
    "radial_spectrum": radial_spectrum,
    "speckle_length": correlation_lengths,
    "decorrelation": decorrelation,
}


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Mean absolute difference of the groups' mean statistics; (clips, values) each."""
    return float(np.abs(a.mean(axis=0) - b.mean(axis=0)).mean())


def ratios(real: np.ndarray, phantom: np.ndarray) -> dict[str, dict[str, float]]:
    """Per statistic: real–real and phantom–real distance and their ratio; groups are halves of the real clips."""
    rng = np.random.default_rng(0)
    half = len(real) // 2
    report = {}
    for name, statistic in STATISTICS.items():
        r = np.stack([statistic(clip) for clip in real])
        p = np.stack([statistic(clip) for clip in phantom])
        floor, found = [], []
        for _ in range(NUM_SPLITS):
            order = rng.permutation(len(real))
            floor.append(distance(r[order[:half]], r[order[half : 2 * half]]))
            found.append(distance(r[order[:half]], p[rng.permutation(len(p))[:half]]))
        report[name] = {
            "real_real": float(np.mean(floor)),
            "phantom_real": float(np.mean(found)),
            "ratio": float(np.mean(found) / np.mean(floor)),
        }
    return report


def main() -> None:
    """Prints the table and, last, one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("real", type=Path)
    parser.add_argument("--num", type=int, default=60, help="phantom clips")
    arguments = parser.parse_args()
    real = np.load(arguments.real, allow_pickle=False)
    render = partial(phantom_clip, num_frames=real.shape[1], size=real.shape[2:])
    with ProcessPoolExecutor() as pool:
        phantom = np.stack(list(pool.map(render, range(FIRST_SEED, FIRST_SEED + arguments.num))))
    report = ratios(real, phantom)
    print(f"{'statistic':20s} {'real-real':>10s} {'phantom-real':>13s} {'ratio':>6s}")
    for name, row in report.items():
        print(f"{name:20s} {row['real_real']:10.4f} {row['phantom_real']:13.4f} {row['ratio']:6.2f}")
    print(json.dumps({name: round(row["ratio"], 3) for name, row in report.items()}))


if __name__ == "__main__":
    main()
