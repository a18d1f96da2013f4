"""Windows without end: what each one gives, keeps and is told."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from echopulse.errors import InputError
from echopulse.models.presets import generator_config
from echopulse.phantom import sample_patient, simulate_ecg
from echopulse.phantom.patient import patient_beats, patient_volume
from echopulse.sampling.decode import DecodeSettings
from echopulse.sampling.progressive import (
    OVERLAP,
    Scene,
    as_filling,
    frame_numbers,
    generate_codes,
    window_conditions,
)
from echopulse.signals import EcgSignal
from echopulse.signals.track import EcgTrack


@pytest.fixture(scope="module")
def scene(ecgs: tuple[EcgSignal, EcgSignal]) -> Scene:
    return Scene(EcgTrack.from_signal(ecgs[0]).extended(-3.0, 8.0), 0.0, 25.0, 0, 0.6)


def test_frame_numbers_follow_the_tokenizer() -> None:
    assert frame_numbers(4, 1).tolist() == [[0, 0], [1, 2], [3, 4], [5, 6]]
    assert frame_numbers(4, 6).tolist() == [[0, 0], [11, 12], [13, 14], [15, 16]]


@pytest.mark.parametrize(
    ("slots", "wanted", "sizes"),
    [
        (4, 1, [1]),
        (4, 3, [3]),
        (4, 4, [4]),
        (4, 7, [4, 1, 1, 1]),
        (6, 13, [6, 3, 3, 1]),
        (8, 38, [8, 5, 5, 5, 5, 5, 5]),
    ],
)
def test_every_window_gives_its_new_token_frames(
    known_answer: Callable, scene: Scene, slots: int, wanted: int, sizes: list[int]
) -> None:
    model = known_answer(torch.zeros(20), slots=slots)
    pieces = list(generate_codes(model, scene, wanted, DecodeSettings(steps=1), seed=0))
    assert [piece.shape for piece in pieces] == [(1, size, 8, 8) for size in sizes]
    assert len(model.calls) == len(sizes)


def test_windows_keep_the_first_frame_and_the_overlap(known_answer: Callable, scene: Scene) -> None:
    model = known_answer(torch.zeros(20), slots=6)
    clip = torch.cat(list(generate_codes(model, scene, 15, DecodeSettings(steps=1), seed=0)), dim=1)
    for number, (codes, known, asked) in enumerate(model.calls):
        assert known[0, :, 0, 0].tolist() == ([False] * 6 if number == 0 else [True] * 3 + [False] * 3)
        position = 1 + number * (6 - 1 - OVERLAP)
        if number:
            assert torch.equal(codes[0, 0], clip[0, 0])
            assert torch.equal(codes[0, 1 : 1 + OVERLAP], clip[0, position : position + OVERLAP])
        times = asked.frame_times_s[0, 1:].flatten()
        np.testing.assert_allclose(np.diff(times), 0.04, atol=1e-5)
        assert float(times.mean()) == pytest.approx(0, abs=1e-5)
        assert float(asked.first_gap_s[0]) == pytest.approx((2 * position - 1) / 25)


def test_given_first_frame_is_kept(known_answer: Callable, scene: Scene) -> None:
    first = torch.randint(0, 64, (1, 8, 8), generator=torch.Generator().manual_seed(9))
    given = Scene(scene.track, 0.0, 25.0, 1, float("nan"), first)
    model = known_answer(torch.zeros(20))
    clip = torch.cat(list(generate_codes(model, given, 6, DecodeSettings(steps=2), seed=0)), dim=1)
    assert torch.equal(clip[0, 0], first[0])
    assert model.calls[0][1][0, :, 0, 0].tolist() == [True, False, False, False]
    assert model.calls[0][2].view[0] == 1 and bool(model.calls[0][2].ef[0].isnan())


def test_one_picture_needs_no_window(known_answer: Callable, scene: Scene) -> None:
    model = known_answer(torch.linspace(0, 8, 20))
    settings = DecodeSettings(steps=2, picture_temperature=1.0)
    (one,) = generate_codes(model, scene, 1, settings, seed=3)
    assert len(model.calls) == 8, "the steps of the picture alone"
    more = torch.cat(list(generate_codes(model, scene, 2, settings, seed=3)), dim=1)
    assert one.shape == (1, 1, 8, 8) and torch.equal(one, more[:, :1])


def test_first_picture_is_drawn_before_all_else(known_answer: Callable, scene: Scene) -> None:
    """At its own temperature, in four times the steps, unguided; then it is as good as given."""
    model = known_answer(torch.linspace(0, 8, 20))
    settings = DecodeSettings(steps=2, guidance=4.0, guided_share=1.0, picture_temperature=0.01)
    clip = torch.cat(list(generate_codes(model, scene, 4, settings, seed=0)), dim=1)
    batches, slots = zip(
        *((len(known), known[0].flatten(1).float().mean(1)) for _, known, _ in model.calls), strict=True
    )
    assert batches == (1,) * 8 + (2, 2), "guidance doubles the batch"
    assert all(len(share) == 1 for share in slots[:8]), "a window of its own"
    assert [float(share[0]) for share in slots[8:]] == [1.0] * 2
    assert torch.equal(clip[0, 0], torch.full((8, 8), 63)), "cold: the likeliest code alone"
    assert len(clip[0, 1:].unique()) > 1

    together = known_answer(torch.linspace(0, 8, 20))
    torch.cat(list(generate_codes(together, scene, 4, DecodeSettings(steps=3), seed=0)), dim=1)
    assert len(together.calls) == 3
    with pytest.raises(InputError, match="temperature is 0"):
        DecodeSettings(picture_temperature=0.0)


def test_conditions_of_windows_walk_along_the_ecg(known_answer: Callable, scene: Scene) -> None:
    model = known_answer(torch.zeros(20))
    with torch.inference_mode():
        windows = [window_conditions(model, scene, position) for position in (1, 26)]
    # frames 1-6 and 51-56: their middles are 2 s apart
    assert not torch.allclose(windows[0].ecg.fine, windows[1].ecg.fine, atol=1e-3)
    assert torch.equal(windows[0].frame_times_s[:, 1:], windows[1].frame_times_s[:, 1:])
    assert float(windows[0].frame_times_s[0, 0, 0]) == pytest.approx(-3.5 / 25)
    assert float(windows[1].frame_times_s[0, 0, 0]) == pytest.approx(-1.5), "far memory is clamped to the window"


def test_longer_clip_begins_like_a_shorter_one(known_answer: Callable, scene: Scene) -> None:
    model = known_answer(torch.zeros(20))
    settings = DecodeSettings(steps=2)
    long, short = (torch.cat(list(generate_codes(model, scene, n, settings, seed=4)), dim=1) for n in (12, 5))
    assert torch.equal(long[:, :5], short)
    frames = [long[0, i] for i in range(12)]
    assert not any(torch.equal(a, b) for a, b in pairwise(frames))


# motion -----------------------------------------------------------------------------------------------------


def since_beat(times: np.ndarray, *beats: float) -> np.ndarray:
    return times - np.append(np.nan, beats)[np.searchsorted(beats, times, side="right")]


def test_a_ventricle_fills_from_end_systole_until_the_next_beat() -> None:
    times = np.arange(0, 3, 0.016)
    since = since_beat(times, 0.5, 1.4)
    beating = np.where(since < 0.6, np.sin(np.pi * since / 0.6) ** 2, 0.0)
    wave = np.where((since > 0.62) & (since < 0.85), 0.3, 0.0)
    told = as_filling(beating + wave, since, 0.9)
    np.testing.assert_array_equal(told[times < 0.5], 0.0)
    for start, end in ((0.5, 1.4), (1.4, 3.0)):
        cycle = (times >= start) & (times < end)
        rising, falling = cycle & (since <= 0.3), cycle & (since > 0.32)
        np.testing.assert_array_equal(told[rising], beating[rising])
        assert (np.diff(told[falling]) <= 0).all() and told[falling].min() < 0.15
    np.testing.assert_allclose(as_filling(told, since, 0.9), told, atol=1e-12)


def test_no_contraction_long_after_a_beat_that_began_before_the_window() -> None:
    since = 0.9 + np.arange(0, 0.6, 0.016)
    told = as_filling(0.6 * np.sin(np.pi * (since - 0.9) / 0.6), since, 1.5)
    assert told.max() <= 0.35 and (np.diff(told) <= 0).all()


def test_without_beats_everything_is_told_as_read() -> None:
    read = np.random.default_rng(0).random(50)
    np.testing.assert_array_equal(as_filling(read, np.full(50, np.nan), np.inf), read)


@pytest.mark.parametrize("rhythm", ["sinus", "af", "pvc", "lbbb", "paced"])
def test_true_hearts_keep_their_motion(rhythm: str) -> None:
    for seed in range(8):
        patient = sample_patient(seed, rhythm=rhythm)
        track = EcgTrack.from_signal(simulate_ecg(patient, duration_s=8.0))
        times = np.arange(1.0, 7.0, 0.016)
        volume = patient_volume(patient, patient_beats(patient)).volume_ml(times)
        true = (volume.max() - volume) / np.ptp(volume)
        told = as_filling(true, track.since_beat_s(times), track.period_s)
        assert np.sqrt(np.mean((told - true) ** 2)) < 0.02


def test_windows_are_told_of_hearts_that_fill(known_answer: Callable, scene: Scene) -> None:
    config = generator_config("tiny")
    torch.manual_seed(0)
    generator = known_answer(torch.zeros(20), ecg=replace(config.ecg, reads_motion=True))
    ecg = window_conditions(generator, scene, 1).ecg
    assert scene.track is not None and ecg.contraction is not None
    middle = float((frame_numbers(config.slots, 1)[1:] / scene.fps).mean())
    since = scene.track.since_beat_s(middle + generator.config.ecg.fine_times_s)
    told = ecg.contraction[0].double().numpy()
    np.testing.assert_allclose(as_filling(told, since, scene.track.period_s), told, atol=1e-6)
    assert np.ptp(told) > 0
