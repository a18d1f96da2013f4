"""Many jobs in processes that may crash or hang: the job that does so is found and left out."""

import multiprocessing
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

Job = TypeVar("Job")

LIMIT_S = 600.0
"""A job that takes longer is ended."""

_HEAVY = ("neurokit2", "wfdb", "echopulse.io.ultrasound", "echopulse.io.ecg", "echopulse.signals.processing")
"""Loaded once, for all workers of all runs of this process, where processes are forked from a server."""

_started: list[float] = []


def run_safely(
    function: Callable[[Job], None], jobs: Sequence[Job], workers: int, limit_s: float = LIMIT_S
) -> Iterator[tuple[Job, bool]]:
    """Runs the jobs in processes.

    Args:
        function: importable by name; its errors are raised here.
        jobs: its arguments.
        workers: processes.
        limit_s: seconds for one job.

    Yields:
        Every job once, in the order in which they end, and whether it did; False if it crashed its process or took
        too long.
    """
    waiting: deque[Job] = deque(jobs)
    suspects: deque[Job] = deque()
    while waiting or suspects:
        alone = bool(suspects)  # after a crash, the jobs that were running go one by one: one of them did it
        queue, width = (suspects, 1) if alone else (waiting, workers)
        running: dict[Future[None], Job] = {}
        pool = ProcessPoolExecutor(width, _context(), _watch, (limit_s,))
        try:
            while queue or running:
                while queue and len(running) < (1 if alone else 2 * width):
                    running[pool.submit(_timed, function, queue[0])] = queue[0]
                    queue.popleft()
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    future.result()
                    yield running.pop(future), True
        except BrokenProcessPool:
            if alone and running:
                yield next(iter(running.values())), False
            elif not alone:
                suspects.extend(running.values())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _context() -> Any:
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["echopulse.io.prepare.convert", *_HEAVY])
    return context


def _timed(function: Callable[[Job], None], job: Job) -> None:
    _started.append(time.monotonic())
    try:
        function(job)
    finally:
        _started.clear()


def _watch(limit_s: float) -> None:
    """Ends this process when its parent is gone or its job takes too long."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def look() -> None:
        while parent.is_alive() and not (_started and time.monotonic() - _started[0] > limit_s):
            parent.join(min(1.0, limit_s / 4))
        os._exit(1)

    threading.Thread(target=look, daemon=True).start()
