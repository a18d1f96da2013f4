"""Pre-training of the ECG encoder: what its batches hold, what it learns from, and where the encoder goes."""

from pathlib import Path

import numpy as np
import pytest
import torch

from echopulse.errors import InputError
from echopulse.models.checkpoints import load_network
from echopulse.models.ecg_encoder import EcgEncoder, EcgEncoderConfig
from echopulse.models.presets import ecg_autoencoder_config, generator_config
from echopulse.models.tokenizer import VideoTokenizer
from echopulse.phantom import DEVICES, sample_patient, simulate_ecg
from echopulse.signals.track import EcgTrack
from echopulse.training.ecg import EcgRecord, EcgTask, PhantomEcgs, RecordedEcgs
from echopulse.training.ecg_devices import add_gain_and_noise, add_wander, draw_leads, lower_rate
from echopulse.training.engine import TrainSettings, train
from echopulse.training.generator import GeneratorTask
from echopulse.training.token_cache import CachedClip


@pytest.fixture(scope="module")
def source() -> PhantomEcgs:
    return PhantomEcgs(4, seed=7, seconds=5.0)


@pytest.fixture
def task(source: PhantomEcgs) -> EcgTask:
    return EcgTask(ecg_autoencoder_config("tiny"), source, batch=6)


def test_recorders_take_turns(source: PhantomEcgs) -> None:
    assert [len(source.record(i).track.lead_ids) for i in range(4)] == [12, 12, 1, 3]
    assert np.array_equal(source.record(2).track.samples, source.record(2).track.samples)


def test_every_third_patient_has_a_rhythm_that_is_asked_for() -> None:
    more, plain = PhantomEcgs(18, seconds=5.0, more_of=("lbbb", "paced")), PhantomEcgs(18, seconds=5.0)
    for i, rhythm in ((2, "lbbb"), (11, "lbbb"), (14, "paced")):
        asked = simulate_ecg(sample_patient(i, rhythm=rhythm), duration_s=5.0, device=list(DEVICES)[i % 4])
        np.testing.assert_array_equal(more.record(i).track.samples, EcgTrack.from_signal(asked).samples)
    for i in (0, 1, 12):
        np.testing.assert_array_equal(more.record(i).track.samples, plain.record(i).track.samples)


def test_batch_follows_from_seed_step_and_rank(task: EcgTask, source: PhantomEcgs) -> None:
    again = EcgTask(ecg_autoencoder_config("tiny"), source, batch=6)
    for x, y in zip(task.batch(3, 1), again.batch(3, 1), strict=True):
        assert torch.equal(x, y) or torch.allclose(x, y, rtol=0, atol=0, equal_nan=True)
    assert not torch.equal(task.batch(3, 1).ecg, task.batch(3, 0).ecg)
    assert not torch.equal(task.batch(3, 1).ecg, task.batch(4, 1).ecg)


def test_a_quarter_of_each_lead_is_seen_and_absent_leads_are_silent(task: EcgTask) -> None:
    for step in range(8):
        batch = task.batch(step, 0)
        assert batch.ecg.shape == (6, 12, 750) and batch.kept.shape == (6, 12, 2)
        assert batch.present.any(1).all(), "a window without any lead"
        assert not batch.ecg[~batch.present].any() and batch.ecg[batch.present].any(1).all()
        assert (batch.kept[..., 0] != batch.kept[..., 1]).all() and int(batch.kept.max()) < 10
        assert task.count(batch) == 8 * int(batch.present.sum())


def test_hidden_patches_do_not_reach_the_encoder_and_seen_ones_do(task: EcgTask) -> None:
    batch = task.batch(0, 0)
    seen = torch.zeros(*batch.present.shape, 10, dtype=torch.bool).scatter(-1, batch.kept, True)
    patches = batch.ecg.unflatten(-1, (10, 75))
    with torch.inference_mode():
        base = task.model(*batch[:4])
        for changed, same in ((~seen, True), (seen & batch.present[..., None], False)):
            other = torch.where(changed[..., None], patches + 3 * torch.randn(75), patches).flatten(-2)
            drawn = task.model(other, *batch[1:4])
            assert torch.allclose(drawn[batch.present], base[batch.present], atol=1e-5) == same


def test_absent_leads_do_not_matter(task: EcgTask) -> None:
    batch = task.batch(0, 0)
    assert not batch.present.all()
    noisy = torch.where(batch.present[..., None], batch.ecg, torch.randn(batch.ecg.shape))
    with torch.inference_mode():
        base, other = task.model(*batch[:4]), task.model(noisy, *batch[1:4])
        torch.testing.assert_close(other[batch.present], base[batch.present], rtol=1e-4, atol=1e-5)
        assert torch.equal(task.losses(task.model, batch, 0)[0], task.losses(task.model, batch, 1)[0])


class Waves:
    """Sine waves of 16 frequencies in two leads: what is hidden follows from what is seen."""

    def __len__(self) -> int:
        return 16

    def record(self, i: int) -> EcgRecord:
        angle = 2 * np.pi * (1 + 0.1 * i) * np.arange(2500) / 250
        leads = np.stack([np.sin(angle), np.sin(angle + 1)]).astype(np.float32)
        track = EcgTrack(1.4 * leads, np.array([0, 1]), np.array([]), 0.0)
        return EcgRecord(track, np.array([]), np.array([], np.float32), np.nan)


def test_what_can_be_told_from_the_seen_patches_is_learned() -> None:
    """The best guess without a look at them costs 1."""
    task = EcgTask(ecg_autoencoder_config("tiny"), Waves(), batch=16)
    optimizer = torch.optim.AdamW([p for p in task.model.parameters() if p.requires_grad], lr=3e-3, betas=(0.9, 0.95))
    losses = []
    for step in range(350):
        loss, _ = task.losses(task.model, task.batch(step, 0), step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[0] > 1 and np.mean(losses[-20:]) < 0.93


def test_training_writes_an_encoder_that_starts_a_generator(
    task: EcgTask, clips: list[CachedClip], frozen_tokenizer: VideoTokenizer, settings: TrainSettings, tmp_path: Path
) -> None:
    batch = task.batch(0, 0)
    before = float(task.losses(task.model, batch, 0)[0].detach())
    train(task, TrainSettings(30, 6, learning_rate=3e-3, warmup=2, precision="no", ema_decay=0.5), tmp_path, quiet=True)
    after = float(task.losses(task.model, batch, 0)[0].detach())
    assert after < 0.95 * before
    assert (tmp_path / "samples" / "0000030.png").is_file()
    encoder = load_network(EcgEncoder, EcgEncoderConfig, tmp_path / "export" / "ecg")
    generator = GeneratorTask(generator_config("tiny"), clips, frozen_tokenizer, batch=2, ecg=encoder)
    assert generator.model.ecg is not None
    assert torch.equal(generator.model.ecg.embed.weight, encoder.embed.weight)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="another shape"):
        GeneratorTask(
            generator_config("tiny"), clips, frozen_tokenizer, batch=2, ecg=EcgEncoder(generator_config("compact").ecg)
        )


def test_resume_is_exact(source: PhantomEcgs, settings: TrainSettings, tmp_path: Path) -> None:
    for run, steps in (("whole", 6), ("broken", 3)):
        task = EcgTask(ecg_autoencoder_config("tiny"), source, batch=2)
        batch = task.batch

        def until(step: int, rank: int, batch=batch, steps=steps):
            if step == steps:
                raise KeyboardInterrupt
            return batch(step, rank)

        task.batch = until  # type: ignore[method-assign]
        if run == "whole":
            train(task, settings, tmp_path / run, quiet=True)
        else:
            with pytest.raises(KeyboardInterrupt):
                train(task, settings, tmp_path / run, quiet=True)
    train(
        EcgTask(ecg_autoencoder_config("tiny"), source, batch=2), settings, tmp_path / "broken", resume=True, quiet=True
    )
    one, two = ((tmp_path / run / "export" / "ecg" / "model.safetensors").read_bytes() for run in ("whole", "broken"))
    assert one == two


def test_ecgs_of_prepared_sets_are_taken_too(prepared: Path) -> None:
    source = RecordedEcgs([prepared])
    task = EcgTask(ecg_autoencoder_config("tiny"), source, batch=2)
    assert len(source) == 4 and torch.isfinite(task.losses(task.model, task.batch(0, 0), 0)[0])


def test_lead_subsets_are_never_empty() -> None:
    rng, counts = np.random.default_rng(0), set()
    for leads in (np.arange(12), np.array([1, 6, 10]), np.array([6, 7]), np.array([0])):
        for _ in range(60):
            drawn = draw_leads(rng, leads)
            assert len(drawn) and set(drawn) <= set(leads)
            counts.add(len(drawn))
    assert {1, 2, 3, 12} <= counts and len(counts) > 8


def test_devices_change_what_they_are_named_for() -> None:
    rng, times = np.random.default_rng(1), np.arange(750) / 250
    ecg = np.stack([np.sin(2 * np.pi * 5 * times), np.sin(2 * np.pi * 5 * times)]).astype(np.float32)
    spectrum = np.abs(np.fft.rfft(add_wander(rng, ecg) - ecg))[:, : 750 // 2]
    assert (spectrum[:, :5].sum(1) > 0.5 * spectrum.sum(1)).all()
    coarse = [lower_rate(rng, ecg) for _ in range(10)]
    errors = [float(np.abs(x - ecg)[:, 5:-5].max()) for x in coarse]
    assert all(x.shape == ecg.shape and x.dtype == np.float32 for x in coarse) and 0 < max(errors) < 0.2
    gains = [float(np.std(add_gain_and_noise(rng, ecg)) / np.std(ecg)) for _ in range(40)]
    assert np.std(gains) > 0.05 and 0.5 < np.median(gains) < 1.5


def test_no_patient_is_refused() -> None:
    with pytest.raises(InputError, match="0 phantom patients"):
        PhantomEcgs(0)
