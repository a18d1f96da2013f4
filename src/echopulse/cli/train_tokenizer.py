"""Options of `echopulse train tokenizer`, and the task that they ask for."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from echopulse.config import from_dict, load_json
from echopulse.errors import InputError


@dataclass(frozen=True)
class TokenizerOptions:
    """What can be asked of the tokenizer's training; None leaves it to the preset's recipe.

    Attributes:
        lora: rank of low-rank adapters on attention and feed-forward layers; all else stays as it is (needs `--init`).
        only: train this part alone and leave the other as it is, so that codes keep their meaning (needs `--init`).
        perceptual: network of the perceptual loss.
        perceptual_weight: weight of the perceptual loss.
        vgg16: weights for `--perceptual vgg16`, from `echopulse convert vgg16`.
        walls_weight: weight of the loss that `--segmenter` switches on.
        adversarial: discriminator of images, of video, or none.
        adversarial_weight: multiplies the adaptive weight of the adversarial loss.
        adversarial_start: first step with the adversarial loss.
        continuous_steps: first steps without rounding.
        textures: share of synthetic moving textures among the clips.
    """

    lora: int | None = None
    only: Literal["encoder", "decoder"] | None = None
    perceptual: Literal["gabor", "vgg16", "none"] | None = None
    perceptual_weight: float | None = None
    vgg16: Path | None = None
    walls_weight: float | None = None
    adversarial: Literal["image", "video", "none"] | None = None
    adversarial_weight: float | None = None
    adversarial_start: int | None = None
    continuous_steps: int | None = None
    textures: float | None = None


def tokenizer_task(
    options: TokenizerOptions,
    init: str | None,
    preset: str,
    config: Path | None,
    data,
    settings,
    segmenter: Path | None,
):
    """The task, ready for the engine.

    Args:
        options: of the tokenizer alone.
        init: checkpoint to go on from.
        preset: size of a new network, and the recipe.
        config: JSON of a new network's config, in place of the preset's.
        data: folders of prepared sets, or phantom patients.
        settings: of the engine.
        segmenter: has to see the same ventricle in reconstructions; None for no such loss.

    Raises:
        InputError: options that contradict each other.
    """
    from echopulse.models.presets import tokenizer_config
    from echopulse.models.tokenizer import TokenizerConfig, VideoTokenizer
    from echopulse.training import recipes
    from echopulse.training.lora import LoraTask, add_lora
    from echopulse.training.tokenizer import tokenizer_task as make_task

    if init is None and (options.lora is not None or options.only is not None):
        raise InputError("--lora and --only train a part of a trained network; name it with --init")
    if init is not None:
        network = VideoTokenizer.from_pretrained(init).train().requires_grad_(True)
    elif config is not None:
        network = from_dict(TokenizerConfig, load_json(config), str(config))
    else:
        network = tokenizer_config(preset)
    recipe, textures = recipes.tokenizer_losses(preset, settings.steps)
    names = (
        "perceptual",
        "perceptual_weight",
        "walls_weight",
        "adversarial",
        "adversarial_weight",
        "adversarial_start",
        "continuous_steps",
        "only",
    )
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    if options.vgg16 is not None:
        given["vgg16"] = str(options.vgg16)
    if segmenter is not None:
        given["segmenter"] = str(segmenter)
    elif options.walls_weight is not None:
        raise InputError("--walls-weight weighs what a segmenter sees; name one with --segmenter")
    if init is not None:
        given = {"continuous_steps": 0, "adversarial_start": 0} | given
    if options.lora is not None:
        given = {"adversarial": "none"} | given
    arguments = {
        "batch": settings.batch,
        "losses": replace(recipe, **given),
        "seed": settings.seed,
        "textures": textures if options.textures is None else options.textures,
    }
    if options.lora is None:
        return make_task(network, data, **arguments)
    assert isinstance(network, VideoTokenizer)
    add_lora(network, options.lora)
    return LoraTask(network, data, init=str(init), **arguments)
