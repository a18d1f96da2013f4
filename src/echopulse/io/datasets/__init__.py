"""One reader per source of echo clips; `find_source` picks the right one."""

from pathlib import Path
from types import ModuleType

from echopulse.errors import InputError
from echopulse.io.datasets import camus, echonet, echoxflow, folder, shards
from echopulse.io.datasets.item import Found, Skipped, SourceClip, SourceItem, SourceOptions, known_view

__all__ = ["DATASETS", "Found", "Skipped", "SourceClip", "SourceItem", "SourceOptions", "find_source", "known_view"]

DATASETS: dict[str, ModuleType] = {
    "shards": shards,
    "camus": camus,
    "echonet": echonet,
    "echoxflow": echoxflow,
    "folder": folder,
}
"""Readers by name; each has `find` and `read`, and all but the last, which takes the rest, `matches`."""


def find_source(root: Path, options: SourceOptions, dataset: str | None = None) -> Found:
    """Finds the clips of a source.

    Args:
        root: folder or file.
        options: what the user says about it.
        dataset: a key of `DATASETS`; found by the layout if None.

    Raises:
        InputError: nothing there.
    """
    if not root.exists():
        raise InputError(f"{root}: no such file or folder")
    root = _inner(root) if root.is_dir() else root
    name = dataset or next((n for n, reader in DATASETS.items() if n != "folder" and _matches(reader, root)), "folder")
    return DATASETS[name].find(root, options)


def read_item(item: SourceItem) -> SourceClip:
    """Reads one clip.

    Raises:
        InputError: it is damaged, or lacks something; names the file.
    """
    return DATASETS[item.dataset].read(item)


def _matches(reader: ModuleType, root: Path) -> bool:
    return reader.matches(root) if root.is_dir() or reader is shards else False


def _inner(root: Path) -> Path:
    """The folder that a single folder inside leads to, as archives often have one."""
    entries = [path for path in root.iterdir() if not path.name.startswith((".", "__MACOSX"))]
    inner = len(entries) == 1 and entries[0].is_dir() and entries[0].suffix != ".zarr"
    return entries[0] if inner and entries[0].name not in ("exams", "clips", "Videos") else root
