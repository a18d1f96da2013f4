"""EchoNet-Dynamic, -Pediatric and -LVH: AVI clips with lists of measurements and tracings. No ECG.

Layouts (Ouyang et al., 2020; Reddy et al., 2023; Duffy et al., 2022):
`Videos/*.avi`, `FileList.csv`, `VolumeTracings.csv` (Dynamic: `FileName, X1, Y1, X2, Y2, Frame`, the first row of
a frame is the long axis; Pediatric, in `A4C/` and `PSAX/`: `FileName, X, Y, Frame`, the outline);
`Batch*/*.avi` and `MeasurementsList.csv` (LVH).
"""

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from echopulse.io.datasets.item import Found, Skipped, SourceClip, SourceItem, SourceOptions, number, read_table
from echopulse.signals import EchoClip

_SPLITS = {"train": "train", "val": "val", "test": "test"} | {str(fold): "train" for fold in range(8)}
_SPLITS |= {"8": "val", "9": "test"}  # the ten folds of Pediatric


def matches(root: Path) -> bool:
    """Whether the folder is one of the three."""
    return bool(_parts(root)) or (root / "MeasurementsList.csv").is_file()


def find(root: Path, options: SourceOptions) -> Found:
    """Finds the listed videos."""
    if (root / "MeasurementsList.csv").is_file():
        return _find_lvh(root)
    items, skipped, removed = [], [], set()
    for folder, view in _parts(root):
        rows = read_table(folder / "FileList.csv", "FileName")
        tracings = _tracings(folder / "VolumeTracings.csv")
        removed |= set(rows[0] if rows else ()) - {"EF", "ESV", "EDV", "FPS", "Split"}
        for row in rows:
            name = row["FileName"].removesuffix(".avi")
            path = folder / "Videos" / f"{name}.avi"
            if not name or Path(name).name != name or not path.is_file():
                skipped.append(Skipped(path, "listed, but there is no such file"))
                continue
            truth = {"ef_percent": row.get("EF"), "edv_ml": row.get("EDV"), "esv_ml": row.get("ESV")}
            items.append(
                SourceItem(
                    key=path.relative_to(root).as_posix(),
                    path=path,
                    dataset="echonet",
                    subject=name,
                    split=_SPLITS.get(row.get("Split", "").lower(), ""),
                    view=view,
                    details={
                        "fps": number(row.get("FPS")),
                        "tracings": tracings.get(name, {}),
                        "truth": {key: value for key, text in truth.items() if (value := number(text)) is not None},
                    },
                )
            )
    return Found(items, skipped, removed=("file names", *(f"column {name}" for name in sorted(removed))))


def read(item: SourceItem) -> SourceClip:
    """Reads a clip with the masks of its traced frames; the larger cavity is end-diastole."""
    from echopulse.io.video import read_video

    video = read_video(item.path)
    fps = item.details["fps"] or video.fps
    clip = EchoClip(video.frames, fps, view=item.view)
    truth: dict[str, Any] = dict(item.details["truth"])
    for key, frames in item.details.get("marks", {}).items():
        truth[key] = [frame / fps for frame in frames if frame < clip.num_frames]
    traced = {frame: rows for frame, rows in item.details.get("tracings", {}).items() if frame < clip.num_frames}
    if not traced:
        return SourceClip(clip, truth=truth)
    masks = np.zeros(clip.frames.shape, np.uint8)
    for frame, rows in traced.items():
        masks[frame] = _fill(np.array(rows), masks.shape[1:])
    areas = {frame: int(masks[frame].sum()) for frame in traced}
    truth["mask_frames"] = sorted(traced)
    if len(traced) == 2:
        small, large = sorted(traced, key=areas.__getitem__)
        truth |= {"ed_times_s": [large / fps], "es_times_s": [small / fps]}
    return SourceClip(clip, masks=masks, truth=truth)


def _parts(root: Path) -> list[tuple[Path, str]]:
    """The folders with a file list and the view of their videos."""
    places = ((root, "a4c"), (root / "A4C", "a4c"), (root / "PSAX", "psax"))
    return [(folder, view) for folder, view in places if (folder / "FileList.csv").is_file()]


def _tracings(path: Path) -> dict[str, dict[int, list[list[float]]]]:
    """Rows of each traced frame of each video, (X1, Y1, X2, Y2) or (X, Y)."""
    found: dict[str, dict[int, list[list[float]]]] = defaultdict(lambda: defaultdict(list))
    if not path.is_file():
        return {}
    rows = read_table(path, "FileName", "Frame")
    columns = ("X1", "Y1", "X2", "Y2") if rows and "X1" in rows[0] else ("X", "Y")
    for row in rows:
        values = [number(row.get(name)) for name in columns]
        frame = number(row["Frame"])
        if frame is None or not 0 <= frame < 100_000 or any(value is None or abs(value) > 1e5 for value in values):
            continue  # Pediatric has rows without numbers, such as "No Systolic"
        found[row["FileName"].removesuffix(".avi")][int(frame)].append([float(value or 0) for value in values])
    return {name: dict(frames) for name, frames in found.items()}


def _fill(rows: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Cavity inside a tracing: down one side of its chords and up the other, without the long axis."""
    from PIL import Image, ImageDraw

    outline = np.concatenate([rows[1:, :2], rows[:0:-1, 2:]]) if rows.shape[1] == 4 else rows
    picture = Image.new("L", (size[1], size[0]))
    if len(outline) > 2:
        ImageDraw.Draw(picture).polygon([(float(x), float(y)) for x, y in outline], fill=1)
    return np.asarray(picture)


def _find_lvh(root: Path) -> Found:
    rows = read_table(root / "MeasurementsList.csv", "HashedFileName")
    videos = {path.stem: path for path in sorted(root.glob("Batch*/*.avi"))}
    grouped: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in rows:
        grouped[row["HashedFileName"].removesuffix(".avi")].append(row)
    items, skipped = [], []
    for name, group in sorted(grouped.items()):
        if name not in videos:
            skipped.append(Skipped(root / f"{name[:100]}.avi", "listed, but there is no such file"))
            continue
        marks: dict[str, set[int]] = defaultdict(set)
        for row in group:
            key = {"d": "ed_times_s", "s": "es_times_s"}.get(row.get("Calc", "")[-1:])
            frame = number(row.get("Frame"))
            if key and frame is not None and frame >= 0:
                marks[key].add(int(frame))
        items.append(
            SourceItem(
                key=videos[name].relative_to(root).as_posix(),
                path=videos[name],
                dataset="echonet",
                subject=name,
                split=_SPLITS.get(group[0].get("split", "").lower(), ""),
                view="plax",
                details={
                    "fps": number(group[0].get("FPS")),
                    "truth": {},
                    "marks": {key: sorted(frames) for key, frames in marks.items()},
                },
            )
        )
    return Found(items, skipped, removed=("file names", "measured lengths"))
