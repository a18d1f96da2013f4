"""`echopulse train`: every network, from prepared sets or the phantom."""

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro

from echopulse.cli.train_tokenizer import TokenizerOptions, tokenizer_task
from echopulse.config import from_dict, load_json
from echopulse.errors import InputError

T = TypeVar("T")
_NO_OPTIONS = TokenizerOptions()
_PHANTOM_SECONDS = 3.0
"""Length of a phantom clip for the generator; a longer one would only be more of the same patient."""
_PICTURES_S = 7.0
"""Seconds of a phantom patient for the picture network, at one picture a second."""


def train(
    stage: tyro.conf.Positional[
        Literal["tokenizer", "detail", "ecg", "ef", "generator", "picture", "critic", "segmenter"]
    ],
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="DIR")],
    data: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="SET...")] = (),
    phantom: int | None = None,
    preset: Literal["tiny", "compact", "base", "paper", "published"] = "compact",
    config: Path | None = None,
    init: str | None = None,
    tokenizer: Path | None = None,
    ecg_init: Path | None = None,
    text_encoder: Path | None = None,
    ef_reader: Path | None = None,
    detail: Path | None = None,
    segmenter: Path | None = None,
    generator: Path | None = None,
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
        stage: `tokenizer` first, then `generator`. `detail` carries the detail of one picture of a clip, which codes
            lose, to the others, and makes speckle; `ecg` pre-trains the generator's ECG encoder; `ef` reads the
            ejection fraction from an ECG, for generators that are told it; `picture` draws first pictures in place of a
            trained generator, from many more patients than those of its videos; `critic` helps a trained generator to
            sample; `segmenter` is the judge of EF and timing, from sets with masks.
        output: folder of the run: settings, log, TensorBoard events, samples, checkpoint, export.
        data: prepared sets, as `echopulse simulate` writes them.
        phantom: in place of `--data`: that many phantom patients, rendered while training; for `generator`, `picture`
            and `critic` once, before it.
        preset: size of the network and recipe; `base` and `published` are sizes of the tokenizer alone.
        config: JSON of the network's config, in place of the preset's.
        init: for tokenizer, generator, detail, picture and segmenter: go on from this checkpoint, a shipped name, a
            run, or a folder.
        tokenizer: for generator and detail: a tokenizer run or checkpoint folder.
        ecg_init: for the generator: start from this encoder, a run of `train ecg` or a converted checkpoint folder.
        text_encoder: for the generator: folder of a T5 model; half of the windows then come with a description.
        ef_reader: for the generator: put this reader into its checkpoint, a run of `train ef`.
        detail: for the generator: put this network into its checkpoint, a run of `train detail`.
        segmenter: for the generator: put this network into its checkpoint, a run of `train segmenter`, which measures
            rehearsals; for the tokenizer: it has to see the same left ventricle in reconstructions. Let another one
            judge the result.
        generator: for picture and critic: a generator run or checkpoint folder.
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
        "detail": recipes.detail_recipe,
        "ecg": recipes.ecg_recipe,
        "ef": recipes.ef_recipe,
        "generator": recipes.generator_recipe,
        "picture": recipes.picture_recipe,
        "critic": recipes.critic_recipe,
        "segmenter": recipes.segmenter_recipe,
    }
    recipe = find_recipe[stage](preset)
    given = {"steps": steps, "batch": batch, "accumulate": accumulate, "learning_rate": learning_rate}
    settings = replace(recipe, seed=seed, **{k: v for k, v in given.items() if v is not None})
    if (phantom is None) == (not data):
        raise InputError("training needs either --data, prepared sets, or --phantom, a number of patients")
    if options != _NO_OPTIONS and stage != "tokenizer":
        raise InputError(f"--lora and the options of losses are the tokenizer's; the {stage} has none of them")
    if init is not None and config is not None:
        raise InputError("--init brings its own config; leave --config out")
    if init is not None and ecg_init is not None:
        raise InputError("--init brings its own ECG encoder; leave --ecg-init out")
    if phantom is not None and stage == "segmenter":
        raise InputError("the segmenter trains on masks; write a set with `echopulse simulate` and give --data")
    given_to = {
        "--init": (init, ("tokenizer", "generator", "detail", "picture", "segmenter")),
        "--tokenizer": (tokenizer, ("generator", "detail")),
        "--ecg-init": (ecg_init, ("generator",)),
        "--text-encoder": (text_encoder, ("generator",)),
        "--ef-reader": (ef_reader, ("generator",)),
        "--detail": (detail, ("generator",)),
        "--segmenter": (segmenter, ("generator", "tokenizer")),
        "--generator": (generator, ("picture", "critic")),
    }
    for name, (value, owners) in given_to.items():
        if value is not None and stage not in owners:
            raise InputError(f"{name} is for `train {' and '.join(owners)}`; the {stage} takes none")
    if not output.parent.is_dir():
        raise InputError(f"{output.parent}: no such folder; create it first")
    if (output / "checkpoint").exists() and not resume:
        raise InputError(f"{output} already holds a run; add --resume, or choose another folder")
    clips = _clips(stage, data, phantom, settings.seed)
    if stage == "tokenizer":
        task = tokenizer_task(options, init, preset, config, clips, settings, segmenter)
    elif stage == "detail":
        task = _detail_task(preset, config, init, clips, settings, tokenizer)
    elif stage == "generator":
        beside = _companions(ef_reader, detail, segmenter)
        task = _generator_task(preset, config, init, clips, settings, tokenizer, ecg_init, text_encoder, beside, output)
    elif stage == "ecg":
        task = _ecg_task(preset, config, data, phantom, settings)
    elif stage == "ef":
        task = _ef_task(preset, config, data, phantom, settings)
    elif stage == "picture":
        task = _picture_task(config, init, clips, settings, generator, output)
    elif stage == "critic":
        task = _critic_task(config, clips, settings, generator, output)
    else:
        task = _segmenter_task(preset, config, init, data, settings)
    parameters = sum(p.numel() for p in task.model.parameters())
    print(f"{stage} {preset}: {parameters / 1e6:.1f} M parameters, {settings.steps} steps of {settings.batch} clips")
    engine.train(task, settings, output, resume=resume)
    print(f"done: {output / 'export'}")


def _clips(stage: str, data: tuple[Path, ...], phantom: int | None, seed: int):
    from echopulse.phantom.series import ClipSeries
    from echopulse.training.phantom_data import PhantomDataset

    if phantom is None:
        return data
    if stage == "picture":
        return PhantomDataset(ClipSeries(seconds=_PICTURES_S, fps=1.0, masks=False), phantom, seed)
    seconds = 1.0 if stage == "tokenizer" else _PHANTOM_SECONDS
    return PhantomDataset(ClipSeries(seconds=seconds, masks=stage == "detail"), phantom, seed)


def _shape(preset: T, config: Path | None) -> T:
    """A network's config: the preset's, or what the file says in its place."""
    return preset if config is None else from_dict(type(preset), load_json(config), str(config))


def _ecg_task(preset: str, config: Path | None, data: tuple[Path, ...], phantom: int | None, settings):
    from echopulse.models.presets import ecg_autoencoder_config
    from echopulse.training.ecg import EcgTask

    shape = _shape(ecg_autoencoder_config(preset), config)
    return EcgTask(shape, _ecgs(data, phantom, settings), batch=settings.batch, seed=settings.seed)


def _ef_task(preset: str, config: Path | None, data: tuple[Path, ...], phantom: int | None, settings):
    from echopulse.models.ef_reader import EfReaderConfig
    from echopulse.training.ef import EfTask

    shape = _shape(EfReaderConfig(4, 16, 1) if preset == "tiny" else EfReaderConfig(), config)
    ecgs = _ecgs(data, phantom, settings, more_of=("lbbb", "paced"))  # rare, and the EF is hardest to read of them
    return EfTask(shape, ecgs, batch=settings.batch, seed=settings.seed)


def _ecgs(data: tuple[Path, ...], phantom: int | None, settings, more_of: tuple[str, ...] = ()):
    from echopulse.training.ecg import PhantomEcgs, RecordedEcgs

    return RecordedEcgs(data) if phantom is None else PhantomEcgs(phantom, settings.seed, more_of=more_of)


def _critic_task(config: Path | None, data, settings, generator: Path | None, output: Path):
    from echopulse.training.critic import CriticTask

    network, tokenizer, folder = _trained_generator("critic", generator, config)
    clips = _cached(output, data, tokenizer, 2 * network.config.slots - 1)
    return CriticTask(network, clips, tokenizer, checkpoint=folder, batch=settings.batch, seed=settings.seed)


def _picture_task(config: Path | None, init: str | None, data, settings, generator: Path | None, output: Path):
    from echopulse.models.video_transformer import CodePredictor, GeneratorConfig
    from echopulse.training.picture import PictureTask

    network, tokenizer, folder = _trained_generator("picture network", generator, config)
    begun = None if init is None else _begun(CodePredictor, GeneratorConfig, "picture", init)
    options = {"checkpoint": folder, "batch": settings.batch, "seed": settings.seed, "network": begun}
    return PictureTask(network, _cached(output, data, tokenizer, 1), tokenizer, **options)


def _trained_generator(stage: str, generator: Path | None, config: Path | None):
    """A generator that another network is trained beside, its tokenizer, and the folder of both."""
    from echopulse.models.checkpoints import find_network, load_network
    from echopulse.models.tokenizer import TokenizerConfig, VideoTokenizer
    from echopulse.models.video_transformer import GeneratorConfig, VideoTransformer

    if generator is None:
        raise InputError(f"training the {stage} needs --generator: the run or checkpoint folder of stage two")
    if config is not None:
        raise InputError(f"the shape of the {stage} follows the generator's; leave --config out")
    folder = find_network(generator, "generator").parent
    tokenizer = load_network(VideoTokenizer, TokenizerConfig, folder / "tokenizer")
    return load_network(VideoTransformer, GeneratorConfig, folder / "generator"), tokenizer, folder


def _cached(output: Path, data, tokenizer, min_frames: int):
    """The clips' tokens, kept beside the run; of several processes the first one makes them."""
    from echopulse.training.engine import main_process_first
    from echopulse.training.token_cache import build_token_cache

    with main_process_first():
        return build_token_cache(output.with_name(f"{output.name}-cache"), data, tokenizer, min_frames)


def _tokenizer(place: Path | None, stage: str):
    from echopulse.models.tokenizer import VideoTokenizer

    if place is None:
        raise InputError(f"training the {stage} needs --tokenizer: the run or checkpoint folder of stage one")
    return VideoTokenizer.from_pretrained(place)


def _detail_task(preset: str, config: Path | None, init: str | None, data, settings, tokenizer: Path | None):
    from echopulse.models.detail import DetailConfig, DetailNetwork
    from echopulse.training.detail import DetailTask

    if init is None:
        network = _shape(DetailConfig((8,), (8,), 2) if preset == "tiny" else DetailConfig(), config)
    else:
        network = _begun(DetailNetwork, DetailConfig, "detail", init)
    return DetailTask(network, _tokenizer(tokenizer, "detail"), data, batch=settings.batch, seed=settings.seed)


def _generator_task(
    preset: str,
    config: Path | None,
    init: str | None,
    data,
    settings,
    tokenizer: Path | None,
    ecg_init: Path | None,
    text_encoder: Path | None,
    beside: dict[str, Any],
    output: Path,
):
    from echopulse.models.checkpoints import find_network, load_network
    from echopulse.models.ecg_encoder import EcgEncoder, EcgEncoderConfig
    from echopulse.models.presets import generator_config
    from echopulse.models.text_encoder import TextEncoder
    from echopulse.models.video_transformer import GeneratorConfig, VideoTransformer
    from echopulse.training.generator import GeneratorTask
    from echopulse.training.recipes import generator_decoding

    network = _tokenizer(tokenizer, "generator")
    begun = None if init is None else _begun(VideoTransformer, GeneratorConfig, "generator", init)
    shape = _shape(generator_config(preset), config) if begun is None else begun.config
    ecg = None if ecg_init is None else load_network(EcgEncoder, EcgEncoderConfig, find_network(ecg_init, "ecg"))
    if ecg is not None:
        shape = replace(shape, ecg=ecg.config)
    text = None if text_encoder is None else TextEncoder(text_encoder)
    if text is not None and begun is None:
        shape = replace(shape, text_width=text.width)
    if shape.factors != network.factors:
        raise InputError(f"the tokenizer's codes have factors {network.factors}; this generator has {shape.factors}")
    clips = _cached(output, data, network, 2 * shape.slots - 1)
    options = {"batch": settings.batch, "seed": settings.seed, "ecg": ecg, "text": text}
    return GeneratorTask(begun or shape, clips, network, **options, **beside, decoding=generator_decoding(preset))


def _companions(ef_reader: Path | None, detail: Path | None, segmenter: Path | None) -> dict[str, Any]:
    """Trained networks that a generator's checkpoint holds beside it."""
    from echopulse.models.checkpoints import find_network, load_network
    from echopulse.models.detail import DetailConfig, DetailNetwork
    from echopulse.models.ef_reader import EfReader, EfReaderConfig
    from echopulse.models.segmenter import ChamberSegmenter, SegmenterConfig

    kinds: dict[str, tuple[Path | None, type, type]] = {
        "ef_reader": (ef_reader, EfReader, EfReaderConfig),
        "detail": (detail, DetailNetwork, DetailConfig),
        "segmenter": (segmenter, ChamberSegmenter, SegmenterConfig),
    }
    return {
        name: load_network(network, shape, find_network(path, name))
        for name, (path, network, shape) in kinds.items()
        if path is not None
    }


def _begun(network_class: type, config_class: type, name: str, init: str) -> Any:
    """A trained network to train on."""
    from echopulse.models.checkpoints import find_network, load_network

    return load_network(network_class, config_class, find_network(init, name)).train().requires_grad_(True)


def _segmenter_task(preset: str, config: Path | None, init: str | None, data: tuple[Path, ...], settings):
    from echopulse.models.segmenter import ChamberSegmenter, SegmenterConfig
    from echopulse.training.segmenter import SegmenterTask

    if init is None:
        network = _shape(SegmenterConfig((8, 16)) if preset == "tiny" else SegmenterConfig(), config)
    else:
        network = _begun(ChamberSegmenter, SegmenterConfig, "segmenter", init)
    return SegmenterTask(network, data, batch=settings.batch, seed=settings.seed)
