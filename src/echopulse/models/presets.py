"""Named sizes.

`tiny` for tests, `compact` as shipped, `base` with the paper's token rate in a network that two CPU cores can train,
`paper` as in the paper's appendix tables 4 and 5. For the tokenizer alone, `published` has the shape of the released
weights.
"""

from typing import Literal

from echopulse.errors import InputError
from echopulse.models.ecg_autoencoder import EcgAutoencoderConfig
from echopulse.models.ecg_encoder import EcgEncoderConfig
from echopulse.models.quantizer import QuantizerConfig
from echopulse.models.tokenizer import TokenizerConfig
from echopulse.models.video_transformer import GeneratorConfig

Preset = Literal["tiny", "compact", "paper"]
PRESETS: tuple[str, ...] = ("tiny", "compact", "paper")
TokenizerPreset = Literal["tiny", "compact", "base", "paper", "published"]
TOKENIZER_PRESETS: tuple[str, ...] = ("tiny", "compact", "base", "paper", "published")


def tokenizer_config(preset: str) -> TokenizerConfig:
    """Config of the video tokenizer.

    Of 11 frames of 128×128, `compact` makes 384 codes of 16 bits, `base`, `paper` and `published` 1536 of 13 bits.

    Raises:
        InputError: unknown preset.
    """
    if preset == "tiny":
        return TokenizerConfig(
            patch=16,
            stem="conv",
            stem_width=8,
            width=32,
            spatial_depth=1,
            temporal_depth=1,
            heads=2,
            head_dim=16,
            mult=2.0,
            temporal_window=3,
            quantizer=QuantizerConfig(kind="fsq", levels=(4, 4, 4), group=2),
        )
    if preset == "compact":
        return TokenizerConfig(
            patch=16,
            stem="conv",
            stem_width=64,
            details=1,
            shared_frames=True,
            width=256,
            spatial_depth=3,
            temporal_depth=1,
            heads=4,
            head_dim=64,
            mult=4.0,
            temporal_window=3,
            quantizer=QuantizerConfig(kind="fsq", levels=(8, 8, 8, 5, 5, 5), group=1),
        )
    if preset == "base":
        return TokenizerConfig(
            patch=8,
            stem="conv",
            stem_width=64,
            details=1,
            shared_frames=True,
            width=256,
            spatial_depth=2,
            temporal_depth=1,
            heads=4,
            head_dim=64,
            mult=3.0,
            temporal_window=3,
            quantizer=QuantizerConfig(kind="fsq", levels=(8, 8, 8, 4, 4), group=1),
        )
    if preset == "paper":
        return TokenizerConfig(spatial_positions=True)
    if preset == "published":
        return TokenizerConfig(
            channels=3,
            causal=False,
            spatial_positions=True,
            published=True,
            quantizer=QuantizerConfig(kind="vq", levels=(8192,), group=1),
        )
    raise InputError(f"unknown preset {preset!r}; expected one of {', '.join(TOKENIZER_PRESETS)}")


def ecg_autoencoder_config(preset: str) -> EcgAutoencoderConfig:
    """Config of the ECG encoder's pre-training; the encoder is that of the preset's generator.

    Raises:
        InputError: unknown preset.
    """
    encoder = generator_config(preset).ecg
    if preset == "paper":
        return EcgAutoencoderConfig(encoder)
    return EcgAutoencoderConfig(encoder, width=encoder.width // 2, depth=1 if preset == "tiny" else 2, heads=2)


def generator_config(preset: str) -> GeneratorConfig:
    """Config of the generator, for 128×128 pictures; the factors are those of the preset's tokenizer.

    Raises:
        InputError: unknown preset.
    """
    tokenizer = tokenizer_config(preset)
    side = 128 // tokenizer.patch
    factors = tokenizer.quantizer.factors
    if preset == "tiny":
        return GeneratorConfig(
            factors=factors,
            rows=side,
            columns=side,
            slots=4,
            width=32,
            depth=2,
            heads=2,
            head_dim=16,
            mult=2.0,
            cross_every=2,
            position_bias=True,
            joint_width=16,
            ecg=EcgEncoderConfig(width=32, depth=1, heads=2, mult=2.0, fine_width=16, fine_dilations=(1, 2)),
        )
    if preset == "compact":
        return GeneratorConfig(
            factors=factors,
            rows=side,
            columns=side,
            slots=8,
            width=256,
            depth=6,
            heads=4,
            head_dim=64,
            mult=4.0,
            cross_every=3,
            position_bias=False,
            joint_width=256,
            ecg=EcgEncoderConfig(width=128, depth=3, heads=2, mult=4.0, fine_width=96, reads_motion=True),
        )
    return GeneratorConfig(factors=factors, rows=side, columns=side)
