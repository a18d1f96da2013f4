"""The whole way from a source to a finished set; a run that was cut off goes on where it stopped.

While it runs, `SET.preparing` beside the set holds what is done. `report.json` is written last: a set that has
it is finished. Names of the source are in the set at no time; they are in `SET.preparing`, which goes
when the set is finished, and in `SET.skipped.txt`.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from echopulse.config import load_json, save_json
from echopulse.errors import InputError
from echopulse.io.archives import extract
from echopulse.io.contact_sheet import write_contact_sheet
from echopulse.io.datasets import DATASETS, Found, SourceItem, SourceOptions, find_source, shards
from echopulse.io.manifest import MANIFEST, write_manifest
from echopulse.io.prepare.convert import Job, convert
from echopulse.io.prepare.pseudonyms import Pseudonyms, salt_of
from echopulse.io.prepare.report import REPORT, make_report, write_report, write_skipped
from echopulse.io.prepare.workers import run_safely
from echopulse.io.sets import PreparedSet
from echopulse.io.shards import files_of, index_shards, pack_shards

CRASHED = "crashed or blocked its reader"


@dataclass(frozen=True)
class PrepareSettings:
    """What a set is made like; the same settings on the same source give the same set.

    Attributes:
        dataset: a key of `datasets.DATASETS`, or None to find it.
        size: picture side in pixels.
        max_seconds: longest clip; None for any.
        shards: pack the clips into WebDataset shards.
        options: what the user says about the source.
    """

    dataset: str | None = None
    size: int = 128
    max_seconds: float | None = None
    shards: bool = False
    options: SourceOptions = field(default_factory=SourceOptions)

    def __post_init__(self) -> None:
        if self.dataset is not None and self.dataset not in DATASETS:
            raise InputError(f"--format is {self.dataset!r}; expected one of {', '.join(DATASETS)}")
        if not 16 <= self.size <= 1024:
            raise InputError(f"--size is {self.size}; expected 16 to 1024 pixels")
        if self.max_seconds is not None and not 0 < self.max_seconds < 1e6:
            raise InputError(f"--max-seconds is {self.max_seconds}; expected a positive number")
        if self.options.fps is not None and not 0.1 <= self.options.fps <= 1000:
            raise InputError(f"--fps is {self.options.fps}; expected 0.1 to 1000 frames/s")


@dataclass(frozen=True)
class Prepared:
    """The outcome of a run.

    Attributes:
        report: what `report.json` holds.
        skipped: path and reason of what was left out; empty when the set was finished before.
        salt_file: where the random salt is, or None if the user gave one.
        fresh: whether anything was done.
    """

    report: dict[str, Any]
    skipped: list[tuple[str, str]]
    salt_file: Path | None
    fresh: bool


def prepare_set(
    source: Path, folder: Path, settings: PrepareSettings, *, workers: int = 1, salt: str | None = None
) -> Prepared:
    """Makes a prepared set of a source, or goes on with it.

    Args:
        source: file, folder, table or archive.
        folder: the set; new, or the same set cut off or finished before.
        settings: how.
        workers: processes.
        salt: secret for the names of patients; a random one in `SET.salt` if None.

    Raises:
        InputError: the folder holds something else, other settings, or nothing in the source is usable.
    """
    _check_places(source, folder)
    salt_file = folder.with_name(f"{folder.name}.salt") if salt is None else None
    names = Pseudonyms(salt_of(salt, folder.with_name(f"{folder.name}.salt")))
    identity = _identity(source, settings, names)
    work = folder.with_name(f"{folder.name}.preparing")
    if (folder / REPORT).is_file():
        report = load_json(folder / REPORT)
        if report.get("settings") != identity:
            raise InputError(f"{folder} is a finished set of another source or of other settings; choose a new folder")
        shutil.rmtree(work, ignore_errors=True)
        return Prepared(report, [], salt_file, fresh=False)
    _claim(folder, work, identity)
    with _opened(source, work) as root:
        found = find_source(root, settings.options, settings.dataset)
        parts = {names.name("c", item.key): item for item in found.items}
        if len(parts) != len(found.items):
            raise InputError(f"{source}: two clips have one name; expected every name once")
        _convert_all(parts, folder, work, settings, names, workers)
    outcomes = [load_json(_part(work, name)) for name in sorted(parts)]
    skipped = _skipped(found, outcomes, root, source)
    write_skipped(folder.with_name(f"{folder.name}.skipped.txt"), skipped)
    lines = _one_split_each([outcome["line"] for outcome in outcomes if "line" in outcome])
    if not lines:
        shutil.rmtree(work)
        shutil.rmtree(folder)
        reasons = "; ".join(f"{path}: {reason}" for path, reason in skipped[:3])
        raise InputError(f"{source}: nothing usable in it{f' ({reasons})' if reasons else ''}")
    _sweep(folder, lines)
    if settings.shards:
        pack_shards(folder, lines)
    write_manifest(folder, lines)
    write_contact_sheet(PreparedSet(folder), folder / "contact_sheet.png")
    report = make_report(found, lines, outcomes, skipped, identity)
    write_report(folder, report)
    shutil.rmtree(work)
    return Prepared(report, skipped, salt_file, fresh=True)


def _check_places(source: Path, folder: Path) -> None:
    if not source.exists():
        raise InputError(f"{source}: no such file or folder")
    if not folder.parent.is_dir():
        raise InputError(f"{folder.parent}: no such folder; create it first")
    inner, outer = folder.resolve(), source.resolve()
    if inner.is_relative_to(outer) or (outer.is_relative_to(inner)):
        raise InputError(f"{folder} and {source} lie within each other; choose another folder for the set")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; expected a new folder")


def _identity(source: Path, settings: PrepareSettings, names: Pseudonyms) -> dict[str, Any]:
    """The settings as plain values, without a name of the source."""
    options = asdict(settings.options)
    options["ecg"] = None if settings.options.ecg is None else names.name("f", str(settings.options.ecg.resolve()))
    return {
        "source": names.name("f", str(source.resolve())),
        "format": settings.dataset,
        "size": settings.size,
        "max_seconds": settings.max_seconds,
        "shards": settings.shards,
        **options,
        "salt": names.name("k", "salt"),
    }


def _claim(folder: Path, work: Path, identity: dict[str, Any]) -> None:
    plan = work / "settings.json"
    if plan.is_file():
        if load_json(plan) != identity:
            raise InputError(
                f"{folder} was begun from another source or with other settings; repeat them or choose anew"
            )
    elif folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder} is not empty and no set of `prepare`; choose a new folder")
    (work / "parts").mkdir(parents=True, exist_ok=True)
    work.chmod(0o700)
    save_json(plan, identity)
    folder.mkdir(exist_ok=True)


@contextmanager
def _opened(source: Path, work: Path) -> Iterator[Path]:
    """The source itself, or the folder that its archive is unpacked to."""
    endings = (".zip", ".tar")
    if source.is_dir() or source.suffix.lower() not in endings or shards.matches(source):
        yield source
        return
    place = work / "unpacked"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    extract(source, place)
    yield place


def _part(work: Path, name: str) -> Path:
    return work / "parts" / f"{name}.json"


def _convert_all(
    parts: dict[str, SourceItem], folder: Path, work: Path, settings: PrepareSettings, names: Pseudonyms, workers: int
) -> None:
    from tqdm import tqdm

    packed = index_shards(folder)
    jobs = [
        Job(item, folder, _part(work, name), settings.size, settings.max_seconds, names)
        for name, item in parts.items()
        if not _is_done(_part(work, name), folder, packed)
    ]
    done = run_safely(convert, jobs, min(workers, max(1, len(jobs))))
    for job, ended in tqdm(done, desc="prepare", unit="clip", total=len(jobs), disable=None):
        if not ended:
            save_json(job.part, {"path": str(job.item.path), "reason": CRASHED})


def _is_done(part: Path, folder: Path, packed: Any) -> bool:
    if not part.is_file():
        return False
    line = load_json(part).get("line")
    return line is None or all((folder / name).is_file() or Path(name).name in packed for name in files_of(line))


def _skipped(found: Found, outcomes: list[dict[str, Any]], root: Path, source: Path) -> list[tuple[str, str]]:
    """Path and reason of everything left out; within an archive, the path starts with its name."""
    pairs = [(str(skip.path), skip.reason) for skip in found.skipped]
    pairs += [(outcome["path"], outcome["reason"]) for outcome in outcomes if "reason" in outcome]
    pairs = [(path, reason.removeprefix(f"{path}: ")) for path, reason in pairs]
    return sorted(
        (path.replace(str(root), str(source)), reason.replace(str(root), str(source))) for path, reason in pairs
    )


def _one_split_each(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every subject in the split of its first clip, where a source disagrees with itself."""
    first: dict[str, str] = {}
    return [line | {"split": first.setdefault(line["subject"], line["split"])} for line in lines]


def _sweep(folder: Path, lines: list[dict[str, Any]]) -> None:
    """Removes what a cut-off run left half-written."""
    named = {name for line in lines for name in files_of(line)}
    for path in [*folder.glob("clips/*"), *folder.glob("clips/.*"), *folder.glob("ecg/*"), *folder.glob("ecg/.*")]:
        if path.is_file() and path.relative_to(folder).as_posix() not in named:
            path.unlink()
    for path in [*folder.glob(".*.part"), folder / MANIFEST]:
        path.unlink(missing_ok=True)
