"""How clear are first pictures drawn from an ECG alone, and what do auditions change?

    python benchmarks/first_pictures.py SET [--reference SET] [--checkpoint compact] [--patients 40] [--draws 4]
                                        [--picture PICTURE.png]

For every patient of a prepared set of one view single pictures are drawn, and the best of the first n is taken as
auditions take it. Shown: `doubt` of that segmenter and of the judge (that of `echopulse evaluate`), and the
Fréchet distance of our features to the first pictures of all patients of that view in the reference set, or else in the
set itself. The true pictures of these patients stand beside, as they are and coded with speckle drawn. Distances shrink
with the number of pictures. Then comes what doubt about coded pictures owes to their grey levels, which the
decoding of a checkpoint may hold (`doubt_of_grey`): it takes a thousand patients and more. The last line is JSON.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from generation_quality import coded
from PIL import Image

from echopulse.evaluation.features import load_extractors
from echopulse.evaluation.frechet import frechet_distance
from echopulse.evaluation.segmentation import SHIPPED_SEGMENTER
from echopulse.io.sets import PreparedSet
from echopulse.models.checkpoints import load_network
from echopulse.models.segmenter import ChamberSegmenter, SegmenterConfig
from echopulse.sampling.audition import grey_terms, unexpected_doubt
from echopulse.sampling.pipeline import Pipeline
from echopulse.sampling.request import GenerationRequest, Take

FPS = 25.0
COLUMNS = 8


def drawn_pictures(pipeline: Pipeline, clips: PreparedSet, patients: int, draws: int) -> np.ndarray:
    """Single pictures, each from a seed of its own: uint8 (patients, draws, height, width)."""
    settings = replace(pipeline.default_settings, auditions=1, rehearsals=0)
    rows = []
    for i in range(patients):
        asked = GenerationRequest(clips.line(i)["view"], 1 / FPS, FPS)
        takes = [Take(clips.ecg(i), replace(asked, seed=i * draws + k)) for k in range(draws)]
        rows.append([clip.frames[0] for clip in pipeline.generate(takes, settings)[0]])
    return np.array(rows)


def first_pictures(clips: PreparedSet, view: str) -> np.ndarray:
    """First pictures of the clips of a view."""
    return np.array([clips.frames(i)[0] for i in range(len(clips)) if clips.line(i)["view"] == view])


def doubt_of_grey(pictures: np.ndarray, doubt: np.ndarray) -> list[float]:
    """The field of `DecodeSettings`: least squares of doubts about pictures over the terms of their grey levels."""
    terms = np.c_[grey_terms(pictures), np.ones(len(pictures))]
    return [round(float(term), 1) for term in np.linalg.lstsq(terms, doubt, rcond=None)[0][:-1]]


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("set", type=Path)
    parser.add_argument("--checkpoint", default="compact")
    parser.add_argument("--reference", type=Path)
    parser.add_argument("--patients", type=int, default=40)
    parser.add_argument("--draws", type=int, default=4)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    pipeline, clips = Pipeline.load(options.checkpoint), PreparedSet(options.set)
    own, judge = pipeline.segmenter, load_network(ChamberSegmenter, SegmenterConfig, SHIPPED_SEGMENTER)
    if own is None:
        parser.error(f"checkpoint {options.checkpoint} has no segmenter")
    patients = min(options.patients, len(clips))
    drawn = drawn_pictures(pipeline, clips, patients, options.draws)
    true, view = np.array([clips.frames(i)[0] for i in range(patients)]), clips.line(0)["view"]
    reference = first_pictures(clips if options.reference is None else PreparedSet(options.reference), view)
    echo = next(one for one in load_extractors(("echo",))[0] if one.kind == "image")

    def features(pictures: np.ndarray) -> np.ndarray:
        return np.concatenate([echo(picture[None], FPS) for picture in pictures])

    doubt = unexpected_doubt(drawn.reshape(-1, *drawn.shape[2:]), own, pipeline.default_settings)
    doubt = doubt.reshape(drawn.shape[:2])
    truth = features(reference)
    again = [coded(pipeline, picture[None], seed)[0] for seed, picture in enumerate(true)]
    arms = {"true": true, "true, coded": np.array(again)}
    arms["all draws"] = drawn.reshape(-1, *drawn.shape[2:])
    for count in sorted({1, 2, 4, options.draws}):
        arms[f"best of {count}"] = drawn[np.arange(patients), doubt[:, :count].argmin(1)]
    table, doubts_by_own = {}, {}
    for name, pictures in arms.items():
        doubts_by_own[name] = own.doubt(pictures)
        by_own, by_judge = float(np.mean(doubts_by_own[name])), float(np.mean(judge.doubt(pictures)))
        distance = frechet_distance(features(pictures), truth)
        table[name] = {"doubt": by_own, "doubt_of_judge": by_judge, echo.metric: distance}
        doubts = f"doubt {by_own:.2f}, of the judge {by_judge:.2f}"
        print(f"{name:<12} {len(pictures):>5} pictures, {doubts}   {echo.metric} {distance:.3f}")
    expected = doubt_of_grey(arms["true, coded"], doubts_by_own["true, coded"])
    print(f"doubt_of_grey {expected}")
    if options.picture is not None:
        heard = doubt[:, : pipeline.default_settings.auditions]
        ends = (drawn[np.arange(patients), chosen] for chosen in (heard.argmax(1), heard.argmin(1)))
        rows = [pictures[:COLUMNS] for pictures in (*ends, true)]
        Image.fromarray(np.concatenate([np.concatenate(list(row), axis=1) for row in rows])).save(options.picture)
    print(json.dumps({"patients": patients, "draws": options.draws} | table | {"doubt_of_grey": expected}))


if __name__ == "__main__":
    main()
