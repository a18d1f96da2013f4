"""How well a segmenter outlines hearts: Dice, EF and beat times on phantom patients, and what it makes of real clips.

    echopulse simulate -o SET --num 200 --seed 1000000
    python benchmarks/segmenter_quality.py SET [--weights FOLDER] [--real CLIPS.npy CLIPS.csv --fps 8]

A4C and A2C apart. The EF is read from the volume curve alone, without the ECG. Of the real clips (uint8 (clips, frames,
height, width), and a table with the column `ef_percent`): how many pass quality control, and how their EF goes with the
listed one. The last line is JSON.
"""

import argparse
import csv
import json
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from echopulse.axes import MASK_CLASSES
from echopulse.evaluation.segmentation import SHIPPED_SEGMENTER, quality, segment_clip
from echopulse.evaluation.statistics import ef_agreement
from echopulse.evaluation.synchrony import clip_synchrony, summarize_synchrony
from echopulse.io.sets import PreparedSet
from echopulse.signals.ventricle import find_beats, lv_curve


def measure(folder: Path, weights: Path, i: int) -> dict[str, Any]:
    """One clip of a set with masks."""
    clips = PreparedSet(folder)
    line, frames, truth = clips.line(i), np.asarray(clips.frames(i)), clips.masks(i)
    if truth is None:
        raise SystemExit(f"{folder}: clip {line['id']} has no masks; simulate the set without --no-masks")
    masks = segment_clip(frames, weights=str(weights))
    present = [c for c in range(6) if np.any(truth == c)]
    both = {c: (np.sum((masks == c) & (truth == c)), np.sum(masks == c) + np.sum(truth == c)) for c in present}
    beats = find_beats(lv_curve(masks), np.arange(len(frames)) / line["fps"])
    known = line["truth"]
    timing = clip_synchrony(
        beats,
        np.asarray(known["r_times_s"]),
        np.asarray(known["t_end_times_s"]),
        start_s=0.0,
        end_s=len(frames) / line["fps"],
        fps=line["fps"],
    )
    return {
        "view": line["view"],
        "dice": [2 * both[c][0] / both[c][1] if c in both else np.nan for c in range(6)],
        "ef": beats.ef_percent,
        "true_ef": known["ef_percent"],
        "timing": timing,
        "accepted": quality(masks).accepted,
    }


def summarize(clips: list[dict[str, Any]]) -> dict[str, Any]:
    """All clips of one view."""
    dice = [_mean([clip["dice"][c] for clip in clips]) for c in range(6)]
    with_ef = [clip for clip in clips if clip["ef"] is not None]
    timing = summarize_synchrony([clip["timing"] for clip in clips])
    names = dict(zip(("background", "lv", "myocardium", "la", "rv", "ra"), np.round(dice, 4).tolist(), strict=True))
    assert len(names) == len(MASK_CLASSES)
    return {
        "clips": len(clips),
        "dice": {name: value for name, value in names.items() if np.isfinite(value)},
        "ef": ef_agreement([clip["ef"] for clip in with_ef], [clip["true_ef"] for clip in with_ef]),
        "without_ef": len(clips) - len(with_ef),
        "ed_ms": timing["ed_ms"],
        "es_ms": timing["es_ms"],
        "beats": {name: timing[name] for name in ("matched_beats", "missed_beats", "extra_beats")},
        "accepted": float(np.mean([clip["accepted"] for clip in clips])),
    }


def _mean(values: list[float]) -> float:
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else float("nan")


def real_clip(frames: np.ndarray, weights: Path, fps: float) -> tuple[float, bool]:
    """EF in percent (NaN where none is found) and whether the masks pass quality control."""
    masks = segment_clip(frames, weights=str(weights))
    ef = find_beats(lv_curve(masks), np.arange(len(frames)) / fps).ef_percent
    return (np.nan if ef is None else ef), quality(masks).accepted


def real_clips(file: Path, table: Path, weights: Path, fps: float, pool: ProcessPoolExecutor) -> dict[str, Any]:
    """What the segmenter makes of real clips."""
    frames = np.load(file, allow_pickle=False)
    with table.open(newline="") as lines:
        listed = np.array([float(line["ef_percent"]) for line in csv.DictReader(lines)])
    answers = list(pool.map(partial(real_clip, weights=weights, fps=fps), frames))
    ef, accepted = np.array([a[0] for a in answers]), np.array([a[1] for a in answers])
    report: dict[str, Any] = {"clips": len(frames), "accepted": float(accepted.mean())}
    for name, chosen in (("all", np.isfinite(ef)), ("accepted_only", np.isfinite(ef) & accepted)):
        report[name] = {
            "clips": int(chosen.sum()),
            "spearman": float(spearmanr(ef[chosen], listed[chosen]).statistic),
            "pearson": float(np.corrcoef(ef[chosen], listed[chosen])[0, 1]),
            "mae": float(np.abs(ef - listed)[chosen].mean()),
            "bias": float((ef - listed)[chosen].mean()),
        }
    return report


def main() -> None:
    """Prints the figures by view and, last, one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", type=Path)
    parser.add_argument("--weights", type=Path, default=SHIPPED_SEGMENTER)
    parser.add_argument("--real", type=Path, nargs=2, metavar=("NPY", "CSV"))
    parser.add_argument("--fps", type=float, default=8.0, help="of the real clips")
    arguments = parser.parse_args()
    by_view: dict[str, list[dict[str, Any]]] = defaultdict(list)
    with ProcessPoolExecutor() as pool:
        job = partial(measure, arguments.set, arguments.weights)
        for clip in pool.map(job, range(len(PreparedSet(arguments.set)))):
            by_view[clip["view"]].append(clip)
        report = {view: summarize(clips) for view, clips in sorted(by_view.items())}
        if arguments.real:
            report["real"] = real_clips(*arguments.real, arguments.weights, arguments.fps, pool)
    for view, row in report.items():
        print(view)
        for name, value in row.items():
            print(f"  {name:14s} {value}")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
