"""Detail of a known picture is carried to generated frames, speckle is added, and both only where asked for."""

import copy
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from echopulse.errors import InputError
from echopulse.models.detail import DetailConfig, DetailNetwork
from echopulse.sampling.decode import DecodeSettings
from echopulse.sampling.detail import DetailStream
from echopulse.sampling.pipeline import Pipeline
from echopulse.sampling.request import GenerationRequest, Take
from echopulse.signals import EcgSignal


@pytest.fixture(scope="module")
def network() -> DetailNetwork:
    """Random where a new one does nothing."""
    torch.manual_seed(5)
    network = DetailNetwork(DetailConfig((8, 16), (8,), 2)).eval().requires_grad_(False)
    for head in (network.motion.head, network.texture.head):
        torch.nn.init.normal_(head.weight, std=0.3)
    return network


def _with_little_speckle(network: DetailNetwork) -> DetailNetwork:
    """So little that it takes nothing below black."""
    network = copy.deepcopy(network)
    network.texture.head.weight.mul_(0.02)
    return network


@pytest.fixture
def detailed(pipeline: Pipeline, network: DetailNetwork) -> Iterator[Pipeline]:
    pipeline.detail = network
    yield pipeline
    pipeline.detail = None


def test_pieces_of_a_stream_are_the_whole_stream_but_at_their_ends(network: DetailNetwork) -> None:
    video = torch.rand(2, 9, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    whole = DetailStream(network, [1, 2])(video)
    stream = DetailStream(network, [1, 2])
    pieces = torch.cat([stream(video[:, :1]), stream(video[:, 1:4]), stream(video[:, 4:])], dim=1)
    inner = [i for i in range(9) if i != 3]
    torch.testing.assert_close(pieces[:, inner], whole[:, inner])
    torch.testing.assert_close(DetailStream(network, [2])(video[1:]), whole[1:])
    assert (DetailStream(network, [1, 3])(video)[1] - whole[1]).abs().max() > 1e-3


def test_share_mixes_frames_and_frames_with_detail(network: DetailNetwork) -> None:
    network = _with_little_speckle(network)
    video = 0.5 + 0.5 * torch.rand(1, 3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    grey = video.mean(2, keepdim=True)
    known = (grey[:, 0], grey[:, 0])
    none, half, whole = (DetailStream(network, [1], known, share)(video) for share in (0.0, 0.5, 1.0))
    torch.testing.assert_close(none, grey)
    torch.testing.assert_close(half, (none + whole) / 2)
    assert (whole - none).abs().max() > 1e-2


def test_the_known_picture_matters_and_is_the_first_frame_if_none_is_given(network: DetailNetwork) -> None:
    network = _with_little_speckle(network)
    draws = torch.Generator().manual_seed(0)
    video, picture = torch.rand(1, 4, 1, 32, 32, generator=draws), torch.rand(1, 1, 32, 32, generator=draws)
    alone = DetailStream(network, [1])(video)
    given = DetailStream(network, [1], (picture, video[:, 0]))(video)
    same = DetailStream(network, [1], (alone[:, 0].clamp(0, 1), video[:, 0]))(video)
    assert (given - alone)[:, 1:].abs().max() > 1e-2
    assert (same - alone)[:, 1:].abs().mean() < 0.5 * (given - alone)[:, 1:].abs().mean()


def test_speckle_of_the_first_picture_is_drawn_as_learned_and_not_added_to_itself_later(network: DetailNetwork) -> None:
    network = _with_little_speckle(network)
    for values in network.motion.head.parameters():
        torch.nn.init.zeros_(values)  # nothing moves, and half of the known picture is carried
    grey = torch.full((1, 2, 1, 128, 128), 0.5)
    first, later = (DetailStream(network, [1])(grey) - grey)[0, :, 0]
    material, fresh = (network.draw_noise(1, 128, 128, torch.Generator().manual_seed(i))[None] for i in (2, 3))
    learned = network(*[grey[:, 0]] * 3, torch.zeros(1, dtype=torch.bool), material, fresh)[1].squeeze() - 0.5
    assert first.std() / learned.std() == pytest.approx(1, abs=0.1)
    added = later - first / 2
    assert abs(np.corrcoef(first.flatten(), added.flatten())[0, 1]) < 0.1


def test_memory_is_bounded_for_first_pictures_too(network: DetailNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    video = torch.rand(5, 3, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    whole, sizes = DetailStream(network, range(5))(video), []
    monkeypatch.setattr("echopulse.sampling.detail._AT_ONCE", 2)
    watch = network.texture.register_forward_hook(lambda _, inputs, __: sizes.append(len(inputs[0])))
    torch.testing.assert_close(DetailStream(network, range(5))(video), whole)
    watch.remove()
    assert max(sizes) == 2 and sum(sizes) == 15


def test_the_ground_around_the_sector_is_black_and_what_is_lit_stays() -> None:
    video = torch.full((1, 3, 1, 32, 32), 1.5 / 255)
    video[..., 8:, 6:26] = 0.6
    video[..., 12:24, 10:20] = 7 / 255  # a wall in shadow
    ground = torch.ones(32, 32, dtype=torch.bool)
    ground[6:, 4:28] = False
    adds_nothing = DetailNetwork(DetailConfig((8, 16), (8,), 2)).eval()
    for known in (None, (video[:, 0], video[:, 0])):
        made = DetailStream(adds_nothing, [1], known)(video)
        assert not made[..., ground].any()
        torch.testing.assert_close(made[..., 8:, 6:26], video[..., 8:, 6:26])


def test_a_generated_clip_begins_with_the_picture_itself(detailed: Pipeline, ecgs: tuple[EcgSignal, EcgSignal]) -> None:
    image = np.random.default_rng(0).integers(0, 256, detailed.size).astype(np.uint8)
    request = GenerationRequest(seconds=0.6, seed=1)
    clips = {
        detail: detailed(ecgs[0], request, image=image, settings=DecodeSettings(steps=2, detail=detail))[0]
        for detail in (0.0, 1.0)
    }
    assert np.array_equal(clips[1.0].frames[0], image)
    assert np.abs(clips[0.0].frames[0].astype(int) - image).max() > 20
    assert not np.array_equal(clips[1.0].frames[5], clips[0.0].frames[5])
    assert clips[1.0].provenance["detail"] == 1.0


def test_clips_of_a_batch_are_as_alone(detailed: Pipeline, ecgs: tuple[EcgSignal, EcgSignal]) -> None:
    takes = [Take(ecg, GenerationRequest(seconds=0.6, seed=seed)) for seed, ecg in enumerate(ecgs)]
    together, _ = detailed.generate(takes, DecodeSettings(steps=2))
    for take, clip in zip(takes, together, strict=True):
        alone = detailed.generate([take], DecodeSettings(steps=2))[0][0]
        off = np.abs(alone.frames.astype(int) - clip.frames)
        assert (off > 1).mean() < 1e-3, "but where rounding decides which grain of noise is the nearest"


def test_going_on_from_a_clip_keeps_its_detail(detailed: Pipeline, ecgs: tuple[EcgSignal, EcgSignal]) -> None:
    image = np.random.default_rng(0).integers(0, 256, detailed.size).astype(np.uint8)
    before, _ = detailed(ecgs[0], GenerationRequest(seconds=0.6, seed=1), image=image)
    request = GenerationRequest(seconds=0.4, seed=2)
    with_detail, without = (
        detailed(ecgs[0], request, previous=before, settings=DecodeSettings(steps=2, detail=detail))[0].frames
        for detail in (1.0, 0.0)
    )
    assert with_detail.shape == without.shape and not np.array_equal(with_detail, without)


def test_guidance_alone_is_that_of_clips_without_a_picture(
    pipeline: Pipeline, ecgs: tuple[EcgSignal, EcgSignal]
) -> None:
    request, image = GenerationRequest(seconds=0.3, seed=1), np.full(pipeline.size, 90, np.uint8)
    one, other, both = (DecodeSettings(steps=2, guidance=w, guidance_alone=a) for w, a in ((1, None), (9, 1), (1, 9)))
    for picture, same in ((None, (one, other)), (image, (one, both))):
        clips = [pipeline(ecgs[0], request, image=picture, settings=settings)[0].frames for settings in same]
        assert np.array_equal(*clips)
    with pytest.raises(InputError, match="guidance is -1"):
        DecodeSettings(guidance_alone=-1.0)


def test_what_cannot_be_is_refused(pipeline: Pipeline) -> None:
    with pytest.raises(InputError, match=r"detail is 1\.5; expected 0 to 1"):
        DecodeSettings(detail=1.5)
    deep = DetailNetwork(DetailConfig((8,) * 7))
    with pytest.raises(InputError, match="multiples of 256"):
        Pipeline(pipeline.tokenizer, pipeline.generator, {}, torch.float32, detail=deep)
