"""A reference set and generated sets in, `metrics.json` and `report.html` out."""

import json
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from echopulse.errors import InputError
from echopulse.evaluation import paper_scripts
from echopulse.evaluation.controls import frozen, mean_beat
from echopulse.evaluation.features import NETWORKS, Extractor, load_extractors, load_lpips
from echopulse.evaluation.matching import (
    Pair,
    comparable,
    irreducible_mae,
    match_pairs,
    set_warnings,
    why_incomparable,
)
from echopulse.evaluation.pixel import pixel_scores
from echopulse.evaluation.reading import Cache, ClipReading, Marks, Reader, clip_source, segmenter_identity
from echopulse.evaluation.sections import (
    Missing,
    ef_section,
    other_ecg_section,
    pixel_section,
    privacy_section,
    segmenter_section,
    set_distance,
    shift_section,
    synchrony_section,
)
from echopulse.evaluation.segmentation import Backend
from echopulse.evaluation.statistics import size_warnings
from echopulse.io.files import whole_file
from echopulse.io.sets import PreparedSet

CONTROL_CLIPS = 100
"""Clips on which the built-in controls (frozen frame, mean beat) are measured."""


@dataclass(frozen=True)
class EvaluationSettings:
    """What to measure and how.

    Attributes:
        networks: feature networks to use where their weights can be had (`features.NETWORKS`).
        weights: folders or hub repositories with weights.
        segmenter: backend of the segmenter.
        segmenter_weights: its folder or hub repository; None for the shipped one.
        paper_scripts: also the authors' variants.
        draws: bootstrap resamples.
        seed: of every random choice.
        workers: clips that are read at the same moment; 0 means one per core.
    """

    networks: tuple[str, ...] = NETWORKS
    weights: tuple[str, ...] = ()
    segmenter: Backend = "echopulse"
    segmenter_weights: str | None = None
    paper_scripts: bool = False
    draws: int = 2000
    seed: int = 0
    workers: int = 0

    def __post_init__(self) -> None:
        if self.draws < 100:
            raise InputError(f"--draws is {self.draws}; expected 100 or more for a 95 % interval")
        if self.seed < 0 or self.workers < 0:
            raise InputError("--seed and --workers: expected 0 or more")


@dataclass(eq=False)
class Evaluation:
    """Everything that was read and computed, for the report.

    Attributes:
        metrics: the content of `metrics.json`.
        reference: readings of the reference.
        generated: readings of all generated sets.
        pairs: reference and generated clips that belong together, of all seeds.
    """

    metrics: dict[str, Any]
    reference: list[ClipReading]
    generated: list[ClipReading]
    pairs: list[Pair]


@dataclass(eq=False)
class _Run:
    reader: Reader
    settings: EvaluationSettings
    reasons: dict[str, str] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)

    def section(self, name: str, compute: Callable[[], Any]) -> Any:
        """The result, or None with its reason kept: one metric that fails never takes the others with it."""
        try:
            return compute()
        except (Missing, InputError) as error:
            self.reasons[name] = " ".join(str(error).split())
            return None


def evaluate(
    reference: Path,
    generated: Sequence[Path],
    settings: EvaluationSettings,
    cache_folder: Path,
    *,
    train: Path | None = None,
    controls: Sequence[Path] = (),
) -> Evaluation:
    """Measures generated sets against a reference set. Clips are streamed; what was measured is kept in `cache_folder`.

    Args:
        reference: prepared set of true clips, best with truth and never trained on.
        generated: prepared sets of generated clips; several are seeds of one model and are averaged.
        settings: what to measure.
        cache_folder: makes a second run, or a run that was cut off, fast.
        train: the set that the generator was trained on, for the copying test.
        controls: more generated sets, each scored by itself (shuffled ECG, null ECG, shifted ECG).

    Raises:
        InputError: no such set, no readable clip, or an impossible setting.
    """
    if not generated:
        raise InputError("no generated set; expected --generated SET")
    sets = {
        path: PreparedSet(path) for path in dict.fromkeys([reference, *generated, *controls, *filter(None, [train])])
    }
    extractors, missing = load_extractors(settings.networks, settings.weights)
    run = _Run(Reader(extractors, Cache(cache_folder), settings.segmenter, settings.segmenter_weights), settings)
    run.reasons |= {f"network {name}": reason for name, reason in missing.items()}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # clips are read side by side, which is faster than one clip on all cores
    try:
        truth = _read_set(run, sets[reference], "reference")
        marks = {
            r.source.ecg_digest: (r.source.r_times_s, r.source.t_end_times_s) for r in truth if r.source.ecg_digest
        }
        arms = [_read_set(run, sets[path], "generated", marks) for path in generated]
        if not truth or not any(arms):
            raise InputError(
                f"no clip of {'the reference' if not truth else 'the generated set'} can be read: {run.unreadable[0]}"
            )
        return _measure(run, truth, arms, marks, sets[train] if train else None, [(p.name, sets[p]) for p in controls])
    finally:
        torch.set_num_threads(threads)


def _measure(
    run: _Run,
    reference: list[ClipReading],
    arms: list[list[ClipReading]],
    marks: Marks,
    train: PreparedSet | None,
    controls: Sequence[tuple[str, PreparedSet]],
) -> Evaluation:
    settings, generated = run.settings, [reading for arm in arms for reading in arm]
    pairs = match_pairs(reference, generated)
    patients = {r.source.patient for r in reference}
    counts = {"reference": len(reference), "generated": len(generated), "matched": len(pairs)}
    distances = {
        e.name: run.section(f"distances.{e.name}", lambda e=e: set_distance(e, reference, arms, settings.seed, True))
        for e in tqdm(run.reader.extractors, desc="distances", disable=None)
    }
    segmenter = segmenter_section(reference, generated)
    segmenter_mae = segmenter["ef_on_true_clips"]["mae"]
    control_arms = {
        "frozen frame": _derived(run, "frozen frame", reference, frozen),
        "mean beat": _derived(run, "mean beat", reference, None),
    } | {name: _read_set(run, clips, name, marks) for name, clips in controls}
    metrics: dict[str, Any] = {
        "frechet_image": _headline(run, "frechet_image", "image", distances),
        "frechet_video": _headline(run, "frechet_video", "video", distances),
        "distances": distances,
        "pixel": run.section("pixel", lambda: _pixel(run, pairs)),
        "ef": run.section(
            "ef", lambda: ef_section(pairs, segmenter_mae, irreducible_mae(reference), settings.draws, settings.seed)
        ),
        "synchrony": run.section("synchrony", lambda: synchrony_section(generated, settings.draws, settings.seed)),
        "synchrony_reference": run.section(
            "synchrony_reference", lambda: synchrony_section(reference, settings.draws, settings.seed)
        ),
        "segmenter": segmenter,
        "controls": {name: _control(run, name, reference, clips) for name, clips in control_arms.items()}
        | {
            "another ECG": {
                "synchrony": run.section("controls.another ECG", lambda: other_ecg_section(generated, settings.seed))
            }
        },
        "privacy": run.section("privacy", lambda: _privacy(run, reference, generated, train)),
        "counts": counts,
    }
    metrics["shift"] = run.section("shift", lambda: shift_section(generated, control_arms))
    if settings.paper_scripts:
        metrics["paper_scripts"] = run.section("paper_scripts", lambda: _paper(run, pairs))
    metrics |= {
        "reasons": run.reasons,
        "warnings": set_warnings(reference, generated, pairs) + size_warnings(len(generated), len(patients)),
        "unreadable": run.unreadable,
        "protocol": asdict(settings)
        | {"segmenter_identity": segmenter_identity(settings.segmenter, settings.segmenter_weights)},
    }
    return Evaluation(_plain(metrics), reference, generated, pairs)


# reading -------------------------------------------------------------------------------------------------


def _read_set(run: _Run, clips: PreparedSet, name: str, marks: Marks | None = None) -> list[ClipReading]:
    """Readings in the order of the manifest; clips that cannot be read are named and left out."""

    def read(i: int) -> ClipReading | str:
        try:
            masks = run.settings.segmenter == "masks"
            source = clip_source(clips, i, run.reader.cache, known_marks=marks, with_masks=masks)
            return run.reader.read(source)
        except (InputError, OSError) as error:
            return f"{name} {clips.ids[i]}: {' '.join(str(error).split())}"

    return _collect(run, name, read, range(len(clips)))


def _derived(
    run: _Run, name: str, reference: Sequence[ClipReading], change: Callable[[np.ndarray], np.ndarray] | None
) -> list[ClipReading]:
    """Readings of a control made from the reference's own pictures; None stands for the mean beat."""
    usable = [r for r in reference if change or r.source.r_times_s.size > 1][:CONTROL_CLIPS]

    def read(i: int) -> ClipReading | str:
        source = usable[i].source

        def load() -> np.ndarray:
            frames = source.load()
            return change(frames) if change else mean_beat(frames, source.times_s, source.r_times_s)

        def load_masks() -> np.ndarray | None:
            masks = source.load_masks() if source.load_masks and change else None
            return change(masks) if change and masks is not None else None

        try:
            return run.reader.read(replace(source, load=load, source_id=source.id, load_masks=load_masks))
        except InputError as error:
            return f"{name} of {source.id}: {error}"

    return _collect(run, name, read, range(len(usable)))


def _collect(run: _Run, name: str, read: Callable[[int], ClipReading | str], indices: range) -> list[ClipReading]:
    with ThreadPoolExecutor(run.settings.workers or os.cpu_count() or 1) as pool:
        try:
            results = list(tqdm(pool.map(read, indices), total=len(indices), desc=name, unit="clip", disable=None))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    run.unreadable += [result for result in results if isinstance(result, str)]
    return [result for result in results if isinstance(result, ClipReading)]


# parts -----------------------------------------------------------------------------------------------------


def _headline(run: _Run, name: str, kind: str, distances: dict[str, Any]) -> Any:
    """The standard metric of a kind where its weights are there, else the first that could be computed."""
    known: list[Extractor] = [e for e in run.reader.extractors if e.kind == kind and distances[e.name]]
    if known:
        return distances[max(known, key=lambda e: e.standard).name]
    reasons = [run.reasons.get(f"distances.{e.name}", "") for e in run.reader.extractors if e.kind == kind]
    run.reasons[name] = next(iter(reasons), "") or f"no {kind} network was asked for or found"
    return None


def _pixel(run: _Run, pairs: Sequence[Pair]) -> Any:
    usable = [(r, g) for r, g in pairs if comparable(r, g)]
    if pairs and not usable:
        raise Missing(why_incomparable(*pairs[0]))
    try:
        lpips = load_lpips(run.settings.weights)
    except FileNotFoundError as error:
        lpips, run.reasons["pixel.lpips"] = None, str(error)
    patients = [r.source.patient for r, _ in usable]

    def scores(pair: Pair, hold: bool) -> dict[str, float]:
        r, g = pair
        length = min(r.source.shape[0], g.source.shape[0])
        key = (r.digest, "frozen first frame" if hold else g.digest, str(length))

        @cache
        def clips() -> tuple[np.ndarray, np.ndarray]:
            x = r.source.load()[:length]
            return x, frozen(x) if hold else g.source.load()[:length]

        kept = run.reader.cache.get((*key, "pixel"), lambda: _arrays(asdict(pixel_scores(*clips()))))
        if lpips is not None:
            measure = lpips
            kept |= run.reader.cache.get((*key, "lpips"), lambda: _arrays({"lpips": measure(*clips())}))
        return {"lpips": float("nan")} | {name: float(value) for name, value in kept.items()}

    def table(hold: bool) -> Any:
        with ThreadPoolExecutor(run.settings.workers or os.cpu_count() or 1) as pool:
            rows = pool.map(lambda pair: scores(pair, hold), usable)
            rows = list(tqdm(rows, total=len(usable), desc="frozen pixels" if hold else "pixels", disable=None))
        return pixel_section(rows, patients, run.settings.draws, run.settings.seed)

    return table(hold=False) | {"frozen": table(hold=True)}


def _arrays(scores: dict[str, float | None]) -> dict[str, np.ndarray]:
    return {name: np.array(np.nan if value is None else value) for name, value in scores.items()}


def _control(run: _Run, name: str, reference: Sequence[ClipReading], clips: Sequence[ClipReading]) -> dict[str, Any]:
    seed = run.settings.seed
    pairs = match_pairs(reference, clips)
    partners = list({id(r): r for r, _ in pairs}.values())
    video = [e for e in run.reader.extractors if e.kind == "video"]
    return {
        "clips": len(clips),
        "ef": run.section(f"controls.{name}.ef", lambda: ef_section(pairs, None, None, run.settings.draws, seed)),
        "synchrony": run.section(
            f"controls.{name}.synchrony", lambda: synchrony_section(clips, run.settings.draws, seed)
        ),
        "distances": {
            e.name: run.section(
                f"controls.{name}.{e.name}", lambda e=e: set_distance(e, partners, [clips], seed, False)["value"]
            )
            for e in video
        },
    }


def _privacy(
    run: _Run, reference: list[ClipReading], generated: list[ClipReading], train: PreparedSet | None
) -> dict[str, Any]:
    trained = None
    if train is not None:
        run = replace(run, reader=replace(run.reader, backend=None))
        trained = _read_set(run, train, "train")
    return privacy_section(reference, generated, trained)


def _paper(run: _Run, pairs: Sequence[Pair]) -> dict[str, Any]:
    image = [e for e in run.reader.extractors if e.kind == "image"]
    usable = [(r, g) for r, g in pairs if min(r.source.shape[0], g.source.shape[0]) >= paper_scripts.FRAMES]
    usable = [pair for pair in usable if comparable(*pair)]
    if not image or not usable:
        raise Missing("the authors' scripts need an image network and pairs of 11 or more frames of one size and rate")
    network = max(image, key=lambda e: e.standard)

    def features(reading: ClipReading) -> np.ndarray:
        return run.reader.cache.get(
            (reading.digest, network.identity, "first frames"),
            lambda: {"features": paper_scripts.pair_features(network, reading.source.load(), reading.source.fps)},
        )["features"]

    rows = []
    for r, g in tqdm(usable, desc="paper scripts", unit="clip", disable=None):
        x, y = features(r), features(g)
        rows.append(
            (
                paper_scripts.pair_frechet_over_11(x, y),
                paper_scripts.pair_frechet_minmax(x, y),
                paper_scripts.ssim_uniform7_224(r.source.load(), g.source.load()),
            )
        )
    means = np.mean(rows, axis=0)
    names = ("pair_frechet_over_11", "pair_frechet_minmax", "ssim_uniform7_224")
    return dict(zip(names, map(float, means), strict=True)) | {"network": network.name, "pairs": len(rows)}


def _plain(value: Any) -> Any:
    """Plain JSON values; numbers that are not finite become None."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_metrics(metrics: dict[str, Any], path: Path) -> None:
    """Writes `metrics.json` whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(metrics, indent=2, allow_nan=False) + "\n", encoding="utf-8")
