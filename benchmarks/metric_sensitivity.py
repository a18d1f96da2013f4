"""How far each feature distance moves when clips are spoilt: a table of distance over floor.

Half of the patients are the reference; the other half, spoilt in four ways and four strengths, is compared with it.
1 is the distance between the two unspoilt halves. Run: python benchmarks/metric_sensitivity.py [--clips 64] [--seed 0]
"""

import argparse
from collections.abc import Callable

import numpy as np
from scipy import ndimage

from echopulse.evaluation.features import Extractor, load_extractors
from echopulse.evaluation.frechet import frechet_distance
from echopulse.phantom import sample_patient, simulate_clip

FPS = 25.0
STRENGTHS = (0.25, 0.5, 0.75, 1.0)


def noise(frames: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """White noise, up to 40 grey levels."""
    return np.clip(frames + rng.normal(0, 40 * strength, frames.shape), 0, 255).astype(np.uint8)


def blur(frames: np.ndarray, strength: float, _: np.random.Generator) -> np.ndarray:
    """Gaussian blur, up to 4 pixels."""
    return ndimage.gaussian_filter(frames.astype(np.float32), (0, 4 * strength, 4 * strength)).astype(np.uint8)


def shuffle(frames: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Frames permuted among the first part of the clip."""
    count = round(len(frames) * strength)
    return np.concatenate([frames[:count][rng.permutation(count)], frames[count:]])


def freeze(frames: np.ndarray, strength: float, _: np.random.Generator) -> np.ndarray:
    """The last part of the clip held still."""
    kept = max(round(len(frames) * (1 - strength)), 1)
    return np.concatenate([frames[:kept], np.repeat(frames[kept - 1 : kept], len(frames) - kept, axis=0)])


FAULTS: tuple[Callable[[np.ndarray, float, np.random.Generator], np.ndarray], ...] = (noise, blur, shuffle, freeze)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=800_000)
    options = parser.parse_args()
    patients = [sample_patient(options.seed + i) for i in range(options.clips)]
    clips = [simulate_clip(p, fps=FPS, seconds=options.seconds, with_masks=False).clip.frames for p in patients]
    extractors, missing = load_extractors(("echo", "transnetv2"))
    for name, reason in missing.items():
        print(f"{name}: {reason}")
    print(f"{'network':<12} {'fault':<8} " + " ".join(f"{strength:>7.0%}" for strength in STRENGTHS))
    for extractor in extractors:
        _table(extractor, clips)


def _table(extractor: Extractor, clips: list[np.ndarray]) -> None:
    half = len(clips) // 2
    reference, other = (np.stack([extractor(clip, FPS) for clip in part]) for part in (clips[:half], clips[half:]))
    floor = frechet_distance(reference, other)
    for fault in FAULTS:
        ratios = []
        for strength in STRENGTHS:
            rng = np.random.default_rng(1)
            spoilt = np.stack([extractor(fault(clip, strength, rng), FPS) for clip in clips[half:]])
            ratios.append(frechet_distance(reference, spoilt) / floor)
        print(f"{extractor.name:<12} {fault.__name__:<8} " + " ".join(f"{ratio:7.2f}" for ratio in ratios), flush=True)


if __name__ == "__main__":
    main()
