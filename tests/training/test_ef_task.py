"""The reader of ejection fraction: its median beats, its training, and its place in a checkpoint."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from echopulse.errors import InputError
from echopulse.models.checkpoints import load_network
from echopulse.models.ef_reader import EfReader, EfReaderConfig
from echopulse.models.presets import generator_config
from echopulse.models.tokenizer import VideoTokenizer
from echopulse.models.video_transformer import VideoTransformer
from echopulse.phantom import sample_patient, simulate_ecg
from echopulse.sampling.pipeline import Pipeline
from echopulse.sampling.progressive import read_ef
from echopulse.signals.track import BEAT_SAMPLES, TRACK_RATE_HZ, EcgTrack
from echopulse.training.ecg import EcgRecord, PhantomEcgs
from echopulse.training.ef import EfTask
from echopulse.training.engine import TrainSettings, train
from echopulse.training.generator import GeneratorTask
from echopulse.training.token_cache import CachedClip


@pytest.fixture(scope="module")
def source() -> PhantomEcgs:
    return PhantomEcgs(12, seed=3, seconds=5.0)


@pytest.fixture(scope="module")
def track() -> EcgTrack:
    return EcgTrack.from_signal(simulate_ecg(sample_patient(1, rhythm="sinus"), duration_s=6.0))


def test_median_beat_has_its_r_peak_in_place(track: EcgTrack) -> None:
    found = track.median_beat()
    assert found is not None
    assert found.samples_mv.shape == (12, BEAT_SAMPLES) and found.samples_mv.dtype == np.float32
    assert abs(np.abs(found.samples_mv[1]).argmax() / 125 - 0.25) < 0.03
    assert found.rr_s[0] == pytest.approx(np.diff(track.r_times_s).mean(), rel=1e-5)


def test_median_beat_is_in_millivolts() -> None:
    ecg = simulate_ecg(sample_patient(1, rhythm="sinus"), duration_s=6.0)
    twice = EcgTrack.from_signal(replace(ecg, samples_mv=2 * ecg.samples_mv))
    found = [t.extended(-3, 9).median_beat() for t in (EcgTrack.from_signal(ecg), twice)]
    assert found[0] is not None and found[1] is not None
    np.testing.assert_allclose(found[1].samples_mv, 2 * found[0].samples_mv, atol=1e-3)
    assert np.ptp(found[0].samples_mv[1]) == pytest.approx(np.ptp(ecg.select(("II",)).samples_mv), rel=0.25)


def test_median_beat_says_which_leads_there_are() -> None:
    ecg = simulate_ecg(sample_patient(1, rhythm="sinus"), duration_s=6.0).select(("V1", "II"))
    found = EcgTrack.from_signal(ecg).median_beat()
    assert found is not None and np.flatnonzero(found.present).tolist() == [1, 6]
    assert not found.samples_mv[~found.present].any() and found.samples_mv[found.present].any(axis=1).all()


def test_an_outlier_does_not_reach_the_median_beat(track: EcgTrack) -> None:
    samples = track.samples.copy()
    r = round((track.r_times_s[2] - track.start_s) * TRACK_RATE_HZ)
    samples[:, r - 20 : r + 60] += 30
    clean, spoilt = track.median_beat(), replace(track, samples=samples).median_beat()
    assert clean is not None and spoilt is not None
    assert np.abs(clean.samples_mv - spoilt.samples_mv).max() < 1.0 * track.scale_mv


def test_no_beat_is_none(track: EcgTrack) -> None:
    assert replace(track, r_times_s=np.array([])).median_beat() is None
    assert replace(track, r_times_s=np.array([track.end_s - 0.1])).median_beat() is None
    one = replace(track, r_times_s=track.r_times_s[1:2]).median_beat()
    assert one is not None and one.rr_s.tolist() == [1.0, 0.0]


def test_absent_leads_do_not_matter_and_present_ones_do() -> None:
    torch.manual_seed(0)
    reader = EfReader(EfReaderConfig(16, 32, 2)).eval()
    beat, rr = torch.randn(2, 12, BEAT_SAMPLES), torch.tensor([[0.8, 0.1], [1.0, 0.0]])
    present = torch.ones(2, 12, dtype=torch.bool)
    present[:, 3] = False
    other = beat.clone()
    other[:, 3] = 7.0
    base = reader(beat, present, rr)
    assert base.shape == (2,) and torch.equal(base, reader(other, present, rr))
    other[:, 4] = 7.0
    assert not torch.allclose(base, reader(other, present, rr), atol=1e-4)
    assert not torch.allclose(base, reader(beat, present, rr + 0.3), atol=1e-5)


def test_components_have_unit_variance_and_limits() -> None:
    torch.manual_seed(0)
    reader = EfReader(EfReaderConfig(4, 32, 2)).eval().requires_grad_(False)
    draw = torch.randn(200, 12, 6) * torch.tensor([1.0, 0.5, 0.2, 0.05, 0.02, 0.01])
    beats = 0.3 + draw @ torch.linalg.qr(torch.randn(BEAT_SAMPLES, 6))[0].T  # six components, the largest four are kept
    present = torch.ones(200, 12, dtype=torch.bool)
    present[:, 5], untouched = False, reader.basis[5].clone()
    reader.fit(beats, present)
    parts = torch.einsum("bln,lnk->blk", beats - reader.mean, reader.basis)[:, 0]
    torch.testing.assert_close(parts.T.cov(), torch.eye(4), atol=0.02, rtol=0)
    assert torch.equal(reader.basis[5], untouched)
    far = [reader(mv * beats[:1], present[:1], torch.tensor([[0.8, 0.1]])) for mv in (0.0, 1e4, 1e5)]
    assert torch.isfinite(torch.cat(far)).all() and torch.allclose(far[1], far[2])


def test_learns_the_patients_it_sees_and_exports(source: PhantomEcgs, tmp_path: Path) -> None:
    task = EfTask(EfReaderConfig(8, 64, 2, dropout=0.0), source, batch=12)
    spread = np.std([source.record(i).ef for i in range(12)])
    settings = TrainSettings(120, 12, learning_rate=3e-3, warmup=5, precision="no", ema_decay=0.5, log_every=40)
    train(task, settings, tmp_path, quiet=True)
    reader = load_network(EfReader, EfReaderConfig, tmp_path / "export" / "ef_reader")
    with torch.inference_mode():
        batch = task.batch(500, 0)
        error = (reader(batch.beat, batch.present, batch.rr_s) - batch.ef).square().mean().sqrt()
    assert float(error) < 0.5 * spread


class Unknown:
    """Records whose EF nobody knows."""

    def __init__(self, track: EcgTrack) -> None:
        self.track = track

    def __len__(self) -> int:
        return 2

    def record(self, i: int) -> EcgRecord:
        return EcgRecord(self.track, np.array([]), np.array([]), np.nan)


def test_refuses_a_source_without_the_truth(track: EcgTrack) -> None:
    with pytest.raises(InputError, match="known ejection fraction"):
        EfTask(EfReaderConfig(4, 16, 1), Unknown(track), batch=2).batch(0, 0)


def test_checkpoint_with_a_reader_reads_by_it(
    clips: list[CachedClip], frozen_tokenizer: VideoTokenizer, track: EcgTrack, tmp_path: Path
) -> None:
    reader = EfReader(EfReaderConfig(4, 16, 1)).eval()
    task = GeneratorTask(generator_config("tiny"), clips, frozen_tokenizer, batch=2, ef_reader=reader)
    task.export(task.model, tmp_path / "export")
    pipeline = Pipeline.load(tmp_path / "export")
    assert pipeline.ef_reader is not None
    generator = VideoTransformer(generator_config("tiny")).eval()
    with torch.inference_mode():
        assert read_ef(track, generator, reader) == pytest.approx(read_ef(track, generator, pipeline.ef_reader))
        assert np.isnan(read_ef(replace(track, r_times_s=np.array([])), generator, reader))
