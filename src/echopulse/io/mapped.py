"""Files as memory, for parsers that believe what a damaged file says of its own lengths."""

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from echopulse.errors import InputError


@contextmanager
def mapped(path: Path) -> Iterator[Any]:
    """A file to read from that never gives, nor makes room for, more than there is.

    Reading 4 GB from an ordinary file first allocates 4 GB, even if the file ends after a hundred bytes.

    Yields:
        An `mmap.mmap`; not typed as one, for pydicom's annotations ask for less than it has, in other words.

    Raises:
        InputError: the file is empty.
    """
    with path.open("rb") as file:
        if path.stat().st_size == 0:
            raise InputError(f"{path}: is empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as memory:
            yield memory
