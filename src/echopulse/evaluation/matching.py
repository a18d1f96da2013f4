"""Which clips of two sets belong together, and what a reader must know about how the sets differ."""

import math
from collections import Counter
from collections.abc import Sequence

from echopulse.evaluation.reading import ClipReading

Pair = tuple[ClipReading, ClipReading]
"""A reference clip and the generated clip that belongs to it."""


def match_pairs(reference: Sequence[ClipReading], generated: Sequence[ClipReading]) -> list[Pair]:
    """Pairs of the same id, or of the id that a generated clip names in its provenance as `source_id`."""
    by_id = {r.source.id: r for r in reference}
    return [(by_id[g.source.source_id], g) for g in generated if g.source.source_id in by_id]


def comparable(reference: ClipReading, generated: ClipReading) -> bool:
    """Can the pixels be compared: the same size, and frame rates within one percent."""
    same_rate = math.isclose(reference.source.fps, generated.source.fps, rel_tol=0.01)
    return same_rate and reference.source.shape[1:] == generated.source.shape[1:]


def why_incomparable(reference: ClipReading, generated: ClipReading) -> str:
    """The reason in one sentence."""
    r, g = reference.source, generated.source
    return (
        f"sizes or frame rates differ: the reference has {r.shape[2]}x{r.shape[1]} at {r.fps:g} frames/s, the "
        f"generated set {g.shape[2]}x{g.shape[1]} at {g.fps:g}; make them alike for pixel metrics"
    )


def irreducible_mae(reference: Sequence[ClipReading]) -> float | None:
    """EF error that even a perfect reader of the ECG makes, where the reference is a phantom with the usual link."""
    if not all(r.source.provenance.get("source") == "phantom" for r in reference):
        return None
    from echopulse.phantom.link import EcgEfLink, irreducible_error

    usual = str(EcgEfLink())
    if any(r.source.provenance.get("ecg_ef_link", usual) != usual for r in reference):
        return None
    return irreducible_error(EcgEfLink())["mae_points"]


def set_warnings(
    reference: Sequence[ClipReading], generated: Sequence[ClipReading], pairs: Sequence[Pair]
) -> list[str]:
    """Differences between the sets that colour every number."""
    warnings = []
    if {r.digest for r in reference} == {g.digest for g in generated}:
        warnings.append("the generated clips are the reference clips, pixel by pixel: a set is compared with itself")
    if not pairs:
        warnings.append("no id is in both sets: pixel metrics and EF errors need matched clips")
    elif len(pairs) < len(generated):
        warnings.append(f"{len(generated) - len(pairs)} generated clips have no reference clip of the same id")
    views = [_shares(clips) for clips in (reference, generated)]
    if any(abs(views[0].get(view, 0) - views[1].get(view, 0)) > 0.1 for view in views[0] | views[1]):
        text = " against ".join(", ".join(f"{share:.0%} {view}" for view, share in v.items()) for v in views)
        warnings.append(f"the views differ ({text}): distances between the sets also measure that")
    lengths = {clip.source.shape[0] for clip in (*reference, *generated)}
    if len(lengths) > 1:
        warnings.append(
            f"clips have {min(lengths)} to {max(lengths)} frames; pairs are compared over their common part, and image "
            "and video networks see each clip whole"
        )
    return warnings


def _shares(clips: Sequence[ClipReading]) -> dict[str, float]:
    counts = Counter(clip.source.view for clip in clips)
    return {view: count / len(clips) for view, count in sorted(counts.items())}
