"""Video tokenizer: C-ViViT, the first frame alone, the others in causal pairs (Villegas 2022; paper section 3.1)."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from echopulse.errors import InputError
from echopulse.models.checkpoints import find_network, load_network
from echopulse.models.quantizer import Quantized, QuantizerConfig, make_quantizer
from echopulse.nn.patches import ConvPatches, ConvUnpatches, PixelPatches, PixelUnpatches
from echopulse.nn.transformer import SpatialTransformer, StackShape, TemporalTransformer


@dataclass(frozen=True)
class TokenizerConfig:
    """Shape of the tokenizer.

    Attributes:
        channels: picture channels; 1 for grey.
        patch: pixels along a side of a token.
        stem: `linear` patches (the paper) or a `conv` pyramid.
        stem_width: conv: channels of the pyramid's first step.
        stem_depth: conv: residual convolutions of each step.
        details: conv: residual convolutions of the decoder at half the size, where fine texture is drawn.
        shared_frames: conv: a pair's token is what a single frame's would be, of the pair's mean, plus a map of its
            difference; so that what stands still keeps its code from the first frame on. Else two separate maps.
        width: transformer width.
        spatial_depth, temporal_depth: layers each side.
        heads, head_dim, mult: attention heads, their width, feed-forward multiplier.
        causal: temporal attention sees no later token frame.
        temporal_window: token frames that one causal temporal layer sees, itself included.
        spatial_positions: a position convolution in the spatial layers too, not in the temporal ones alone.
        published: the details of the released network: see `nn.transformer.StackShape`; also a norm after each of the
            four transformers and pixels that are not centred.
        quantizer: the discrete bottleneck.
    """

    channels: int = 1
    patch: int = 8
    stem: Literal["linear", "conv"] = "linear"
    stem_width: int = 48
    stem_depth: int = 1
    details: int = 0
    shared_frames: bool = False
    width: int = 512
    spatial_depth: int = 4
    temporal_depth: int = 4
    heads: int = 8
    head_dim: int = 64
    mult: float = 4.0
    causal: bool = True
    temporal_window: int = 6
    spatial_positions: bool = False
    published: bool = False
    quantizer: QuantizerConfig = field(default_factory=QuantizerConfig)

    def __post_init__(self) -> None:
        if self.channels not in (1, 3):
            raise InputError(f"tokenizer channels = {self.channels}; expected 1 (grey) or 3 (color)")
        if self.stem == "conv" and (self.patch < 4 or self.patch & (self.patch - 1)):
            raise InputError(f"tokenizer patch = {self.patch} with stem = conv; expected a power of two from 4 on")
        if self.stem == "linear" and (self.shared_frames or self.details):
            raise InputError("tokenizer shared_frames and details belong to stem = conv; this one has stem = linear")


class TokenizerOutput(NamedTuple):
    """What a round trip gives: pixels, and what the quantizer made of the features."""

    reconstruction: Float[Tensor, "b f c h w"]
    quantized: Quantized


class VideoTokenizer(nn.Module):
    """Frames to codes and back.

    A clip of `1 + 2k` frames has `1 + k` token frames: the first holds frame 0 alone, each later one two frames.
    Token frame `k` depends on frames up to `2k` only, so a clip that is valid up to a frame, and padded after it, has
    the codes of its valid part. A *continuation* is a piece of a longer clip that does not hold its first frame: `2k`
    frames, `k` token frames.

    Differs from the paper: temporal attention sees a sliding window, so that clips of any length stream; `stem = conv`
    replaces linear patches where a token covers many pixels.
    """

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        c = config
        if c.stem == "conv":
            self.patches: nn.Module = ConvPatches(c.channels, c.patch, c.stem_width, c.stem_depth)
            self.unpatches: nn.Module = ConvUnpatches(c.channels, c.patch, c.stem_width, c.stem_depth, c.details)
        else:
            self.patches = PixelPatches(c.channels, c.patch)
            self.unpatches = PixelUnpatches(c.channels, c.patch)
        inner = int(self.patches.dim)  # type: ignore[arg-type]
        pair = inner if c.shared_frames else 2 * inner
        self.first_in = self._embedding(inner)
        self.pair_in = nn.Linear(inner, c.width, bias=False) if c.shared_frames else self._embedding(pair)
        self.first_out, self.pair_out = nn.Linear(c.width, inner), nn.Linear(c.width, pair)
        shape = StackShape(c.width, c.heads, c.head_dim, c.mult, c.published)
        window = c.temporal_window if c.causal else None
        self.spatial_encoder = SpatialTransformer(shape, c.spatial_depth, convolution=c.spatial_positions)
        self.temporal_encoder = TemporalTransformer(shape, c.temporal_depth, window)
        self.temporal_decoder = TemporalTransformer(shape, c.temporal_depth, window)
        self.spatial_decoder = SpatialTransformer(shape, c.spatial_depth, convolution=c.spatial_positions)
        self.norm_in, self.norm_out = nn.LayerNorm(c.width), nn.LayerNorm(c.width)
        self.between_in, self.between_out = (nn.LayerNorm(c.width) if c.published else nn.Identity() for _ in range(2))
        self.quantizer = make_quantizer(c.quantizer, c.width)

    @classmethod
    def from_pretrained(cls, name: str | Path) -> "VideoTokenizer":
        """A trained tokenizer, ready for inference.

        Args:
            name: a tokenizer's own folder, the folder of a training run, or any checkpoint (`find_network`).

        Raises:
            InputError: there is no tokenizer.
        """
        return load_network(cls, TokenizerConfig, find_network(name, "tokenizer"))

    def _embedding(self, inner: int) -> nn.Module:
        """Patch features to tokens; between two norms where the features are bare pixels."""
        linear = nn.Linear(inner, self.config.width)
        if self.config.stem == "conv":
            return linear
        return nn.Sequential(nn.LayerNorm(inner), linear, nn.LayerNorm(self.config.width))

    @property
    def codebook_size(self) -> int:
        """Number of codes."""
        return self.quantizer.codebook_size

    @property
    def encoder_modules(self) -> list[nn.Module]:
        """All that codes depend on; with these frozen, they keep their meaning."""
        spatial, temporal = (self.spatial_encoder, self.between_in), (self.temporal_encoder, self.norm_in)
        codebook = self.quantizer if self.config.quantizer.kind == "vq" else self.quantizer.project_in
        return [self.patches, self.first_in, self.pair_in, *spatial, *temporal, codebook]

    @property
    def last_layer(self) -> Tensor:
        """Weight of the decoder's last layer."""
        return self.unpatches.to_pixels[0].weight if self.config.stem == "conv" else self.pair_out.weight  # type: ignore

    @property
    def bits_per_code(self) -> float:
        """Information of a code, `log2` of their number."""
        return math.log2(self.codebook_size)

    @property
    def factors(self) -> tuple[int, ...]:
        """Sizes of the softmaxes that together name a code."""
        return self.config.quantizer.factors

    @property
    def reach(self) -> int:
        """How many earlier token frames a decoded (or encoded) one depends on.

        Raises:
            InputError: temporal attention is not causal.
        """
        if not self.config.causal:
            raise InputError("this tokenizer is not causal, so it takes whole clips; streaming needs causal = true")
        return self.temporal_decoder.reach + self.spatial_decoder.reach

    def grid_shape(self, num_frames: int, height: int, width: int) -> tuple[int, int, int]:
        """Token grid of a clip: (token frames, rows, columns).

        Raises:
            InputError: an even number of frames, or a side that the patch does not divide.
        """
        if num_frames < 1 or num_frames % 2 == 0:
            raise InputError(f"{num_frames} frames; the tokenizer takes 1 + 2k frames: 1, 3, 5, ...")
        if height % self.config.patch or width % self.config.patch:
            raise InputError(f"frames of {height}x{width}; expected multiples of the patch, {self.config.patch} pixels")
        return (num_frames + 1) // 2, height // self.config.patch, width // self.config.patch

    def token_mask(self, frame_mask: Bool[Tensor, "b f"]) -> Bool[Tensor, "b t"]:
        """Which token frames hold valid frames alone, for clips that are valid from their first frame up to some frame.

        Raises:
            InputError: a valid frame after an invalid one, or none, or a network that is not causal.
        """
        if not self.config.causal:
            raise InputError("masks of frames need a causal tokenizer; this one sees the invalid frames, too")
        if not bool((frame_mask[:, 1:] <= frame_mask[:, :-1]).all() and frame_mask[:, 0].all()):
            raise InputError("a frame mask has to be true from the first frame up to the last valid one, then false")
        pairs = rearrange(frame_mask[:, 1:], "b (t two) -> b t two", two=2)
        return torch.cat([frame_mask[:, :1], pairs.all(dim=-1)], dim=1)

    def features(self, video: Float[Tensor, "b f c h w"], continuation: bool = False) -> Float[Tensor, "b t gh gw d"]:
        """Encoder output before quantization."""
        b, f, c, h, w = video.shape
        if c != self.config.channels:
            raise InputError(f"video has {c} channels; this tokenizer was made for {self.config.channels}")
        self.grid_shape(f + continuation, h, w)
        if not self.config.published:
            video = 2 * video - 1
        x = self.patches(rearrange(video, "b f c h w -> (b f) c h w"))
        x = rearrange(x, "(b f) gh gw d -> b f gh gw d", b=b)
        first, rest = (x[:, :0], x) if continuation else (x[:, :1], x[:, 1:])
        x = torch.cat([self.first_in(first), self._embed_pairs(rest)], dim=1)
        x = self.between_in(self.spatial_encoder(x))
        return self.norm_in(self.temporal_encoder(x))

    def _embed_pairs(self, x: Float[Tensor, "b f gh gw k"]) -> Float[Tensor, "b t gh gw d"]:
        if self.config.shared_frames:
            earlier, later = x[:, ::2], x[:, 1::2]
            return self.first_in((earlier + later) / 2) + self.pair_in((later - earlier) / 2)
        return self.pair_in(rearrange(x, "b (t two) gh gw d -> b t gh gw (two d)", two=2))

    def encode(self, video: Float[Tensor, "b f c h w"], continuation: bool = False) -> Int[Tensor, "b t gh gw"]:
        """Codes of a clip with pixels in [0, 1].

        Args:
            video: `1 + 2k` frames, or `2k` of a continuation.
            continuation: the clip's first frame is not among these.

        Raises:
            InputError: frames, size or channels that do not fit, or pixels that are not finite.
        """
        return self.quantizer(self._checked_features(video, continuation)).codes

    def _checked_features(self, video: Tensor, continuation: bool) -> Tensor:
        if not torch.isfinite(video).all():
            raise InputError("the video has pixels that are not finite (NaN or infinite); expected values in [0, 1]")
        return self.features(video, continuation)

    def decode(
        self, codes: Int[Tensor, "b t gh gw"], continuation: bool = False, past: int = 0
    ) -> Float[Tensor, "b f c h w"]:
        """Pixels of codes; not clamped.

        Args:
            codes: of a clip.
            continuation: the clip's first token frame is not among these.
            past: token frames at the beginning that are only looked back at; their pixels are not made.

        Raises:
            InputError: a code outside the codebook.
        """
        if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < self.codebook_size:
            raise InputError(
                f"codes from {int(codes.min())} to {int(codes.max())}; expected 0 to {self.codebook_size - 1}"
            )
        return self.pixels(self.quantizer.embed(codes), continuation, past)

    def pixels(self, x: Float[Tensor, "b t gh gw d"], continuation: bool, past: int = 0) -> Float[Tensor, "b f c h w"]:
        """Pixels of features as the quantizer gives them; see `decode`."""
        b = x.shape[0]
        x = self.between_out(self.temporal_decoder(x))
        unseen = max(past - self.spatial_decoder.reach, 0)
        x = self.norm_out(self.spatial_decoder(x[:, unseen:])[:, past - unseen :])
        first, rest = (x[:, :0], x) if continuation or past else (x[:, :1], x[:, 1:])
        x = torch.cat([self.first_out(first), self._split_pairs(rest)], dim=1)
        x = self.unpatches(rearrange(x, "b f gh gw d -> (b f) gh gw d"))
        x = rearrange(x, "(b f) c h w -> b f c h w", b=b)
        return x if self.config.published else x / 2 + 0.5

    def _split_pairs(self, x: Float[Tensor, "b t gh gw d"]) -> Float[Tensor, "b f gh gw k"]:
        if not self.config.shared_frames:
            return rearrange(self.pair_out(x), "b t gh gw (two d) -> b (t two) gh gw d", two=2)
        middle, half = self.first_out(x), self.pair_out(x)
        return rearrange([middle - half, middle + half], "two b t gh gw d -> b (t two) gh gw d")

    def encode_stream(self, chunks: Iterable[Tensor]) -> Iterator[Int[Tensor, "b t gh gw"]]:
        """Encodes a clip that comes in pieces; equals encoding it whole, in bounded memory.

        Args:
            chunks: the clip's frames in order, (b, f, c, h, w), any number at a time; `1 + 2k` in all.

        Yields:
            The token frames that each piece completes.

        Raises:
            InputError: an even number of frames in all.
        """
        return (self.quantizer(features).codes for features in self.feature_stream(chunks))

    def feature_stream(self, chunks: Iterable[Tensor]) -> Iterator[Float[Tensor, "b t gh gw d"]]:
        """Encoder output before quantization of a clip that comes in pieces; see `encode_stream`."""
        frames: Tensor | None = None
        whole, done = True, 0  # `frames` still holds the clip's first frame; its token frames that were given out
        for chunk in chunks:
            frames = chunk if frames is None else torch.cat([frames, chunk], dim=1)
            usable = frames.shape[1] - (frames.shape[1] + whole) % 2
            features = self._checked_features(frames[:, :usable], not whole) if usable else None
            if features is None or features.shape[1] == done:
                continue
            yield features[:, done:]
            done = features.shape[1]
            if done > self.reach:
                frames, whole, done = frames[:, usable - 2 * self.reach :], False, self.reach
        if frames is not None and (frames.shape[1] + whole) % 2:
            raise InputError("the clip ended with an even number of frames; the tokenizer takes 1 + 2k: 1, 3, 5, ...")

    def decode_stream(self, chunks: Iterable[Tensor]) -> Iterator[Float[Tensor, "b f c h w"]]:
        """Decodes a clip that comes in pieces; equals decoding it whole, in bounded memory.

        Args:
            chunks: the clip's token frames in order, (b, t, gh, gw), any number at a time.

        Yields:
            The frames of each piece: `2n − 1` for the first, `2n` for the others.
        """
        past: Tensor | None = None
        whole = True  # `past` still holds the clip's first token frame
        for chunk in chunks:
            codes = chunk if past is None else torch.cat([past, chunk], dim=1)
            known = codes.shape[1] - chunk.shape[1]
            yield self.decode(codes, continuation=not whole, past=known)
            if codes.shape[1] > self.reach:
                codes, whole = codes[:, codes.shape[1] - self.reach :], False
            past = codes

    def forward(self, video: Float[Tensor, "b f c h w"], quantize: bool = True) -> TokenizerOutput:
        """Round trip for training."""
        quantized = self.quantizer(self.features(video), quantize)
        return TokenizerOutput(self.pixels(quantized.features, continuation=False), quantized)
