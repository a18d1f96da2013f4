"""Searched codes are nearer to the clip, stream in bounded context, and refuse what has no neighbours."""

import pytest
import torch

from echopulse.errors import InputError
from echopulse.models.quantizer import QuantizerConfig
from echopulse.models.segmenter import ChamberSegmenter, SegmenterConfig
from echopulse.models.tokenizer import TokenizerConfig, VideoTokenizer
from echopulse.training.code_search import CodeSearch


def small_tokenizer(quantizer: QuantizerConfig | None = None, causal: bool = True) -> VideoTokenizer:
    """An untrained network of 16-pixel tokens whose codes matter to its pixels."""
    torch.manual_seed(0)
    quantizer = quantizer or QuantizerConfig("fsq", (8, 5, 5), 1)
    shape = TokenizerConfig(
        patch=16, stem="conv", stem_width=8, width=32, spatial_depth=1, temporal_depth=1, heads=2, head_dim=16,
        causal=causal, temporal_window=2, quantizer=quantizer,
    )  # fmt: skip
    return VideoTokenizer(shape).eval()


def error_of(tokenizer: VideoTokenizer, codes: torch.Tensor, video: torch.Tensor) -> torch.Tensor:
    """Mean squared error of each clip."""
    with torch.inference_mode():
        return (tokenizer.decode(codes) - video).square().mean((1, 2, 3, 4))


@pytest.mark.parametrize("kind", ["fsq", "lfq", "bsq"])
def test_search_comes_nearer_to_every_clip(kind: str) -> None:
    config = QuantizerConfig("fsq", (8, 5, 5), 1) if kind == "fsq" else QuantizerConfig(kind, (2,) * 6, 6)
    tokenizer = small_tokenizer(config)
    video = torch.rand(2, 5, 1, 32, 32)
    codes = tokenizer.encode(video)
    found = CodeSearch(tokenizer, 12)(tokenizer.features(video), video)
    assert found.shape == codes.shape
    assert found.dtype == codes.dtype
    assert (error_of(tokenizer, found, video) < error_of(tokenizer, codes, video)).all()


def test_no_steps_leave_the_codes_of_the_encoder() -> None:
    tokenizer = small_tokenizer()
    video = torch.rand(1, 7, 1, 32, 32)
    codes = tokenizer.encode(video)
    assert torch.equal(CodeSearch(tokenizer, 0)(tokenizer.features(video), video), codes)
    assert torch.equal(torch.cat(list(CodeSearch(tokenizer, 0).stream(video.split(3, dim=1))), dim=1), codes)


def test_networks_get_no_gradients_and_inference_mode_does_not_stop_the_search() -> None:
    tokenizer = small_tokenizer()
    video = torch.rand(1, 3, 1, 32, 32)
    with torch.inference_mode():
        codes = tokenizer.encode(video)
        found = CodeSearch(tokenizer, 8)(tokenizer.features(video), video)
    assert not torch.equal(found, codes)
    assert all(values.grad is None for values in tokenizer.parameters())


def test_a_long_clip_in_pieces_is_nearer_too_and_pieces_know_what_was_found_before() -> None:
    tokenizer = small_tokenizer()
    video = torch.rand(1, 17, 1, 32, 32)
    codes = tokenizer.encode(video)
    found = torch.cat(list(CodeSearch(tokenizer, 12).stream(video.split(4, dim=1))), dim=1)
    assert found.shape == codes.shape
    assert (error_of(tokenizer, found, video) < error_of(tokenizer, codes, video)).all()
    late = slice(2 * 6 - 1, None)  # the frames of the last three token frames, in their own place in the clip
    with torch.inference_mode():
        made, before = tokenizer.decode(found)[:, late], tokenizer.decode(codes)[:, late]
    assert (made - video[:, late]).square().mean() < (before - video[:, late]).square().mean()


def test_the_ventricle_that_a_segmenter_sees_counts() -> None:
    tokenizer = small_tokenizer()
    torch.manual_seed(1)
    segmenter = ChamberSegmenter(SegmenterConfig((8, 8), 32)).eval()
    torch.nn.init.normal_(segmenter.head.weight)
    video = torch.rand(1, 3, 1, 32, 32)
    features = tokenizer.features(video)
    with_walls = CodeSearch(tokenizer, 8, segmenter)(features, video)
    assert not torch.equal(with_walls, CodeSearch(tokenizer, 8)(features, video))


def test_what_cannot_be_searched_is_refused() -> None:
    with pytest.raises(InputError, match="no neighbours"):
        CodeSearch(small_tokenizer(QuantizerConfig("vq", (64,), 1)), 4)
    with pytest.raises(InputError, match="not causal"):
        CodeSearch(small_tokenizer(causal=False), 4)
    with pytest.raises(InputError, match="expected 0 .* to 1000"):
        CodeSearch(small_tokenizer(), 1001)
