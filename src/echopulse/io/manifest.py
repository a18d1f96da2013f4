"""The manifest of a prepared set: one JSON object a line, one line a clip, checked on the way in and out."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from echopulse.errors import InputError
from echopulse.io.files import whole_file
from echopulse.io.shards import find_shards, read_lines

MANIFEST = "manifest.jsonl"
CLIP_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,199}")
"""What a clip may be called."""

_FIELDS: dict[str, tuple[type, ...]] = {
    "id": (str,),
    "subject": (str,),
    "split": (str,),
    "source": (str,),
    "view": (str,),
    "video": (str,),
    "ecg": (str, type(None)),
    "num_frames": (int,),
    "fps": (int, float),
    "ecg_start_s": (int, float),
}
_OPTIONAL: dict[str, tuple[tuple[type, ...], Any]] = {
    "exam": ((str,), ""),
    "masks": ((str, type(None)), None),
    "frame_times_s": ((list, type(None)), None),
    "truth": ((dict,), {}),
    "provenance": ((dict,), {}),
}


def write_manifest(folder: str | Path, lines: Sequence[Mapping[str, Any]]) -> Path:
    """Writes `manifest.jsonl`, sorted by id, under a temporary name and renamed.

    Raises:
        InputError: a line that `read_manifest` would refuse.
    """
    path = Path(folder) / MANIFEST
    ordered = sorted(lines, key=lambda line: str(line.get("id")))
    _check_lines([(f"manifest line of {line.get('id')!r}", dict(line)) for line in ordered])
    try:
        text = "".join(json.dumps(dict(line), allow_nan=False) + "\n" for line in ordered)
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: truth and provenance hold plain finite JSON values only ({error})") from error
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def read_manifest(folder: str | Path) -> list[dict[str, Any]]:
    """Reads and checks the manifest of a set; optional fields are filled in.

    Raises:
        InputError: no such set, a line that is not JSON, a missing or wrong field, a path that
            leaves the set, an id twice, or a subject in two splits.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; expected a prepared set (make one with simulate or prepare)")
    path = folder / MANIFEST
    if not path.exists() and find_shards(folder):
        return _check_lines(_parse_rows(read_lines(folder)))
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise InputError(f"{folder}: no {MANIFEST} in it; expected a prepared set (simulate or prepare)") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as UTF-8 text ({error})") from error
    rows = [(f"{path} line {number}", row) for number, row in enumerate(text.split("\n"), start=1) if row.strip()]
    if not rows:
        raise InputError(f"{path}: no clips in it; expected at least one line")
    return _check_lines(_parse_rows(rows))


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def _parse_rows(rows: list[tuple[str, str]]) -> list[tuple[str, dict[str, Any]]]:
    numbered = []
    for where, row in rows:
        try:
            value = json.loads(row, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where}: not valid JSON ({error}); expected one object a line") from error
        if not isinstance(value, dict):
            raise InputError(f"{where}: got {type(value).__name__}, expected a JSON object")
        numbered.append((where, value))
    return numbered


def _check_lines(numbered: list[tuple[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    lines, seen, split_of = [], set(), {}
    for where, line in numbered:
        line = _checked_line(line, where)
        if line["id"] in seen:
            raise InputError(f"{where}: id {line['id']} comes twice; expected every id once")
        seen.add(line["id"])
        if line["subject"] and split_of.setdefault(line["subject"], line["split"]) != line["split"]:
            raise InputError(
                f"{where}: subject {line['subject']} is in the splits {split_of[line['subject']]!r} and "
                f"{line['split']!r}; expected every subject in one"
            )
        lines.append(line)
    return lines


def _checked_line(line: dict[str, Any], where: str) -> dict[str, Any]:
    missing = [name for name in _FIELDS if name not in line]
    if missing:
        raise InputError(f"{where}: missing field {', '.join(missing)}")
    line = {**{name: default for name, (_, default) in _OPTIONAL.items()}, **line}
    for name, kinds in (_FIELDS | {name: kinds for name, (kinds, _) in _OPTIONAL.items()}).items():
        if type(line[name]) not in kinds:
            expected = " or ".join("null" if kind is type(None) else kind.__name__ for kind in kinds)
            raise InputError(f"{where}: {name} is {str(line[name])[:60]!r}, expected {expected}")
    if not CLIP_ID.fullmatch(line["id"]):
        raise InputError(f"{where}: id is {line['id'][:60]!r}, expected letters, digits, _ . - (not first a dot)")
    for name in ("video", "masks", "ecg"):
        path = line[name]
        if path is not None and not _stays_inside(path):
            raise InputError(f"{where}: {name} is {path[:60]!r}, expected a path inside the set, such as clips/a.npy")
    if line["num_frames"] < 1:
        raise InputError(f"{where}: num_frames is {line['num_frames']}, expected 1 or more")
    if not (_is_finite(line["fps"]) and line["fps"] > 0):
        raise InputError(f"{where}: fps is {line['fps']}, expected a positive number")
    if not _is_finite(line["ecg_start_s"]):
        raise InputError(f"{where}: ecg_start_s is {line['ecg_start_s']}, expected seconds")
    if line["frame_times_s"] is not None:
        _check_frame_times(line, where)
    return line


def _check_frame_times(line: dict[str, Any], where: str) -> None:
    times, fps = line["frame_times_s"], float(line["fps"])
    if len(times) != line["num_frames"] or not all(type(t) in (int, float) and _is_finite(t) for t in times):
        raise InputError(f"{where}: frame_times_s is not {line['num_frames']} finite numbers, one a frame")
    if any(abs(t - i / fps) > 0.5 / fps for i, t in enumerate(times)):
        raise InputError(
            f"{where}: frame_times_s leave i / fps by more than half a frame; resample the clip to an even rate"
        )


def _is_finite(number: int | float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:
        return False


def _stays_inside(path: str) -> bool:
    parts = PurePosixPath(path).parts
    return bool(parts) and not path.startswith("/") and ".." not in parts and not re.search(r"[\\:\x00-\x1f]", path)
