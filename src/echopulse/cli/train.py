"""`echopulse train`: both stages, from prepared sets."""

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import tyro

from echopulse.cli.train_tokenizer import TokenizerOptions, tokenizer_task
from echopulse.config import from_dict, load_json
from echopulse.errors import InputError

_NO_OPTIONS = TokenizerOptions()


def train(
    stage: tyro.conf.Positional[Literal["tokenizer", "generator", "segmenter"]],
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="DIR")],
    data: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="SET...")] = (),
    phantom: int | None = None,
    preset: Literal["tiny", "compact", "base", "paper", "published"] = "compact",
    config: Path | None = None,
    tokenizer: Path | None = None,
    steps: int | None = None,
    batch: int | None = None,
    accumulate: int | None = None,
    learning_rate: float | None = None,
    seed: int = 0,
    resume: bool = False,
    options: Annotated[TokenizerOptions, tyro.conf.arg(name="")] = _NO_OPTIONS,
) -> None:
    """Train one stage on prepared sets; `DIR/export` is the result.

    Args:
        stage: `tokenizer` first, then `generator`; `segmenter` is the judge of EF and timing, from sets with masks.
        output: folder of the run: settings, log, TensorBoard events, samples, checkpoint, export.
        data: prepared sets, as `echopulse simulate` writes them.
        phantom: for the tokenizer, in place of `--data`: that many phantom patients, rendered while training.
        preset: size of the network and recipe; `base` and `published` are sizes of the tokenizer alone.
        config: JSON of the network's config, in place of the preset's.
        tokenizer: for the generator: a tokenizer run or checkpoint folder.
        steps: optimizer steps, in place of the recipe's.
        batch: clips a step on each process, in place of the recipe's.
        accumulate: batches whose gradients are added up to one step.
        learning_rate: peak, in place of the recipe's.
        seed: of everything random.
        resume: go on from the run's last checkpoint.
        options: for the tokenizer.
    """
    missing = [name for name in ("accelerate", "tensorboard") if find_spec(name) is None]
    if missing:
        raise InputError(f'training needs {" and ".join(missing)}: pip install "echopulse[train]"')
    from echopulse.training import engine, recipes

    find_recipe = {
        "tokenizer": recipes.tokenizer_recipe,
        "generator": recipes.generator_recipe,
        "segmenter": recipes.segmenter_recipe,
    }
    recipe = find_recipe[stage](preset)
    given = {"steps": steps, "batch": batch, "accumulate": accumulate, "learning_rate": learning_rate}
    settings = replace(recipe, seed=seed, **{k: v for k, v in given.items() if v is not None})
    if (phantom is None) == (not data):
        raise InputError("training needs either --data, prepared sets, or --phantom, a number of patients")
    if options != _NO_OPTIONS and stage != "tokenizer":
        raise InputError(f"--init, --lora and the options of losses are the tokenizer's; the {stage} has none of them")
    if phantom is not None and stage == "segmenter":
        raise InputError("the segmenter trains on masks; write a set with `echopulse simulate` and give --data")
    if phantom is not None and stage == "generator":
        raise InputError("the generator trains on cached tokens; write a set with `echopulse simulate` and give --data")
    if not output.parent.is_dir():
        raise InputError(f"{output.parent}: no such folder; create it first")
    if (output / "checkpoint").exists() and not resume:
        raise InputError(f"{output} already holds a run; add --resume, or choose another folder")
    if stage == "tokenizer":
        task = tokenizer_task(options, preset, config, _clips(data, phantom, settings.seed), settings)
    elif stage == "generator":
        task = _generator_task(preset, config, data, settings, tokenizer, output)
    else:
        task = _segmenter_task(preset, config, data, settings)
    parameters = sum(p.numel() for p in task.model.parameters())
    print(f"{stage} {preset}: {parameters / 1e6:.1f} M parameters, {settings.steps} steps of {settings.batch} clips")
    engine.train(task, settings, output, resume=resume)
    print(f"done: {output / 'export'}")


def _clips(data: tuple[Path, ...], phantom: int | None, seed: int):
    from echopulse.phantom.series import ClipSeries
    from echopulse.training.phantom_data import PhantomDataset

    return data if phantom is None else PhantomDataset(ClipSeries(seconds=1.0, masks=False), phantom, seed)


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


def _segmenter_task(preset: str, config: Path | None, data: tuple[Path, ...], settings):
    from echopulse.models.segmenter import SegmenterConfig
    from echopulse.training.segmenter import SegmenterTask

    shape = SegmenterConfig((8, 16)) if preset == "tiny" else SegmenterConfig()
    if config is not None:
        shape = from_dict(SegmenterConfig, load_json(config), str(config))
    return SegmenterTask(shape, data, batch=settings.batch, seed=settings.seed)
