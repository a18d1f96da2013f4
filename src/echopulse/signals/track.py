"""From a recorded ECG to what the encoder reads: one rate, one scale, known leads, beat marks, any span of time."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from echopulse.axes import STANDARD_LEADS
from echopulse.signals.ecg import EcgSignal
from echopulse.signals.leads import standard_lead
from echopulse.signals.processing import clean, detect_r_peaks, resample

TRACK_RATE_HZ = 250.0
MARK_WIDTH_S = 0.02
_SMALLEST_SCALE_MV = 0.05
_BEAT_START_S = -0.25  # of a median beat, from the R peak
_BEAT_STRIDE = 2  # samples of the track a sample of a median beat

BEAT_SAMPLES = 100
"""Samples of a median beat: 0.8 s at 125 Hz."""


class MedianBeat(NamedTuple):
    """The median of all beats of a recording, in the standard leads.

    Attributes:
        samples_mv: float32 (12, 100), from 0.25 s before the R peak at 125 Hz; 0 in leads that are not there.
        present: bool (12,), which leads are there.
        rr_s: mean and standard deviation of the beat intervals, float32.
    """

    samples_mv: np.ndarray
    present: np.ndarray
    rr_s: np.ndarray


@dataclass(frozen=True, eq=False)
class EcgTrack:
    """An ECG prepared for the encoder.

    Attributes:
        samples: float32 of shape (leads, samples) at `TRACK_RATE_HZ`; 0.67–40 Hz, one scale for all leads.
        lead_ids: index of each row in `axes.STANDARD_LEADS`.
        r_times_s: R peaks found in the recording.
        start_s: time of the first sample.
        repeats_every_s: length of the piece that is repeated outside the recording; 0 where it is not.
        scale_mv: what 1 of `samples` is in millivolts.
    """

    samples: np.ndarray
    lead_ids: np.ndarray
    r_times_s: np.ndarray
    start_s: float
    repeats_every_s: float = 0.0
    scale_mv: float = 1.0

    @classmethod
    def from_signal(cls, ecg: EcgSignal) -> "EcgTrack":
        """Cleans, resamples, scales and marks a recording.

        Leads that are not among the standard 12 are left out, unless there is no other: then the first one
        stands for lead II. A flat ECG stays flat: the scale never falls below 0.05 mV.
        """
        r_times = detect_r_peaks(ecg)
        rows = {}
        for i, name in enumerate(ecg.leads):
            rows.setdefault(standard_lead(name), i)
        kept = [(STANDARD_LEADS.index(name), rows[name]) for name in STANDARD_LEADS if name in rows]
        kept = kept or [(STANDARD_LEADS.index("II"), 0)]
        chosen = replace(
            ecg,
            samples_mv=ecg.samples_mv[[row for _, row in kept]],
            leads=tuple(STANDARD_LEADS[lead] for lead, _ in kept),
        )
        samples = resample(clean(chosen), TRACK_RATE_HZ).samples_mv
        scale = max(float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))), _SMALLEST_SCALE_MV)
        return cls(
            samples=(samples / scale).astype(np.float32),
            lead_ids=np.array([lead for lead, _ in kept]),
            r_times_s=r_times,
            start_s=ecg.start_s,
            scale_mv=scale,
        )

    @property
    def end_s(self) -> float:
        """Time just after the last sample."""
        return self.start_s + self.samples.shape[1] / TRACK_RATE_HZ

    @property
    def period_s(self) -> float:
        """Median time between beats; infinite with fewer than two."""
        return float(np.median(np.diff(self.r_times_s))) if len(self.r_times_s) > 1 else float("inf")

    def extended(self, start_s: float, end_s: float) -> "EcgTrack":
        """The track over a longer span: the recording from its first to its last R peak is repeated on both sides.

        With fewer than two R peaks the whole recording is repeated.
        """
        if start_s >= self.start_s and end_s <= self.end_s:
            return self
        beats = self.r_times_s
        first, last = (beats[0], beats[-1]) if len(beats) > 1 else (self.start_s, self.end_s)
        period = round((last - first) * TRACK_RATE_HZ)
        offset = round((first - self.start_s) * TRACK_RATE_HZ)
        count = round((end_s - start_s) * TRACK_RATE_HZ)
        index = np.arange(count) + round((start_s - self.start_s) * TRACK_RATE_HZ)
        outside = (index < 0) | (index >= self.samples.shape[1])
        source = np.where(outside, offset + (index - offset) % period, index)
        step = period / TRACK_RATE_HZ
        turns = np.arange(np.floor((start_s - first) / step) - 1, np.ceil((end_s - first) / step) + 1)
        copies = np.array([])
        if len(beats) > 1:
            copies = (beats[None, :-1] + step * turns[:, None]).ravel()
            copies = copies[(copies < self.start_s) | (copies >= self.end_s)]
            copies = copies[np.abs(copies[:, None] - beats).min(axis=1) > 0.1]  # the seam's beat is there already
        marks = np.unique(np.round(np.concatenate([beats, copies]), 4))
        marks = marks[(marks >= start_s) & (marks < end_s)]
        return replace(self, samples=self.samples[:, source], r_times_s=marks, start_s=start_s, repeats_every_s=step)

    def median_beat(self) -> MedianBeat | None:
        """The median of all beats of the recording, and its rhythm; None where no whole beat was found."""
        length = BEAT_SAMPLES * _BEAT_STRIDE
        first = np.round((self.r_times_s - self.start_s) * TRACK_RATE_HZ).astype(int)
        first += round(_BEAT_START_S * TRACK_RATE_HZ)
        first = first[(first >= 0) & (first + length <= self.samples.shape[1])]
        if not len(first):
            return None
        beats = np.stack([self.samples[:, i : i + length : _BEAT_STRIDE] for i in first])
        samples = np.zeros((len(STANDARD_LEADS), BEAT_SAMPLES), np.float32)
        present = np.zeros(len(STANDARD_LEADS), bool)
        samples[self.lead_ids], present[self.lead_ids] = self.scale_mv * np.median(beats, axis=0), True
        rr = np.diff(self.r_times_s) if len(self.r_times_s) > 1 else np.array([1.0])
        return MedianBeat(samples, present, np.array([rr.mean(), rr.std()], np.float32))

    def since_beat_s(self, times_s: np.ndarray) -> np.ndarray:
        """Seconds since the R peak before each time; NaN before the first."""
        beats = np.append(np.nan, self.r_times_s)
        return times_s - beats[np.searchsorted(self.r_times_s, times_s, side="right")]

    def window(self, middle_s: float, num_samples: int) -> tuple[np.ndarray, np.ndarray]:
        """One encoder window; zero where the track does not reach.

        Args:
            middle_s: time of the window's middle.
            num_samples: its length.

        Returns:
            Leads (leads, num_samples) and beat marks (num_samples,), float32.
        """
        first = round((middle_s - self.start_s) * TRACK_RATE_HZ) - num_samples // 2
        out = np.zeros((len(self.lead_ids), num_samples), np.float32)
        low, high = max(first, 0), min(first + num_samples, self.samples.shape[1])
        if high > low:
            out[:, low - first : high - first] = self.samples[:, low:high]
        times = self.start_s + (first + np.arange(num_samples)) / TRACK_RATE_HZ
        return out, beat_marks(self.r_times_s, times)


def beat_marks(r_times_s: np.ndarray, times_s: np.ndarray) -> np.ndarray:
    """A Gaussian bump of height 1 on every R peak, float32 of the shape of `times_s`."""
    marks = np.zeros(times_s.shape, np.float32)
    for r in r_times_s[(r_times_s > times_s[0] - 0.1) & (r_times_s < times_s[-1] + 0.1)]:
        marks = np.maximum(marks, np.exp(-0.5 * ((times_s - r) / MARK_WIDTH_S) ** 2).astype(np.float32))
    return marks
