"""`echopulse simulate`: a paired phantom set with truth."""

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from echopulse.config import load_json, save_json
from echopulse.errors import InputError

_PARTS = ".parts"


@dataclass(frozen=True)
class Simulation:
    """What `simulate` renders; equal values give equal bytes."""

    num: int
    seed: int
    view: str | None
    rhythm: str | None
    fps: float
    seconds: float
    size: int
    masks: bool

    def __post_init__(self) -> None:
        if not 1 <= self.num <= 1_000_000:
            raise InputError(f"--num is {self.num}; expected 1 to 1000000 clips")
        if self.seed < 0:
            raise InputError(f"--seed is {self.seed}; expected 0 or more")


def simulate(
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="DIR")],
    num: int,
    seed: int = 0,
    view: Literal["a4c", "a2c"] | None = None,
    rhythm: Literal["sinus", "af", "pvc", "lbbb", "paced"] | None = None,
    fps: float = 25.0,
    seconds: float = 3.0,
    size: int = 128,
    masks: bool = True,
    workers: int = 0,
) -> None:
    """Render a paired set of phantom patients: video, ECG, masks and truth.

    Args:
        output: folder of the new set; a run that was cut off goes on where it stopped.
        num: number of patients, one clip each.
        seed: seed of the first patient; the others follow it.
        view: only this view; mixed if left out.
        rhythm: only this rhythm; mixed if left out.
        fps: frames per second.
        seconds: length of each clip.
        size: picture side in pixels.
        masks: also write the segmentation masks.
        workers: processes; 0 means one per core.
    """
    settings = Simulation(num, seed, view, rhythm, fps, seconds, size, masks)
    if workers < 0:
        raise InputError(f"--workers is {workers}; expected 0 or more")
    simulate_set(output, settings, workers or os.cpu_count() or 1)
    print(f"{num} clips in {output}")


def simulate_set(folder: Path, settings: Simulation, workers: int) -> None:
    """Renders the set; clips that an interrupted run completed are kept.

    Raises:
        InputError: the folder holds something else, or a setting is out of range.
    """
    from tqdm import tqdm

    from echopulse.io.sets import write_manifest
    from echopulse.phantom import sample_patient

    sample_patient(settings.seed, view=settings.view, rhythm=settings.rhythm)  # refuses bad values before any work
    _check_rendering(settings)
    plan = folder / _PARTS / "settings.json"
    if folder.exists() and any(folder.iterdir()) and not plan.is_file():
        raise InputError(f"{folder} is not empty and holds no interrupted simulation; choose a new folder")
    if plan.is_file() and load_json(plan) != asdict(settings):
        raise InputError(
            f"{folder} holds an interrupted simulation with other settings; repeat them or choose a new folder"
        )
    if not folder.parent.is_dir():
        raise InputError(f"{folder.parent}: no such folder; create it first")
    plan.parent.mkdir(parents=True, exist_ok=True)
    save_json(plan, asdict(settings))
    seeds = range(settings.seed, settings.seed + settings.num)
    missing = [seed for seed in seeds if not _part(folder, seed).is_file()]
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        jobs = [pool.submit(_render, folder, settings, seed) for seed in missing]
        try:
            for job in tqdm(jobs, desc="simulate", unit="clip", disable=None):
                job.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    write_manifest(folder, [load_json(_part(folder, seed)) for seed in seeds])
    for part in plan.parent.iterdir():
        part.unlink()
    plan.parent.rmdir()


def _check_rendering(settings: Simulation) -> None:
    from echopulse.phantom.patient import check_rendering

    check_rendering(fps=settings.fps, seconds=settings.seconds, size=(settings.size, settings.size))


def _part(folder: Path, seed: int) -> Path:
    return folder / _PARTS / f"{seed}.json"


def _render(folder: Path, settings: Simulation, seed: int) -> None:
    from echopulse.io.sets import write_set_clip
    from echopulse.phantom import sample_patient, simulate_clip

    patient = sample_patient(seed, view=settings.view, rhythm=settings.rhythm)
    paired = simulate_clip(
        patient,
        fps=settings.fps,
        seconds=settings.seconds,
        size=(settings.size, settings.size),
        with_masks=settings.masks,
    )
    line: dict[str, Any] = write_set_clip(folder, paired, source="phantom")
    save_json(_part(folder, seed), line)
