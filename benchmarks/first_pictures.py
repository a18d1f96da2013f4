"""How clear are first pictures drawn from an ECG alone, and what do auditions change?

    python benchmarks/first_pictures.py SET [SET ...] [--reference SET ...] [--checkpoint compact] [--patients 40]
                                        [--draws 4] [--picture PICTURE.png]

For every patient of prepared sets, each of one view, single pictures are drawn, and the best of the first n is taken as
auditions take it. Shown: `doubt` of that segmenter and of the judge (that of `echopulse evaluate`), and the
Fréchet distance of our features to the first pictures of all patients of that view in the reference sets, or else in
the set itself. The true pictures of these patients stand beside, as they are and coded with speckle drawn. Distances
shrink with the number of pictures. Then comes the `grey_allowance` that a checkpoint's decoding may hold, with which
choosing between two draws gives grey levels like the reference's: it takes thousands of pictures of each view. The
last line is JSON.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from generation_quality import coded
from PIL import Image
from scipy.optimize import minimize

from echopulse.evaluation.features import load_extractors
from echopulse.evaluation.frechet import frechet_distance, gaussian_frechet
from echopulse.evaluation.segmentation import SHIPPED_SEGMENTER
from echopulse.io.sets import PreparedSet
from echopulse.models.checkpoints import load_network
from echopulse.models.segmenter import ChamberSegmenter, SegmenterConfig
from echopulse.sampling.audition import allowed_doubt, grey_terms
from echopulse.sampling.pipeline import Pipeline
from echopulse.sampling.request import GenerationRequest, Take

FPS = 25.0
COLUMNS = 8
WORTH = 3.0
"""Squared grey levels that a distance may grow for one unit less of doubt."""
SOFTNESS = 0.06
"""Difference of doubt at which a choice is as good as sure: chosen softly, what is fitted has a gradient."""


@dataclass(frozen=True, eq=False)
class Drawn:
    """First pictures of one view.

    Attributes:
        doubt: of single draws by the checkpoint's segmenter, (patients, draws).
        terms: of their grey levels, (patients, draws, 5).
        true_terms: of true pictures, (n, 5).
    """

    doubt: np.ndarray
    terms: np.ndarray
    true_terms: np.ndarray


def drawn_pictures(pipeline: Pipeline, clips: PreparedSet, patients: int, draws: int) -> np.ndarray:
    """Single pictures, each from a seed of its own: uint8 (patients, draws, height, width)."""
    settings = replace(pipeline.default_settings, auditions=1, rehearsals=0)
    rows = []
    for i in range(patients):
        asked = GenerationRequest(clips.line(i)["view"], 1 / FPS, FPS, start_s=0.0)
        takes = [Take(clips.ecg(i), replace(asked, seed=i * draws + k)) for k in range(draws)]
        rows.append([clip.frames[0] for clip in pipeline.generate(takes, settings)[0]])
    return np.array(rows)


def first_pictures(clips: PreparedSet, view: str) -> list[np.ndarray]:
    """First pictures of the clips of a view."""
    return [clips.frames(i)[0] for i in range(len(clips)) if clips.line(i)["view"] == view]


def fitted_allowance(views: Sequence[Drawn]) -> list[float]:
    """The field of `DecodeSettings`, one for all views.

    What the better of two draws has of mean and standard deviation of grey levels is brought as near to the truth as it
    goes (Fréchet distance of both numbers, the views' mean), where `WORTH` of it pays for a unit of doubt.
    """
    scale = np.concatenate([view.true_terms for view in views]).std(0)
    known = []
    for view in views:
        paired, num = view.doubt.shape[1] // 2 * 2, len(view.true_terms)
        doubt, terms = view.doubt[:, :paired].reshape(-1, 2), view.terms[:, :paired].reshape(-1, 2, 5)
        known.append((doubt, terms, _grey_moments(view.true_terms, np.full(num, 1 / num))))

    def loss(scaled: np.ndarray) -> float:
        total = 0.0
        for doubt, terms, true in known:
            counted = doubt - terms @ (scaled / scale)
            weights = 1 / (1 + np.exp((counted - counted[:, ::-1]) / SOFTNESS)) / len(counted)
            chosen = _grey_moments(terms.reshape(-1, 5), weights.ravel())
            total += gaussian_frechet(*chosen, *true) + WORTH * float((weights * doubt).sum())
        return total / len(views)

    found = minimize(loss, np.zeros(5), method="BFGS").x / scale
    return [round(float(term), 1) for term in found]


def _grey_moments(terms: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of the first two terms in grey levels; weights add up to 1."""
    levels = 255 * terms[:, :2]
    mean = weights @ levels
    return mean, (levels - mean).T @ ((levels - mean) * weights[:, None])


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", type=Path, nargs="+")
    parser.add_argument("--checkpoint", default="compact")
    parser.add_argument("--reference", type=Path, nargs="+")
    parser.add_argument("--patients", type=int, default=40)
    parser.add_argument("--draws", type=int, default=4)
    parser.add_argument("--picture", type=Path, help="of the first set")
    options = parser.parse_args()
    pipeline = Pipeline.load(options.checkpoint)
    own, judge = pipeline.segmenter, load_network(ChamberSegmenter, SegmenterConfig, SHIPPED_SEGMENTER)
    if own is None:
        parser.error(f"checkpoint {options.checkpoint} has no segmenter")
    echo = next(one for one in load_extractors(("echo",))[0] if one.kind == "image")

    def features(pictures: np.ndarray) -> np.ndarray:
        return np.concatenate([echo(picture[None], FPS) for picture in pictures])

    views: list[Drawn] = []
    report: dict[str, Any] = {}
    for path in options.sets:
        clips = PreparedSet(path)
        patients, view = min(options.patients, len(clips)), clips.line(0)["view"]
        drawn = drawn_pictures(pipeline, clips, patients, options.draws)
        true = np.array([clips.frames(i)[0] for i in range(patients)])
        sources = [clips] if options.reference is None else [PreparedSet(one) for one in options.reference]
        reference = np.array([picture for source in sources for picture in first_pictures(source, view)])
        singles = drawn.reshape(-1, *drawn.shape[2:])
        doubt = own.doubt(singles).reshape(patients, -1)
        counted = doubt - allowed_doubt(singles, pipeline.default_settings).reshape(patients, -1)
        again = np.array([coded(pipeline, picture[None], seed)[0] for seed, picture in enumerate(true)])
        arms = {"true": (true, own.doubt(true)), "true, coded": (again, own.doubt(again))}
        arms["all draws"] = (singles, doubt)
        for count in sorted({1, 2, 4, options.draws}):
            best = np.arange(patients), counted[:, :count].argmin(1)
            arms[f"best of {count}"] = (drawn[best], doubt[best])
        truth, table = features(reference), {}
        for name, (pictures, by_own) in arms.items():
            row = {"doubt": float(by_own.mean()), "doubt_of_judge": float(np.mean(judge.doubt(pictures)))}
            row[echo.metric] = frechet_distance(features(pictures), truth)
            table[name] = row
            values = "   ".join(f"{key} {value:.3f}" for key, value in row.items())
            print(f"{view} {name:<12} {len(pictures):>5} pictures   {values}")
        views.append(Drawn(doubt, grey_terms(singles).reshape(patients, -1, 5), grey_terms(reference)))
        report[view] = {"patients": patients} | table
        if options.picture is not None and len(views) == 1:
            heard = counted[:, : pipeline.default_settings.auditions]
            ends = (drawn[np.arange(patients), chosen] for chosen in (heard.argmax(1), heard.argmin(1)))
            rows = [np.concatenate(list(pictures[:COLUMNS]), axis=1) for pictures in (*ends, true)]
            Image.fromarray(np.concatenate(rows)).save(options.picture)
    report["grey_allowance"] = fitted_allowance(views)
    print(f"grey_allowance {report['grey_allowance']}")
    print(json.dumps({"draws": options.draws} | report))


if __name__ == "__main__":
    main()
