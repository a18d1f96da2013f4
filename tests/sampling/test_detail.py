"""What the codes lose of a given picture comes back where the picture stands still, and only there."""

import numpy as np
import pytest
import torch

from echopulse.errors import InputError
from echopulse.sampling.decode import DecodeSettings
from echopulse.sampling.detail import FirstPicture
from echopulse.sampling.pipeline import Pipeline
from echopulse.sampling.request import GenerationRequest
from echopulse.signals import EcgSignal


@pytest.fixture(scope="module")
def first() -> FirstPicture:
    rng = torch.Generator().manual_seed(0)
    return FirstPicture(torch.rand(2, 1, 1, 40, 40, generator=rng), torch.rand(2, 1, 1, 40, 40, generator=rng) / 4)


def test_still_frames_become_the_picture(first: FirstPicture) -> None:
    pixels = first.decoded.expand(-1, 3, -1, -1, -1)
    torch.testing.assert_close(first.restore(pixels, 1.0), (first.decoded + first.lost).expand_as(pixels))
    torch.testing.assert_close(first.restore(pixels, 0.5), (first.decoded + first.lost / 2).expand_as(pixels))
    assert torch.equal(first.restore(pixels, 0.0), pixels)


def test_what_moves_is_left_alone_and_its_surroundings_are_not(first: FirstPicture) -> None:
    pixels = first.decoded.clone()
    pixels[..., :20] += 0.8
    restored = first.restore(pixels, 1.0)
    torch.testing.assert_close(restored[..., :16], pixels[..., :16], rtol=0, atol=1e-6)
    torch.testing.assert_close(restored[..., 24:], (pixels + first.lost)[..., 24:])


def test_a_generated_clip_begins_with_the_picture_itself(pipeline: Pipeline, ecgs: tuple[EcgSignal, EcgSignal]) -> None:
    image = np.random.default_rng(0).integers(0, 256, pipeline.size).astype(np.uint8)
    request = GenerationRequest(seconds=0.6, seed=1)
    clips = {
        detail: pipeline(ecgs[0], request, image=image, settings=DecodeSettings(steps=2, detail=detail))[0]
        for detail in (0.0, 1.0)
    }
    assert np.abs(clips[1.0].frames[0].astype(int) - image).max() <= 1
    assert np.abs(clips[0.0].frames[0].astype(int) - image).max() > 20
    assert clips[1.0].provenance["detail"] == 1.0


def test_going_on_from_a_clip_keeps_its_detail(pipeline: Pipeline, ecgs: tuple[EcgSignal, EcgSignal]) -> None:
    image = np.random.default_rng(0).integers(0, 256, pipeline.size).astype(np.uint8)
    before, _ = pipeline(ecgs[0], GenerationRequest(seconds=0.6, seed=1), image=image)
    request = GenerationRequest(seconds=0.4, seed=2)
    with_detail, without = (
        pipeline(ecgs[0], request, previous=before, settings=DecodeSettings(steps=2, detail=detail))[0].frames
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


def test_share_outside_its_range_is_refused() -> None:
    with pytest.raises(InputError, match=r"detail is 1\.5; expected 0 to 1"):
        DecodeSettings(detail=1.5)
