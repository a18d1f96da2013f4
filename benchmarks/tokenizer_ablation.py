"""Which quantizer, what does it cost, and what do the perceptual and adversarial losses buy? Networks at equal steps.

    python benchmarks/tokenizer_ablation.py -o RUNS --data SET... --test HELD-OUT... [--preset base] [--steps 600]
                                            [--arms fsq-perceptual lfq-perceptual ...] [--shared 700 | --init compact]

LFQ, FSQ and BSQ with as many bits as the preset's codebook, and none (trained and measured without rounding), each with
the pixel error alone, with the recipe's perceptual term beside it, and with a video discriminator from half of the
steps on; all else is equal. `cost_db` is what rounding takes of the PSNR, against `none` with the same losses, if that
was asked for too. With `--init`, a trained network goes on with its own quantizer: what the losses alone change. Each
arm is a run in its own folder: one that is finished is not repeated, one that was stopped goes on where it was. The
last line is JSON.
"""

import argparse
import json
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tokenizer_quality import measure, pixels, read_clips, round_trip, spectrum

from echopulse.config import load_json, save_json
from echopulse.errors import InputError
from echopulse.models.checkpoints import find_network
from echopulse.models.presets import tokenizer_config
from echopulse.models.quantizer import QuantizerConfig
from echopulse.models.tokenizer import TokenizerConfig, VideoTokenizer
from echopulse.nn.precision import fast_dtype
from echopulse.training.engine import train
from echopulse.training.recipes import tokenizer_losses, tokenizer_recipe
from echopulse.training.tokenizer import TokenizerLosses, tokenizer_task

COLUMNS = ("psnr", "cost_db", "ssim", "share_of_codes", "bits_per_token", "spectrum_low", "spectrum_high", "minutes")
FREE = "none"
ASKED = ("preset", "steps", "shared", "init", "batch", "seed", "clips", "frames")
LOSSES = ("pixels", "perceptual", "adversarial")


def quantizers(preset: str) -> dict[str, TokenizerConfig]:
    """The preset's network without rounding and with each quantizer; binary ones have its codebook's bits, rounded."""
    config = tokenizer_config(preset)
    bits = round(math.log2(math.prod(config.quantizer.levels)))
    binary = {kind: QuantizerConfig(kind=kind, levels=(2,) * bits, group=bits) for kind in ("lfq", "bsq")}
    assert config.quantizer.kind == "fsq"
    kinds = {FREE: config.quantizer} | binary | {"fsq": config.quantizer}
    return {kind: replace(config, quantizer=each) for kind, each in kinds.items()}


def fit(
    folder: Path,
    network: VideoTokenizer | TokenizerConfig,
    losses: TokenizerLosses,
    textures: float,
    steps: int,
    options: argparse.Namespace,
) -> bool:
    """Trains one network in its folder, from where it was stopped if it was; says whether it was."""
    recipe = tokenizer_recipe(options.preset)
    settings = replace(recipe, steps=steps, batch=options.batch or recipe.batch, seed=options.seed)
    task = tokenizer_task(
        network, options.data, losses=losses, batch=settings.batch, seed=settings.seed, textures=textures
    )
    resume = any((folder / name).exists() for name in ("checkpoint", ".checkpoint.old"))
    train(task, settings, folder, resume=resume, quiet=True)
    return resume


def shared_start(options: argparse.Namespace) -> VideoTokenizer:
    """The network that all arms go on from: the preset's, trained without rounding."""
    folder = options.output / "shared"
    if not (folder / "done.json").exists():
        losses, textures = tokenizer_losses(options.preset, options.shared)
        losses = replace(losses, continuous_steps=options.shared)
        fit(folder, tokenizer_config(options.preset), losses, textures, options.shared, options)
        save_json(folder / "done.json", {"steps": options.shared})
    if load_json(folder / "done.json")["steps"] != options.shared:
        raise InputError(f"{folder} was trained for another number of steps; choose another folder")
    return VideoTokenizer.from_pretrained(folder)


def begun(
    config: TokenizerConfig, start: VideoTokenizer | None, options: argparse.Namespace
) -> VideoTokenizer | TokenizerConfig:
    """What an arm trains: a trained network, a new one, or the shared one behind and before a new quantizer."""
    if options.init is not None:
        return VideoTokenizer.from_pretrained(find_network(options.init, "tokenizer")).requires_grad_(True).train()
    if start is None:
        return config
    torch.manual_seed(options.seed)
    network = VideoTokenizer(config)
    kept = {name: tensor for name, tensor in start.state_dict().items() if not name.startswith("quantizer.")}
    network.load_state_dict(network.state_dict() | kept)
    return network


def run_arm(
    folder: Path,
    config: TokenizerConfig,
    rounds: bool,
    kind: str,
    options: argparse.Namespace,
    start: VideoTokenizer | None,
) -> dict[str, Any]:
    """Trains and measures one network, as far as that is not done yet."""
    result = folder / "result.json"
    asked = {name: getattr(options, name) for name in ASKED}
    asked |= {"data": sorted(map(str, options.data)), "test": sorted(map(str, options.test))}
    if result.exists():
        done = load_json(result)
        if done["asked"] != asked:
            raise InputError(f"{folder} was made with other options ({done['asked']}); choose another folder")
        return done
    losses, textures = tokenizer_losses(options.preset, options.steps)
    free_steps = options.steps
    if rounds:
        free_steps = 0 if start or options.init else min(losses.continuous_steps, options.steps // 5)
    losses = replace(losses, continuous_steps=free_steps)
    if kind == "pixels":
        losses = replace(losses, perceptual="none", adversarial="none")
    elif kind == "adversarial":
        losses = replace(losses, adversarial="video", adversarial_start=options.steps // 2)
    begin = time.monotonic()
    resume = fit(folder, begun(config, start, options), losses, textures, options.steps, options)
    minutes = (time.monotonic() - begin) / 60
    network = VideoTokenizer.from_pretrained(folder).to(fast_dtype())
    clips = read_clips(options.test, options.frames, options.clips)
    if rounds:
        figures, _ = measure(network, clips)
    else:
        originals = [clip.frames for clip in clips]
        made = [round_trip(network, frames, quantize=False)[0] for frames in originals]
        figures = pixels(originals, made) | spectrum(originals, made)
    save_json(result, {"asked": asked, "minutes": minutes, "resumed": resume} | figures)
    return load_json(result)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--data", type=Path, nargs="+", required=True, metavar="SET")
    parser.add_argument("--test", type=Path, nargs="+", required=True, metavar="SET")
    parser.add_argument("--preset", default="base", choices=("base", "compact"))
    parser.add_argument("--steps", type=int, default=600)
    before = parser.add_mutually_exclusive_group()
    before.add_argument("--shared", type=int, default=0, help="steps without rounding that all arms start from")
    before.add_argument("--init", metavar="CHECKPOINT", help="trained network that all arms go on from, those of fsq")
    parser.add_argument("--batch", type=int, help="clips a step, in place of the recipe's")
    arms = [f"{quantizer}-{kind}" for quantizer in (FREE, "lfq", "bsq", "fsq") for kind in LOSSES]
    parser.add_argument("--arms", nargs="+", choices=arms, default=arms, metavar="ARM", help=", ".join(arms))
    parser.add_argument("--clips", type=int, default=40, help="at most so many to test on")
    parser.add_argument("--frames", type=int, default=75, help="of a clip to test on")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    if options.init is not None and (wrong := [arm for arm in options.arms if not arm.startswith("fsq")]):
        parser.error(f"--init keeps the network's own quantizer, got --arms {' '.join(wrong)}; expected fsq-... alone")
    table = {}
    try:
        start = shared_start(options) if options.shared else None
        print(f"{'arm':18}" + "".join(f"{name:>16}" for name in COLUMNS))
        for quantizer, config in quantizers(options.preset).items():
            for kind in LOSSES:
                arm = f"{quantizer}-{kind}"
                if arm not in options.arms:
                    continue
                row = table[arm] = run_arm(options.output / arm, config, quantizer != FREE, kind, options, start)
                free = table.get(f"{FREE}-{kind}")
                row["cost_db"] = None if free is None else free["psnr"] - row["psnr"]
                shown = (f"{'-' if row.get(name) is None else format(row[name], '.4g'):>16}" for name in COLUMNS)
                print(f"{arm:18}" + "".join(shown), flush=True)
    except InputError as error:
        parser.error(str(error))
    print(json.dumps(table))


if __name__ == "__main__":
    main()
