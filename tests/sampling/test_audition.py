"""Auditions: the clip begins with the clearest of several first pictures, and nothing else changes."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from echopulse.errors import InputError
from echopulse.models.segmenter import ChamberSegmenter, SegmenterConfig
from echopulse.sampling.audition import allowed_doubt, auditioned
from echopulse.sampling.decode import DecodeSettings
from echopulse.sampling.pipeline import Pipeline
from echopulse.sampling.progressive import Scene
from echopulse.sampling.request import GenerationRequest, Take
from echopulse.signals import EcgSignal
from echopulse.signals.track import EcgTrack

SETTINGS = DecodeSettings(steps=2, picture_temperature=1.0, auditions=3)
ASKED = GenerationRequest(seconds=0.6, seed=1)


class LikesThemDark(ChamberSegmenter):
    """Doubts what is bright, and remembers what it was shown."""

    def __init__(self) -> None:
        super().__init__(SegmenterConfig(widths=(8, 16), size=32))
        self.shown: list[np.ndarray] = []

    def doubt(self, frames: np.ndarray) -> np.ndarray:
        self.shown.append(frames)
        return frames.mean((1, 2))


@pytest.fixture
def judged(pipeline: Pipeline) -> Pipeline:
    return Pipeline(pipeline.tokenizer, pipeline.generator, {}, torch.float32, segmenter=LikesThemDark())


def shown_to(pipeline: Pipeline) -> list[np.ndarray]:
    assert isinstance(pipeline.segmenter, LikesThemDark)
    return pipeline.segmenter.shown


def test_a_clip_begins_with_the_clearest_picture(
    judged: Pipeline,
    ecgs: tuple[EcgSignal, EcgSignal],
    same_but_for_rounding: Callable[[np.ndarray, np.ndarray], bool],
) -> None:
    asked = [ASKED, replace(ASKED, seed=2)]
    clips = judged.generate([Take(ecg, one) for ecg, one in zip(ecgs, asked, strict=True)], SETTINGS)[0]
    (shown,) = shown_to(judged)
    assert shown.shape == (6, *judged.size)
    for clip, candidates in zip(clips, (shown[:3], shown[3:]), strict=True):
        levels = candidates.mean((1, 2))
        assert len(np.unique(levels)) == 3, "three draws"
        assert np.array_equal(clip.frames[0], candidates[levels.argmin()])
        assert clip.provenance["auditions"] == 3
    alone = [judged(ecg, one, settings=SETTINGS)[0] for ecg, one in zip(ecgs, asked, strict=True)]
    for one, clip in zip(alone, clips, strict=True):
        assert same_but_for_rounding(one.frames, clip.frames), "alone as in a batch"


def test_every_scene_keeps_the_best_of_its_own(judged: Pipeline, ecgs: tuple[EcgSignal, EcgSignal]) -> None:
    scenes = [Scene(EcgTrack.from_signal(ecg), 0.0, 25.0, 0, 0.5) for ecg in ecgs]
    asked = []

    class Doubtful(LikesThemDark):
        def doubt(self, frames: np.ndarray) -> np.ndarray:
            return np.array([2.0, np.inf, 1.0, 7.0, 5.0, 6.0])

    def show(rows: Sequence[int], candidates: Sequence[Scene]) -> np.ndarray:
        asked.append((list(rows), list(candidates)))
        return np.zeros((len(rows), 8, 8), np.uint8)

    generators = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
    with torch.inference_mode():
        chosen = auditioned(judged.generator, scenes, SETTINGS, generators, show, Doubtful())
    ((rows, candidates),) = asked
    assert rows == [0, 0, 0, 1, 1, 1]
    assert all(one.track is scenes[row].track for row, one in zip(rows, candidates, strict=True))
    assert chosen[0] is candidates[2] and chosen[1] is candidates[4]


def test_the_doubt_that_grey_levels_are_allowed_is_not_held_against_a_picture(
    judged: Pipeline, ecgs: tuple[EcgSignal, EcgSignal]
) -> None:
    own = np.array([0.3, 0.2, 0.4, 0.6, 0.7, 0.5])
    bright, dark = np.array([40, 60, 83, 200, 83, 10]), np.array([0, 60, 3, 200, 3, 10])
    scenes = [Scene(EcgTrack.from_signal(ecg), 0.0, 25.0, 0, 0.5) for ecg in ecgs]
    shown = []

    class DoubtsTheUnusual(LikesThemDark):
        def doubt(self, frames: np.ndarray) -> np.ndarray:
            level, contrast = frames.mean((1, 2)) / 255, frames.std((1, 2)) / 255
            return own + 20 * (level - 0.15) ** 2 - 2 * contrast + 5 * level * contrast - 3 * contrast**2

    def show(rows: Sequence[int], candidates: Sequence[Scene]) -> np.ndarray:
        shown[:] = candidates
        halves = np.where(np.arange(8) < 4, bright[:, None], dark[:, None])
        return halves[:, None].repeat(8, 1).astype(np.uint8)

    truth, doubts = np.array([-6.0, -2.0, 20.0, 5.0, -3.0]), DoubtsTheUnusual()
    for share, expected in ((0.0, (2, 4)), (1.0, (1, 5))):
        settings = replace(SETTINGS, grey_allowance=tuple(share * truth))
        generators = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
        with torch.inference_mode():
            chosen = auditioned(judged.generator, scenes, settings, generators, show, doubts)
        assert all(one is shown[i] for one, i in zip(chosen, expected, strict=True)), share
    pictures = show([], [])
    rest = doubts.doubt(pictures) - allowed_doubt(pictures, replace(SETTINGS, grey_allowance=tuple(truth)))
    assert rest - own == pytest.approx(np.full(6, 20 * 0.15**2)), "all but a constant"
    assert not allowed_doubt(pictures, SETTINGS).any()


def test_a_given_picture_has_no_rival(judged: Pipeline, ecgs: tuple[EcgSignal, EcgSignal]) -> None:
    image = np.random.default_rng(0).integers(0, 256, judged.size, np.uint8)
    given, once = (judged(ecgs[0], ASKED, image=image, settings=replace(SETTINGS, auditions=n))[0] for n in (3, 1))
    assert np.array_equal(given.frames, once.frames)
    together = replace(SETTINGS, picture_temperature=None)  # first pictures are not drawn before all else
    clips = [judged(ecgs[0], ASKED, settings=replace(together, auditions=n))[0] for n in (3, 1)]
    assert np.array_equal(clips[0].frames, clips[1].frames)
    assert not shown_to(judged)


def test_auditions_that_cannot_be_are_refused(pipeline: Pipeline, ecgs: tuple[EcgSignal, EcgSignal]) -> None:
    with pytest.raises(InputError, match="judged by a segmenter, but this checkpoint has none"):
        pipeline(ecgs[0], ASKED, settings=SETTINGS)
    beside = pipeline(ecgs[0], ASKED, image=np.zeros(pipeline.size, np.uint8), settings=SETTINGS)[0]
    assert beside.num_frames == ASKED.num_frames, "there is none to judge beside a picture"
    for number in (0, 65):
        with pytest.raises(InputError, match=f"auditions is {number}; expected 1"):
            DecodeSettings(auditions=number)
