"""What recorders do to an ECG, as augmentation: leads missing, gain, noise, wander, a lower rate."""

import numpy as np

from echopulse.signals.track import TRACK_RATE_HZ, beat_marks


def draw_leads(rng: np.random.Generator, leads: np.ndarray) -> np.ndarray:
    """Which leads there are: half the time all, else one limb lead (I or II, as watches have) or any subset."""
    kind = rng.uniform()
    if kind < 0.3:
        limb = leads[leads == (rng.integers(2) if len(leads) > 1 else leads[0])]
        return limb if len(limb) else leads[:1]
    if kind < 0.5:
        return rng.choice(leads, rng.integers(1, len(leads) + 1), replace=False)
    return leads


def draw_marks(rng: np.random.Generator, r_times_s: np.ndarray, times_s: np.ndarray) -> np.ndarray:
    """Beat marks as a detector gives them: a few milliseconds off, and one window in seven without any."""
    beats = r_times_s + rng.normal(0, 0.006, len(r_times_s))
    return beat_marks(beats, times_s) if rng.uniform() > 0.15 else np.zeros(times_s.shape, np.float32)


def add_gain_and_noise(rng: np.random.Generator, ecg: np.ndarray) -> np.ndarray:
    """Another gain, and white noise in two windows of five; `ecg` is standardised, any shape."""
    return add_noise(rng, ecg * np.float32(np.exp(rng.normal(0, 0.15))))


def add_noise(rng: np.random.Generator, ecg: np.ndarray, level: float = 0.3) -> np.ndarray:
    """White noise in two windows of five, of a standard deviation up to `level`; any shape."""
    if rng.uniform() < 0.4:
        ecg = ecg + rng.uniform(0, level) * rng.standard_normal(ecg.shape).astype(np.float32)
    return ecg


def add_wander(rng: np.random.Generator, ecg: np.ndarray) -> np.ndarray:
    """Breathing and skin potentials that the high-pass filter left: a slow tone in each lead of (leads, samples)."""
    times = np.arange(ecg.shape[-1]) / TRACK_RATE_HZ
    height, phase = rng.uniform(0, 0.4, (len(ecg), 1)), rng.uniform(0, 2 * np.pi, (len(ecg), 1))
    return ecg + (height * np.sin(2 * np.pi * rng.uniform(0.15, 0.7) * times + phase)).astype(np.float32)


def lower_rate(rng: np.random.Generator, ecg: np.ndarray) -> np.ndarray:
    """As if recorded at 100 to 250 samples a second and interpolated by straight lines; (leads, samples)."""
    samples = np.arange(ecg.shape[-1])
    coarse = np.arange(rng.uniform(-2.5, 0), ecg.shape[-1] + 2.5, TRACK_RATE_HZ / rng.uniform(100, TRACK_RATE_HZ))
    return np.stack([np.interp(samples, coarse, np.interp(coarse, samples, row)) for row in ecg]).astype(np.float32)
