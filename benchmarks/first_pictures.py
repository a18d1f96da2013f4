"""How clear are first pictures drawn from an ECG alone, and what do auditions change?

    python benchmarks/first_pictures.py SET [--checkpoint compact] [--patients 40] [--draws 8] [--picture PICTURE.png]

For every patient of a prepared set single pictures are drawn, and the best of the first n is taken by the checkpoint's
own segmenter. Shown: `doubt` of that segmenter and of the judge (that of `echopulse evaluate`), and the Fréchet
distance of our features to the true first pictures of all patients of the set. The last line is JSON.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from echopulse.evaluation.features import load_extractors
from echopulse.evaluation.frechet import frechet_distance
from echopulse.evaluation.segmentation import SHIPPED_SEGMENTER
from echopulse.io.sets import PreparedSet
from echopulse.models.checkpoints import load_network
from echopulse.models.segmenter import ChamberSegmenter, SegmenterConfig
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


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("set", type=Path)
    parser.add_argument("--checkpoint", default="compact")
    parser.add_argument("--patients", type=int, default=40)
    parser.add_argument("--draws", type=int, default=8)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    pipeline, clips = Pipeline.load(options.checkpoint), PreparedSet(options.set)
    own, judge = pipeline.segmenter, load_network(ChamberSegmenter, SegmenterConfig, SHIPPED_SEGMENTER)
    if own is None:
        parser.error(f"checkpoint {options.checkpoint} has no segmenter")
    patients = min(options.patients, len(clips))
    drawn = drawn_pictures(pipeline, clips, patients, options.draws)
    true = np.array([clips.frames(i)[0] for i in range(len(clips))])
    echo = next(one for one in load_extractors(("echo",))[0] if one.kind == "image")

    def features(pictures: np.ndarray) -> np.ndarray:
        return np.concatenate([echo(picture[None], FPS) for picture in pictures])

    doubt = own.doubt(drawn.reshape(-1, *drawn.shape[2:])).reshape(drawn.shape[:2])
    truth = features(true)
    arms = {"true": true[:patients]}
    for count in sorted({1, 2, 4, options.draws}):
        arms[f"best of {count}"] = drawn[np.arange(patients), doubt[:, :count].argmin(1)]
    table = {}
    for name, pictures in arms.items():
        by_own, by_judge = (float(np.mean(network.doubt(pictures))) for network in (own, judge))
        distance = frechet_distance(features(pictures), truth)
        table[name] = {"doubt": by_own, "doubt_of_judge": by_judge, echo.metric: distance}
        print(f"{name:<12} doubt {by_own:.2f}, of the judge {by_judge:.2f}   {echo.metric} {distance:.3f}")
    if options.picture is not None:
        worst = drawn[np.arange(patients), doubt[:, :4].argmax(1)]
        rows = [pictures[:COLUMNS] for pictures in (worst, arms["best of 4"], arms["true"])]
        Image.fromarray(np.concatenate([np.concatenate(list(row), axis=1) for row in rows])).save(options.picture)
    print(json.dumps({"patients": patients, "draws": options.draws} | table))


if __name__ == "__main__":
    main()
