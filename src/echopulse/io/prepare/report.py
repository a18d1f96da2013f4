"""What a run kept, dropped and removed: numbers for the set, paths for its maker alone."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

from echopulse.config import save_json
from echopulse.io.datasets import Found
from echopulse.io.files import whole_file

REPORT = "report.json"
_SHOWN = 20
_KINDS = (
    ("missing", r"no such file|no file "),
    ("crashed its reader", r"crashed or blocked"),
    ("too large", r"expected at most|larger than"),
    ("needs a package", r"pip install"),
    ("lacks what is needed", r"--fps|--rate|not state|no geometry|no coordinates|no times"),
    ("ECG does not fit the video", r"overlap"),
    ("archive", r"archive"),
)


def make_report(
    found: Found,
    lines: list[dict[str, Any]],
    outcomes: list[dict[str, Any]],
    skipped: list[tuple[str, str]],
    settings: dict[str, Any],
) -> dict[str, Any]:
    """The report as plain values; nothing in it is a name or text of the source."""
    warnings = Counter(_general(text) for line in lines for text in line["provenance"].get("warnings", []))
    removed = Counter(_general(name) for outcome in outcomes for name in outcome.get("removed", []))
    return {
        "settings": settings,
        "clips": {"found": len(found.items) + len(found.skipped), "kept": len(lines), "skipped": len(skipped)},
        "files_ignored": found.ignored,
        "skipped_because": dict(Counter(_kind(reason) for _, reason in skipped)),
        "subjects": len({line["subject"] for line in lines}),
        "splits": dict(sorted(Counter(line["split"] for line in lines).items())),
        "views": dict(sorted(Counter(line["view"] for line in lines).items())),
        "frames": sum(line["num_frames"] for line in lines),
        "seconds": round(sum(line["num_frames"] / line["fps"] for line in lines), 1),
        "with_ecg": sum(line["ecg"] is not None for line in lines),
        "with_masks": sum(line["masks"] is not None for line in lines),
        "with_ef": sum("ef_percent" in line["truth"] for line in lines),
        "ecg_quality": dict(Counter(q for line in lines if (q := line["provenance"].get("ecg_quality")))),
        "color_doppler": sum(bool(line["provenance"].get("color_doppler")) for line in lines),
        "warnings": dict(warnings.most_common()),
        "removed": {name: len(lines) for name in _our_words(found.removed)} | dict(removed.most_common()),
        "notes": list(found.notes),
    }


def write_report(folder: Path, report: dict[str, Any]) -> None:
    """Writes `report.md` for people, then `report.json`, which says that the set is finished."""
    with whole_file(folder / "report.md") as temporary:
        temporary.write_text("# Prepared set\n\n" + summary(report) + "\n", encoding="utf-8")
    save_json(folder / REPORT, report)


def write_skipped(path: Path, skipped: list[tuple[str, str]]) -> None:
    """Writes path and reason of what was left out, or removes the list when there is nothing."""
    if not skipped:
        path.unlink(missing_ok=True)
        return
    with whole_file(path) as temporary:
        temporary.write_text("".join(f"{name}: {reason}\n" for name, reason in skipped), encoding="utf-8")
        temporary.chmod(0o600)


def summary(report: dict[str, Any]) -> str:
    """The report in a few readable lines."""
    clips = report["clips"]
    rows = [
        f"{clips['kept']} clips of {report['subjects']} subjects kept, {clips['skipped']} skipped"
        + (f" ({_counts(report['skipped_because'])})" if clips["skipped"] else "")
        + (f"; {report['files_ignored']} other files ignored" if report["files_ignored"] else ""),
        f"{report['frames']} frames, {report['seconds']:g} s; {_counts(report['views'])}; "
        f"split: {_counts(report['splits'])}",
        f"with ECG: {report['with_ecg']}"
        + (f" (quality {_counts(report['ecg_quality'])})" if report["ecg_quality"] else "")
        + f"; with masks: {report['with_masks']}; with ejection fraction: {report['with_ef']}"
        + (f"; color Doppler: {report['color_doppler']}" if report["color_doppler"] else ""),
    ]
    if report["warnings"]:
        rows.append("warnings:")
        rows += [f"- {text} ({count} clips)" for text, count in list(report["warnings"].items())[:12]]
    kinds = list(report["removed"])
    rows.append(f"removed, {len(kinds)} kinds: {', '.join(kinds[:_SHOWN])}{', ...' if len(kinds) > _SHOWN else ''}")
    return "\n".join([*rows, *(f"note: {note}" for note in report["notes"])])


def _general(text: str) -> str:
    """The text with its numbers left open, so that equal findings count as one."""
    return re.sub(r"[-+]?\d[\d.,]*", "#", text)


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _kind(reason: str) -> str:
    return next((kind for kind, pattern in _KINDS if re.search(pattern, reason)), "damaged or unsupported")


def _our_words(removed: tuple[str, ...]) -> list[str]:
    """Column names are words of the source: only how many there were is told in the set."""
    columns = sum(name.startswith("column ") for name in removed)
    words = [name for name in removed if not name.startswith("column ")]
    return words + ([f"{columns} columns of the table"] if columns else [])
