"""The released chain: the ECG's preparation by hand, and `convert` three times, then `generate`."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from echopulse.cli.main import main
from echopulse.config import load_json, save_json
from echopulse.errors import InputError
from echopulse.sampling.decode import DecodeSettings
from echopulse.sampling.pipeline import Pipeline
from echopulse.sampling.published import PublishedPipeline, prepare_ecg
from echopulse.sampling.request import GenerationRequest, Take
from echopulse.signals import EcgSignal
from echopulse.signals.track import EcgTrack

FOLDER = Path(__file__).parents[3] / "shared" / "data" / "parity"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The three tiny fixtures, converted by the command line into one folder."""
    if not (FOLDER / "maskgit_tiny.safetensors").is_file():
        pytest.skip("the parity fixtures are not there")
    output = tmp_path_factory.mktemp("published") / "tiny"
    for kind, name in (("tokenizer", "cvivit"), ("generator", "maskgit"), ("st-mem", "st_mem")):
        weights = load_file(FOLDER / f"{name}_tiny.safetensors")
        file = output.parent / f"{name}.bin"
        torch.save({k.removeprefix("weights."): x for k, x in weights.items() if k.startswith("weights.")}, file)
        main(["convert", f"published-{kind}", str(file), "-o", str(output), "--head-dim", "16"])
    index = load_json(output / "index.json")
    save_json(output / "index.json", index | {"picture_side": 32, "decoding": index["decoding"] | {"steps": 2}})
    return output


@pytest.fixture
def ecg() -> EcgSignal:
    times = np.arange(2000) / 500
    wave = np.exp(-(((times % 0.8) - 0.4) ** 2) / 2e-4)
    return EcgSignal(np.stack([0.5 * wave, wave]), ("I", "II"), 500.0, start_s=-1.0)


def test_ecg_is_standardised_repeated_and_stretched() -> None:
    lead = np.array([1.0, 3.0, 1.0, -1.0], np.float32)
    prepared = prepare_ecg(lead, 2250)
    assert prepared.shape == (12, 2250) and not prepared[np.arange(12) != 1].any()
    period = (2250 - 1) / (16 * 4 - 1)
    at = np.round(np.arange(0, 64) * period).astype(int)
    np.testing.assert_allclose(prepared[1][at], np.tile((lead - 1) / lead.std(), 16), atol=0.03)
    assert not prepare_ecg(np.zeros(110, np.float32), 300).any()


def test_three_conversions_make_a_checkpoint(checkpoint: Path) -> None:
    index = load_json(checkpoint / "index.json")
    assert index["kind"] == "published"
    assert index["converted_from"] == {"tokenizer": "cvivit.bin", "generator": "maskgit.bin", "ecg": "st_mem.bin"}
    pipeline = Pipeline.load(checkpoint)
    assert isinstance(pipeline, PublishedPipeline) and pipeline.size == (32, 32)
    assert pipeline.default_settings == DecodeSettings(
        2, 1.0, temperature=0.9, final_temperature=0.0, choice_temperature=0.0, order="confidence"
    )


def test_clip_has_its_length_and_says_where_it_leaves_real_time(checkpoint: Path, ecg: EcgSignal) -> None:
    pipeline = Pipeline.load(checkpoint)
    clip, timing = pipeline(ecg, GenerationRequest(seconds=1.0, seed=3))
    again, _ = pipeline(ecg, GenerationRequest(seconds=1.0, seed=3))
    assert clip.frames.shape == (25, 32, 32) and np.array_equal(clip.frames, again.frames)
    about = clip.provenance
    assert len(about["not_in_real_time"]) >= 4 and about["guidance"] == 1.0
    assert about["encoder_seconds_per_clip_second"] == pytest.approx(1.2 / (16 * 0.44), abs=1e-4)
    assert set(timing) == {"encode", "sample", "decode"}


def test_ecg_reaches_the_codes_and_the_image_is_kept(checkpoint: Path, ecg: EcgSignal) -> None:
    pipeline = Pipeline.load(checkpoint)
    assert isinstance(pipeline, PublishedPipeline)
    request = GenerationRequest(seconds=0.44)
    prepared = []
    for signal in (ecg, EcgSignal(ecg.samples_mv[:, ::-1].cumsum(1), ecg.leads, 500.0, start_s=-1.0)):
        take = Take(signal, request)
        prepared.append(pipeline._prepare(take, EcgTrack.from_signal(signal), 0))
    one, two = (pipeline.encoder.pooled(x[None].to(pipeline.dtype), 1) for x in prepared)
    assert not torch.allclose(one, two, atol=1e-3)
    image = np.random.default_rng(0).integers(0, 255, (32, 32), np.uint8)
    clip, _ = pipeline(ecg, request, image=image)
    assert clip.frames.shape == (11, 32, 32)


def test_what_the_released_network_does_not_know_is_refused(checkpoint: Path, ecg: EcgSignal) -> None:
    pipeline = Pipeline.load(checkpoint)
    with pytest.raises(InputError, match="leave EF"):
        pipeline(ecg, GenerationRequest(ef_percent=50.0))
    with pytest.raises(InputError, match="cannot do without an ECG"):
        pipeline(None, GenerationRequest())


def test_missing_part_is_named(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "part").mkdir()
    save_json(tmp_path / "part" / "index.json", {"kind": "published"})
    with pytest.raises(InputError, match="convert published-tokenizer"):
        Pipeline.load(tmp_path / "part")


def test_another_checkpoint_is_not_overwritten(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    save_json(tmp_path / "index.json", {"name": "mine"})
    with pytest.raises(SystemExit):
        main(["convert", "published-generator", str(FOLDER / "maskgit_tiny.safetensors"), "-o", str(tmp_path)])
    assert "another checkpoint" in capsys.readouterr().err
    assert not (tmp_path / "generator").exists()
