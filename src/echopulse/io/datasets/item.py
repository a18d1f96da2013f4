"""What a dataset's reader is given and what it gives back."""

from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from echopulse.errors import InputError
from echopulse.io.video import MAX_BYTES, MAX_FRAMES, MAX_SIDE
from echopulse.signals import EchoClip

_VIEWS = {
    "a4c": ("a4c", "4ch", "ap4", "4c", "apical4chamber", "apicalfourchamber", "fourchamber"),
    "a2c": ("a2c", "2ch", "ap2", "2c", "apical2chamber", "apicaltwochamber", "twochamber"),
    "a3c": ("a3c", "3ch", "ap3", "3c", "aplax", "alax", "apical3chamber", "apicalthreechamber"),
    "a5c": ("a5c", "5ch", "ap5", "apical5chamber"),
    "plax": ("plax", "parasternallongaxis"),
    "psax": ("psax", "parasternalshortaxis"),
}


@dataclass(frozen=True)
class SourceItem:
    """One clip of a source: found, not yet read.

    Attributes:
        key: names the clip within its source; unique, never written to a set.
        path: the file to name when it cannot be read.
        dataset: the dataset's name, a key of `datasets.DATASETS`.
        subject: the patient as the source names it; empty if only the file knows.
        exam: the examination as the source names it.
        split: `train`, `val` or `test` where the dataset says it.
        view: as `known_view` gives it.
        details: what the dataset's reader needs besides; plain values and paths.
    """

    key: str
    path: Path
    dataset: str
    subject: str = ""
    exam: str = ""
    split: str = ""
    view: str = "unknown"
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Skipped:
    """A part of a source that cannot be used, and why."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Found:
    """All of a source.

    Attributes:
        items: the clips, in a fixed order.
        skipped: what is damaged or lacks something.
        ignored: how many files are neither video nor ECG of a clip.
        notes: what the user should know of the source.
        removed: what is left behind, such as columns of a table.
    """

    items: list[SourceItem]
    skipped: list[Skipped] = field(default_factory=list)
    ignored: int = 0
    notes: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


@dataclass(frozen=True)
class SourceOptions:
    """What the user says about a source that does not say it itself.

    Attributes:
        view: of clips whose view is unknown.
        fps: frames per second of clips that do not say it.
        ecg: the ECG file of a single video.
        ecg_start_s: time of its first sample on the video's clock.
        ecg_rate_hz: sampling rate of ECG files that do not say it.
    """

    view: str = "unknown"
    fps: float | None = None
    ecg: Path | None = None
    ecg_start_s: float = 0.0
    ecg_rate_hz: float | None = None


@dataclass(frozen=True, eq=False)
class SourceClip:
    """One clip of a source, read.

    Attributes:
        clip: grey frames of any size; the ECG, where there is one, on their clock.
        frame_times_s: seconds from frame 0, float64 of shape (frames,); None where it is `i / fps`.
        masks: uint8 classes of `axes.MASK_CLASSES` of the shape of the frames, or None.
        truth: what is known; plain JSON values.
        subject: the patient, where only the file knows.
        exam: the examination, where only the file knows.
        pixel_height: height of a pixel over its width.
        facts: for the provenance, by name: numbers, booleans and words of our own.
        warnings: what the user should know of this clip.
        removed: what was left behind.
    """

    clip: EchoClip
    frame_times_s: np.ndarray | None = None
    masks: np.ndarray | None = None
    truth: dict[str, Any] = field(default_factory=dict)
    subject: str = ""
    exam: str = ""
    pixel_height: float = 1.0
    facts: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


def known_view(text: str) -> str:
    """The short name of a view in any usual spelling, otherwise `unknown`."""
    plain = "".join(letter for letter in text.lower() if letter.isalnum())
    return next((view for view, names in _VIEWS.items() if plain in names), "unknown")


def check_room(path: Path, shape: tuple[int, ...]) -> None:
    """Refuses frames of absurd dimensions before anything is allocated.

    Raises:
        InputError: not (frames, height, width), empty, or larger than what a video may be.
    """
    if len(shape) != 3 or min(shape) < 1:
        raise InputError(f"{path}: frames of shape {shape}; expected (frames, height, width)")
    if shape[0] > MAX_FRAMES or max(shape[1:]) > MAX_SIDE or np.prod(shape, dtype=np.float64) > MAX_BYTES:
        raise InputError(
            f"{path}: {shape[0]} frames of {shape[1]}x{shape[2]}; expected at most {MAX_FRAMES} frames, "
            f"{MAX_SIDE} pixels a side and {MAX_BYTES // 2**20} MiB"
        )


def need_reader(name: str) -> ModuleType:
    """Imports a reader of the `data` extra.

    Raises:
        InputError: it is not installed; names the extra.
    """
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError as error:
        raise InputError(f'this dataset needs {name}: pip install "echopulse[data]"') from error


def read_text(path: Path, limit: int = 1 << 28) -> str:
    """A text file of a dataset.

    Raises:
        InputError: missing, no text, or larger than `limit` bytes.
    """
    try:
        if path.stat().st_size > limit:
            raise InputError(f"{path}: a text of {path.stat().st_size} bytes; expected at most {limit}")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        return path.read_text(encoding="latin-1")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def read_table(path: Path, *needed: str) -> list[dict[str, str]]:
    """Rows of a CSV by column name, blanks around names and values removed.

    Raises:
        InputError: not a table, or without a needed column.
    """
    import csv
    from io import StringIO

    text = read_text(path)
    try:
        dialect = csv.Sniffer().sniff(text[:4096].split("\n", 1)[0], delimiters=",;\t")
    except csv.Error:
        dialect = csv.excel  # a single column
    try:
        rows = list(csv.reader(StringIO(text), dialect, skipinitialspace=True))
    except csv.Error as error:
        raise InputError(f"{path}: not a table ({error})") from error
    rows = [row for row in rows if any(cell.strip() for cell in row)]
    names = [name.strip() for name in rows[0]] if rows else []
    missing = [name for name in needed if name not in names]
    if missing:
        raise InputError(f"{path}: no column {', '.join(missing)}; its columns are {', '.join(names)[:200] or 'none'}")
    return [{name: cell.strip() for name, cell in zip(names, row, strict=False)} for row in rows[1:]]


def number(text: str | None) -> float | None:
    """The finite number that a cell holds, or None."""
    try:
        value = float((text or "").replace(",", "."))
    except ValueError:
        return None
    return value if np.isfinite(value) else None
