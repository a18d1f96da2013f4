"""`EcgSignal`: what it refuses, and that its parts agree on the clock. Lead names."""

import numpy as np
import pytest

from echopulse.axes import STANDARD_LEADS
from echopulse.errors import InputError
from echopulse.signals.ecg import EcgSignal
from echopulse.signals.leads import normalize_lead, standard_lead, unique_leads


def ramp(rate: float = 100.0, start_s: float = 2.0) -> EcgSignal:
    samples = np.arange(300, dtype=np.float32)
    return EcgSignal(np.stack([samples, -samples]), ("I", "II"), rate, start_s=start_s)


def test_array_is_copied_and_locked() -> None:
    samples = np.zeros((1, 200), dtype=np.float32)
    ecg = EcgSignal(samples, ("II",), 100.0)
    samples[0, 0] = 5
    assert ecg.samples_mv[0, 0] == 0
    with pytest.raises(ValueError, match="read-only"):
        ecg.samples_mv[0, 0] = 1


@pytest.mark.parametrize(
    ("samples", "leads", "rate", "message"),
    [
        (np.zeros(500), ("I",), 100.0, "expected \\(leads, samples\\)"),
        (np.zeros((2, 500)), ("I",), 100.0, "1 lead names for 2 rows"),
        (np.zeros((2, 500)), ("I", "I"), 100.0, "repeat"),
        (np.zeros((1, 500)), ("I",), 0.0, "positive"),
        (np.zeros((1, 500)), ("I",), float("nan"), "positive"),
        (np.full((1, 500), np.nan), ("I",), 100.0, "500 samples are NaN"),
        (np.full((1, 500), np.inf), ("I",), 100.0, "infinite"),
        (np.zeros((1, 99)), ("I",), 100.0, "0.99 s"),
        (np.zeros((0, 500)), (), 100.0, "at least one lead"),
    ],
)
def test_refuses(samples: np.ndarray, leads: tuple[str, ...], rate: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        EcgSignal(samples, leads, rate)


def test_clock_and_crop() -> None:
    ecg = ramp()
    assert (ecg.num_samples, ecg.duration_s, ecg.end_s) == (300, 3.0, 5.0)
    part = ecg.crop(2.5, 4.0)
    np.testing.assert_allclose(part.times_s, ecg.times_s[50:200])
    np.testing.assert_array_equal(part.lead("I"), np.arange(50, 200))
    assert ecg.crop(-10, 100).num_samples == 300
    with pytest.raises(InputError, match="it covers 2 to 5 s"):
        ecg.crop(6, 8)


def test_select_and_shift_keep_the_rest() -> None:
    ecg = ramp()
    swapped = ecg.select(("II", "I"))
    np.testing.assert_array_equal(swapped.samples_mv, ecg.samples_mv[::-1])
    assert ecg.shifted(-1).start_s == -1
    with pytest.raises(InputError, match="no lead 'V9'"):
        ecg.select(("V9",))


def test_hash_sees_samples_leads_and_rate_but_not_the_clock() -> None:
    ecg = ramp()
    assert ecg.sha256() == ecg.shifted(9).sha256()
    others = [ramp(rate=101.0), ecg.select(("I",)), EcgSignal(ecg.samples_mv + 1, ecg.leads, 100.0)]
    assert len({ecg.sha256(), *(other.sha256() for other in others)}) == 4


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *((lead.upper(), lead) for lead in STANDARD_LEADS),
        *((lead.lower(), lead) for lead in STANDARD_LEADS),
        ("ECG I", "I"),
        ("EKG II", "II"),
        ("Lead I", "I"),
        ("MDC_ECG_LEAD_AVR", "aVR"),
        ("ECG aVF", "aVF"),
        ("aV-L", "aVL"),
        ("ECG V1-Ref", "V1"),
        ("Lead I (Einthoven)", "I"),
        ("mlii", "MLII"),
        ("vx", "X"),
        ("  RESP ", "RESP"),
        ("ECG", "ECG"),
        ("", ""),
    ],
)
def test_lead_names(name: str, expected: str) -> None:
    assert normalize_lead(name) == expected


def test_standard_leads_and_repeats() -> None:
    assert [standard_lead(name) for name in ("MLII", "mv5", "ECG V2", "X", "RESP")] == ["II", "V5", "V2", None, None]
    assert unique_leads(["ii", "II", "", "II", ""]) == ("II", "II_2", "lead_3", "II_3", "lead_5")
