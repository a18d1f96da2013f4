"""How each stage of each preset is trained: the settings behind `echopulse train`."""

from echopulse.errors import InputError
from echopulse.training.engine import TrainSettings


def tokenizer_recipe(preset: str) -> TrainSettings:
    """Settings of stage one.

    `compact` is what the shipped tokenizer was trained with, on two CPU cores in about 25 minutes; `paper` has the
    paper's batch and moving average.

    Raises:
        InputError: unknown preset.
    """
    if preset == "tiny":
        return TrainSettings(steps=20, batch=2, warmup=5, log_every=5, sample_every=20, precision="no")
    if preset == "compact":
        return TrainSettings(
            steps=1300,
            batch=8,
            learning_rate=6e-4,
            warmup=100,
            ema_decay=0.99,
            sample_every=100,
            checkpoint_every_s=120,
        )
    if preset == "paper":
        return TrainSettings(steps=1_000_000, batch=128, learning_rate=1e-4, warmup=5000, ema_every=10)
    raise InputError(f"no recipe for preset {preset!r}")


def generator_recipe(preset: str) -> TrainSettings:
    """Settings of stage two.

    `paper` is the appendix's table 5: batch 128, learning rate 1e-4, Adam (0.9, 0.99), 4,000,000 steps,
    moving average every 10 steps with 0.995.

    Raises:
        InputError: unknown preset.
    """
    if preset == "tiny":
        return TrainSettings(steps=20, batch=2, warmup=5, log_every=5, sample_every=20, precision="no")
    if preset == "compact":
        return TrainSettings(
            steps=1250, batch=16, learning_rate=8e-4, warmup=100, ema_decay=0.99, sample_every=100, log_every=10
        )
    if preset == "paper":
        return TrainSettings(
            steps=4_000_000, batch=128, learning_rate=1e-4, warmup=5000, weight_decay=0.0, ema_every=10
        )
    raise InputError(f"no recipe for preset {preset!r}")
