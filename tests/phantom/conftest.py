"""Rendered patients that several tests look at, and longer records of their ECG and truth alone."""

from collections.abc import Callable
from functools import cache

import pytest

from echopulse.phantom import sample_patient, simulate_clip
from echopulse.signals import PairedClip


@pytest.fixture(scope="session")
def clip() -> PairedClip:
    """Two seconds of a sinus patient at 50 frames/s, with masks."""
    return simulate_clip(sample_patient(11, view="a4c", rhythm="sinus"), fps=50.0, seconds=2.0, size=(128, 128))


@pytest.fixture(scope="session")
def record() -> Callable[..., PairedClip]:
    """A long record: one small frame a second, so that ECG and truth cost little."""

    @cache
    def make(
        seed: int, rhythm: str, seconds: float = 30.0, heart_rate_bpm: float | None = None, ef: float | None = None
    ) -> PairedClip:
        patient = sample_patient(seed, rhythm=rhythm, heart_rate_bpm=heart_rate_bpm, ef_percent=ef)
        return simulate_clip(patient, fps=1.0, seconds=seconds, size=(32, 32), with_masks=False)

    return make
