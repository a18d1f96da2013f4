"""Can the synchrony measure tell a generator that listens to the ECG from one that does not?

    python benchmarks/synchrony_oracle.py [--patients 24] [--seed 1003000]

Phantom patients that no network has seen, segmented by the shipped segmenter. The oracle renders the patient from the
ECG moved by a known time; the deaf one shows the unmoved clip again, with fresh noise in its pixels. Measured shift
against given shift: slope 1 for the oracle, 0 for the deaf. Then ED and ES against the own ECG and against another
patient's. The last line is JSON.
"""

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np

from echopulse.evaluation.controls import shift_regression, shuffled_pairs
from echopulse.evaluation.segmentation import segment_clip
from echopulse.evaluation.synchrony import clip_synchrony, curve_shift_s, summarize_synchrony
from echopulse.phantom import sample_patient, simulate_clip
from echopulse.signals.ventricle import find_beats, lv_curve

FPS, SECONDS, START_S = 25.0, 3.0, 2.0


def measure(seed: int) -> dict[str, Any]:
    """Curves of one patient: as recorded, from the moved ECG, and again with other noise."""
    patient = sample_patient(seed)
    rng = np.random.default_rng(seed)
    clip = simulate_clip(patient, fps=FPS, seconds=SECONDS, start_s=START_S, with_masks=False)
    r = np.asarray(clip.truth["r_times_s"])
    period = float(np.diff(r).mean()) if r.size > 1 else 60 / patient.heart_rate_bpm
    shift = float(rng.uniform(-0.35, 0.35)) * period
    moved = simulate_clip(patient, fps=FPS, seconds=SECONDS, start_s=START_S - shift, with_masks=False)
    noisy = np.clip(clip.clip.frames + rng.normal(0, 4, clip.clip.frames.shape), 0, 255).astype(np.uint8)
    curve, heard, deaf = (lv_curve(segment_clip(frames)) for frames in (clip.clip.frames, moved.clip.frames, noisy))
    return {
        "curve": curve,
        "truth": clip.truth,
        "given_s": shift,
        "oracle_s": curve_shift_s(heard, curve, FPS, period),
        "deaf_s": curve_shift_s(deaf, curve, FPS, period),
    }


def timing(curve: np.ndarray, truth: dict[str, Any]):
    """The clip's beats against the marks of an ECG, its own or another's."""
    return clip_synchrony(
        find_beats(curve, np.arange(len(curve)) / FPS),
        np.asarray(truth["r_times_s"]),
        np.asarray(truth["t_end_times_s"]),
        start_s=0.0,
        end_s=len(curve) / FPS,
        fps=FPS,
    )


def main() -> None:
    """Prints the slopes and timing errors and, last, one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=24)
    parser.add_argument("--seed", type=int, default=1_003_000)
    arguments = parser.parse_args()
    with ProcessPoolExecutor() as pool:
        clips = list(pool.map(measure, range(arguments.seed, arguments.seed + arguments.patients)))
    given = [clip["given_s"] for clip in clips]
    others = shuffled_pairs([str(i) for i in range(len(clips))])
    report = {
        "oracle": shift_regression(given, [clip["oracle_s"] for clip in clips]),
        "deaf": shift_regression(given, [clip["deaf_s"] for clip in clips]),
        "own_ecg": summarize_synchrony([timing(clip["curve"], clip["truth"]) for clip in clips]),
        "other_ecg": summarize_synchrony(
            [timing(clip["curve"], clips[other]["truth"]) for clip, other in zip(clips, others, strict=True)]
        ),
    }
    for name, row in report.items():
        print(name, row)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
