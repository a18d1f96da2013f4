"""Archives in: unpacked into a folder of their own, after every member was checked.

Refused as a whole: absolute names, `..`, links, devices, two members of one name, and more bytes than an honest
archive of that size holds.
"""

import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterable
from io import BufferedIOBase
from pathlib import Path, PurePosixPath
from typing import IO

from echopulse.errors import InputError

MAX_RATIO = 200
MAX_FREE_BYTES = 1 << 28
"""An archive may unpack to this much, or to `MAX_RATIO` times its own size."""
MAX_MEMBERS = 1_000_000


def extract(path: Path, folder: Path) -> None:
    """Unpacks a zip or uncompressed tar into an empty folder.

    Raises:
        InputError: damaged, or refused (see above).
    """
    if path.name.lower().endswith(".zip"):
        _extract_zip(path, folder)
    else:
        extract_tar(path, folder)


def extract_tar(path: Path, folder: Path, prefix: str = "") -> None:
    """Unpacks the plain files of a tar, or those below `prefix`, into an empty folder.

    Raises:
        InputError: damaged, or refused (see above).
    """
    try:
        with tarfile.open(path, "r:") as archive:
            room, seen = _room(path), set[str]()
            for info in archive:
                if prefix and not info.name.startswith(f"{prefix}/"):
                    continue
                if info.isdir():
                    continue
                if not info.isreg():
                    raise InputError(f"{path}: {info.name[:80]!r} is a link or device; such archives are refused")
                room -= info.size
                _check(path, info.name, seen, room)
                file = archive.extractfile(info)
                assert file is not None  # a plain file
                with file:
                    _copy(file, folder / info.name, info.size)
    except (tarfile.TarError, OSError, EOFError, ValueError, zlib.error) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not a complete uncompressed tar ({' '.join(str(error).split())[:200]})") from error


def _extract_zip(path: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            room, seen = _room(path), set[str]()
            members = [info for info in archive.infolist() if not info.is_dir()]
            for info in members:
                if stat.S_ISLNK(info.external_attr >> 16):
                    raise InputError(f"{path}: {info.filename[:80]!r} is a link; such archives are refused")
                if info.flag_bits & 1:
                    raise InputError(f"{path}: is encrypted; unpack it first")
                room -= info.file_size
                _check(path, info.filename, seen, room)
            for info in members:
                with archive.open(info) as file:
                    _copy(file, folder / info.filename, info.file_size)
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError, RuntimeError, zlib.error) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not a complete zip ({' '.join(str(error).split())[:200]})") from error


def _room(path: Path) -> int:
    return max(MAX_FREE_BYTES, MAX_RATIO * path.stat().st_size)


def _check(path: Path, name: str, seen: set[str], room: int) -> None:
    parts: Iterable[str] = PurePosixPath(name).parts
    if not name or re.match(r"/|[A-Za-z]:", name) or ".." in parts or "\\" in name or "\x00" in name:
        raise InputError(f"{path}: the name {name[:80]!r} leads out of the archive; such archives are refused")
    if name in seen or len(seen) >= MAX_MEMBERS:
        raise InputError(f"{path}: {name[:80]!r} comes twice, or there are over {MAX_MEMBERS} members; refused")
    if room < 0:
        raise InputError(f"{path}: unpacks to over {MAX_RATIO} times its size; such archives are refused")
    seen.add(name)


def _copy(file: BufferedIOBase | IO[bytes], target: Path, size: int) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("xb") as out:
        shutil.copyfileobj(file, out, 1 << 20)
        if out.tell() != size:
            raise ValueError(f"{target.name[:80]!r} has another size than its entry says")
