"""`echopulse train`: both stages, from prepared sets."""

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import tyro

from echopulse.config import from_dict, load_json
from echopulse.errors import InputError


def train(
    stage: tyro.conf.Positional[Literal["tokenizer", "generator"]],
    data: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="SET...")],
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="DIR")],
    preset: Literal["tiny", "compact", "paper"] = "compact",
    config: Path | None = None,
    tokenizer: Path | None = None,
    steps: int | None = None,
    batch: int | None = None,
    learning_rate: float | None = None,
    seed: int = 0,
    resume: bool = False,
) -> None:
    """Train one stage on prepared sets; `DIR/export` is the result.

    Args:
        stage: `tokenizer` first, then `generator`.
        data: prepared sets, as `echopulse simulate` writes them.
        output: folder of the run: settings, log, TensorBoard events, samples, checkpoint, export.
        preset: size of the network and recipe.
        config: JSON of the network's config, in place of the preset's.
        tokenizer: for the generator: a tokenizer run or checkpoint folder.
        steps: optimizer steps, in place of the recipe's.
        batch: clips a step on each process, in place of the recipe's.
        learning_rate: peak, in place of the recipe's.
        seed: of everything random.
        resume: go on from the run's last checkpoint.
    """
    missing = [name for name in ("accelerate", "tensorboard") if find_spec(name) is None]
    if missing:
        raise InputError(f'training needs {" and ".join(missing)}: pip install "echopulse[train]"')
    from echopulse.training import engine, recipes

    recipe = recipes.tokenizer_recipe(preset) if stage == "tokenizer" else recipes.generator_recipe(preset)
    given = {"steps": steps, "batch": batch, "learning_rate": learning_rate}
    settings = replace(recipe, seed=seed, **{k: v for k, v in given.items() if v is not None})
    if not output.parent.is_dir():
        raise InputError(f"{output.parent}: no such folder; create it first")
    if (output / "checkpoint").exists() and not resume:
        raise InputError(f"{output} already holds a run; add --resume, or choose another folder")
    task = (
        _tokenizer_task(preset, config, data, settings)
        if stage == "tokenizer"
        else _generator_task(preset, config, data, settings, tokenizer, output)
    )
    parameters = sum(p.numel() for p in task.model.parameters())
    print(f"{stage} {preset}: {parameters / 1e6:.1f} M parameters, {settings.steps} steps of {settings.batch} clips")
    engine.train(task, settings, output, resume=resume)
    print(f"done: {output / 'export'}")


def _tokenizer_task(preset: str, config: Path | None, data: tuple[Path, ...], settings):
    from echopulse.models.presets import tokenizer_config
    from echopulse.models.tokenizer import TokenizerConfig
    from echopulse.training.tokenizer import TokenizerTask

    shape = tokenizer_config(preset) if config is None else from_dict(TokenizerConfig, load_json(config), str(config))
    return TokenizerTask(shape, data, batch=settings.batch, seed=settings.seed)


def _generator_task(preset: str, config: Path | None, data, settings, tokenizer: Path | None, output: Path):
    from echopulse.models.checkpoints import load_network
    from echopulse.models.presets import generator_config
    from echopulse.models.tokenizer import TokenizerConfig, VideoTokenizer
    from echopulse.models.video_transformer import GeneratorConfig
    from echopulse.training.generator import GeneratorTask
    from echopulse.training.token_cache import build_token_cache

    if tokenizer is None:
        raise InputError("training the generator needs --tokenizer: the run or checkpoint folder of stage one")
    places = [tokenizer / "export" / "tokenizer", tokenizer / "tokenizer", tokenizer]
    folder = next((place for place in places if (place / "config.json").is_file()), None)
    if folder is None:
        raise InputError(f"{tokenizer} holds no tokenizer; expected a run or checkpoint folder of stage one")
    network = load_network(VideoTokenizer, TokenizerConfig, folder)
    shape = generator_config(preset) if config is None else from_dict(GeneratorConfig, load_json(config), str(config))
    if shape.factors != network.factors:
        raise InputError(f"the tokenizer's codes have factors {network.factors}; this generator has {shape.factors}")
    clips = build_token_cache(output.with_name(f"{output.name}-cache"), data, network, 2 * shape.slots - 1)
    return GeneratorTask(shape, clips, network, batch=settings.batch, seed=settings.seed)
