"""The video tokenizer: its grid, what it refuses, causality, streaming, and the paper's and compact sizes."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from echopulse.errors import InputError
from echopulse.models.presets import tokenizer_config
from echopulse.models.tokenizer import TokenizerConfig, VideoTokenizer
from echopulse.nn.positions import ContinuousPositionBias
from echopulse.objectives.quantization import quantizer_losses
from echopulse.objectives.reconstruction import reconstruction_loss


def _video(frames: int, height: int = 32, width: int = 32, seed: int = 0) -> Tensor:
    return torch.rand(1, frames, 1, height, width, generator=torch.Generator().manual_seed(seed))


def _codes(frames: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 64, (1, frames, 2, 2), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("frames", "token_frames"), [(1, 1), (3, 2), (5, 3), (11, 6)])
def test_one_and_then_every_two_frames_make_a_token_frame(
    tokenizer: VideoTokenizer, frames: int, token_frames: int
) -> None:
    with torch.inference_mode():
        codes = tokenizer.encode(_video(frames, 32, 64))
        pixels = tokenizer.decode(codes)
    assert codes.shape == (1, token_frames, 2, 4)
    assert tokenizer.grid_shape(frames, 32, 64) == (token_frames, 2, 4)
    assert pixels.shape == (1, frames, 1, 32, 64)
    assert codes.min() >= 0 and codes.max() < tokenizer.codebook_size == 64


def test_round_trip_equals_encoding_and_decoding(tokenizer: VideoTokenizer) -> None:
    with torch.inference_mode():
        output = tokenizer(_video(5))
        codes = tokenizer.encode(_video(5))
        assert torch.equal(output.quantized.codes, codes)
        torch.testing.assert_close(output.reconstruction, tokenizer.decode(codes), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("frames", [0, 2, 12])
def test_even_number_of_frames_is_refused(tokenizer: VideoTokenizer, frames: int) -> None:
    with pytest.raises(InputError, match=f"{frames} frames; the tokenizer takes"):
        tokenizer.encode(_video(frames))


@pytest.mark.parametrize(("height", "width"), [(30, 32), (32, 40)])
def test_size_that_the_patch_does_not_divide_is_refused(tokenizer: VideoTokenizer, height: int, width: int) -> None:
    with pytest.raises(InputError, match=f"{height}x{width}; expected multiples of the patch, 16"):
        tokenizer.encode(_video(3, height, width))


def test_wrong_number_of_channels_is_refused(tokenizer: VideoTokenizer) -> None:
    with pytest.raises(InputError, match="3 channels; this tokenizer was made for 1"):
        tokenizer.encode(torch.zeros(1, 3, 3, 32, 32))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_pixels_that_are_not_finite_are_refused(tokenizer: VideoTokenizer, bad: float) -> None:
    video = _video(3)
    video[0, 1, 0, 5, 5] = bad
    with pytest.raises(InputError, match="not finite"):
        tokenizer.encode(video)


@pytest.mark.parametrize("bad", [-1, 64])
def test_codes_outside_the_codebook_are_refused(tokenizer: VideoTokenizer, bad: int) -> None:
    codes = _codes(2)
    codes[0, 1, 0, 1] = bad
    with pytest.raises(InputError, match="expected 0 to 63"):
        tokenizer.decode(codes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(channels=2), "channels = 2"),
        (dict(stem="conv", patch=12), "patch = 12 with stem = conv"),
        (dict(stem="conv", patch=2), "patch = 2 with stem = conv"),
        (dict(shared_frames=True), "belong to stem = conv"),
    ],
)
def test_impossible_configs_are_refused(change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        TokenizerConfig(**change)


def test_color_is_kept(tokenizer: VideoTokenizer) -> None:
    config = tokenizer_config("tiny")
    color = VideoTokenizer(TokenizerConfig(**{**vars(config), "channels": 3}))
    with torch.inference_mode():
        assert color(torch.rand(1, 3, 3, 32, 32)).reconstruction.shape == (1, 3, 3, 32, 32)


# causality -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changed", [1, 3, 5])
def test_later_frames_do_not_change_earlier_features(tokenizer: VideoTokenizer, changed: int) -> None:
    video, other = _video(7), _video(7)
    other[:, changed:] = 1 - other[:, changed:]
    before = (changed + 1) // 2
    with torch.inference_mode():
        x, y = tokenizer.features(video), tokenizer.features(other)
    torch.testing.assert_close(x[:, :before], y[:, :before], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(x[:, before], y[:, before], atol=1e-3)


def test_first_token_frame_is_the_first_frame_alone(tokenizer: VideoTokenizer) -> None:
    with torch.inference_mode():
        whole, alone = tokenizer.features(_video(7)), tokenizer.features(_video(7)[:, :1])
        codes, code = tokenizer.encode(_video(7)), tokenizer.encode(_video(7)[:, :1])
    torch.testing.assert_close(whole[:, :1], alone, rtol=1e-4, atol=1e-5)
    assert torch.equal(codes[:, :1], code)


def test_later_codes_do_not_change_earlier_pixels(tokenizer: VideoTokenizer) -> None:
    codes, other = _codes(5), _codes(5)
    other[:, 3:] = (other[:, 3:] + 7) % 64
    with torch.inference_mode():
        x, y = tokenizer.decode(codes), tokenizer.decode(other)
    torch.testing.assert_close(x[:, :5], y[:, :5], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(x[:, 5], y[:, 5], atol=1e-3)


@pytest.mark.parametrize("change", [dict(shared_frames=True, details=1, stem_depth=2), dict(spatial_positions=True)])
def test_options_keep_the_promises(change: dict) -> None:
    torch.manual_seed(3)
    tokenizer = VideoTokenizer(replace(tokenizer_config("tiny"), **change)).eval()
    video, other = _video(7), _video(7)
    other[:, 3:] = 1 - other[:, 3:]
    with torch.inference_mode():
        x, y = tokenizer.features(video), tokenizer.features(other)
        torch.testing.assert_close(x[:, :2], y[:, :2], rtol=1e-4, atol=1e-5)
        codes = tokenizer.encode(video)
        parts = list(tokenizer.decode_stream(codes.split(1, dim=1)))
        torch.testing.assert_close(torch.cat(parts, dim=1), tokenizer.decode(codes), rtol=1e-4, atol=1e-5)


def test_shared_stem_gives_a_still_pair_the_token_of_one_frame() -> None:
    torch.manual_seed(3)
    config = replace(tokenizer_config("tiny"), shared_frames=True)
    tokenizer = VideoTokenizer(config)
    frame = tokenizer.patches(_video(1)[0])[None]
    torch.testing.assert_close(tokenizer._embed_pairs(frame.repeat(1, 2, 1, 1, 1)), tokenizer.first_in(frame))


def test_padding_after_the_last_valid_frame_changes_nothing_before(tokenizer: VideoTokenizer) -> None:
    video, mask = _video(9), torch.arange(9)[None] < 6
    valid = tokenizer.token_mask(mask)
    assert valid.tolist() == [[True, True, True, False, False]]
    padded = torch.where(mask[:, :, None, None, None], video, 0.5)
    with torch.inference_mode():
        assert torch.equal(tokenizer.encode(padded)[valid], tokenizer.encode(video)[valid])


@pytest.mark.parametrize("mask", [[False, False, False], [True, False, True], [False, True, True]])
def test_masks_with_holes_are_refused(tokenizer: VideoTokenizer, mask: list[bool]) -> None:
    with pytest.raises(InputError, match="true from the first frame"):
        tokenizer.token_mask(torch.tensor([mask]))


def test_network_that_is_not_causal_neither_streams_nor_masks() -> None:
    tokenizer = VideoTokenizer(replace(tokenizer_config("tiny"), causal=False)).eval()
    with torch.inference_mode():
        assert tokenizer(_video(5)).reconstruction.shape == (1, 5, 1, 32, 32)
        with pytest.raises(InputError, match="causal = true"):
            list(tokenizer.decode_stream([_codes(2), _codes(2)]))
    with pytest.raises(InputError, match="need a causal tokenizer"):
        tokenizer.token_mask(torch.ones(1, 3, dtype=torch.bool))


def test_position_bias_is_kept_until_a_weight_changes() -> None:
    torch.manual_seed(0)
    bias = ContinuousPositionBias(2, axes=2)
    with torch.no_grad():
        first = bias((3, 4))
        assert bias((3, 4)) is first and bias((4, 3)) is not first
        bias.net[0].weight.mul_(2)
        changed = bias((3, 4))
    assert not torch.allclose(changed, first)
    assert bias((3, 4)).requires_grad


# streaming -------------------------------------------------------------------------------------------


def test_continuation_encodes_the_tail_like_the_whole(tokenizer: VideoTokenizer) -> None:
    video, new = _video(29), 3
    tail = video[:, -2 * (tokenizer.reach + new) :]
    with torch.inference_mode():
        whole = tokenizer.features(video)
        piece = tokenizer.features(tail, continuation=True)
        short = tokenizer.features(tail[:, 2:], continuation=True)
    torch.testing.assert_close(piece[:, -new:], whole[:, -new:], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(short[:, -new], whole[:, -new], rtol=1e-4, atol=1e-5), "reach is larger than need be"


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize(
    "pieces", [[12], [1] * 12, [1, 2, 1, 5, 3], [4, 1, 1, 6], [6, 6], [5, 4, 3]], ids=lambda pieces: str(len(pieces))
)
def test_decoding_in_pieces_equals_decoding_whole(pieces: list[int], depth: int) -> None:
    torch.manual_seed(4)
    config = TokenizerConfig(**{**vars(tokenizer_config("tiny")), "temporal_depth": depth})
    tokenizer = VideoTokenizer(config).eval()
    assert tokenizer.reach == 4 * depth
    codes = _codes(12)
    with torch.inference_mode():
        whole = tokenizer.decode(codes)
        parts = list(tokenizer.decode_stream(iter(codes.split(pieces, dim=1))))
    assert [part.shape[1] for part in parts] == [2 * pieces[0] - 1] + [2 * piece for piece in pieces[1:]]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pieces", [[23], [1] * 23, [2] * 11 + [1], [5, 1, 9, 8], [16, 7]], ids=lambda p: str(len(p)))
def test_encoding_in_pieces_equals_encoding_whole(tokenizer: VideoTokenizer, pieces: list[int]) -> None:
    video = _video(23)
    with torch.inference_mode():
        parts = list(tokenizer.encode_stream(video.split(pieces, dim=1)))
        assert torch.equal(torch.cat(parts, dim=1), tokenizer.encode(video))


def test_stream_that_ends_within_a_pair_is_refused(tokenizer: VideoTokenizer) -> None:
    with torch.inference_mode(), pytest.raises(InputError, match="ended with an even number"):
        list(tokenizer.encode_stream(_video(22).split(5, dim=1)))


def test_long_clip_is_coded_and_decoded_piece_by_piece(
    tokenizer: VideoTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand frames, of which no more than a piece and the reach are ever held."""
    held: list[int] = []
    features = tokenizer.features

    def watch(video: Tensor, continuation: bool = False) -> Tensor:
        held.append(video.shape[1])
        return features(video, continuation)

    monkeypatch.setattr(tokenizer, "features", watch)
    piece = _video(50)
    frames = (piece[:, : 1 if i == 0 else None] for i in range(21))
    with torch.inference_mode():
        num = sum(made.shape[1] for made in tokenizer.decode_stream(tokenizer.encode_stream(frames)))
    assert num == 1001
    assert max(held) <= 50 + 2 * tokenizer.reach + 1


def test_streaming_memory_is_bounded(tokenizer: VideoTokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    decode: Callable[..., Tensor] = tokenizer.decode

    def watch(codes: Tensor, continuation: bool, past: int) -> Tensor:
        seen.append(codes.shape[1])
        return decode(codes, continuation, past)

    monkeypatch.setattr(tokenizer, "decode", watch)
    with torch.inference_mode():
        for _ in tokenizer.decode_stream(iter(_codes(20).split(1, dim=1))):
            pass
    assert max(seen) == tokenizer.reach + 1


# sizes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("preset", "codes", "codebook"),
    [("paper", 1536, 8192), ("published", 1536, 8192), ("base", 1536, 8192), ("compact", 384, 64000)],
)
def test_codes_of_eleven_frames(preset: str, codes: int, codebook: int) -> None:
    with torch.device("meta"):
        tokenizer = VideoTokenizer(tokenizer_config(preset))
    rows, columns, depth = tokenizer.grid_shape(11, 128, 128)
    assert rows * columns * depth == codes
    assert tokenizer.codebook_size == codebook


def test_unknown_preset_is_refused() -> None:
    with pytest.raises(
        InputError, match="unknown preset 'huge'; expected one of tiny, compact, base, paper, published"
    ):
        tokenizer_config("huge")


def test_paper_preset_takes_an_optimizer_step() -> None:
    torch.manual_seed(0)
    tokenizer = VideoTokenizer(tokenizer_config("paper"))
    video = _video(3)
    optimizer = torch.optim.SGD(tokenizer.parameters(), lr=1e-3)
    losses = []
    for _ in range(2):
        output = tokenizer(video)
        codes = output.quantized.codes
        assert codes.shape == (1, 2, 4, 4) and codes.max() < 8192
        terms = quantizer_losses(tokenizer.config.quantizer, output.quantized)
        assert set(terms) == {"entropy", "commitment"}
        loss = torch.stack([20 * reconstruction_loss(video, output.reconstruction), *terms.values()]).sum()
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[1] < losses[0]
