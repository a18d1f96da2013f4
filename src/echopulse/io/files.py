"""Files that are whole or absent, and the headers of arrays on disk."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path
from typing import IO

import numpy as np


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Gives a temporary name beside `path`; renamed to `path` on success, removed on any failure."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_npy_header(file: BufferedIOBase | IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, Fortran order and type of a .npy stream, left at its first value.

    Raises:
        ValueError: not a .npy stream, or a shape below zero.
    """
    old = np.lib.format.read_magic(file) == (1, 0)
    shape, fortran, dtype = (np.lib.format.read_array_header_1_0 if old else np.lib.format.read_array_header_2_0)(file)
    if any(size < 0 for size in shape):
        raise ValueError("negative shape")
    return shape, fortran, dtype
