"""`echopulse simulate`: a paired phantom set with truth."""

import json
import math
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from echopulse.config import load_json
from echopulse.errors import InputError

if TYPE_CHECKING:
    from echopulse.phantom.series import ClipSeries

ABOUT = "simulation.json"
MAX_CLIPS = 1_000_000
_LINES = ".lines"  # manifest lines of the complete clips, until all are


def simulate(
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="SET")],
    num: int,
    seed: int = 0,
    view: Literal["a4c", "a2c"] | None = None,
    rhythm: Literal["sinus", "af", "pvc", "lbbb", "paced"] | None = None,
    fps: float = 25.0,
    seconds: float = 3.0,
    size: int = 128,
    masks: bool = True,
    device: Literal["hospital", "watch", "holter", "clean"] = "hospital",
    ef_link: float = 1.0,
    ef_residual: float = 2.0,
    workers: int = 0,
) -> None:
    """Render a paired set of phantom patients: video, ECG, masks and truth.

    Args:
        output: folder of the new set; the same command goes on with a run that was cut off.
        num: number of patients, one clip each.
        seed: seed of the first patient; the others follow it.
        view: only this view; mixed if left out.
        rhythm: only this rhythm; mixed if left out.
        fps: frames per second.
        seconds: length of each clip.
        size: picture side in pixels.
        masks: also write the segmentation masks.
        device: recorder of the ECG; `clean` has no noise and no filter.
        ef_link: how strongly the ECG depends on the EF; 0: not at all, inf: it tells the EF exactly.
        ef_residual: what the ECG leaves unknown at strength 1, standard deviation in points of EF; 0 to inf.
        workers: processes; 0 means one per core.
    """
    from echopulse.phantom.link import EcgEfLink
    from echopulse.phantom.series import ClipSeries

    if workers < 0:
        raise InputError(f"--workers is {workers}; expected 0 or more")
    series = ClipSeries(
        view=view,
        rhythm=rhythm,
        device=device,
        link=EcgEfLink(ef_link, ef_residual),
        fps=fps,
        seconds=seconds,
        size=size,
        masks=masks,
    )
    rendered = simulate_set(output, series, num=num, seed=seed, workers=workers or os.cpu_count() or 1)
    print(f"{num} clips in {output}" if rendered else f"{output} is complete already: {num} clips")


def simulate_set(folder: Path, series: "ClipSeries", *, num: int, seed: int = 0, workers: int = 1) -> int:
    """Renders the set; clips that an earlier run completed are kept.

    Args:
        folder: the set. Its files hold the same bytes for the same arguments, whatever `workers` is.
        series: which patients, rendered how.
        num: number of clips.
        seed: of the first patient.
        workers: processes.

    Returns:
        Number of clips that were missing.

    Raises:
        InputError: an argument is out of range, the folder holds something else or cannot be written, or a worker
            process was killed.
    """
    from echopulse.io.sets import MANIFEST, write_manifest

    if not 1 <= num <= MAX_CLIPS:
        raise InputError(f"--num is {num}; expected 1 to {MAX_CLIPS} clips")
    if seed < 0:
        raise InputError(f"--seed is {seed}; expected 0 or more")
    lines = {s: folder / _LINES / f"{s}.json" for s in range(seed, seed + num)}
    with _one_line_errors(folder):
        error = _irreducible_ef_error(series)
        _claim(folder, {"settings": {"num": num, "seed": seed, **_plain(series)}} | error)
        _remove_temporaries(folder)
        complete = (folder / MANIFEST).is_file()
        missing = [] if complete else [s for s, line in lines.items() if not line.is_file()]
        if not complete:
            (folder / _LINES).mkdir(exist_ok=True)
            try:
                _render_all(partial(_render, folder, series, error), missing, workers, num)
            finally:
                _remove_temporaries(folder)  # of workers that were stopped
            write_manifest(folder, [load_json(line) for line in lines.values()])
        for line in (folder / _LINES).glob("*"):
            line.unlink()
        if (folder / _LINES).is_dir():
            (folder / _LINES).rmdir()
    return len(missing)


@contextmanager
def _one_line_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except BrokenProcessPool as error:
        raise InputError(
            "a worker process was killed, perhaps for want of memory; repeat the command to go on, with fewer --workers"
        ) from error
    except OSError as error:
        reason = error.strerror or f"the disk is full, {error}"  # numpy tells the bytes of a short write alone
        raise InputError(
            f"{folder} cannot be written ({reason}); mend that, then repeat the command to go on"
        ) from error


def _irreducible_ef_error(series: "ClipSeries") -> dict[str, float]:
    """The EF error that no reader of a clean ECG of these patients can go below, in points."""
    from echopulse.phantom import irreducible_error

    error = irreducible_error(series.link)
    among = f"_{series.rhythm}" if series.rhythm else ""
    return {f"irreducible_ef_{kind}_points": error[f"{kind}_points{among}"] for kind in ("mae", "rmse")}


def _plain(series: "ClipSeries") -> dict[str, Any]:
    """The arguments as JSON values, which have no infinity."""
    from echopulse.phantom import PHANTOM_VERSION

    values = asdict(series)
    values["link"] = {name: value if math.isfinite(value) else "inf" for name, value in values["link"].items()}
    return values | {"phantom_version": PHANTOM_VERSION}


def _claim(folder: Path, about: dict[str, Any]) -> None:
    """Makes the folder, or makes sure that it holds a set of the same arguments."""
    from echopulse.io.files import whole_file

    path = folder / ABOUT
    if path.is_file():
        if load_json(path) != about:
            raise InputError(
                f"{folder} holds a simulation with other arguments, see {path}; repeat them or choose a new folder"
            )
        return
    if not folder.parent.is_dir():
        raise InputError(f"{folder.parent}: no such folder; create it first")
    if folder.exists() and (not folder.is_dir() or any(not _is_temporary(entry) for entry in folder.iterdir())):
        raise InputError(f"{folder} exists and is no simulated set; choose a new folder")
    folder.mkdir(exist_ok=True)
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(about, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _is_temporary(path: Path) -> bool:
    return path.name.startswith(".") and path.suffix == ".part"


def _remove_temporaries(folder: Path) -> None:
    """Deletes what a killed run was writing."""
    for part in (folder, folder / "clips", folder / "ecg", folder / _LINES):
        for path in part.glob(".*.part"):
            path.unlink(missing_ok=True)


def _render_all(render: Callable[[int], None], seeds: list[int], workers: int, total: int) -> None:
    from tqdm import tqdm

    for library in ("OMP", "OPENBLAS", "MKL"):  # the workers fill the cores; theirs to read when they start
        os.environ.setdefault(f"{library}_NUM_THREADS", "1")
    waiting, running = iter(seeds), set[Future[None]]()
    others = set(multiprocessing.active_children())
    with (
        ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _end_with_parent) as pool,
        tqdm(total=total, initial=total - len(seeds), desc="simulate", unit="clip", disable=None) as bar,
    ):
        try:
            while True:
                with _interrupts_held():
                    room = 2 * workers - len(running)
                    running |= {pool.submit(render, seed) for seed in islice(waiting, room)}
                if not running:
                    break
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for job in done:
                    job.result()
                bar.update(len(done))
        except BaseException:
            for worker in set(multiprocessing.active_children()) - others:
                worker.terminate()
            raise


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Ctrl-C waits meanwhile; a process started here never sees it, so that only this one answers."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_with_parent() -> None:
    """Ends this worker when the main process is killed; it would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _render(folder: Path, series: "ClipSeries", provenance: dict[str, float], seed: int) -> None:
    from echopulse.io.files import whole_file
    from echopulse.io.sets import write_set_clip

    line = write_set_clip(folder, series.clip(seed), source="phantom")
    line["provenance"] |= provenance
    with whole_file(folder / _LINES / f"{seed}.json") as temporary:
        temporary.write_text(json.dumps(line, allow_nan=False), encoding="utf-8")
