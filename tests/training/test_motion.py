"""Contraction and ejection fraction: read from the ECG, learned from the truth, and what they do to the generator."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from echopulse.models.ecg_encoder import EcgEncoder, EcgFeatures
from echopulse.models.presets import ecg_autoencoder_config, generator_config
from echopulse.models.tokenizer import VideoTokenizer
from echopulse.models.video_transformer import EcgWindow, VideoTransformer
from echopulse.objectives.motion import motion_loss
from echopulse.phantom import sample_patient, simulate_clip
from echopulse.sampling.progressive import Scene, read_contraction, read_ef, window_conditions
from echopulse.signals.track import EcgTrack
from echopulse.training.ecg import EcgTask, PhantomEcgs, RecordedEcgs
from echopulse.training.generator import GeneratorTask
from echopulse.training.token_cache import CachedClip, true_contraction

NAN = float("nan")
READER = replace(generator_config("tiny").ecg, reads_motion=True)
SHAPE = replace(generator_config("tiny"), ecg=READER)


def test_loss_is_over_what_is_known() -> None:
    read, ef = torch.tensor([[0.0, 0.5, 9.0], [1.0, 1.0, 1.0]]), torch.tensor([0.5, 0.9])
    terms = motion_loss(read, ef, torch.tensor([[0.0, 1.0, NAN], [NAN, NAN, NAN]]), torch.tensor([NAN, 0.8]))
    assert terms["contraction_error"] == pytest.approx(0.125)
    assert terms["ef_error"] == pytest.approx(0.9)  # an error of 1 in tenths, less half the smooth part's 0.2
    nothing = motion_loss(read, ef, torch.full((2, 3), NAN), torch.full((2,), NAN))
    assert all(float(term) == 0 for term in nothing.values())


def test_truth_of_a_clip_goes_from_zero_at_the_r_peak_to_one_at_the_end_of_t() -> None:
    paired = simulate_clip(sample_patient(4, rhythm="sinus"), seconds=2.0, fps=50.0, size=(32, 32), with_masks=False)
    contraction = true_contraction(paired.truth, 100)
    assert contraction.shape == (100,) and contraction.dtype == np.float32
    for name, value in (("r_times_s", 0.0), ("t_end_times_s", 1.0)):
        frames = np.round(50 * np.array(paired.truth[name])).astype(int)
        np.testing.assert_allclose(contraction[frames[frames < 100]], value, atol=0.15)
    assert np.isnan(true_contraction({"ef_percent": 50.0}, 7)).all()


def test_phantom_and_recorded_sources_agree(prepared: Path) -> None:
    clip, patient = RecordedEcgs([prepared]).record(0), PhantomEcgs(1).record(0)
    assert clip.ef == pytest.approx(patient.ef, abs=0.03)  # of the beats in the clip, and the nominal one
    again = np.interp(clip.times_s, patient.times_s, patient.contraction)
    np.testing.assert_allclose(clip.contraction, again, atol=0.1)


def test_pre_training_learns_to_read_contraction() -> None:
    """A constant has an error of about 0.12, the variance."""
    task = EcgTask(ecg_autoencoder_config("tiny"), PhantomEcgs(6, seconds=5.0), batch=8)
    assert "contraction_error" not in task.losses(task.model, task.batch(0, 0), 0)[1]
    task = EcgTask(replace(ecg_autoencoder_config("tiny"), encoder=READER), PhantomEcgs(6, seconds=5.0), batch=8)
    optimizer = torch.optim.AdamW(task.model.parameters(), lr=4e-3)
    errors = []
    for step in range(120):
        loss, terms = task.losses(task.model, task.batch(step, 0), step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        errors.append(float(terms["contraction_error"].detach()))
    assert np.mean(errors[-20:]) < 0.08 < 0.12 < np.mean(errors[:5])


def test_generator_learns_both_and_its_codes_do_not_teach_the_reader(
    clips: list[CachedClip], frozen_tokenizer: VideoTokenizer
) -> None:
    task = GeneratorTask(SHAPE, clips, frozen_tokenizer, batch=5)
    loss, terms = task.losses(task.model, task.batch(0, 0), 0)
    assert {"cross_entropy", "contraction_error", "ef_error"} < set(terms)
    total = sum(float(terms[k].detach()) for k in terms if k != "accuracy")
    assert float(loss.detach()) == pytest.approx(total, rel=1e-5)
    assert isinstance(task.model, VideoTransformer) and task.model.ecg is not None
    terms["cross_entropy"].backward(retain_graph=True)
    heads = [*task.model.ecg.to_contraction.parameters(), *task.model.ecg.to_ef.parameters()]  # type: ignore[union-attr]
    assert all(p.grad is None for p in heads)
    loss.backward()
    assert all(p.grad is not None and p.grad.any() for p in heads)


@pytest.fixture(scope="module")
def model() -> VideoTransformer:
    torch.manual_seed(5)
    return VideoTransformer(SHAPE).eval()


@pytest.fixture(scope="module")
def track() -> EcgTrack:
    paired = simulate_clip(sample_patient(2), seconds=2.0, fps=10.0, size=(32, 32), with_masks=False)
    assert paired.clip.ecg is not None
    return EcgTrack.from_signal(paired.clip.ecg)


def _features(model: VideoTransformer, scene: Scene) -> torch.Tensor:
    with torch.inference_mode():
        return model._slot_conditions(window_conditions(model, scene, 1))


def test_the_ef_that_is_asked_for_takes_the_place_of_the_one_read(model: VideoTransformer, track: EcgTrack) -> None:
    with torch.inference_mode():
        read = read_ef(track, model)
        assert 0 < read < 1 and model.motion is not None
        conditions = window_conditions(model, Scene(track, 0.0, 25.0, 0, NAN), 1)
        assert isinstance(conditions.ecg, EcgFeatures) and conditions.ecg.ef is not None
        own = conditions.ecg.ef
        same = model._slot_motion(model.motion, conditions._replace(ef=own.float()))
        torch.testing.assert_close(same, model._slot_motion(model.motion, conditions))
        other = model._slot_motion(model.motion, conditions._replace(ef=own.float() / 2))
    assert not torch.allclose(same[:, 1:], other[:, 1:], atol=1e-4)


def test_without_an_ecg_motion_is_hidden(model: VideoTransformer, track: EcgTrack) -> None:
    with torch.inference_mode():
        assert model.motion is not None
        with_ecg = window_conditions(model, Scene(track, 0.0, 25.0, 0, 0.5), 1)
        hidden = model._slot_motion(model.motion, with_ecg.without_ecg())
        silent = model._slot_motion(model.motion, with_ecg._replace(has_ecg=torch.tensor([False])))
    assert torch.equal(hidden, silent) and torch.equal(hidden[:, 0], hidden[:, -1])


def test_windows_far_from_the_first_frame_are_told_how_far_it_had_contracted(
    model: VideoTransformer, track: EcgTrack
) -> None:
    assert model.motion is not None
    scene = Scene(track, 0.0, 25.0, 0, 0.5, first_contraction=0.3)
    with torch.inference_mode():
        near, far = (window_conditions(model, scene, position) for position in (1, 30))
        told = model._slot_motion(model.motion, far)
        untold = model._slot_motion(model.motion, far._replace(first_contraction=torch.tensor([NAN])))
        assert torch.equal(untold, model._slot_motion(model.motion, far._replace(first_contraction=None)))
        torch.testing.assert_close(untold[:, 0], model.motion(torch.zeros(1, 6)))
        volume = 1 - 0.5 * 0.3
        expected = torch.tensor([4 * volume - 3, 4 * volume - 3, 2 * 0.3 - 1, 2 * 0.3 - 1, 0, 1])
        torch.testing.assert_close(told[0, 0], model.motion(expected))
        assert torch.equal(told[:, 1:], untold[:, 1:])
        read = model._slot_motion(model.motion, near)
        assert torch.equal(read, model._slot_motion(model.motion, near._replace(first_contraction=None)))
        assert 0 < abs(read_contraction(track, model, 0.0)) < 10
        assert np.isnan(read_contraction(track, model, track.end_s + 1))
        assert np.isnan(Scene(None, 0.0, 25.0, 0, 0.5).first_contraction)
        assert np.isnan(read_contraction(track, VideoTransformer(generator_config("tiny")).eval(), 0.0))


def test_long_after_a_beat_no_heart_is_contracted(model: VideoTransformer, track: EcgTrack) -> None:
    unsure = copy.deepcopy(model)
    assert unsure.ecg is not None and unsure.ecg.to_contraction is not None
    with torch.inference_mode():
        for part, value in zip(unsure.ecg.to_contraction[1].parameters(), (0.0, 0.6), strict=True):  # weight, bias
            part.fill_(value)
        slow = replace(track, r_times_s=np.array([track.start_s + 1.0, track.start_s + 2.6]))
        assert read_contraction(slow, unsure, slow.start_s + 0.9) == pytest.approx(0.6), "nobody knows the beat before"
        for after, contraction in ((0.1, 0.6), (0.65, 0.6), (0.71, 0.35), (1.55, 0.35), (1.65, 0.6)):
            assert read_contraction(slow, unsure, slow.start_s + 1.0 + after) == pytest.approx(contraction, abs=0.01)
        quick = replace(slow, r_times_s=slow.start_s + np.array([0.0, 0.64, 1.28]))  # 0.68 · √0.64 s
        for after, contraction in ((0.5, 0.6), (0.58, 0.35), (0.66, 0.6)):
            assert read_contraction(quick, unsure, quick.start_s + after) == pytest.approx(contraction, abs=0.01)
        middle = slow.start_s + 1.8  # of a window of 15 frames
        told = window_conditions(unsure, Scene(slow, middle - 0.3, 25.0, 0, 0.5), 1).ecg.contraction
        assert told is not None and set(np.round(told[0].numpy(), 3)) == {np.float32(0.35), np.float32(0.6)}
        silent = window_conditions(unsure, Scene(None, 0.0, 25.0, 0, 0.5), 1).ecg.contraction
        assert silent is not None and torch.all(silent == 0.6)


def test_an_encoder_that_reads_nothing_says_so(track: EcgTrack) -> None:
    torch.manual_seed(0)
    assert np.isnan(read_ef(track, VideoTransformer(generator_config("tiny")).eval()))
    encoder = EcgEncoder(generator_config("tiny").ecg)
    window = EcgWindow(torch.zeros(1, 1, 750), torch.zeros(1, 750), torch.zeros(1, 1).long(), torch.ones(1, 1).bool())
    assert encoder(*window).contraction is None and encoder(*window).ef is None
