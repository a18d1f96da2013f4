"""How each stage of each preset is trained: the settings behind `echopulse train`."""

from dataclasses import replace

from echopulse.errors import InputError
from echopulse.sampling.decode import DecodeSettings
from echopulse.training.engine import TrainSettings
from echopulse.training.tokenizer import TokenizerLosses

_TINY = TrainSettings(steps=20, batch=2, warmup=5, log_every=5, sample_every=20, precision="no")


def tokenizer_recipe(preset: str) -> TrainSettings:
    """Settings of stage one.

    `compact` and `base` take about half an hour on two CPU cores; `paper` has the paper's batch and moving average.

    Raises:
        InputError: unknown preset.
    """
    if preset == "tiny":
        return _TINY
    if preset in ("compact", "base"):
        return TrainSettings(
            steps=1200,
            batch=8,
            learning_rate=6e-4,
            warmup=100,
            ema_decay=0.99,
            sample_every=100,
            checkpoint_every_s=120,
        )
    if preset in ("paper", "published"):
        return TrainSettings(steps=1_000_000, batch=128, learning_rate=1e-4, warmup=5000, ema_every=10)
    raise InputError(f"no recipe for preset {preset!r}")


def tokenizer_losses(preset: str, steps: int) -> tuple[TokenizerLosses, float]:
    """Terms of the tokenizer's loss, and the share of moving textures among its clips.

    In `paper` and `published` the discriminator joins when pixels and energies have settled, after 60 % of the steps.
    `compact` and `base` go without: in the steps that two CPU cores have time for, it drew a grid instead of speckle.

    Args:
        preset: which recipe.
        steps: optimizer steps of the run.
    """
    if preset == "tiny":
        return TokenizerLosses(perceptual="none", continuous_steps=5), 0.0
    if preset in ("compact", "base"):
        return TokenizerLosses(), 0.25
    return TokenizerLosses(adversarial="video", adversarial_start=steps * 6 // 10), 0.0


def detail_recipe(preset: str) -> TrainSettings:
    """Settings of the detail network's training, after the tokenizer's.

    Raises:
        InputError: unknown preset, or `paper`.
    """
    if preset in ("compact", "base"):
        return TrainSettings(
            steps=2200, batch=8, learning_rate=1e-3, warmup=100, ema_decay=0.99, sample_every=250, log_every=25
        )
    return _tiny(preset)


def generator_recipe(preset: str) -> TrainSettings:
    """Settings of stage two.

    `paper` is the appendix's table 5: batch 128, learning rate 1e-4, Adam (0.9, 0.99), 4,000,000 steps,
    moving average every 10 steps with 0.995.

    Raises:
        InputError: unknown preset.
    """
    if preset == "tiny":
        return _TINY
    if preset == "compact":
        return TrainSettings(
            steps=2300, batch=16, learning_rate=8e-4, warmup=100, ema_decay=0.99, sample_every=100, log_every=10
        )
    if preset == "paper":
        return TrainSettings(
            steps=4_000_000,
            batch=128,
            learning_rate=1e-4,
            warmup=5000,
            beta1=0.9,
            beta2=0.99,
            weight_decay=0.0,
            ema_decay=0.995,
            ema_every=10,
        )
    raise InputError(f"no recipe for preset {preset!r}")


def generator_decoding(preset: str) -> DecodeSettings:
    """How codes are drawn, by default, with a checkpoint trained by the preset's recipe.

    `compact` has what was tuned on phantom patients that were in no training set; `paper` the paper's 18 steps,
    guidance and annealing.
    """
    shared = DecodeSettings(
        guided_share=1.0,
        choice_temperature=1.0,
        picture_temperature=1.0,
        ef_contrast=1.45,
        rehearsals=3,
        auditions=2,
    )
    if preset == "paper":
        return replace(shared, steps=18, guidance=3.0, temperature=0.9, final_temperature=0.0)
    tuned = replace(shared, steps=6, guidance=1.6, guidance_alone=1.5, temperature=0.6, keep=True, null_every=2)
    return replace(tuned, grey_allowance=(71.4, -110.8, 300.5, -850.8, 625.8))


def ecg_recipe(preset: str) -> TrainSettings:
    """Settings of the ECG encoder's pre-training; `paper` has the optimizer of masked autoencoders (He 2022).

    Raises:
        InputError: unknown preset.
    """
    if preset == "compact":
        return TrainSettings(
            steps=700, batch=32, learning_rate=1e-3, warmup=100, ema_decay=0.99, sample_every=500, log_every=10
        )
    if preset == "paper":
        return TrainSettings(
            steps=160_000, batch=1024, learning_rate=1.2e-3, warmup=8000, beta2=0.95, weight_decay=0.05, ema_every=10
        )
    return _tiny(preset)


def critic_recipe(preset: str) -> TrainSettings:
    """Settings of the token critic's training, after the generator's.

    Raises:
        InputError: unknown preset.
    """
    if preset == "compact":
        return TrainSettings(
            steps=800, batch=16, learning_rate=4e-4, warmup=100, ema_decay=0.99, sample_every=200, log_every=10
        )
    if preset == "paper":
        return replace(generator_recipe("paper"), steps=1_000_000)
    return _tiny(preset)


def picture_recipe(preset: str) -> TrainSettings:
    """Settings of the picture network's training, after the generator's; `paper` has none, it is ours.

    Raises:
        InputError: unknown preset, or `paper`.
    """
    if preset == "compact":
        return TrainSettings(
            steps=4800, batch=64, learning_rate=6e-4, warmup=100, ema_decay=0.998, sample_every=500, log_every=25
        )
    return _tiny(preset)


def ef_recipe(preset: str) -> TrainSettings:
    """Settings of the reader of ejection fraction, which is ours and not the paper's.

    Raises:
        InputError: unknown preset, or `paper`.
    """
    if preset == "tiny":
        return _TINY
    if preset == "compact":
        return TrainSettings(
            steps=4000,
            batch=256,
            learning_rate=1e-3,
            warmup=100,
            weight_decay=0.05,
            ema_decay=0.99,
            precision="no",
            sample_every=4000,
            log_every=50,
        )
    raise InputError(f"the EF reader has no preset {preset!r}; expected tiny or compact")


def segmenter_recipe(preset: str) -> TrainSettings:
    """Settings of the chamber segmenter, which is ours and not the paper's.

    A batch is counted in frames. The shipped ones saw nearly twice as many as `compact` does, in several runs, each
    started from the one before.

    Raises:
        InputError: unknown preset, or `paper`.
    """
    if preset == "tiny":
        return _TINY
    if preset == "compact":
        return TrainSettings(
            steps=2500,
            batch=32,
            learning_rate=2e-3,
            warmup=100,
            ema_decay=0.99,
            sample_every=250,
            checkpoint_every_s=60,
        )
    raise InputError(f"the segmenter has no preset {preset!r}; expected tiny or compact")


def _tiny(preset: str) -> TrainSettings:
    if preset != "tiny":
        raise InputError(f"no recipe for preset {preset!r}; expected tiny, compact or paper")
    return _TINY
