"""Rehearsals: what is told moves until what is shown is what is wanted; and where there can be none."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from echopulse.axes import MASK_CLASSES
from echopulse.errors import InputError
from echopulse.models.segmenter import ChamberSegmenter, SegmenterConfig
from echopulse.sampling.decode import DecodeSettings
from echopulse.sampling.pipeline import Pipeline
from echopulse.sampling.progressive import Scene, generate_batch
from echopulse.sampling.rehearsal import rehearsed
from echopulse.sampling.request import GenerationRequest, Take
from echopulse.signals import EcgSignal
from echopulse.signals.track import EcgTrack

SLOTS = 8
LONG = 200
"""Frames of a clip of which a rehearsal is but the beginning."""

NAN = float("nan")


class DrawnMasks(ChamberSegmenter):
    """Takes pictures for masks."""

    def label(self, frames: np.ndarray) -> np.ndarray:
        return frames


@pytest.fixture
def segmenter() -> ChamberSegmenter:
    return DrawnMasks(SegmenterConfig(widths=(8, 16), size=32))


def track(period_s: float, beats: int = 12) -> EcgTrack:
    return EcgTrack(np.zeros((1, 4000), np.float32), np.array([1]), period_s * np.arange(beats), 0.0)


def scene(period_s: float = 0.8, wanted: float = 0.5, **change) -> Scene:
    first = torch.zeros(1, 2, 2, dtype=torch.long)
    return Scene(track(period_s), 0.0, 25.0, 0, wanted, first=first, wanted_ef=wanted, **change)


class Ventricle:
    """Shows `bias + slope · told`, as an ellipse that beats with the ECG."""

    def __init__(self, bias: float = 0.15, slope: float = 0.8, size: int = 96) -> None:
        self.bias, self.slope, self.size = bias, slope, size
        self.asked: list[tuple[list[float], int]] = []

    def shown(self, told: float) -> float:
        return self.bias + self.slope * told

    def __call__(self, rows: Sequence[int], scenes: Sequence[Scene], length: int) -> np.ndarray:
        self.asked.append(([one.ef for one in scenes], length))
        return np.stack([self._clip(one, 2 * length - 1) for one in scenes])

    def _clip(self, one: Scene, frames: int) -> np.ndarray:
        assert one.track is not None
        phase = np.arange(frames) / one.fps / float(np.median(np.diff(one.track.r_times_s)))
        volume = 1 - self.shown(one.ef) * np.sin(np.pi * (phase % 1)) ** 2
        rows, columns = (np.indices((self.size, self.size)) - self.size / 2 + 0.5) / self.size
        radius = np.hypot(rows / 0.42, columns / 0.25)
        masks = np.zeros((frames, self.size, self.size), np.uint8)
        masks[radius < np.cbrt(volume)[:, None, None]] = MASK_CLASSES.index("lv_cavity")
        return masks


def test_what_is_told_makes_up_for_the_error(segmenter: ChamberSegmenter) -> None:
    play, wanted = Ventricle(bias=0.12, slope=0.7), 0.6
    before = play.shown(wanted) - wanted
    errors = []
    for rounds in (1, 2, 3):
        (corrected,) = rehearsed([scene(wanted=wanted)], play, segmenter, rounds, num_frames=LONG, slots=SLOTS)
        errors.append(abs(play.shown(corrected.ef) - wanted))
    assert abs(before) > 0.05
    assert errors[0] < 0.5 * abs(before) and errors[2] <= errors[1] < 0.012, "two rehearsals tell the slope"
    assert corrected.wanted_ef == wanted


def test_a_scene_that_is_near_enough_is_done(segmenter: ChamberSegmenter) -> None:
    play = Ventricle(bias=0.2, slope=0.6)  # shows what it is told at 0.5
    near, far = rehearsed([scene(wanted=0.5), scene(wanted=0.7)], play, segmenter, 3, num_frames=LONG, slots=SLOTS)
    assert near.ef == 0.5 and far.ef > 0.75
    assert [len(told) for told, _ in play.asked] == [2, 1, 1]


class Erratic(Ventricle):
    """Answers less the further it is told from 0.5, and wildly beyond 0.65."""

    def shown(self, told: float) -> float:
        return 0.5 + 0.4 * (told - 0.5) if told < 0.65 else 0.2


@pytest.mark.parametrize(("frames", "plays"), [(75, 3), (LONG, 2)], ids=["a short clip", "a long one"])
def test_a_correction_is_tried_out_where_the_rehearsal_is_the_clip(
    frames: int, plays: int, segmenter: ChamberSegmenter
) -> None:
    play = Erratic()
    (corrected,) = rehearsed([scene(wanted=0.6)], play, segmenter, 2, num_frames=frames, slots=SLOTS)
    told = [ef for (ef,), _ in play.asked]
    assert len(told) == plays and told[:2] == [0.6, pytest.approx(0.66, abs=0.005)]
    if frames == LONG:
        assert corrected.ef not in told, "trusted"
    else:
        assert corrected.ef == min(told, key=lambda ef: abs(play.shown(ef) - 0.6)) == 0.6


def test_what_cannot_be_told_any_more_is_not_tried_again(segmenter: ChamberSegmenter) -> None:
    play = Ventricle(0.3, 0.05)
    rehearsed([scene(wanted=0.6)], play, segmenter, 5, num_frames=LONG, slots=SLOTS)
    assert [told for told, _ in play.asked] == [[0.6], [pytest.approx(0.8)]]


def test_what_is_told_stays_in_range(segmenter: ChamberSegmenter) -> None:
    (corrected,) = rehearsed([scene(wanted=0.8)], Ventricle(slope=0.1), segmenter, 4, num_frames=75, slots=SLOTS)
    assert corrected.ef == 0.85


def test_a_heart_that_hardly_answers_is_told_at_most_a_fifth_more(segmenter: ChamberSegmenter) -> None:
    (corrected,) = rehearsed([scene(wanted=0.5)], Ventricle(0.3, 0.1), segmenter, 4, num_frames=75, slots=SLOTS)
    assert corrected.ef == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("alone", "frames"),
    [
        (scene(wanted=NAN), 75),
        (replace(scene(), track=None), 75),
        (replace(scene(), track=track(0.8, beats=1)), 75),
        (scene(period_s=1.2), 27),
    ],
    ids=["nothing wanted", "no ECG", "no beats", "shorter than a beat"],
)
def test_no_rehearsal_where_it_could_tell_nothing(segmenter: ChamberSegmenter, alone: Scene, frames: int) -> None:
    play = Ventricle()
    assert rehearsed([alone], play, segmenter, 2, num_frames=frames, slots=SLOTS) == [alone]
    assert not play.asked


def test_a_rehearsal_without_a_ventricle_changes_nothing(segmenter: ChamberSegmenter) -> None:
    def blank(rows: Sequence[int], scenes: Sequence[Scene], length: int) -> np.ndarray:
        return np.zeros((len(scenes), 2 * length - 1, 32, 32), np.uint8)

    assert rehearsed([scene()], blank, segmenter, 2, num_frames=75, slots=SLOTS)[0].ef == 0.5


def test_whole_windows_hold_a_whole_ejection_and_neighbours_do_not_count(segmenter: ChamberSegmenter) -> None:
    play, fast, slow = Ventricle(), scene(0.5, wanted=0.6), scene(1.3, wanted=0.3)
    (alone,) = rehearsed([fast], play, segmenter, 1, num_frames=LONG, slots=SLOTS)
    together = rehearsed([fast, slow, scene(wanted=NAN)], play, segmenter, 1, num_frames=LONG, slots=SLOTS)
    lengths = [length for _, length in play.asked]
    assert lengths == [38, 43], "3 s and 2 · 1.3 + 0.5 s are 75 and 78 frames; 15 in a first window, then 10"
    assert together[0].ef == alone.ef != together[1].ef
    assert np.isnan(together[2].ef)


def test_a_clip_that_goes_on_is_rehearsed_from_its_first_picture(segmenter: ChamberSegmenter) -> None:
    seen = []

    def play(rows: Sequence[int], scenes: Sequence[Scene], length: int) -> np.ndarray:
        seen.extend(scenes)
        return Ventricle()(rows, scenes, length)

    past = torch.zeros(4, 2, 2, dtype=torch.long)
    (corrected,) = rehearsed([scene(past=past, past_length=9)], play, segmenter, 1, num_frames=75, slots=SLOTS)
    assert len(seen) == 1, "it is no rehearsal of the clip itself"
    assert seen[0].past is None and seen[0].past_length == 0 and seen[0].first is not None
    assert corrected.past is past and corrected.past_length == 9 and corrected.ef != 0.5


def test_a_rehearsal_is_not_longer_than_the_clip(segmenter: ChamberSegmenter) -> None:
    play = Ventricle()
    rehearsed([scene(0.8)], play, segmenter, 1, num_frames=25, slots=SLOTS)
    assert [length for _, length in play.asked] == [13, 13]


# in the pipeline


class PulsingMasks(ChamberSegmenter):
    """Sees the same beating ventricle in every clip."""

    def label(self, frames: np.ndarray) -> np.ndarray:
        return Ventricle(bias=0.4, slope=0.0)._clip(scene(), len(frames))


@pytest.fixture
def watched(pipeline: Pipeline) -> Pipeline:
    segmenter = PulsingMasks(SegmenterConfig(widths=(8, 16), size=32))
    return Pipeline(
        pipeline.tokenizer, pipeline.generator, {"decoding": {"steps": 2}}, torch.float32, segmenter=segmenter
    )


ONCE, NEVER = (DecodeSettings(steps=2, picture_temperature=1.0, rehearsals=n) for n in (1, 0))


Same = Callable[[np.ndarray, np.ndarray], bool]


def test_a_rehearsed_clip_is_that_of_a_corrected_ef(
    watched: Pipeline, ecgs: tuple[EcgSignal, EcgSignal], same_but_for_rounding: Same
) -> None:
    asked = GenerationRequest(seconds=4.0, seed=1, ef_percent=45.0)
    clips = watched.generate([Take(ecg, asked) for ecg in ecgs], ONCE)[0]
    told = replace(asked, ef_percent=45.0 + 45.0 - 40.0)
    for ecg, clip in zip(ecgs, clips, strict=True):
        alone = watched(ecg, asked, settings=ONCE)[0].frames
        assert same_but_for_rounding(alone, clip.frames), "alone as in a batch"
        off = np.abs(clip.frames.astype(int) - watched(ecg, told, settings=NEVER)[0].frames)
        assert off.mean() < 1.0, "the same draws: what is shown is 40 % within a point or two"
        assert np.abs(clip.frames.astype(int) - watched(ecg, asked, settings=NEVER)[0].frames).mean() > 2 * off.mean()
    assert clips[0].provenance["rehearsals"] == 1


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Clips and token frames of every batch that is generated."""
    batches = []

    def counted(model, scenes, length, *rest):
        batches.append((len(scenes), length))
        return generate_batch(model, scenes, length, *rest)

    monkeypatch.setattr("echopulse.sampling.pipeline.generate_batch", counted)
    return batches


def test_a_rehearsal_of_the_whole_clip_is_the_clip(
    watched: Pipeline, ecgs: tuple[EcgSignal, EcgSignal], same_but_for_rounding: Same, drawn: list[tuple[int, int]]
) -> None:
    asked = GenerationRequest(seconds=1.5, seed=1, ef_percent=45.0)
    clips = watched.generate([Take(ecg, asked) for ecg in ecgs], ONCE)[0]
    assert drawn == [(2, 20), (2, 20)], "played, corrected and played; none was nearer than the first"
    for ecg, clip in zip(ecgs, clips, strict=True):
        assert same_but_for_rounding(clip.frames, watched(ecg, asked, settings=NEVER)[0].frames)


def test_a_clip_goes_on_from_a_rehearsal_that_was_right(
    watched: Pipeline,
    ecgs: tuple[EcgSignal, EcgSignal],
    same_but_for_rounding: Same,
    drawn: list[tuple[int, int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("echopulse.sampling.rehearsal._NEAR", 1.0)
    asked = GenerationRequest(seconds=6.0, seed=1, ef_percent=45.0)
    for some in (ecgs, ecgs[:1]):
        drawn.clear()
        clips = watched.generate([Take(ecg, asked) for ecg in some], ONCE)[0]
        (number, played), rest = drawn
        assert number == len(some) and 0 < played < 76 and rest == (number, 76 - played)
        for ecg, clip in zip(some, clips, strict=True):
            assert same_but_for_rounding(clip.frames, watched(ecg, asked, settings=NEVER)[0].frames)


def test_a_stream_starts_at_once_unless_told_otherwise(watched: Pipeline, ecgs: tuple[EcgSignal, EcgSignal]) -> None:
    watched.info["decoding"] = {"steps": 2, "picture_temperature": 1.0, "rehearsals": 1}
    request, track = GenerationRequest(seconds=1.5, seed=1, start_s=0.0), EcgTrack.from_signal(ecgs[0])
    assert watched.default_settings.rehearsals == 1
    for settings, same in ((None, replace(watched.default_settings, rehearsals=0)), (watched.default_settings, None)):
        streamed = np.concatenate([piece.pictures for piece in watched.stream(track, request, settings=settings)])
        assert np.array_equal(streamed, watched(ecgs[0], request, settings=same)[0].frames)


def test_rehearsals_that_cannot_be_are_refused(pipeline: Pipeline, ecgs: tuple[EcgSignal, EcgSignal]) -> None:
    with pytest.raises(InputError, match="judged by a segmenter, but this checkpoint has none"):
        pipeline(ecgs[0], GenerationRequest(seconds=1.5), settings=DecodeSettings(rehearsals=1))
    with pytest.raises(InputError, match="rehearsals is 17; expected 0 to 16"):
        DecodeSettings(rehearsals=17)
