"""The parts of `metrics.json`, each from readings of clips; a part that cannot be computed raises `Missing`."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from echopulse.evaluation.controls import shift_regression, shuffled_pairs
from echopulse.evaluation.features import Extractor
from echopulse.evaluation.frechet import (
    MIN_CLIPS,
    floor_and_fair_value,
    frechet_distance,
    frechet_infinite,
    half_sample_error,
    kernel_distance,
)
from echopulse.evaluation.matching import Pair
from echopulse.evaluation.privacy import copying, coverage, nearest, standardized
from echopulse.evaluation.reading import ClipReading
from echopulse.evaluation.statistics import cluster_bootstrap, ef_agreement
from echopulse.evaluation.synchrony import ClipSynchrony, clip_synchrony, curve_shift_s, summarize_synchrony


class Missing(Exception):
    """A metric cannot be computed; the message is the reason that the report prints."""


def set_distance(
    extractor: Extractor, reference: Sequence[ClipReading], arms: Sequence[Sequence[ClipReading]], seed: int, full: bool
) -> dict[str, Any]:
    """Fréchet and kernel distance of generated sets from the reference, averaged over the sets (seeds).

    Args:
        extractor: whose features.
        reference: reference clips.
        arms: one sequence of readings a seed.
        seed: of sub-samples.
        full: also floor, interval and extrapolation.

    Raises:
        Missing: fewer than two clips on a side, other frame rates, or features that are not finite.
    """
    x, kept = _stack(extractor, reference)
    ys = [_stack(extractor, arm)[0] for arm in arms]
    count = min(len(x), *(len(y) for y in ys))
    if count < MIN_CLIPS:
        raise Missing(f"{extractor.metric} needs 2 or more clips of {extractor.min_frames} frames on each side")
    if extractor.kind == "video":
        rates = {round(reading.source.fps, 2) for arm in (kept, *arms) for reading in arm}
        if len(rates) > 1:
            raise Missing(
                f"frame rates differ ({', '.join(f'{r:g}' for r in sorted(rates))}): motion would not compare"
            )
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.permutation(len(x))[:count])
    x, patients = x[chosen], np.array([kept[i].source.patient for i in chosen])
    ys = [y[np.sort(rng.permutation(len(y))[:count])] for y in ys]
    if not all(np.isfinite(values).all() for values in (x, *ys)):
        raise Missing(f"{extractor.metric}: the network gave features that are not finite")
    result: dict[str, Any] = {
        "value": float(np.mean([frechet_distance(x, y) for y in ys])),
        "protocol": {
            "metric": extractor.metric,
            "standard": extractor.standard,
            "network": extractor.name,
            "weights_sha256": extractor.sha256,
            "features": extractor.protocol,
            "clips": count,
            "seeds": len(ys),
            "size": sorted({f"{r.source.shape[2]}x{r.source.shape[1]}" for r in kept}),
        },
    }
    if not full:
        return result
    floor, fair = floor_and_fair_value(x, ys[0], patients, frechet_distance, seed)
    kernel_floor, kernel_fair = floor_and_fair_value(x, ys[0], patients, kernel_distance, seed)
    error = half_sample_error(x, ys[0], frechet_distance, seed)
    value = result["value"]
    interval = [max(value - 1.96 * error, 0.0), value + 1.96 * error] if np.isfinite(error) else None
    result |= {
        "floor": floor,
        "ci95": interval,
        "value_at_floor_count": fair,
        "infinite": float(np.mean([frechet_infinite(x, y, seed) for y in ys])),
        "kernel": float(np.mean([kernel_distance(x, y) for y in ys])),
        "kernel_floor": kernel_floor,
        "kernel_at_floor_count": kernel_fair,
    }
    result["protocol"]["floor"] = "mean over 4 splits of the reference into halves without a common patient"
    result["protocol"]["ci95"] = "delete-half jackknife, 20 halves"
    return result


def pixel_section(scores: Sequence[dict[str, float]], patients: Sequence[str], draws: int, seed: int) -> Any:
    """Means over clips of every pixel score, with patient-level intervals."""
    if not scores:
        raise Missing("no generated clip has the size, frame rate and id of a reference clip")
    columns = {name: np.array([row[name] for row in scores]) for name in scores[0]}
    result: dict[str, Any] = {name: _mean(values) for name, values in columns.items()}
    result["n"] = len(scores)
    result["ci95"] = {
        name: cluster_bootstrap(lambda i, v=values: _mean(v[i]), patients, draws, seed)
        for name, values in columns.items()
        if name in ("mse", "mae", "psnr", "ssim", "lpips") and result[name] is not None
    }
    return result


def segmenter_section(reference: Sequence[ClipReading], generated: Sequence[ClipReading]) -> dict[str, Any]:
    """How well the segmenter reads true clips, and how many clips of each arm it cannot read."""
    known = [r for r in _measured(reference) if _true_ef(r) is not None]
    own = ef_agreement([_number(r.ef_percent) for r in known], [_number(_true_ef(r)) for r in known])
    return {
        "ef_on_true_clips": own,
        "rejected_reference": _rejected(reference),
        "rejected_generated": _rejected(generated),
    }


def ef_section(
    pairs: Sequence[Pair], segmenter_mae: float | None, irreducible_mae: float | None, draws: int, seed: int
) -> dict[str, Any]:
    """EF of generated clips against the true EF, or against the same segmenter's EF of the reference clip.

    Raises:
        Missing: no pair whose ventricle could be measured.
    """
    usable = [(r, g) for r, g in pairs if g.accepted and g.ef_percent is not None]
    by_truth = bool(usable) and all(_true_ef(r) is not None for r, _ in usable)
    if not by_truth:
        usable = [(r, g) for r, g in usable if r.accepted and r.ef_percent is not None]
    if not usable:
        raise Missing(_why_unmeasured(pairs))
    expected = np.array([_number(_true_ef(r) if by_truth else r.ef_percent) for r, _ in usable])
    measured = np.array([_number(g.ef_percent) for _, g in usable])
    patients = [r.source.patient for r, _ in usable]
    result = ef_agreement(measured.tolist(), expected.tolist())

    def statistic(name: str) -> Callable[[np.ndarray], float | None]:
        return lambda i: ef_agreement(measured[i].tolist(), expected[i].tolist())[name]

    result["ci95"] = {
        name: cluster_bootstrap(statistic(name), patients, draws, seed) for name in ("mae", "rmse", "r2", "bias")
    }
    both = [(r, g) for r, g in usable if r.accepted and r.ef_percent is not None]
    return result | {
        "reference": "truth of the set" if by_truth else "the same segmenter on the reference clip",
        "spread_generated": float(measured.std(ddof=1)) if len(measured) > 1 else None,
        "same_segmenter_mae": ef_agreement(
            [_number(g.ef_percent) for _, g in both], [_number(r.ef_percent) for r, _ in both]
        )["mae"],
        "segmenter_mae": segmenter_mae,
        "irreducible_mae": irreducible_mae,
    }


def reference_ef(reading: ClipReading) -> float | None:
    """The true EF of a reference clip where the set knows it, else the segmenter's where it can be believed."""
    known = _true_ef(reading)
    return known if known is not None else reading.ef_percent if reading.accepted else None


def synchrony_of(reading: ClipReading, marks: ClipReading | None = None) -> ClipSynchrony | None:
    """Timing of one clip against its own ECG, or against the ECG of another clip; None without curve or ECG."""
    source = (marks or reading).source
    if reading.beats is None or not source.r_times_s.size:
        return None
    return clip_synchrony(
        reading.beats,
        source.r_times_s,
        source.t_end_times_s,
        start_s=float(reading.source.times_s[0]),
        end_s=reading.source.end_s,
        fps=reading.source.fps,
    )


def synchrony_section(clips: Sequence[ClipReading], draws: int, seed: int) -> dict[str, Any]:
    """Pooled timing of all clips that have a volume curve and an ECG.

    Raises:
        Missing: there is none.
    """
    timed = [(reading, timing) for reading in clips if (timing := synchrony_of(reading)) is not None]
    if not timed:
        raise Missing("no clip has both a volume curve and R peaks in its ECG")
    patients = [reading.source.patient for reading, _ in timed]
    result = summarize_synchrony([timing for _, timing in timed])

    def statistic(event: str, of: Callable[[np.ndarray], Any]) -> Callable[[np.ndarray], float]:
        def value(indices: np.ndarray) -> float:
            beats = np.concatenate([getattr(timed[i][1], event) for i in indices])
            beats = beats[np.isfinite(beats)]
            return float(of(beats)) if beats.size else float("nan")

        return value

    result["ci95"] = {
        event: {
            "median_abs": cluster_bootstrap(statistic(event, lambda b: np.median(np.abs(b))), patients, draws, seed),
            "bias": cluster_bootstrap(statistic(event, np.mean), patients, draws, seed),
        }
        for event in ("ed_ms", "es_ms")
    }
    return result


def other_ecg_section(clips: Sequence[ClipReading], seed: int) -> dict[str, Any]:
    """The same clips scored against the ECG of another patient: what chance gives.

    Raises:
        Missing: fewer than two patients.
    """
    subjects = [reading.source.patient for reading in clips]
    if len(set(subjects)) < 2:
        raise Missing("another patient's ECG needs two patients")
    others = shuffled_pairs(subjects, seed)
    timed = [timing for i, r in enumerate(clips) if (timing := synchrony_of(r, clips[others[i]])) is not None]
    if not timed:
        raise Missing("no clip has both a volume curve and R peaks in its ECG")
    return summarize_synchrony(timed)


def shift_section(generated: Sequence[ClipReading], controls: dict[str, list[ClipReading]]) -> dict[str, Any]:
    """Regresses the shift of the LV curve on the shift of the ECG, over control clips made with a shifted ECG.

    The given shift is `ecg_shift_s` of a clip's provenance; the measured one is against the same clip of the generated
    set, made with the unshifted ECG.

    Raises:
        Missing: no control clip names a shift.
    """
    base = {g.source.source_id: g for g in generated}
    given: list[float] = []
    measured: list[float | None] = []
    for g in (clip for clips in controls.values() for clip in clips):
        own, shift = base.get(g.source.source_id), g.source.provenance.get("ecg_shift_s")
        if not isinstance(shift, int | float) or own is None or own.beats is None or not own.beats.period_s:
            continue
        if own.volumes is not None and g.volumes is not None and len(own.volumes) == len(g.volumes):
            given.append(float(shift))
            measured.append(curve_shift_s(g.volumes, own.volumes, g.source.fps, own.beats.period_s))
    if not given:
        raise Missing("no --control set was made with a shifted ECG (ecg_shift_s in its provenance)")
    return shift_regression(given, measured)


def privacy_section(
    reference: Sequence[ClipReading], generated: Sequence[ClipReading], train: Sequence[ClipReading] | None
) -> dict[str, Any]:
    """Nearest neighbours, coverage, and copying from the training set where it is given.

    Raises:
        Missing: fewer than three clips on a side.
    """
    name = next((n for n in ("echo_video", "transnetv2", "i3d") if all(n in r.features for r in reference)), None)
    if name is None:
        raise Missing("no video features of every clip")
    arms = [[r for r in arm if name in r.features] for arm in (reference, generated)]
    if min(map(len, arms)) < 3:
        raise Missing("nearest neighbours need 3 or more clips on each side")
    raw = [np.stack([r.features[name][0] for r in arm]).astype(np.float64) for arm in arms]
    (x, y), (small_x, small_y) = (
        [standardized(values, raw[0]) for values in raw],
        [np.stack([r.thumbnail for r in arm]) for arm in arms],
    )
    own = np.array([[g.source.source_id == r.source.id for r in arms[0]] for g in arms[1]])
    among_others = nearest(y, small_y, x, small_x, excluded=own)
    result: dict[str, Any] = {
        "nearest_reference_similarity": _mean(among_others["correlation"]),
        "nearest_reference_cosine": _mean(among_others["cosine"]),
        "identical_clips": len({r.digest for r in arms[0]} & {g.digest for g in arms[1]}),
        "coverage": coverage(x, y),
        "features": name,
        "training": None,
    }
    if train:
        t = [r for r in train if name in r.features]
        z = standardized(np.stack([r.features[name][0] for r in t]).astype(np.float64), raw[0])
        small_z = np.stack([r.thumbnail for r in t])
        result["training"] = copying(nearest(y, small_y, z, small_z), nearest(x, small_x, z, small_z))
        result["training"]["clips"] = len(t)
    return result


def _stack(extractor: Extractor, readings: Sequence[ClipReading]) -> tuple[np.ndarray, list[ClipReading]]:
    """Features (clips, d) or (clips, frames, d) of the clips that have as many rows as most, and those clips."""
    known = [r for r in readings if extractor.name in r.features]
    if not known:
        return np.empty((0, 1)), []
    rows = max(len(r.features[extractor.name]) for r in known)
    known = [r for r in known if len(r.features[extractor.name]) == rows]
    stacked = np.stack([r.features[extractor.name] for r in known])
    return (stacked[:, 0] if rows == 1 else stacked), known


def _measured(readings: Sequence[ClipReading]) -> list[ClipReading]:
    return [r for r in readings if r.accepted and r.ef_percent is not None]


def _true_ef(reading: ClipReading) -> float | None:
    value = reading.source.truth.get("ef_percent")
    return float(value) if isinstance(value, int | float) else None


def _rejected(readings: Sequence[ClipReading]) -> dict[str, Any]:
    bad = [r for r in readings if not r.accepted]
    examples = sorted({reason for r in bad for reason in r.reasons})[:5]
    return {"share": len(bad) / max(len(readings), 1), "clips": len(bad), "examples": examples}


def _why_unmeasured(pairs: Sequence[Pair]) -> str:
    if not pairs:
        return "no generated clip has the id of a reference clip"
    reasons = sorted({reason for _, g in pairs for reason in g.reasons})
    return "no pair of clips with a measurable ventricle" + (f": {reasons[0]}" if reasons else "")


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def _mean(values: np.ndarray) -> float | None:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else None
