"""The prepared ECG: scale, leads, windows, and its repetition outside the recording."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from echopulse.axes import STANDARD_LEADS
from echopulse.signals import EcgSignal
from echopulse.signals.track import TRACK_RATE_HZ, EcgTrack, beat_marks

MakeEcg = Callable[..., EcgSignal]


def test_track_keeps_leads_clock_and_beats(long_ecg: MakeEcg) -> None:
    ecg = long_ecg()
    track = EcgTrack.from_signal(ecg)
    assert track.lead_ids.tolist() == list(range(12))
    assert track.samples.shape == (12, 2500) and track.samples.dtype == np.float32
    assert (track.start_s, track.end_s) == pytest.approx((ecg.start_s, ecg.end_s))
    assert np.sqrt(np.mean(track.samples**2)) == pytest.approx(1, abs=1e-3)
    assert np.median(np.diff(track.r_times_s)) == pytest.approx(0.8, abs=0.05)


def test_scale_of_the_recording_does_not_matter(long_ecg: MakeEcg) -> None:
    ecg = long_ecg()
    louder = replace(ecg, samples_mv=3 * ecg.samples_mv)
    np.testing.assert_allclose(EcgTrack.from_signal(louder).samples, EcgTrack.from_signal(ecg).samples, atol=1e-3)


def test_unknown_leads_are_left_out_unless_alone(long_ecg: MakeEcg) -> None:
    ecg = long_ecg().select(("V2", "I"))
    mixed = replace(ecg, leads=("X9", "I"))
    assert EcgTrack.from_signal(ecg).lead_ids.tolist() == [STANDARD_LEADS.index("I"), STANDARD_LEADS.index("V2")]
    assert EcgTrack.from_signal(mixed).lead_ids.tolist() == [STANDARD_LEADS.index("I")]
    assert EcgTrack.from_signal(replace(ecg, leads=("X9", "X8"))).lead_ids.tolist() == [STANDARD_LEADS.index("II")]


def test_flat_ecg_stays_flat_and_finite(flat_ecg: EcgSignal) -> None:
    track = EcgTrack.from_signal(flat_ecg).extended(-5.0, 20.0)
    assert len(track.r_times_s) == 0
    samples, marks = track.window(3.0, 750)
    assert np.isfinite(samples).all() and np.abs(samples).max() < 1e-3
    assert not marks.any()


def test_window_lies_around_its_middle_and_is_zero_outside(long_ecg: MakeEcg) -> None:
    track = EcgTrack.from_signal(long_ecg())  # from -1 to 9 s
    samples, marks = track.window(2.0, 750)
    assert samples.shape == (12, 750) and marks.shape == (750,)
    np.testing.assert_array_equal(samples, track.samples[:, 375:1125])
    early, _ = track.window(-1.0, 750)
    assert not early[:, :375].any() and early[:, 375:].any()
    late, _ = track.window(9.0, 750)
    assert late[:, :375].any() and not late[:, 375:].any()
    nowhere, none = track.window(1000.0, 750)
    assert not nowhere.any() and not none.any()


def test_marks_stand_on_the_beats() -> None:
    times = np.arange(500) / TRACK_RATE_HZ
    marks = beat_marks(np.array([0.4, 1.2, 77.0]), times)
    assert marks.dtype == np.float32 and marks.max() == 1
    assert np.flatnonzero(marks == 1).tolist() == [100, 300]
    assert marks[105] == pytest.approx(np.exp(-0.5), abs=1e-6), "one width beside the peak"
    assert marks[200] == 0


def test_span_inside_the_recording_is_the_recording(long_ecg: MakeEcg) -> None:
    track = EcgTrack.from_signal(long_ecg())
    assert track.extended(0.0, 5.0) is track
    assert track.repeats_every_s == 0


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", ["sinus", "paced"])
def test_beats_go_on_outside_the_recording(long_ecg: MakeEcg, kind: str, seed: int) -> None:
    track = EcgTrack.from_signal(long_ecg(kind, seed))
    longer = track.extended(-25.0, 40.0)
    assert longer.start_s == -25 and longer.end_s == pytest.approx(40)
    assert longer.repeats_every_s == pytest.approx(track.r_times_s[-1] - track.r_times_s[0], abs=0.501 / TRACK_RATE_HZ)
    intervals, own = np.diff(longer.r_times_s), np.diff(track.r_times_s)
    assert intervals.min() > own.min() - 0.01
    # The detector may miss a beat cut by an end of the recording; nothing is put into the recording itself.
    before, after = longer.r_times_s[:-1], longer.r_times_s[1:]
    seam = ((before < track.start_s) & (after > track.start_s)) | ((before < track.end_s) & (after > track.end_s))
    assert intervals[~seam].max() < own.max() + 0.01 and intervals.max() < 2 * own.max() + 0.01
    assert longer.r_times_s[0] < -25 + own.max() and longer.r_times_s[-1] > 40 - own.max() - 0.01
    inside = (longer.r_times_s >= track.start_s - 1e-4) & (longer.r_times_s < track.end_s)
    np.testing.assert_allclose(longer.r_times_s[inside], track.r_times_s, atol=1e-4)


def test_marks_stand_on_the_repeated_beats(long_ecg: MakeEcg) -> None:
    """The waves around every repeated R mark are those around a recorded one."""
    track = EcgTrack.from_signal(long_ecg())
    longer = track.extended(-25.0, 40.0)
    lead = longer.samples[STANDARD_LEADS.index("II")]
    heights = []
    for r in longer.r_times_s[1:-1]:
        at = round((r - longer.start_s) * TRACK_RATE_HZ)
        heights.append(np.abs(lead[at - 5 : at + 6]).max() / np.abs(lead).max())
    assert min(heights) > 0.7


def test_recorded_part_is_untouched_by_repetition(long_ecg: MakeEcg) -> None:
    track = EcgTrack.from_signal(long_ecg())
    longer = track.extended(-2.0, 12.0)
    np.testing.assert_array_equal(longer.samples[:, 250:2750], track.samples)


def test_time_since_the_beat_before(long_ecg: MakeEcg) -> None:
    track = replace(EcgTrack.from_signal(long_ecg()), r_times_s=np.array([1.0, 1.8]))
    since = track.since_beat_s(np.array([0.9, 1.0, 1.7, 1.8, 5.0]))
    np.testing.assert_allclose(since, [np.nan, 0.0, 0.7, 0.0, 3.2], atol=1e-9)
    assert track.period_s == pytest.approx(0.8) and replace(track, r_times_s=np.ones(1)).period_s == np.inf
    assert np.isnan(replace(track, r_times_s=np.empty(0)).since_beat_s(np.arange(3.0))).all()
