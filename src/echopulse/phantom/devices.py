"""ECG recorders: which leads, what rate, what band and what noise they have.

All filters are zero-phase (their gain is applied to the spectrum), so that no fiducial time moves.
Noise is added before the filter, lead by lead to the eight independent leads; the limb leads follow from I and II.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy.fft import next_fast_len
from scipy.ndimage import gaussian_filter1d

from echopulse.axes import STANDARD_LEADS
from echopulse.errors import InputError
from echopulse.phantom.ecg import DOWER, twelve_leads
from echopulse.signals import EcgSignal
from echopulse.signals.processing import resample


@dataclass(frozen=True)
class EcgNoise:
    """Noise of one recording, in millivolts.

    Attributes:
        baseline_mv: wander below 0.5 Hz by breathing and skin potentials, standard deviation of each of three tones.
        muscle_mv: muscle noise above 20 Hz, standard deviation.
        mains_mv: amplitude of the mains hum.
        mains_hz: its frequency.
        motion_mv: jumps of the electrode potential that decay within a second, standard deviation of their height.
        motion_per_min: how often they come.
    """

    baseline_mv: float = 0.0
    muscle_mv: float = 0.0
    mains_mv: float = 0.0
    mains_hz: float = 50.0
    motion_mv: float = 0.0
    motion_per_min: float = 0.0


@dataclass(frozen=True)
class EcgDevice:
    """A kind of recorder; every recording draws its noise from these ranges.

    Attributes:
        name: how it is asked for.
        leads: what it records, standard names.
        sampling_rate_hz: samples per second.
        band_hz: edges of the pass band, where the power is halved; None: no filter.
        step_mv: resolution; 0: unlimited.
        baseline_mv: range of `EcgNoise.baseline_mv`.
        muscle_mv: range of `EcgNoise.muscle_mv`, drawn evenly in its logarithm; None: no muscle noise.
        mains_mv: amplitudes of the hum, one of which is drawn.
        motion_mv: as in `EcgNoise`.
        motion_per_min: as in `EcgNoise`.
    """

    name: str
    leads: tuple[str, ...]
    sampling_rate_hz: float
    band_hz: tuple[float, float] | None = None
    step_mv: float = 0.0
    baseline_mv: tuple[float, float] = (0.0, 0.0)
    muscle_mv: tuple[float, float] | None = None
    mains_mv: tuple[float, ...] = (0.0,)
    motion_mv: float = 0.0
    motion_per_min: float = 0.0

    def draw_noise(self, rng: np.random.Generator) -> EcgNoise:
        """The noise of one recording."""
        return EcgNoise(
            baseline_mv=float(rng.uniform(*self.baseline_mv)),
            muscle_mv=float(np.exp(rng.uniform(*np.log(self.muscle_mv)))) if self.muscle_mv else 0.0,
            mains_mv=float(rng.choice(self.mains_mv)),
            mains_hz=float(rng.choice([50.0, 60.0])),
            motion_mv=self.motion_mv,
            motion_per_min=self.motion_per_min,
        )


CLEAN = EcgDevice("clean", STANDARD_LEADS, 500.0)
"""The 12 leads as they are at the skin: no noise, no filter."""

HOSPITAL = EcgDevice(
    "hospital",
    STANDARD_LEADS,
    500.0,
    band_hz=(0.05, 150.0),
    step_mv=0.005,
    baseline_mv=(0.0, 0.06),
    muscle_mv=(0.003, 0.03),
    mains_mv=(0.0, 0.0, 0.01, 0.03),
)
"""Resting 12-lead recorder: 0.05–150 Hz, 500 Hz, 5 µV (AHA/ACC/HRS recommendations, Kligfield 2007)."""

WATCH = EcgDevice(
    "watch",
    ("I",),
    512.0,
    band_hz=(0.5, 40.0),
    step_mv=0.001,
    baseline_mv=(0.02, 0.12),
    muscle_mv=(0.008, 0.05),
    motion_mv=0.15,
    motion_per_min=4.0,
)
"""Wrist to finger of the other hand: lead I at 512 Hz in microvolts, as Apple's export has it.

The export's spectrum falls off under 0.5 Hz and over 40 Hz, the monitoring band of Kligfield 2007.
"""

HOLTER = EcgDevice(
    "holter",
    ("II", "V1", "V5"),
    250.0,
    band_hz=(0.05, 100.0),
    step_mv=0.01,
    baseline_mv=(0.05, 0.2),
    muscle_mv=(0.01, 0.06),
    mains_mv=(0.0, 0.02, 0.05),
    motion_mv=0.3,
    motion_per_min=10.0,
)
"""Three channels of a walking patient, 250 Hz, 10 µV; artefacts as in the noise stress test (Moody 1984).

The bipolar chest leads of real recorders are taken as their nearest standard leads.
"""

DEVICES: dict[str, EcgDevice] = {device.name: device for device in (CLEAN, HOSPITAL, WATCH, HOLTER)}
"""The recorders by name."""


def find_device(device: EcgDevice | str) -> EcgDevice:
    """A device itself, or the one of that name.

    Raises:
        InputError: there is none.
    """
    if isinstance(device, EcgDevice):
        return device
    if device not in DEVICES:
        raise InputError(f"unknown ECG device {device!r}; expected one of {', '.join(DEVICES)}")
    return DEVICES[device]


def record_ecg(
    ecg: EcgSignal, device: EcgDevice | str, rng: np.random.Generator, noise: EcgNoise | None = None
) -> EcgSignal:
    """What a device makes of the ECG at the skin.

    Args:
        ecg: 12 standard leads, as `render_ecg` gives them.
        device: a device or its name (`DEVICES`).
        rng: source of the noise; equal states give equal recordings.
        noise: how loud; drawn from the device's ranges if None.

    Returns:
        The device's leads at its rate on the same clock; the first sample keeps its time, fiducials stay in place.

    Raises:
        InputError: unknown device.
    """
    device = find_device(device)
    noise = noise or device.draw_noise(rng)
    names = tuple(DOWER)
    samples = ecg.select(names).samples_mv.astype(np.float64)
    samples += np.stack([_noise_mv(rng, ecg.num_samples, ecg.sampling_rate_hz, noise) for _ in names])
    if device.band_hz:
        samples = _band_pass(samples, ecg.sampling_rate_hz, device.band_hz)
    eight = resample(replace(ecg, samples_mv=samples, leads=names), device.sampling_rate_hz)
    samples = eight.samples_mv.astype(np.float64)
    if device.step_mv:
        samples = np.round(samples / device.step_mv) * device.step_mv
    return replace(eight, samples_mv=twelve_leads(samples), leads=STANDARD_LEADS).select(device.leads)


def _noise_mv(rng: np.random.Generator, num_samples: int, rate: float, noise: EcgNoise) -> np.ndarray:
    """The noise of one lead in millivolts, shape (samples,)."""
    times = np.arange(num_samples) / rate
    wander = sum(
        np.sin(2 * np.pi * frequency * times + rng.uniform(0, 2 * np.pi)) * rng.normal(0, noise.baseline_mv)
        for frequency in (0.05, 0.15, 0.3)
    )
    white = rng.standard_normal(num_samples)
    muscle = noise.muscle_mv * (white - gaussian_filter1d(white, 4.0 * rate / 500))
    mains = noise.mains_mv * np.sin(2 * np.pi * noise.mains_hz * times + rng.uniform(0, 2 * np.pi))
    motion = np.zeros(num_samples)
    for _ in range(rng.poisson(noise.motion_per_min * num_samples / rate / 60)):
        since = times - rng.uniform(0, times[-1])
        decay_s = rng.uniform(0.2, 0.6)
        bump = np.exp(-np.maximum(since, 0) / decay_s) - np.exp(-np.maximum(since, 0) / 0.05)
        motion += rng.normal(0, noise.motion_mv) * np.where(since > 0, bump, 0.0)
    return wander + muscle + mains + motion


def _band_pass(samples: np.ndarray, rate: float, band_hz: tuple[float, float]) -> np.ndarray:
    """First-order high-pass and second-order low-pass, as Butterworth gains without phase."""
    pad = min(samples.shape[1] - 1, round(2 * rate))
    padded = np.pad(samples, ((0, 0), (pad, pad)), mode="reflect", reflect_type="odd")
    length = int(next_fast_len(padded.shape[1], real=True))  # type: ignore[arg-type]
    frequency = np.fft.rfftfreq(length, 1 / rate)
    low, high = band_hz
    gain = frequency / np.hypot(frequency, low) / np.sqrt(1 + (frequency / high) ** 4)
    filtered = np.fft.irfft(np.fft.rfft(padded, length, axis=1) * gain, length, axis=1)
    return filtered[:, pad : pad + samples.shape[1]]
