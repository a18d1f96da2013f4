"""`report.html`: one file that opens from disk, with its figures and players inside."""

import html
import json
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from echopulse.axes import NOT_FOR_DIAGNOSIS
from echopulse.evaluation.evaluate import Evaluation
from echopulse.evaluation.figures import curve_figure, ef_figure, player, timing_figure
from echopulse.evaluation.matching import Pair
from echopulse.evaluation.sections import reference_ef
from echopulse.io.files import whole_file

_FROZEN = "frozen frame"
_ROWS: tuple[tuple[str, tuple[str, ...], str, str, int], ...] = (
    # label, path in metrics.json, unit, what it says, digits
    ("EF error, mean absolute", ("ef", "mae"), "points", "Floor: the segmenter's own error on true clips.", 2),
    ("EF bias", ("ef", "bias"), "points", "Positive: generated hearts contract too much.", 2),
    ("EF, R² (1 - SSE/SST)", ("ef", "r2"), "", "1: EF follows the reference; 0: no better than its mean.", 3),
    ("End-diastole from R peak, median", ("synchrony", "ed_ms", "median_abs"), "ms", "Floor: true clips.", 1),
    ("End-systole from T end, median", ("synchrony", "es_ms", "median_abs"), "ms", "Floor: true clips.", 1),
    ("Beats of the ECG seen in the video", ("synchrony", "found"), "%", "Of the beats fully inside a clip.", 1),
    ("Heart rate error", ("synchrony", "heart_rate_bpm", "mae"), "beats/min", "Video alone against the ECG.", 2),
    ("Distance of videos", ("frechet_video", "value"), "", "Motion and picture; lower is closer.", 3),
    ("Distance of frames", ("frechet_image", "value"), "", "Single pictures; blind to motion; lower is closer.", 3),
    ("SSIM", ("pixel", "ssim"), "", "Pixels; a frozen picture scores high, so compare with that column.", 3),
    ("PSNR", ("pixel", "psnr"), "dB", "Pixels, higher is closer.", 2),
    ("Mean squared error", ("pixel", "mse"), "", "Pixels in 0 to 1.", 5),
)


def write_report(evaluation: Evaluation, path: Path) -> None:
    """Writes the report whole or not at all.

    Args:
        evaluation: readings and metrics.
        path: where; existing files are replaced.
    """
    metrics, pairs = evaluation.metrics, evaluation.pairs
    chosen, order = _chosen(pairs)
    fields = {
        "counts": "{reference} reference clips, {generated} generated, {matched} matched.".format(**metrics["counts"]),
        "notice": html.escape(NOT_FOR_DIAGNOSIS),
        "warnings": "".join(f'<p class="note">{html.escape(text)}</p>' for text in metrics["warnings"]),
        "summary": _summary(metrics),
        "ef_text": html.escape(_ef_text(metrics)),
        "ef_figure": _image(ef_figure(pairs), "EF of generated against reference clips, and Bland-Altman"),
        "curve_figure": _image(curve_figure(chosen), "LV volume curves on the ECG's time axis"),
        "timing_figure": _image(
            timing_figure(evaluation.generated, evaluation.reference), "Histograms of timing errors"
        ),
        "clips_text": f"Left: reference. Right: generated. Ordered by {order}." if chosen else "No matched clips.",
        "players": "".join(
            f'<figure><img src="{player(pair)}" alt="{name} clip"><figcaption>{name}: '
            f"{html.escape(_caption(pair))}</figcaption></figure>"
            for name, pair in chosen
        ),
        "distances": _distances(metrics),
        "extras": _extras(metrics),
        "reasons": _list([f"{name}: {reason}" for name, reason in metrics["reasons"].items()] + metrics["unreadable"]),
        "protocol": html.escape(json.dumps(metrics, indent=1)),
    }
    template = Path(__file__).with_name("report_template.html").read_text(encoding="utf-8")
    with whole_file(path) as temporary:
        temporary.write_text(Template(template).substitute(fields), encoding="utf-8")


def _chosen(pairs: Sequence[Pair]) -> tuple[list[tuple[str, Pair]], str]:
    """Best, median and worst pair by EF error, or by pixel distance of thumbnails where no EF is known."""
    by_ef = [
        (abs(g.ef_percent - e), (r, g))
        for r, g in pairs
        if g.accepted and g.ef_percent is not None and (e := reference_ef(r)) is not None
    ]
    order = "EF error" if by_ef else "similarity of the pictures"
    ranked = by_ef or [(-float(np.vdot(r.thumbnail, g.thumbnail)), (r, g)) for r, g in pairs]
    ranked.sort(key=lambda item: item[0])
    places = dict.fromkeys((0, len(ranked) // 2, len(ranked) - 1)) if ranked else {}
    return [(name, ranked[i][1]) for name, i in zip(("best", "median", "worst"), places, strict=False)], order


def _caption(pair: Pair) -> str:
    r, g = pair
    expected, measured = (f"{v:.0f} %" if v is not None else "unknown" for v in (reference_ef(r), g.ef_percent))
    return f"{g.source.id}, EF {measured} against {expected}"


def _summary(metrics: dict[str, Any]) -> str:
    arms = list(metrics["controls"])
    head = ["", "generated", "95 % interval", "floor", *arms]
    rows = []
    for label, path, unit, note, digits in _ROWS:
        cells = [_value(metrics, path), _interval(metrics, path, digits), _floor(metrics, path)]
        cells += [_control(metrics, arm, path) for arm in arms]
        first = f"{html.escape(label)}{f' ({unit})' if unit else ''}<small>{html.escape(note)}</small>"
        shown = [cell if isinstance(cell, str) else _number(cell, digits) for cell in cells]
        rows.append(
            f'<tr><td>{first}</td><td class="main">{shown[0]}</td>'
            + "".join(f"<td>{text}</td>" for text in shown[1:])
            + "</tr>"
        )
    return _table(head, rows)


def _value(metrics: dict[str, Any], path: tuple[str, ...]) -> float | None:
    if path == ("synchrony", "found"):
        return _found(metrics["synchrony"])
    return _dig(metrics, path)


def _found(synchrony: dict[str, Any] | None) -> float | None:
    if not synchrony or not synchrony["matched_beats"] + synchrony["missed_beats"]:
        return None
    return 100 * synchrony["matched_beats"] / (synchrony["matched_beats"] + synchrony["missed_beats"])


def _interval(metrics: dict[str, Any], path: tuple[str, ...], digits: int) -> str:
    limits = _dig(metrics, (path[0], "ci95", *(() if path[0].startswith("frechet") else path[1:])))
    return f"{_number(limits[0], digits)} to {_number(limits[1], digits)}" if isinstance(limits, list) else "–"


def _floor(metrics: dict[str, Any], path: tuple[str, ...]) -> float | None:
    if path[0].startswith("frechet"):
        return _dig(metrics, (path[0], "floor"))
    if path[0] == "ef":
        return _dig(metrics, ("segmenter", "ef_on_true_clips", path[1]))
    if path == ("synchrony", "found"):
        return _found(metrics["synchrony_reference"])
    if path[0] == "synchrony":
        return _dig(metrics, ("synchrony_reference", *path[1:]))
    return {"ssim": 1.0, "mse": 0.0}.get(path[1])


def _control(metrics: dict[str, Any], arm: str, path: tuple[str, ...]) -> float | None:
    control = metrics["controls"][arm]
    if path[0] == "pixel":
        return _dig(metrics, ("pixel", "frozen", path[1])) if arm == _FROZEN else None
    if path[0] == "frechet_video":
        name = _dig(metrics, ("frechet_video", "protocol", "network"))
        return _dig(control, ("distances", name)) if name else None
    if path == ("synchrony", "found"):
        return _found(control.get("synchrony"))
    return _dig(control, path)


def _ef_text(metrics: dict[str, Any]) -> str:
    ef, segmenter = metrics["ef"], metrics["segmenter"]
    if ef is None:
        return f"Not computed: {metrics['reasons'].get('ef', 'no reason is known')}."
    own = segmenter["ef_on_true_clips"]["mae"]
    parts = [
        f"The segmenter's own EF error on true clips is {_number(own, 2)} points (mean absolute)."
        if own is not None
        else "The true EF of the reference is not known, so the segmenter's own error is not either.",
        f"It could not read {segmenter['rejected_reference']['share']:.0%} of the reference clips and "
        f"{segmenter['rejected_generated']['share']:.0%} of the generated ones, which are left out.",
        f"Reference EF: {ef['reference']}; its spread is {_number(ef['spread'], 1)} points, that of the "
        f"generated clips {_number(ef['spread_generated'], 1)}. R² depends on that spread.",
    ]
    if ef["irreducible_mae"] is not None:
        parts.append(
            f"From the ECG alone no reader can do better than {_number(ef['irreducible_mae'], 2)} points on these "
            "phantoms."
        )
    return " ".join(parts)


def _distances(metrics: dict[str, Any]) -> str:
    head = ["", "value", "floor", "value at the floor's count", "infinite clips", "kernel", "kernel floor"]
    keys = ("value", "floor", "value_at_floor_count", "infinite", "kernel", "kernel_floor")
    rows = []
    for distance in filter(None, metrics["distances"].values()):
        protocol = distance["protocol"]
        note = f"{protocol['features']}; {protocol['clips']} clips; weights {protocol['weights_sha256'][:12]}"
        cells = "".join(f"<td>{_number(distance[key], 4)}</td>" for key in keys)
        rows.append(f"<tr><td>{html.escape(protocol['metric'])}<small>{html.escape(note)}</small></td>{cells}</tr>")
    return _table(head, rows) if rows else "<p>None could be computed.</p>"


def _extras(metrics: dict[str, Any]) -> str:
    parts = []
    if metrics["privacy"]:
        parts.append(
            "<h2>Diversity and copying</h2><p>Similarity 1 is the same clip. Coverage and density near 1 mean that "
            "generated clips are spread like the reference; for the copying test 0.5 (closer) and 0.05 (above the 95th "
            "percentile) are expected of a generator that copies nothing.</p>" + _pairs_table(metrics["privacy"])
        )
    if metrics["shift"]:
        parts.append(
            "<h2>Shifted ECG</h2><p>Slope 1: the motion follows the ECG; 0: it ignores it.</p>"
            + _pairs_table(metrics["shift"])
        )
    if metrics.get("paper_scripts"):
        parts.append(
            "<h2>The authors' scripts</h2><p>For comparison with their tables only; none is FID, FVD or standard SSIM "
            "(see docs/evaluation.md).</p>" + _pairs_table(metrics["paper_scripts"])
        )
    return "".join(parts)


def _pairs_table(values: dict[str, Any]) -> str:
    def rows(values: dict[str, Any], prefix: str) -> list[str]:
        found = []
        for name, value in values.items():
            if isinstance(value, dict):
                found += rows(value, f"{prefix}{name}, ")
            else:
                shown = _number(value, 4) if isinstance(value, float | None) else html.escape(str(value))
                found.append(f"<tr><td>{html.escape(prefix + name.replace('_', ' '))}</td><td>{shown}</td></tr>")
        return found

    return _table(["", "value"], rows(values, ""))


def _table(head: Sequence[str], rows: Sequence[str]) -> str:
    titles = "".join(f"<th>{html.escape(title)}</th>" for title in head)
    return f"<table><thead><tr>{titles}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _list(lines: Sequence[str]) -> str:
    if not lines:
        return "<p>Everything was computed.</p>"
    return "<ul>" + "".join(f"<li>{html.escape(line)}</li>" for line in lines) + "</ul>"


def _image(source: str | None, text: str) -> str:
    return f'<img src="{source}" alt="{html.escape(text)}">' if source else "<p>No values to draw.</p>"


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _dig(values: Any, path: Sequence[str]) -> Any:
    for key in path:
        if not isinstance(values, dict):
            return None
        values = values.get(key)
    return values
