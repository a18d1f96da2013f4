"""Prepared sets and WebDataset shards in: tar files in which the files of a clip share a name.

Shards of others hold `<key>.mp4` (or another video, DICOM or `.npy`), perhaps `<key>.ecg.edf` (or another ECG; a
WFDB record as `<key>.hea` and `<key>.dat`) and `<key>.json` with the fields of `folder`'s table.
"""

import json
from collections import defaultdict
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from echopulse.errors import InputError
from echopulse.io.datasets import folder
from echopulse.io.datasets.item import Found, Skipped, SourceClip, SourceItem, SourceOptions, known_view
from echopulse.io.manifest import MANIFEST
from echopulse.io.shards import MAX_LINE_BYTES, Member, find_shards, list_members

_VIDEOS = ("mp4", "avi", "mov", "m4v", "mkv", "webm", "gif", "npy", "dcm", "npz")
_ECGS = ("hea", "dat", "edf", "bdf", "csv", "xml", "scp", "mat")


def matches(root: Path) -> bool:
    """Whether this is a prepared set, a shard (a tar without folders) or a folder of shards."""
    if root.is_file():
        return root.suffix.lower() == ".tar" and not any("/" in name for name in list_members(root))
    # The exams of EchoXFlow are tars, too.
    return (root / MANIFEST).is_file() or any(not path.name.startswith("exam_") for path in root.glob("*.tar"))


def find(root: Path, options: SourceOptions) -> Found:
    """Finds the clips of a set or of shards."""
    if root.is_dir() and ((root / MANIFEST).is_file() or _is_ours(root)):
        prepared = _open_set(root)
        lines = [prepared.line(i) for i in range(len(prepared))]
        items = [
            SourceItem(
                key=line["id"],
                path=root / line["video"],
                dataset="shards",
                subject=line["subject"] or line["id"],
                exam=line["exam"],
                split=line["split"] if line["split"] in ("train", "val", "test") else "",
                view=known_view(line["view"]),
                details={"set": root, "index": i},
            )
            for i, line in enumerate(lines)
        ]
        return Found(items, removed=("ids", "subjects", "provenance"))
    items, skipped, ignored = [], [], 0
    for shard in [root] if root.is_file() else sorted(root.glob("*.tar")):
        try:
            samples: dict[str, dict[str, Member]] = defaultdict(dict)
            for name, member in list_members(shard).items():
                folder_name, _, file_name = name.rpartition("/")
                key, _, ending = file_name.partition(".")
                samples[f"{folder_name}/{key}".lstrip("/")][ending.lower()] = member
            for key, members in samples.items():
                item = _sample(shard, key, members, options)
                items += [item] if item else []
                ignored += item is None
        except InputError as error:
            skipped.append(Skipped(shard, str(error)))
    return Found(items, skipped, ignored, removed=("keys",))


def read(item: SourceItem) -> SourceClip:
    """Reads a clip of a set, or unpacks the sample of a shard and reads it as a video with its ECG."""
    if "set" in item.details:
        return _read_prepared(item)
    with TemporaryDirectory() as name:
        place = Path(name)
        stem = item.details["stem"]  # a WFDB header names its signal file
        for ending, member in item.details["members"].items():
            (place / f"{stem}.{ending}").write_bytes(member.read())
        details = dict(item.details["row"])
        if item.details["ecg"]:
            details["ecg"] = place / f"{stem}.{item.details['ecg']}"
        try:
            return folder.read(
                SourceItem(
                    key=item.key,
                    path=place / f"{stem}.{item.details['video']}",
                    dataset="folder",
                    subject=item.subject,
                    view=item.view,
                    details=details | {"named": item.details["named"]},
                )
            )
        except InputError as error:
            raise InputError(f"{item.path} sample {item.key}: {str(error).replace(name, '')}") from error


def _is_ours(root: Path) -> bool:
    """Whether the shards are those of a prepared set without its manifest."""
    for shard in find_shards(root):
        for name, member in list_members(shard).items():
            if name.endswith(".json"):
                return b'"num_frames"' in member.read()[:MAX_LINE_BYTES]
    return False


@lru_cache(maxsize=2)
def _open_set(root: Path) -> Any:
    from echopulse.io.sets import PreparedSet

    return PreparedSet(root)


def _sample(shard: Path, key: str, members: dict[str, Member], options: SourceOptions) -> SourceItem | None:
    """One sample of a shard, or None if it holds no video."""
    video = next((ending for ending in members if ending.rsplit(".", 1)[-1] in _VIDEOS and "ecg" not in ending), None)
    if video is None:
        return None
    parts = [ending for ending in members if ending != video and ending.rsplit(".", 1)[-1] in _ECGS]
    ecg = next((ending for ending in parts if ending.endswith("hea")), parts[0] if parts else None)
    row: dict[str, str] = {}
    if "json" in members and members["json"].size <= MAX_LINE_BYTES:
        try:
            fields = json.loads(members["json"].read())
            row = {str(name): str(value) for name, value in fields.items() if isinstance(value, str | int | float)}
        except (ValueError, AttributeError, RecursionError):
            row = {}  # a caption or the like
    row.pop("ecg", None)
    split = row.get("split", "").lower()
    return SourceItem(
        key=f"{shard.name}|{key}",
        path=shard,
        dataset="shards",
        subject=row.get("subject") or key,
        exam=row.get("exam", ""),
        split=split if split in ("train", "val", "test") else "",
        view=known_view(row.get("view", "")) if row.get("view") else options.view,
        details={
            "members": {ending: members[ending] for ending in [video, *parts]},
            "stem": key.rpartition("/")[2],
            "video": video,
            "ecg": ecg,
            "row": folder.row_details(row, shard.parent, options),
            "named": bool(row.get("subject")),
        },
    )


def _read_prepared(item: SourceItem) -> SourceClip:
    from echopulse.signals import EchoClip

    prepared, i = _open_set(item.details["set"]), item.details["index"]
    line = prepared.line(i)
    ecg = None if line["ecg"] is None else prepared.ecg(i)
    clip = EchoClip(prepared.frames(i), line["fps"], view=item.view, ecg=ecg)
    synthetic = line["source"] == "phantom" or any(name in line["provenance"] for name in ("model", "synthetic"))
    return SourceClip(
        clip,
        masks=prepared.masks(i),
        truth=line["truth"],
        facts={"synthetic": True} if synthetic else {},
    )
