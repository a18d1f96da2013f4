"""Video tokenizer: C-ViViT, the first frame alone, the others in causal pairs (Villegas 2022; paper section 3.1)."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from echopulse.errors import InputError
from echopulse.models.quantizer import Quantizer, QuantizerConfig
from echopulse.nn.patches import ConvPatches, ConvUnpatches, LinearPatches, LinearUnpatches
from echopulse.nn.transformer import SpatialTransformer, TemporalTransformer


@dataclass(frozen=True)
class TokenizerConfig:
    """Shape of the tokenizer.

    Attributes:
        channels: picture channels; 1 for grey.
        patch: pixels along a side of a token.
        stem: `linear` patches (the paper) or a `conv` pyramid.
        stem_width: channels of the pyramid's first step.
        width: transformer width.
        spatial_depth, temporal_depth: layers each side.
        heads, head_dim, mult: attention heads, their width, feed-forward multiplier.
        temporal_window: token frames that one temporal layer sees, itself included.
        quantizer: the discrete bottleneck.
    """

    channels: int = 1
    patch: int = 8
    stem: Literal["linear", "conv"] = "linear"
    stem_width: int = 48
    width: int = 512
    spatial_depth: int = 4
    temporal_depth: int = 4
    heads: int = 8
    head_dim: int = 64
    mult: float = 4.0
    temporal_window: int = 6
    quantizer: QuantizerConfig = field(default_factory=QuantizerConfig)

    def __post_init__(self) -> None:
        if self.channels not in (1, 3):
            raise InputError(f"tokenizer channels = {self.channels}; expected 1 (grey) or 3 (color)")
        if self.stem == "conv" and (self.patch < 4 or self.patch & (self.patch - 1)):
            raise InputError(f"tokenizer patch = {self.patch} with stem = conv; expected a power of two from 4 on")


class TokenizerOutput(NamedTuple):
    """What a round trip gives: pixels, codes and the quantizer's losses by name."""

    reconstruction: Float[Tensor, "b f c h w"]
    codes: Int[Tensor, "b t gh gw"]
    losses: dict[str, Tensor]


class VideoTokenizer(nn.Module):
    """Frames to codes and back.

    A clip of `1 + 2k` frames has `1 + k` token frames: the first holds frame 0 alone, each later one two frames.
    Token frame `k` depends on frames up to `2k` only. A *continuation* is a piece of a longer clip that does not hold
    its first frame: `2k` frames, `k` token frames.

    Differs from the paper: temporal attention sees a sliding window, so that clips of any length stream; `stem = conv`
    replaces linear patches where a token covers many pixels.
    """

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        c = config
        if c.stem == "conv":
            self.patches: nn.Module = ConvPatches(c.channels, c.patch, c.stem_width)
            self.unpatches: nn.Module = ConvUnpatches(c.channels, c.patch, c.stem_width)
        else:
            self.patches = LinearPatches(c.channels, c.patch, c.width)
            self.unpatches = LinearUnpatches(c.channels, c.patch, c.width)
        inner = int(self.patches.dim)  # type: ignore[arg-type]
        self.first_in, self.pair_in = nn.Linear(inner, c.width), nn.Linear(2 * inner, c.width)
        self.first_out, self.pair_out = nn.Linear(c.width, inner), nn.Linear(c.width, 2 * inner)
        shape = (c.heads, c.head_dim, c.mult)
        self.spatial_encoder = SpatialTransformer(c.width, c.spatial_depth, *shape)
        self.temporal_encoder = TemporalTransformer(c.width, c.temporal_depth, *shape, c.temporal_window)
        self.temporal_decoder = TemporalTransformer(c.width, c.temporal_depth, *shape, c.temporal_window)
        self.spatial_decoder = SpatialTransformer(c.width, c.spatial_depth, *shape)
        self.norm_in, self.norm_out = nn.LayerNorm(c.width), nn.LayerNorm(c.width)
        self.quantizer = Quantizer(c.quantizer, c.width)

    @property
    def codebook_size(self) -> int:
        """Number of codes."""
        return self.quantizer.codebook_size

    @property
    def factors(self) -> tuple[int, ...]:
        """Sizes of the softmaxes that together name a code."""
        return self.config.quantizer.factors

    @property
    def reach(self) -> int:
        """How many earlier token frames a decoded (or encoded) one depends on."""
        return self.temporal_decoder.reach

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

    def features(self, video: Float[Tensor, "b f c h w"], continuation: bool = False) -> Float[Tensor, "b t gh gw d"]:
        """Encoder output before quantization."""
        b, f, c, h, w = video.shape
        if c != self.config.channels:
            raise InputError(f"video has {c} channels; this tokenizer was made for {self.config.channels}")
        self.grid_shape(f + continuation, h, w)
        x = self.patches(rearrange(2 * video - 1, "b f c h w -> (b f) c h w"))
        x = rearrange(x, "(b f) gh gw d -> b f gh gw d", b=b)
        first, rest = (x[:, :0], x) if continuation else (x[:, :1], x[:, 1:])
        pairs = rearrange(rest, "b (t two) gh gw d -> b t gh gw (two d)", two=2)
        x = torch.cat([self.first_in(first), self.pair_in(pairs)], dim=1)
        x = self.spatial_encoder(x)
        x = self.temporal_encoder(x)
        return self.norm_in(x)

    def encode(self, video: Float[Tensor, "b f c h w"], continuation: bool = False) -> Int[Tensor, "b t gh gw"]:
        """Codes of a clip with pixels in [0, 1].

        Args:
            video: `1 + 2k` frames, or `2k` of a continuation.
            continuation: the clip's first frame is not among these.

        Raises:
            InputError: frames, size or channels that do not fit.
        """
        return self.quantizer(self.features(video, continuation))[1]

    def decode(self, codes: Int[Tensor, "b t gh gw"], continuation: bool = False) -> Float[Tensor, "b f c h w"]:
        """Pixels of codes; not clamped.

        Raises:
            InputError: a code outside the codebook.
        """
        if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < self.codebook_size:
            raise InputError(
                f"codes from {int(codes.min())} to {int(codes.max())}; expected 0 to {self.codebook_size - 1}"
            )
        return self._to_pixels(self.quantizer.embed(codes), continuation)

    def _to_pixels(self, x: Float[Tensor, "b t gh gw d"], continuation: bool) -> Float[Tensor, "b f c h w"]:
        b = x.shape[0]
        x = self.temporal_decoder(x)
        x = self.spatial_decoder(x)
        x = self.norm_out(x)
        first, rest = (x[:, :0], x) if continuation else (x[:, :1], x[:, 1:])
        pairs = rearrange(self.pair_out(rest), "b t gh gw (two d) -> b (t two) gh gw d", two=2)
        x = torch.cat([self.first_out(first), pairs], dim=1)
        x = self.unpatches(rearrange(x, "b f gh gw d -> (b f) gh gw d"))
        return rearrange(x, "(b f) c h w -> b f c h w", b=b) / 2 + 0.5

    def decode_stream(self, chunks: Iterator[Int[Tensor, "b t gh gw"]]) -> Iterator[Float[Tensor, "b f c h w"]]:
        """Decodes a clip that comes in pieces; equals decoding it whole, in bounded memory.

        Args:
            chunks: the clip's token frames in order, any number at a time.

        Yields:
            The frames of each piece: `2n − 1` for the first, `2n` for the others.
        """
        past: Tensor | None = None
        whole = True  # `past` still holds the clip's first token frame
        for chunk in chunks:
            codes = chunk if past is None else torch.cat([past, chunk], dim=1)
            known = codes.shape[1] - chunk.shape[1]
            frames = self.decode(codes, continuation=not whole)
            yield frames[:, 2 * known - (whole and known > 0) :]
            if codes.shape[1] > self.reach:
                codes, whole = codes[:, codes.shape[1] - self.reach :], False
            past = codes

    def forward(self, video: Float[Tensor, "b f c h w"], quantize: bool = True) -> TokenizerOutput:
        """Round trip for training."""
        x, codes, losses = self.quantizer(self.features(video), quantize)
        return TokenizerOutput(self._to_pixels(x, continuation=False), codes, losses)
