"""Decodes compressed DICOM pictures in a process of their own.

Decoders written in C++ abort on some damaged files; this way they take only that process with them.
"""

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from echopulse.io.mapped import mapped


def decode_apart(path: Path, plugin: str) -> Iterator[np.ndarray]:
    """The pictures of a DICOM file as the decoder gives them, one after the other.

    Args:
        path: the file.
        plugin: pydicom's name of the decoder.

    Raises:
        RuntimeError: the decoder refused the file, or crashed.
    """
    command = [sys.executable, "-c", f"from {__name__} import main; main()", str(path), plugin]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        try:
            while line := process.stdout.readline():
                kind, shape = json.loads(line)
                pixels = process.stdout.read(np.dtype(kind).itemsize * math.prod(shape))
                yield np.frombuffer(pixels, kind).reshape(shape)
            reason = process.stderr.read(2000).decode(errors="replace")
            code = process.wait()
        finally:
            process.kill()
    if code:
        raise RuntimeError(reason if code > 0 else f"the decoder crashed with signal {-code}")


def main() -> None:
    """Writes every picture to standard output; a reason to stop goes to standard error."""
    from pydicom.pixels.utils import iter_pixels

    path, plugin = Path(sys.argv[1]), sys.argv[2]
    try:
        with mapped(path) as file:
            for picture in iter_pixels(file, decoding_plugin=plugin):
                head = json.dumps([picture.dtype.str, picture.shape])
                sys.stdout.buffer.write(head.encode() + b"\n" + picture.tobytes())
    except Exception as error:  # whatever a decoder makes of a damaged file
        sys.exit(" ".join(str(error).split())[:150])
