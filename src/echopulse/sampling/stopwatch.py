"""How long sampling and decoding took, piece by piece."""

import time
from collections.abc import Iterator

from torch import Tensor


class Stopwatch:
    """Splits the time of a chain of iterators between its source (sampling) and its sink (decoding)."""

    def __init__(self) -> None:
        self._sample = 0.0
        self._last = time.perf_counter()

    def watch(self, codes: Iterator[Tensor]) -> Iterator[Tensor]:
        """The same, with the time that each piece takes counted as sampling."""
        while True:
            begin = time.perf_counter()
            piece = next(codes, None)
            self._sample += time.perf_counter() - begin
            if piece is None:
                return
            yield piece

    def lap(self) -> tuple[float, float]:
        """Seconds of sampling and of all else since the last `restart`."""
        now = time.perf_counter()
        sample, decode = self._sample, now - self._last - self._sample
        return sample, decode

    def restart(self) -> None:
        """Leaves out what the consumer did since the last lap."""
        self._sample, self._last = 0.0, time.perf_counter()
