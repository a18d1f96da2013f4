"""Prepared sets in WebDataset shards, for sets too large for a folder of single files.

A shard is a plain tar. The members of a clip share its id: `<id>.json` (its manifest line),
`<id>.npy`, `<id>.masks.npy`, `<id>.hea` and `<id>.dat`. They are not compressed, so pictures are
memory-mapped where they lie.
"""

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from echopulse.errors import InputError
from echopulse.io.files import whole_file

CLIPS_PER_SHARD = 256
MAX_LINE_BYTES = 1 << 24


@dataclass(frozen=True)
class Member:
    """Where the bytes of one file lie: `size` bytes at `offset` of `path`."""

    path: Path
    offset: int
    size: int

    def read(self) -> bytes:
        """Its bytes."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


def find_shards(folder: Path) -> list[Path]:
    """The shards of a set in order; none for a set of single files."""
    return sorted(folder.glob("shard-*.tar"))


def list_members(shard: Path) -> dict[str, Member]:
    """Plain files of a tar by name, in their order.

    Raises:
        InputError: not a complete uncompressed tar.
    """
    members = {}
    size = shard.stat().st_size
    try:
        with tarfile.open(shard, "r:") as archive:
            for info in archive:
                if not info.isreg() or info.issparse():
                    continue
                if info.offset_data + info.size > size:
                    raise InputError(f"{shard}: ends within {info.name[:80]!r}; expected a complete tar")
                members[info.name.removeprefix("./")] = Member(shard, info.offset_data, info.size)
    except (tarfile.TarError, OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{shard}: not a complete uncompressed tar ({error})") from error
    return members


def index_shards(folder: Path) -> dict[str, Member]:
    """All members of a set's shards by name."""
    return {name: member for shard in find_shards(folder) for name, member in list_members(shard).items()}


def read_lines(folder: Path) -> list[tuple[str, str]]:
    """The manifest lines in the shards of a set, each with the place to name in messages.

    Raises:
        InputError: a broken shard, or a line that is too long or no text.
    """
    rows = []
    for name, member in index_shards(folder).items():
        if not name.endswith(".json"):
            continue
        where = f"{member.path} member {name}"
        if member.size > MAX_LINE_BYTES:
            raise InputError(f"{where}: {member.size} bytes; expected a manifest line of at most {MAX_LINE_BYTES}")
        try:
            rows.append((where, member.read().decode("utf-8")))
        except UnicodeDecodeError as error:
            raise InputError(f"{where}: not UTF-8 text") from error
    return rows


def pack_shards(folder: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Moves the single files of a set into shards of `CLIPS_PER_SHARD` clips.

    A run that was cut off goes on where it stopped: files are removed only after their shard is whole.

    Args:
        folder: the set, with its single files.
        lines: its manifest lines.
    """
    ordered = sorted(lines, key=lambda line: line["id"])
    for number, first in enumerate(range(0, len(ordered), CLIPS_PER_SHARD)):
        group = ordered[first : first + CLIPS_PER_SHARD]
        shard = folder / f"shard-{number:06d}.tar"
        if not shard.exists():
            with whole_file(shard) as temporary, tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as archive:
                for line in group:
                    text = json.dumps(dict(line), allow_nan=False).encode()
                    info = tarfile.TarInfo(f"{line['id']}.json")
                    info.size = len(text)
                    archive.addfile(info, io.BytesIO(text))
                    for name in files_of(line):
                        info = tarfile.TarInfo(PurePosixPath(name).name)
                        info.size = (folder / name).stat().st_size
                        with (folder / name).open("rb") as file:
                            archive.addfile(info, file)
        for line in group:
            for name in files_of(line):
                (folder / name).unlink(missing_ok=True)
    for name in ("clips", "ecg"):
        if (folder / name).is_dir() and not any((folder / name).iterdir()):
            (folder / name).rmdir()


def files_of(line: Mapping[str, Any]) -> list[str]:
    """The files that a manifest line names, relative to the set."""
    ecg = [] if line["ecg"] is None else [f"{line['ecg']}.hea", f"{line['ecg']}.dat"]
    return [name for name in (line["video"], line["masks"]) if name is not None] + ecg
