"""Any folder of videos and ECG files, a table that pairs them, or a single file.

Pairs without a table: the same name in the same folder (`p1/rest.mp4`, `p1/rest.edf`), a name that only one video
and one ECG of the whole tree have (`video/p1.avi`, `ecg/p1.hea`), or one video and one ECG alone in a folder. A
video without such a partner keeps the ECG that is drawn in its picture, if there is one.

Columns of the table (CSV; only `video` is needed, paths are relative to the table):

| column | meaning |
|---|---|
| `video`, `ecg` | files |
| `ecg_start_s` | time of the first ECG sample, in seconds after frame 0; 0 if left out |
| `ecg_rate_hz` | sampling rate of an ECG file that does not say it |
| `fps` | frames per second, if the file's own are wrong |
| `subject`, `exam` | the patient and the examination; hashed |
| `split` | `train`, `val` or `test`; by the subject if left out |
| `view` | `a4c`, `a2c`, ... |
| `ef_percent`, `edv_ml`, `esv_ml` | what is known |

Other columns are left behind.
"""

import re
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

from echopulse.errors import InputError
from echopulse.io.datasets.item import (
    Found,
    Skipped,
    SourceClip,
    SourceItem,
    SourceOptions,
    known_view,
    number,
    read_table,
)
from echopulse.io.files import read_npy_header
from echopulse.io.mapped import mapped

COLUMNS = ("video", "ecg", "ecg_start_s", "ecg_rate_hz", "fps", "subject", "exam", "split", "view")
TRUTH_COLUMNS = ("ef_percent", "edv_ml", "esv_ml")

_ECG_ENDINGS = (".hea", ".edf", ".bdf", ".scp", ".ecg", ".ishne", ".xml", ".csv", ".mat", ".pdf", ".dat")
_OTHER_ENDINGS = (
    *(".atr", ".qrs", ".txt", ".md", ".rst", ".json", ".jsonl", ".yaml", ".yml", ".html", ".htm", ".log", ".ini"),
    *(".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".svg", ".doc", ".docx", ".xls", ".xlsx", ".py", ".sh"),
)
_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar", ".bz2", ".xz")


def find(root: Path, options: SourceOptions) -> Found:
    """Finds the videos of a folder or table and their ECG files."""
    if root.is_file():
        return _from_table(root, options) if _is_table(root) else Found([_single(root, options)])
    tables = [path for path in sorted(root.glob("*.csv")) if _is_table(path)]
    if len(tables) == 1:
        return _from_table(tables[0], options)
    return _from_tree(root, options)


def read(item: SourceItem) -> SourceClip:
    """Reads a video with its ECG file, or with the ECG in its picture."""
    from echopulse.io.ecg import read_ecg
    from echopulse.io.ultrasound import read_echo

    details = item.details
    reading = read_echo(item.path, with_ecg=details.get("ecg") is None)
    clip, times_s = reading.clip, reading.frame_times_s
    fps = details.get("fps") or (details.get("npy_fps") if item.path.suffix.lower() == ".npy" else None)
    if fps:
        clip, times_s = replace(clip, fps=fps, ecg=None), None
    facts: dict[str, Any] = {"color_doppler": bool(reading.color_doppler)}
    if reading.heart_rate_bpm is not None:
        facts["heart_rate_bpm"] = round(float(reading.heart_rate_bpm), 1)
    if "model" in clip.provenance:
        facts["synthetic"] = True
    if details.get("ecg") is not None:
        ecg = read_ecg(details["ecg"], sampling_rate_hz=details.get("ecg_rate_hz"))
        clip = replace(clip, ecg=ecg.shifted(ecg.start_s + details.get("ecg_start_s", 0.0)))
        facts["ecg_from"] = "file"
    elif clip.ecg is not None:
        facts |= {"ecg_from": "picture", "ecg_confidence": round(float(reading.ecg_confidence or 0), 3)}
    subject, exam = ("", "") if details.get("named") else _dicom_names(item.path)
    if item.view != "unknown" and (clip.view == "unknown" or details.get("named")):
        clip = replace(clip, view=item.view)
    return SourceClip(
        clip,
        frame_times_s=times_s,
        truth=dict(details.get("truth", {})),
        subject=subject,
        exam=exam,
        facts=facts,
        warnings=reading.warnings,
        removed=reading.removed,
    )


def row_details(row: dict[str, str], folder: Path, options: SourceOptions) -> dict[str, Any]:
    """What `read` needs, from a row of a table or the fields beside a clip of a shard."""
    return {
        "ecg": folder / row["ecg"] if row.get("ecg") else None,
        "ecg_start_s": number(row.get("ecg_start_s")) or 0.0,
        "ecg_rate_hz": number(row.get("ecg_rate_hz")) or options.ecg_rate_hz,
        "fps": number(row.get("fps")),
        "npy_fps": options.fps,
        "truth": {name: value for name in TRUTH_COLUMNS if (value := number(row.get(name))) is not None},
    }


def _single(path: Path, options: SourceOptions) -> SourceItem:
    details = row_details({}, path.parent, options) | {"ecg": options.ecg, "ecg_start_s": options.ecg_start_s}
    view = options.view if options.view != "unknown" else _named_view((path.name,))
    return SourceItem(path.name, path, "folder", subject=path.stem, view=view or "unknown", details=details)


def _named_view(parts: tuple[str, ...]) -> str:
    """The view that a part of a path names, such as `rest_A4C_01.avi`; the innermost counts."""
    words = [word for part in reversed(parts) for word in re.split(r"[^A-Za-z0-9]+", part)]
    return next((view for word in words if (view := known_view(word)) != "unknown"), "")


def _is_table(path: Path) -> bool:
    if path.suffix.lower() != ".csv":
        return False
    with path.open("rb") as file:
        head = file.readline(4096).decode("utf-8-sig", "replace")
    return "video" in [name.strip(' "\r\n') for name in head.replace(";", ",").replace("\t", ",").split(",")]


def _from_table(path: Path, options: SourceOptions) -> Found:
    items, skipped, split_of = [], [], {}
    rows = read_table(path, "video")
    columns = list(rows[0]) if rows else []
    uses = Counter(row["video"] for row in rows)
    for place, row in enumerate(rows, start=2):
        video = path.parent / row["video"]
        ecg = path.parent / row["ecg"] if row.get("ecg") else None
        subject, split = row.get("subject", ""), row.get("split", "").lower()
        missing = next((p for p in (video, ecg) if p is not None and not p.exists() and not _is_record(p)), None)
        if not row["video"] or missing is not None:
            skipped.append(Skipped(missing or path, f"row {place} names it, but there is no such file"))
            continue
        if split not in ("", "train", "val", "test"):
            raise InputError(f"{path} row {place}: split is {split[:20]!r}; expected train, val, test or nothing")
        if subject and split_of.setdefault(subject, split) != split:
            raise InputError(f"{path} row {place}: its subject is in two splits; expected every subject in one")
        items.append(
            SourceItem(
                key=row["video"] if uses[row["video"]] == 1 else f"{row['video']}|{place}",
                path=video,
                dataset="folder",
                subject=subject or row["video"],
                exam=row.get("exam", ""),
                split=split,
                view=known_view(row.get("view", "")) if row.get("view") else options.view,
                details=row_details(row, path.parent, options) | {"named": bool(subject)},
            )
        )
    left = [name for name in columns if name not in (*COLUMNS, *TRUTH_COLUMNS)]
    return Found(items, skipped, removed=("file names", *(f"column {name}" for name in left)))


def _is_record(path: Path) -> bool:
    return path.with_name(f"{path.name}.hea").is_file()  # a WFDB record named without its ending


def _from_tree(root: Path, options: SourceOptions) -> Found:
    videos: list[Path] = []
    ecgs: dict[Path, list[Path]] = defaultdict(list)
    skipped, ignored = [], 0
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        kind = "other" if any(part.startswith(".") for part in path.relative_to(root).parts) else _kind(path)
        if kind == "video":
            videos.append(path)
        elif kind == "ecg":
            ecgs[path.parent].append(path)
        elif kind == "archive":
            skipped.append(Skipped(path, "an archive within a folder; prepare it by itself or unpack it"))
        else:
            ignored += 1
    partners = _pair(videos, ecgs)
    used = {partner for partner in partners.values() if partner is not None}
    ignored += sum(len(paths) for paths in ecgs.values()) - len(used)
    tops = {path.relative_to(root).parts[0] for path in videos if path.parent != root}
    items = []
    for path in videos:
        parts = path.relative_to(root).parts
        details = row_details({}, root, options) | {"ecg": partners[path]}
        subject = parts[0] if len(parts) > 1 and len(tops) > 1 else path.relative_to(root).with_suffix("").as_posix()
        items.append(
            SourceItem(
                key=path.relative_to(root).as_posix(),
                path=path,
                dataset="folder",
                subject=subject,
                view=_named_view(parts) or options.view,
                details=details,
            )
        )
    note = (
        "patients are told apart by the DICOM patient ID, else by the top folder, else by the file: "
        "give a CSV with a subject column if that is not so"
    )
    return Found(items, skipped, ignored, notes=(note,), removed=("file and folder names",))


def _kind(path: Path) -> str:
    """`video`, `ecg`, `archive` or `other`; what is not known counts as a video, so that damage is reported."""
    ending = path.suffix.lower()
    if ending in _ARCHIVES:
        return "archive"
    if ending in _OTHER_ENDINGS or path.name.upper() == "DICOMDIR":
        return "other"
    if ending in _ECG_ENDINGS:
        return "ecg"
    try:
        with path.open("rb") as file:
            head = file.read(2048)
            if head.startswith(b"\x93NUMPY"):
                file.seek(0)
                return "video" if len(read_npy_header(file)[0]) > 2 else "ecg"
    except (OSError, ValueError):
        return "video"
    return "ecg" if b"1.2.840.10008.5.1.4.1.1.9." in head else "video"  # DICOM waveforms


def _pair(videos: list[Path], ecgs: dict[Path, list[Path]]) -> dict[Path, Path | None]:
    """The ECG file of each video."""
    by_stem: dict[str, list[Path]] = defaultdict(list)
    for folder, paths in ecgs.items():
        records = {path.stem for path in paths if path.suffix.lower() == ".hea"}
        ecgs[folder] = [path for path in paths if path.suffix.lower() == ".hea" or path.stem not in records]
        for path in ecgs[folder]:
            by_stem[path.stem].append(path)
    same_stem = Counter(path.stem for path in videos)
    same_folder = Counter(path.parent for path in videos)
    partners: dict[Path, Path | None] = {}
    for video in videos:
        beside = [path for path in ecgs.get(video.parent, []) if path.stem == video.stem]
        if not beside and same_stem[video.stem] == 1:
            beside = by_stem.get(video.stem, [])
        if not beside and same_folder[video.parent] == 1:
            beside = ecgs.get(video.parent, [])
        partners[video] = beside[0] if len(beside) == 1 else None
    return partners


def _dicom_names(path: Path) -> tuple[str, str]:
    """Patient and study of a DICOM file; empty where it names none or is something else."""
    import pydicom

    try:
        tags = ["PatientID", "StudyInstanceUID"]
        with mapped(path) as file:
            found = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=tags)
        study = str(found.get("StudyInstanceUID", "") or "").strip()
        return str(found.get("PatientID", "") or "").strip() or study, study
    except Exception:  # not DICOM; what is wrong with it, the reader of pictures says
        return "", ""
