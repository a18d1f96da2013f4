"""What do the parts of the generator buy? The ECG as a sequence, its masking, critic, guidance and order of drawing.

    python benchmarks/generator_ablation.py DIR --data SET... --tokenizer RUN --ef-reader RUN [--steps 500] [--batch 8]
                                            [--checkpoint compact] [--critic CHECKPOINT] [--patients 16]
                                            [--skip-training]

Three networks of the preset `compact` are trained from nothing at equal steps: `whole`; `pooled-ecg`, where the ECG is
one vector without time, as in the released code; `no-ecg-mask`, which never saw leads or spans missing. Then one
trained checkpoint is decoded in several ways; `--critic` is a checkpoint that holds its critic. All are measured on the
same held-out phantom patients (A4C, ECG and picture), with the hospital's twelve leads and with a watch's single one;
the cross-entropy is that of hidden codes of the former. A run in DIR that is finished is not repeated. The last line is
JSON.
"""

import argparse
import json
import time
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from generation_quality import FIRST_SEED, Run, headline

from echopulse.cli.simulate import simulate_set
from echopulse.config import load_json, save_json
from echopulse.models.checkpoints import find_network, load_network
from echopulse.models.ef_reader import EfReader, EfReaderConfig
from echopulse.models.presets import generator_config
from echopulse.models.tokenizer import VideoTokenizer
from echopulse.models.video_transformer import GeneratorConfig, VideoTransformer
from echopulse.phantom.series import ClipSeries
from echopulse.training.engine import train
from echopulse.training.generator import GeneratorTask
from echopulse.training.recipes import generator_recipe
from echopulse.training.token_cache import CachedClip, build_token_cache

DEVICES = ("hospital", "watch")
COLUMNS = ("ef_mae", "ed_ms", "es_ms", "matched", "ssim")
TESTED_BATCHES = 8


def configs() -> dict[str, tuple[GeneratorConfig, bool]]:
    """The networks to train, and whether leads and spans of their ECGs are hidden."""
    whole = generator_config("compact")
    pooled = replace(whole, pooled_ecg=True, ecg=replace(whole.ecg, reads_motion=False))
    return {"whole": (whole, True), "pooled-ecg": (pooled, True), "no-ecg-mask": (whole, False)}


def decodings(shipped: dict[str, Any], critic: bool) -> dict[str, dict[str, Any]]:
    """Ways to decode the trained checkpoint: as shipped (by confidence), and with one thing changed."""
    ways = {"as shipped": {}, "no guidance": {"guidance": 1.0}}
    ways |= {order: {"order": order} for order in ("halton", *(("critic",) if critic else ()))}
    return {name: shipped | change for name, change in ways.items()}


def train_arm(
    folder: Path,
    config: GeneratorConfig,
    mask: bool,
    clips: list[CachedClip],
    tokenizer: VideoTokenizer,
    options: Namespace,
) -> dict[str, Any]:
    """Trains one network as far as that is not done, and gives the minutes that it took."""
    done = folder / "trained.json"
    if not done.exists():
        recipe = replace(generator_recipe("compact"), steps=options.steps, batch=options.batch, seed=options.seed)
        reader = load_network(EfReader, EfReaderConfig, find_network(options.ef_reader, "ef_reader"))
        task = GeneratorTask(
            config, clips, tokenizer, batch=recipe.batch, seed=recipe.seed, ef_reader=reader, ecg_mask=mask
        )
        begin = time.monotonic()
        train(task, recipe, folder, resume=(folder / "checkpoint").exists(), quiet=True)
        save_json(done, {"minutes": (time.monotonic() - begin) / 60})
    return load_json(done)


def cross_entropy(checkpoint: Path, test: Path, tokenizer: VideoTokenizer, cache: Path) -> float:
    """Of hidden codes of held-out clips, ECGs as recorded; the same masks for every network."""
    network = load_network(VideoTransformer, GeneratorConfig, find_network(str(checkpoint), "generator"))
    clips = build_token_cache(cache, [test], tokenizer, 2 * network.config.slots - 1)
    task = GeneratorTask(network, clips, tokenizer, batch=8, seed=1, ecg_mask=False)
    with torch.inference_mode():
        terms = [task.losses(network, task.batch(step, 0), step)[1] for step in range(TESTED_BATCHES)]
    return float(np.mean([float(term["cross_entropy"]) for term in terms]))


def _run(folder: Path, checkpoint: str | Path) -> Run:
    return Run(Namespace(folder=folder, workers=2, checkpoint=str(checkpoint), steps=None, guidance=None))


def measured(folder: Path, checkpoint: Path, decoding: dict[str, Any], tests: dict[str, Path]) -> dict[str, Any]:
    """EF, timing and similarity of clips from ECG and picture."""
    folder.mkdir(parents=True, exist_ok=True)
    run = _run(folder, checkpoint)
    run.decoding = decoding
    values = {}
    for device, true in tests.items():
        figures = headline(run.evaluated(device, true, run.made(true, "ecg+image"), networks=()).metrics)
        values |= {f"{name}, {device}": figures[name] for name in COLUMNS}
    return values


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--data", type=Path, nargs="+", metavar="SET", default=())
    parser.add_argument("--tokenizer")
    parser.add_argument("--ef-reader")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoint", default="compact")
    parser.add_argument("--critic")
    parser.add_argument("--patients", type=int, default=16)
    parser.add_argument("--skip-training", action="store_true", help="only decode the checkpoint")
    options = parser.parse_args(arguments)
    if not options.skip_training and not (options.data and options.tokenizer and options.ef_reader):
        parser.error("training needs --data, --tokenizer and --ef-reader")
    options.folder.mkdir(parents=True, exist_ok=True)
    tests = {device: options.folder / f"true-{device}" for device in DEVICES}
    for device, folder in tests.items():
        series = ClipSeries(view="a4c", device=device)
        simulate_set(folder, series, num=options.patients, seed=FIRST_SEED["a4c"], workers=2)
    shipped = _run(options.folder, options.checkpoint)
    table: dict[str, dict[str, Any]] = {}

    def report(name: str, values: dict[str, Any]) -> None:
        table[name] = values
        shown = (f"{k} {'unknown' if v is None else format(v, '.3g')}" for k, v in values.items())
        print(f"{name}: " + "; ".join(shown), flush=True)

    if not options.skip_training:
        tokenizer, slots = VideoTokenizer.from_pretrained(options.tokenizer), generator_config("compact").slots
        clips = build_token_cache(options.folder / "cache", list(options.data), tokenizer, 2 * slots - 1)
        for name, (config, mask) in configs().items():
            folder = options.folder / name
            values = train_arm(folder, config, mask, clips, tokenizer, options)
            values["cross_entropy"] = cross_entropy(folder, tests["hospital"], tokenizer, options.folder / "test-cache")
            report(name, values | measured(folder / "made", folder / "export", shipped.decoding, tests))
    for name, decoding in decodings(shipped.decoding, options.critic is not None).items():
        checkpoint = options.critic if name == "critic" else shipped.checkpoint
        report(name, measured(options.folder / f"decoded {name}", checkpoint, decoding, tests))
    print(json.dumps(table))


if __name__ == "__main__":
    main()
