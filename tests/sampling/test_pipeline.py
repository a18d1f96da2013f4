"""From an ECG to a clip through the whole chain of tiny random networks."""

from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from echopulse.api import EchoPulse
from echopulse.config import save_json
from echopulse.errors import InputError
from echopulse.models.checkpoints import save_network
from echopulse.models.presets import generator_config, tokenizer_config
from echopulse.models.tokenizer import VideoTokenizer
from echopulse.models.video_transformer import VideoTransformer
from echopulse.sampling.decode import DecodeSettings
from echopulse.sampling.pipeline import Pipeline
from echopulse.sampling.request import GenerationRequest, Take
from echopulse.signals import EcgSignal, EchoClip
from echopulse.signals.track import EcgTrack

Ecgs = tuple[EcgSignal, EcgSignal]


def _make(pipeline: Pipeline, ecg: EcgSignal, **request: object) -> np.ndarray:
    clip, _ = pipeline(ecg, GenerationRequest(**{"seconds": 0.4, **request}))  # type: ignore[arg-type]
    return clip.frames


@pytest.mark.parametrize("frames", [1, 2, 3, 12, 75])
def test_clip_has_as_many_frames_as_asked(pipeline: Pipeline, ecgs: Ecgs, frames: int) -> None:
    clip, timing = pipeline(ecgs[0], GenerationRequest(seconds=frames / 25), settings=DecodeSettings(steps=1))
    assert clip.frames.shape == (frames, 128, 128) and clip.frames.dtype == np.uint8
    assert clip.fps == 25 and clip.view == "a4c" and clip.ecg is ecgs[0]
    assert clip.start_s == ecgs[0].start_s, "a clip starts with its ECG"
    assert set(timing) == {"encode", "sample", "decode"} and min(timing.values()) >= 0


def test_stream_gives_the_same_frames_in_pieces(pipeline: Pipeline, ecgs: Ecgs) -> None:
    request = GenerationRequest(seconds=0.48)
    pieces = list(pipeline.stream(EcgTrack.from_signal(ecgs[0]), request))
    assert [len(piece.pictures) for piece in pieces] == [7, 2, 2, 1]
    assert all(piece.sample_s > 0 and piece.decode_s > 0 for piece in pieces)
    assert np.array_equal(np.concatenate([p.pictures for p in pieces]), pipeline(ecgs[0], request)[0].frames)


def test_same_seed_same_bytes_and_another_seed_others(pipeline: Pipeline, ecgs: Ecgs) -> None:
    first, again, other = (_make(pipeline, ecgs[0], seed=seed) for seed in (5, 5, 6))
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != other.tobytes()


def test_ecg_view_ef_and_start_change_the_clip(pipeline: Pipeline, ecgs: Ecgs) -> None:
    base = _make(pipeline, ecgs[0]).tobytes()
    assert _make(pipeline, ecgs[1]).tobytes() != base
    assert _make(pipeline, ecgs[0], view="a2c").tobytes() != base
    assert _make(pipeline, ecgs[0], ef_percent=20.0).tobytes() != base
    assert _make(pipeline, ecgs[0], start_s=-0.9).tobytes() != base


def test_clip_may_outlast_its_ecg(pipeline: Pipeline, ecgs: Ecgs) -> None:
    request = GenerationRequest(seconds=0.4, start_s=100.0)
    clip, _ = pipeline(ecgs[0], request)
    inside, _ = pipeline(ecgs[0], replace(request, start_s=0.0))
    assert clip.start_s == 100 and clip.provenance["ecg_repeated"] is True
    assert inside.provenance["ecg_repeated"] is False


def test_image_is_where_the_clip_starts(pipeline: Pipeline, ecgs: Ecgs) -> None:
    image = np.random.default_rng(0).integers(0, 256, (128, 128), dtype=np.uint8)
    request = GenerationRequest(seconds=0.2)
    clip, _ = pipeline(ecgs[0], request, image=image, settings=DecodeSettings(steps=2, detail=0.0))
    with torch.inference_mode():
        again = pipeline.tokenizer(torch.from_numpy(image)[None, None, None] / 255).reconstruction[0, 0, 0]
    expected = (again.clamp(0, 1) * 255).round().numpy()
    np.testing.assert_allclose(clip.frames[0], expected, atol=1)
    assert clip.provenance["condition"] == "ecg+image"
    assert not np.array_equal(pipeline(ecgs[0], request)[0].frames[0], clip.frames[0])


@pytest.mark.parametrize(
    "image",
    [np.zeros((64, 128), np.uint8), np.zeros((128, 128, 3), np.uint8), np.zeros((128, 128), np.float32)],
    ids=["size", "color", "float"],
)
def test_unfit_image_is_refused(pipeline: Pipeline, ecgs: Ecgs, image: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"first image is .*expected uint8 of \(128, 128\)"):
        pipeline(ecgs[0], GenerationRequest(seconds=0.2), image=image)


def test_bfloat16_runs_with_and_without_image(ecgs: Ecgs) -> None:
    torch.manual_seed(0)
    networks = VideoTokenizer(tokenizer_config("tiny")), VideoTransformer(generator_config("tiny"))
    pipeline = Pipeline(*networks, {}, torch.bfloat16)
    request = GenerationRequest(seconds=0.32)
    for image in (None, np.full((128, 128), 90, np.uint8)):
        clip, _ = pipeline(ecgs[0], request, image=image, settings=DecodeSettings(steps=2))
        assert clip.num_frames == 8 and clip.provenance["precision"] == "bfloat16"


def test_flat_ecg_is_generated_from_too(pipeline: Pipeline, flat_ecg: EcgSignal) -> None:
    assert _make(pipeline, flat_ecg).shape == (10, 128, 128)


def test_provenance_tells_how_to_make_it_again(pipeline: Pipeline, ecgs: Ecgs) -> None:
    clip, _ = pipeline(ecgs[0], GenerationRequest(seconds=0.2, seed=7, view="a2c"))
    p = clip.provenance
    assert "not for diagnosis" in p["statement"]
    assert (p["model"], p["condition"], p["seed"], p["view"], p["fps"]) == ("tiny-random", "ecg", 7, "a2c", 25.0)
    assert (p["steps"], p["guidance"]) == (2, 1.5), "the checkpoint's own decoding"
    assert p["ecg_sha256"] == ecgs[0].sha256() and p["start_s"] == ecgs[0].start_s


def test_checkpoint_folder_gives_the_same_clip(
    pipeline: Pipeline, ecgs: Ecgs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ECHOPULSE_DTYPE", "float32")
    save_network(pipeline.tokenizer, pipeline.tokenizer.config, tmp_path / "tokenizer")
    save_network(pipeline.generator, pipeline.generator.config, tmp_path / "generator")
    save_json(tmp_path / "index.json", pipeline.info)
    loaded = Pipeline.load(tmp_path)
    assert loaded.default_settings == DecodeSettings(steps=2)
    one, two = _make(loaded, ecgs[0]).astype(int), _make(pipeline, ecgs[0]).astype(int)
    assert np.abs(one - two).max() <= 1  # where memory lies may change how a convolution adds


@pytest.mark.parametrize(
    ("decoding", "message"),
    [
        ({"steps": "six"}, r"index.json, decoding.steps: got 'six', expected int"),
        ({"grey_allowance": [1.0, 2.0, 3.0, 4.0, "x"]}, r"decoding.grey_allowance: got 'x', expected float"),
        ({"grey_allowance": [1.0]}, "expected 5 coefficients"),
        ({"pace": 3}, "decoding: unknown field pace"),
        (["steps"], "decoding: got list"),
    ],
)
def test_decoding_that_cannot_be_is_refused(pipeline: Pipeline, decoding: object, message: str) -> None:
    broken = Pipeline(pipeline.tokenizer, pipeline.generator, {"decoding": decoding}, torch.float32)
    with pytest.raises(InputError, match=message):
        _ = broken.default_settings


def test_networks_of_other_factors_are_refused() -> None:
    config = replace(generator_config("tiny"), factors=(4, 16))
    with pytest.raises(InputError, match="not trained together"):
        Pipeline(VideoTokenizer(tokenizer_config("tiny")), VideoTransformer(config), {}, torch.float32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(view="plax"), "unknown view 'plax'; expected one of a4c, a2c"),
        (dict(fps=9.0), "frame rate is 9"),
        (dict(fps=61.0), "frame rate is 61"),
        (dict(fps=float("nan")), "frame rate is nan"),
        (dict(seconds=0.0), "length is 0 s"),
        (dict(seconds=3601.0), "length is 3601 s"),
        (dict(seconds=float("nan")), "length is nan"),
        (dict(seed=-1), "seed is -1"),
        (dict(seed=2**63), "seed is 9223372036854775808"),
        (dict(ef_percent=9.0), "ejection fraction is 9 %"),
        (dict(ef_percent=81.0), "ejection fraction is 81 %"),
        (dict(ef_percent=float("nan")), "ejection fraction is nan"),
    ],
)
def test_impossible_requests_are_refused(change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        GenerationRequest(**change)


@pytest.mark.parametrize(("seconds", "fps", "frames"), [(3.0, 25.0, 75), (0.04, 25.0, 1), (1.0, 12.5, 12), (1, 60, 60)])
def test_number_of_frames(seconds: float, fps: float, frames: int) -> None:
    assert GenerationRequest(seconds=seconds, fps=fps).num_frames == frames


# several clips at once ------------------------------------------------------------------------------------


def test_a_batch_gives_what_its_clips_give_alone(pipeline: Pipeline, ecgs: Ecgs) -> None:
    """Another ECG, another number of leads, another rate, view, seed and start in every row."""
    takes = [
        Take(ecgs[0], GenerationRequest(seconds=0.4, seed=1)),
        Take(ecgs[1].select(("II",)), GenerationRequest("a2c", seconds=0.5, fps=20.0, seed=2, ef_percent=30.0)),
        Take(None, GenerationRequest(seconds=0.4, seed=3, start_s=1.0)),
    ]
    together, _ = pipeline.generate(takes)
    for take, clip in zip(takes, together, strict=True):
        alone, _ = pipeline(take.ecg, take.request)
        assert np.abs(clip.frames.astype(int) - alone.frames).max() <= 1
        assert clip.provenance == alone.provenance
        assert (clip.fps, clip.view, clip.start_s) == (alone.fps, alone.view, alone.start_s)
    assert [clip.provenance["condition"] for clip in together] == ["ecg", "ecg", "nothing"]
    assert "ecg_source" not in together[2].provenance


def test_without_ecg_the_ecg_does_not_matter(pipeline: Pipeline) -> None:
    image = np.full((128, 128), 90, np.uint8)
    clip, _ = pipeline(None, GenerationRequest(seconds=0.4), image=image)
    assert clip.ecg is None and clip.start_s == 0 and clip.provenance["condition"] == "image"


# going on from a clip -------------------------------------------------------------------------------------


@pytest.mark.parametrize("frames", [6, 9, 40])
def test_a_clip_goes_on_where_the_one_before_ended(pipeline: Pipeline, ecgs: Ecgs, frames: int) -> None:
    model = EchoPulse(pipeline)
    before = model(ecgs[0], view="a2c", seconds=frames / 20, fps=20.0)
    more = model(ecgs[0], seconds=0.75, continue_from=before)
    assert (more.num_frames, more.fps, more.view) == (15, 20.0, "a2c")
    assert more.start_s == pytest.approx(before.start_s + frames / 20)
    assert more.provenance["condition"] == "ecg+clip"


def test_going_on_keeps_memory_and_clock(
    pipeline: Pipeline, ecgs: Ecgs, known_answer: Callable[..., torch.nn.Module]
) -> None:
    """The first window is told of the first frame, of the last four, and of the time that has passed."""
    generator = known_answer(torch.zeros(20))
    told = Pipeline(pipeline.tokenizer, generator, {}, torch.float32)  # type: ignore[arg-type]
    pictures = np.random.default_rng(0).integers(0, 256, (31, 128, 128), dtype=np.uint8)
    before = EchoClip(pictures, fps=25.0, start_s=0.5, view="a4c")
    told(ecgs[0], GenerationRequest(seconds=0.2), previous=before, settings=DecodeSettings(steps=1))
    codes, known, conditions = generator.calls[0]  # type: ignore[union-attr]
    with torch.inference_mode():
        whole = told.tokenizer.encode(torch.from_numpy(pictures)[None, :, None] / 255)
    assert known[0, :, 0, 0].tolist() == [True, True, True, False]
    assert torch.equal(codes[0, 0], whole[0, 0]) and torch.equal(codes[0, 1:3], whole[0, -2:])
    assert float(conditions.first_gap_s[0]) == pytest.approx(27 / 25)


def test_the_decoder_sees_what_it_goes_on_from(pipeline: Pipeline, ecgs: Ecgs) -> None:
    """New frames equal the tail of old and new codes decoded as one clip."""
    before, _ = pipeline(ecgs[0], GenerationRequest(seconds=9 / 25))
    more, _ = pipeline(ecgs[0], GenerationRequest(seconds=0.16), previous=before)
    other = EchoClip(255 - before.frames, fps=25.0, start_s=before.start_s, view="a4c")
    assert not np.array_equal(pipeline(ecgs[0], GenerationRequest(seconds=0.16), previous=other)[0].frames, more.frames)
    again, _ = pipeline(ecgs[0], GenerationRequest(seconds=0.16), previous=before)
    assert np.array_equal(again.frames, more.frames)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(fps=20.0), "has 25 frames/s; 20 were asked for"),
        (dict(start_s=9.0), "leave the start out"),
        (dict(image=np.zeros((128, 128), np.uint8)), "expected one of them"),
        (dict(continue_from=EchoClip(np.zeros((5, 128, 128), np.uint8), 25.0)), "has 5 frames; expected 6 or more"),
        (dict(continue_from=EchoClip(np.zeros((9, 64, 64), np.uint8), 25.0)), "expected uint8 of"),
        (dict(fps=0.0), "frame rate is 0"),
        (dict(view=""), "unknown view ''"),
    ],
)
def test_what_cannot_go_on_is_refused(pipeline: Pipeline, ecgs: Ecgs, change: dict, message: str) -> None:
    before = EchoClip(np.zeros((9, 128, 128), np.uint8), 25.0)
    with pytest.raises(InputError, match=message):
        EchoPulse(pipeline)(ecgs[0], **{"seconds": 0.2, "continue_from": before, **change})


# the public stream ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("further", [False, True])
def test_streamed_frames_are_those_of_the_call(pipeline: Pipeline, ecgs: Ecgs, further: bool) -> None:
    model = EchoPulse(pipeline)
    before = model(ecgs[0], seconds=0.4) if further else None
    arguments = dict(seconds=0.7, seed=5, ef_percent=40.0, view="a2c", continue_from=before)
    streamed = list(model.stream(ecgs[0], **arguments))  # type: ignore[arg-type]
    whole = model(ecgs[0], **arguments)  # type: ignore[arg-type]
    assert np.array_equal(np.stack(streamed), whole.frames)


def test_an_hour_can_be_begun_and_left(
    pipeline: Pipeline, ecgs: Ecgs, known_answer: Callable[..., torch.nn.Module]
) -> None:
    """Nothing is computed ahead of what was taken."""
    generator = known_answer(torch.zeros(20))
    model = EchoPulse(Pipeline(pipeline.tokenizer, generator, {}, torch.float32))  # type: ignore[arg-type]
    frames = list(islice(model.stream(ecgs[0], settings=DecodeSettings(steps=1)), 30))
    assert all(frame.shape == (128, 128) and frame.dtype == np.uint8 for frame in frames)
    assert len(generator.calls) == 13  # type: ignore[arg-type]  # 7 frames, then 2 a window


@pytest.mark.parametrize("fps", [10.0, 23.976, 60.0])
@pytest.mark.parametrize("seconds", [0.11, 0.5])
def test_any_length_and_rate_can_be_asked_for(pipeline: Pipeline, ecgs: Ecgs, seconds: float, fps: float) -> None:
    clip = EchoPulse(pipeline)(ecgs[0], seconds=seconds, fps=fps, settings=DecodeSettings(steps=1))
    assert clip.num_frames == max(1, round(seconds * fps))


def test_the_wanted_ef_reaches_every_window(
    pipeline: Pipeline, ecgs: Ecgs, known_answer: Callable[..., torch.nn.Module]
) -> None:
    generator = known_answer(torch.zeros(20))
    told = Pipeline(pipeline.tokenizer, generator, {}, torch.float32)  # type: ignore[arg-type]
    told(ecgs[0], GenerationRequest(seconds=0.6, ef_percent=35.0), settings=DecodeSettings(steps=2, guidance=3.0))
    for _, known, conditions in generator.calls:  # type: ignore[union-attr]
        rows = [round(float(ef), 4) for ef in conditions.ef]
        assert rows[0] == 0.35 and len(rows) == len(known)
        assert all(np.isnan(rows[1:])), "guidance pushes away from a heart of unknown EF"
