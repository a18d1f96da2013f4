"""`EcgSignal`: an electrocardiogram with its leads, rate, clock and origin."""

import hashlib
from dataclasses import dataclass, replace

import numpy as np

from echopulse.errors import InputError

MIN_DURATION_S = 1.0
"""Shorter recordings hold no complete beat and are refused."""


@dataclass(frozen=True, eq=False)
class EcgSignal:
    """A multi-lead ECG on the clip's clock. Immutable: the array is copied and locked.

    Attributes:
        samples_mv: float32 array of shape (leads, samples), millivolts.
        leads: one name per row, standard spelling where the lead is standard (`axes.STANDARD_LEADS`).
        sampling_rate_hz: samples per second.
        start_s: time of the first sample in seconds, on the clock of the paired video.
        source: where it came from (a file name, "phantom", ...).
        format: name of the format it was read from.
        notes: what the reader did beyond reading, one short sentence each.
        gaps_s: times without a measurement in some lead, (from, to) in seconds on the ECG's clock; a
            straight line bridges them.
    """

    samples_mv: np.ndarray
    leads: tuple[str, ...]
    sampling_rate_hz: float
    start_s: float = 0.0
    source: str = ""
    format: str = "array"
    notes: tuple[str, ...] = ()
    gaps_s: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        samples = np.array(self.samples_mv, dtype=np.float32, copy=True)
        if samples.ndim != 2:
            raise InputError(f"ECG samples have shape {samples.shape}; expected (leads, samples)")
        leads = tuple(str(lead) for lead in self.leads)
        if len(leads) != samples.shape[0]:
            raise InputError(f"{len(leads)} lead names for {samples.shape[0]} rows of ECG samples")
        if len(set(leads)) != len(leads):
            raise InputError(f"ECG lead names repeat: {', '.join(leads)}")
        rate = float(self.sampling_rate_hz)
        if not (np.isfinite(rate) and rate > 0):
            raise InputError(f"ECG sampling rate is {rate} Hz; expected a positive number")
        bad = int(np.count_nonzero(~np.isfinite(samples)))
        if bad:
            raise InputError(f"{self.source or 'ECG'}: {bad} samples are NaN or infinite; expected finite millivolts")
        if samples.shape[0] == 0 or samples.shape[1] / rate < MIN_DURATION_S:
            raise InputError(
                f"{self.source or 'ECG'}: {samples.shape[1] / rate:.2f} s of signal in {samples.shape[0]} leads; "
                f"expected at least one lead of {MIN_DURATION_S:g} s"
            )
        samples.setflags(write=False)
        object.__setattr__(self, "samples_mv", samples)
        object.__setattr__(self, "leads", leads)
        object.__setattr__(self, "sampling_rate_hz", rate)
        object.__setattr__(self, "start_s", float(self.start_s))

    @property
    def num_samples(self) -> int:
        """Samples per lead."""
        return int(self.samples_mv.shape[1])

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.num_samples / self.sampling_rate_hz

    @property
    def end_s(self) -> float:
        """Time just after the last sample, seconds."""
        return self.start_s + self.duration_s

    @property
    def times_s(self) -> np.ndarray:
        """Time of every sample in seconds, float64 of shape (samples,)."""
        return self.start_s + np.arange(self.num_samples) / self.sampling_rate_hz

    def lead(self, name: str) -> np.ndarray:
        """One lead in millivolts, shape (samples,).

        Raises:
            InputError: there is no such lead.
        """
        if name not in self.leads:
            raise InputError(f"no lead {name!r} in this ECG; it has {', '.join(self.leads)}")
        return self.samples_mv[self.leads.index(name)]

    def select(self, leads: tuple[str, ...]) -> "EcgSignal":
        """The same ECG with these leads only, in this order."""
        return replace(self, samples_mv=np.stack([self.lead(name) for name in leads]), leads=tuple(leads))

    def crop(self, start_s: float, end_s: float) -> "EcgSignal":
        """The part between two times of its own clock (seconds); times outside are left out."""
        first = max(0, int(np.ceil((start_s - self.start_s) * self.sampling_rate_hz - 1e-6)))
        last = min(self.num_samples, int(np.ceil((end_s - self.start_s) * self.sampling_rate_hz - 1e-6)))
        if last <= first:
            raise InputError(
                f"no ECG between {start_s:g} and {end_s:g} s; it covers {self.start_s:g} to {self.end_s:g} s"
            )
        start, end = (self.start_s + index / self.sampling_rate_hz for index in (first, last))
        gaps = tuple((max(low, start), min(high, end)) for low, high in self.gaps_s if low < end and high > start)
        return replace(self, samples_mv=self.samples_mv[:, first:last], start_s=start, gaps_s=gaps)

    def shifted(self, start_s: float) -> "EcgSignal":
        """The same samples with another time for the first one."""
        gaps = tuple((low + start_s - self.start_s, high + start_s - self.start_s) for low, high in self.gaps_s)
        return replace(self, start_s=start_s, gaps_s=gaps)

    def sha256(self) -> str:
        """Hash of samples, leads and rate: the identity that provenance records."""
        digest = hashlib.sha256()
        digest.update(f"{','.join(self.leads)}|{self.sampling_rate_hz!r}|{self.samples_mv.shape}".encode())
        digest.update(np.ascontiguousarray(self.samples_mv, dtype="<f4").tobytes())
        return digest.hexdigest()
