"""Data exports of watches: the ECG recordings in an Apple Health export or a Google Takeout.

The export is a zip archive or its unpacked folder. A recording in an archive is named like a file
in a folder, `export.zip/apple_health_export/electrocardiograms/ecg_2024-01-31.csv`. Folder names
are translated, so recordings are told by content. Nothing is ever unpacked to disk.
"""

import os
import stat
import zipfile
from pathlib import Path, PurePosixPath

from echopulse.errors import InputError
from echopulse.io.ecg_formats import apple, fitbit

_MAX_MEMBERS = 500_000
_MAX_BYTES = 1 << 24
_HEAD_BYTES = 8192


def is_zip(head: bytes) -> bool:
    """Whether a file begins like a zip archive."""
    return head[:4] in (b"PK\x03\x04", b"PK\x05\x06")


def archive_of(path: Path) -> Path | None:
    """The archive that a path leads into: `export.zip` for `export.zip/folder/ecg.csv`."""
    archive = next((parent for parent in path.parents if parent.is_file()), None)
    return archive if archive is not None and zipfile.is_zipfile(archive) else None


def recordings_in_folder(folder: Path) -> list[Path]:
    """ECG recordings of watches below a folder, sorted."""
    found = []
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            if name.lower().endswith(".csv") and path.is_file() and path.stat().st_size <= _MAX_BYTES:
                with path.open("rb") as file:
                    if _is_recording(file.read(_HEAD_BYTES)):
                        found.append(path)
    return sorted(found)


def recordings_in_archive(archive: Path) -> list[Path]:
    """ECG recordings of watches in a zip archive, sorted.

    Raises:
        InputError: the archive is damaged, or a name in it leads elsewhere.
    """
    found = []
    with _open(archive) as file:
        for member in _members(archive, file):
            if member.filename.lower().endswith(".csv") and 0 < member.file_size <= _MAX_BYTES:
                with file.open(member) as stream:
                    if _is_recording(stream.read(_HEAD_BYTES)):
                        found.append(archive / member.filename)
    return sorted(found)


def read_member(archive: Path, path: Path) -> bytes:
    """Content of a file in an archive, at most 16 MiB of it.

    Raises:
        InputError: there is no such file, or it is larger.
    """
    name = path.relative_to(archive).as_posix()
    with _open(archive) as file:
        member = next((each for each in _members(archive, file) if each.filename == name), None)
        if member is None:
            raise InputError(f"{path}: no such file in the archive {archive.name}")
        with file.open(member) as stream:
            content = stream.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise InputError(f"{path}: unpacks to more than {_MAX_BYTES} bytes, which no ECG of a watch does; refused")
    return content


def _open(archive: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(archive)
    except zipfile.BadZipFile as error:
        raise InputError(f"{archive}: damaged zip archive: {error}") from error


def _members(archive: Path, file: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """Files in an archive, after a look at all names."""
    members = file.infolist()
    if len(members) > _MAX_MEMBERS:
        raise InputError(f"{archive}: {len(members)} files; expected at most {_MAX_MEMBERS}")
    for member in members:
        name = PurePosixPath(member.filename.replace("\\", "/"))
        is_link = stat.S_ISLNK(member.external_attr >> 16)
        if name.is_absolute() or ".." in name.parts or ":" in member.filename[:2] or is_link:
            raise InputError(f"{archive}: {member.filename[:80]!r} leads out of the archive; refused")
    return [member for member in members if not member.is_dir()]


def _is_recording(head: bytes) -> bool:
    text = head.decode("utf-8-sig", errors="ignore")
    return apple.is_apple(text) or fitbit.is_fitbit(text)
