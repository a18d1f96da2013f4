"""`echopulse synthesize`: a generated clip for every clip of a prepared set.

While it runs, `.lines` in the new set holds what is done: a manifest line, or the reason of a skip, for each clip.
Clips are generated in fixed batches, one batch a job, so that neither workers nor interruptions change a byte.
"""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import tyro

from echopulse.cli.generate import fit_picture
from echopulse.cli.measure import Measurement, measure
from echopulse.config import from_dict, load_json, save_json, to_dict
from echopulse.errors import InputError

if TYPE_CHECKING:
    from echopulse.io.sets import PreparedSet
    from echopulse.sampling.pipeline import Pipeline
    from echopulse.sampling.request import Take
    from echopulse.signals import EchoClip

Condition = Literal["ecg+image", "ecg", "image", "shuffled-ecg", "null-ecg"]

ABOUT = "synthesis.json"
_LINES = ".lines"
_BATCH = 4
"""Clips of one length that go through the networks together."""

_LONGEST_JOB_S = 86400.0
_SHOWN = 20


@dataclass(frozen=True)
class SynthesisSettings:
    """What a synthetic set is made like; the same settings on the same set and machine give the same bytes.

    Attributes:
        condition: what each clip is generated from.
        seed: of everything random; each clip's own seed follows from it and the clip's id.
        checkpoint: folder of the model.
        decoding: fields of `DecodeSettings`.
        view: of clips whose view is unknown to the generator.
        ef_percent: wanted ejection fraction of all clips; None leaves it to the ECG.
        shift_s: by how much later every ECG is played.
        masks: segment the clips, write the masks and what they measure.
    """

    condition: str
    seed: int
    checkpoint: str
    decoding: dict[str, Any]
    view: str | None
    ef_percent: float | None
    shift_s: float
    masks: bool

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise InputError(f"--seed is {self.seed}; expected 0 or more")
        if not abs(self.shift_s) <= 3600:
            raise InputError(f"--shift is {self.shift_s:g} s; expected at most an hour")
        if self.shift_s and self.condition in ("image", "null-ecg"):
            raise InputError(f"--shift moves an ECG; --condition {self.condition} has none")

    @property
    def needs_ecg(self) -> bool:
        """Whether a clip without ECG is left out."""
        return self.condition != "image"


@dataclass(frozen=True)
class _Job:
    """A batch: positions of its clips in the source, and of the clips whose ECG each gets."""

    folder: Path
    source: Path
    clips: tuple[int, ...]
    donors: tuple[int, ...]
    settings: SynthesisSettings


def synthesize(
    source: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="SET")],
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="DIR")],
    condition: Condition = "ecg+image",
    num: int | None = None,
    seed: int = 0,
    checkpoint: str = "compact",
    steps: int | None = None,
    guidance: float | None = None,
    rehearsals: int | None = None,
    ef: float | None = None,
    shift: float = 0.0,
    view: Literal["a4c", "a2c"] | None = None,
    masks: bool = True,
    workers: int = 0,
) -> None:
    """Generate one clip for every clip of a prepared set, in the same layout and under the same ids.

    The same command goes on with a run that was cut off. Exit code 1: some clips were skipped; 2: nothing was usable.

    Args:
        source: prepared set with ECGs.
        output: folder of the new set.
        condition: the ECG and the first picture, one of them, another patient's ECG with the picture, or a flat line
            with the picture.
        num: only the first clips of the set.
        seed: of all randomness.
        checkpoint: shipped name, folder or hub repository.
        steps: passes through the network for one window.
        guidance: how strongly the ECG is followed; 1 switches guidance off.
        rehearsals: how often, at most, the first seconds are generated and measured and what is told corrected, so that
            the ejection fraction comes out right; 0 is fastest.
        ef: wanted ejection fraction of all clips in percent; the ECG decides if left out.
        shift: play every ECG that many seconds later.
        view: of clips whose view the set does not say.
        masks: also segment the clips; writes masks and the measured ejection fraction and beats.
        workers: processes; 0 means one per core.
    """
    from echopulse.models.checkpoints import locate_checkpoint
    from echopulse.sampling.decode import DecodeSettings, asked_for

    if workers < 0:
        raise InputError(f"--workers is {workers}; expected 0 or more")
    if ef is not None and not 10 <= ef <= 80:
        raise InputError(f"--ef is {ef:g} %; expected 10 to 80")
    folder = locate_checkpoint(checkpoint)
    usual = DecodeSettings.from_index(load_json(folder / "index.json"))
    decoding = to_dict(replace(usual, **asked_for(steps, guidance, rehearsals)))
    settings = SynthesisSettings(condition, seed, str(folder), decoding, view, ef, shift, masks)
    skipped = synthesize_set(source, output, settings, num=num, workers=workers or os.cpu_count() or 1)
    for name, reason in list(skipped.items())[:_SHOWN]:
        print(f"skipped: {name}: {reason}", file=sys.stderr)
    if len(skipped) > _SHOWN:
        print(f"and {len(skipped) - _SHOWN} more; all in {output / ABOUT}", file=sys.stderr)
    print(f"done: {output}, {len(skipped)} clips skipped")
    if skipped:
        sys.exit(1)


def synthesize_set(
    source: Path, folder: Path, settings: SynthesisSettings, *, num: int | None = None, workers: int = 1
) -> dict[str, str]:
    """Generates the set; clips that an earlier run completed are kept.

    Args:
        source: prepared set.
        folder: the new set.
        settings: how.
        num: only the first clips; None for all.
        workers: processes.

    Returns:
        Reason by id of every clip that was left out.

    Raises:
        InputError: the folder holds something else, no clip is usable, or a worker process was killed.
    """
    from tqdm import tqdm

    from echopulse.io.prepare.workers import run_safely
    from echopulse.io.sets import MANIFEST, PreparedSet, write_manifest

    clips = PreparedSet(source)
    if num is not None and not 1 <= num <= len(clips):
        raise InputError(f"--num is {num}; expected 1 to {len(clips)}, the clips of {source}")
    chosen = range(len(clips) if num is None else num)
    reasons = {i: reason for i in chosen if (reason := _unfit(clips.line(i), settings))}
    usable = [i for i in chosen if i not in reasons]
    if not usable:
        raise InputError(f"{source}: no clip can be generated: {next(iter(reasons.values()))}")
    donors = _donors(clips, usable, settings)
    _claim(folder, source, {"settings": _identity(clips, settings, len(chosen))})
    if (folder / MANIFEST).is_file():
        shutil.rmtree(folder / _LINES, ignore_errors=True)
        return load_json(folder / ABOUT)["skipped"]
    lines = {i: folder / _LINES / f"{clips.ids[i]}.json" for i in usable}
    batches = [batch for batch in _batches(clips, usable) if not all(lines[i].is_file() for i in batch)]
    jobs = [_Job(folder, source, batch, tuple(donors[i] for i in batch), settings) for batch in batches]
    done = run_safely(_run, jobs, min(workers, max(1, len(jobs))), _LONGEST_JOB_S)
    missing = sum(len(batch) for batch in batches)
    with tqdm(total=len(usable), initial=len(usable) - missing, desc="synthesize", unit="clip", disable=None) as bar:
        for job, ended in done:
            if not ended:
                raise InputError("a worker process was killed, perhaps for want of memory; repeat with fewer --workers")
            bar.update(len(job.clips))
    outcomes = {i: load_json(line) for i, line in lines.items()}
    reasons |= {i: outcome["skipped"] for i, outcome in outcomes.items() if "skipped" in outcome}
    skipped = {clips.ids[i]: reasons[i] for i in sorted(reasons)}
    made = [outcome for outcome in outcomes.values() if "skipped" not in outcome]
    if not made:
        shutil.rmtree(folder)
        raise InputError(f"{source}: no clip can be generated: {next(iter(skipped.values()))}")
    save_json(folder / ABOUT, load_json(folder / ABOUT) | {"skipped": skipped})
    write_manifest(folder, made)
    shutil.rmtree(folder / _LINES)
    return skipped


# the plan ---------------------------------------------------------------------------------------------------


def _unfit(line: dict[str, Any], settings: SynthesisSettings) -> str | None:
    """Why a clip cannot be generated, as far as its manifest line tells."""
    from echopulse.axes import VIEWS

    if settings.needs_ecg and line["ecg"] is None:
        return f"it has no ECG, which --condition {settings.condition} needs"
    if line["view"] not in VIEWS and settings.view is None:
        return f"its view is {line['view']}; say by --view which one to generate ({' or '.join(VIEWS)})"
    return None


def _donors(clips: "PreparedSet", usable: Sequence[int], settings: SynthesisSettings) -> dict[int, int]:
    """Whose ECG each clip gets."""
    from echopulse.evaluation.controls import shuffled_pairs

    if settings.condition != "shuffled-ecg":
        return {i: i for i in usable}
    subjects = [clips.line(i)["subject"] or clips.ids[i] for i in usable]
    return {i: usable[k] for i, k in zip(usable, shuffled_pairs(subjects, settings.seed), strict=True)}


def _batches(clips: "PreparedSet", usable: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Clips of one length, `_BATCH` at a time; the same for every run."""

    def length(i: int) -> int:
        return clips.line(i)["num_frames"]

    for _, group in groupby(sorted(usable, key=length), key=length):
        alike = list(group)
        yield from (tuple(alike[first : first + _BATCH]) for first in range(0, len(alike), _BATCH))


def _identity(clips: "PreparedSet", settings: SynthesisSettings, num: int) -> dict[str, Any]:
    """All that the bytes of the set depend on, as plain values; the model and the source by their hashes."""
    from echopulse.nn.precision import fast_dtype

    weights, manifest = hashlib.sha256(), hashlib.sha256()
    for file in sorted(Path(settings.checkpoint).rglob("*.safetensors")):
        weights.update(file.read_bytes())
    for i in range(num):
        manifest.update(json.dumps(clips.line(i), sort_keys=True).encode())
    return asdict(settings) | {
        "checkpoint": Path(settings.checkpoint).name,
        "weights_sha256": weights.hexdigest(),
        "source": clips.folder.resolve().name,
        "source_sha256": manifest.hexdigest(),
        "num": num,
        "precision": str(fast_dtype()).removeprefix("torch."),
    }


def _claim(folder: Path, source: Path, about: dict[str, Any]) -> None:
    """Makes the folder, or makes sure that it holds a set of the same settings; removes what a killed run left."""
    path = folder / ABOUT
    if not folder.parent.is_dir():
        raise InputError(f"{folder.parent}: no such folder; create it first")
    if folder.resolve().is_relative_to(source.resolve()) or source.resolve().is_relative_to(folder.resolve()):
        raise InputError(f"{folder} and {source} lie within each other; choose another folder")
    if path.is_file():
        if load_json(path)["settings"] != about["settings"]:
            raise InputError(f"{folder} holds a set of other arguments, see {path}; repeat them or choose a new folder")
    elif folder.exists() and (not folder.is_dir() or any(p.name != f".{ABOUT}.part" for p in folder.iterdir())):
        raise InputError(f"{folder} exists and is no set of synthesize; choose a new folder")
    else:
        folder.mkdir(exist_ok=True)
        save_json(path, about)
    for part in folder.rglob(".*.part"):
        part.unlink(missing_ok=True)
    (folder / _LINES).mkdir(exist_ok=True)


# the work, in a process of its own ------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _opened(source: Path) -> "PreparedSet":
    from echopulse.io.sets import PreparedSet

    return PreparedSet(source)


@lru_cache(maxsize=1)
def _loaded(checkpoint: str) -> "Pipeline":
    import torch

    from echopulse.sampling.pipeline import Pipeline

    torch.set_num_threads(1)  # the workers fill the cores, and sums do not depend on their number
    return Pipeline.load(checkpoint)


def _run(job: _Job) -> None:
    """Generates a batch and writes it; what cannot be read is noted as skipped."""
    from echopulse.sampling.decode import DecodeSettings

    clips, pipeline = _opened(job.source), _loaded(job.settings.checkpoint)
    takes: dict[int, Take] = {}
    for i, donor in zip(job.clips, job.donors, strict=True):
        try:
            takes[i] = _take(clips, i, donor, pipeline, job.settings)
        except (InputError, OSError) as error:
            _note(job, clips.ids[i], {"skipped": " ".join(str(error).split())})
    if not takes:
        return
    made, _ = pipeline.generate(list(takes.values()), from_dict(DecodeSettings, job.settings.decoding))
    donors = dict(zip(job.clips, job.donors, strict=True))
    for i, clip in zip(takes, made, strict=True):
        try:
            line = _write(job, clips, i, donors[i], clip)
        except InputError as error:
            line = {"skipped": str(error)}
        _note(job, clips.ids[i], line)


def _take(clips: "PreparedSet", i: int, donor: int, pipeline: "Pipeline", settings: SynthesisSettings) -> "Take":
    """What clip `i` is generated from."""
    from PIL import Image

    from echopulse.axes import VIEWS
    from echopulse.evaluation.controls import null_ecg, shifted_ecg
    from echopulse.sampling.request import GenerationRequest, Take

    line, ecg, image = clips.line(i), None, None
    if settings.needs_ecg:
        ecg = shifted_ecg(clips.ecg(donor), settings.shift_s)
        ecg = null_ecg(ecg) if settings.condition == "null-ecg" else ecg
    if settings.condition != "ecg":
        image = fit_picture(Image.fromarray(np.array(clips.frames(i)[0])), pipeline.size)
    request = GenerationRequest(
        view=line["view"] if line["view"] in VIEWS else str(settings.view),
        seconds=line["num_frames"] / line["fps"],
        fps=float(line["fps"]),
        seed=_own_seed(settings.seed, line["id"]),
        start_s=0.0,
        ef_percent=settings.ef_percent,
    )
    return Take(ecg, request, image)


def _own_seed(seed: int, name: str) -> int:
    """A clip's own seed; 48 bits, which every JSON reader holds exactly."""
    return int.from_bytes(hashlib.sha256(f"{seed}|{name}".encode()).digest()[:6])


def _write(job: _Job, clips: "PreparedSet", i: int, donor: int, clip: "EchoClip") -> dict[str, Any]:
    """Writes a generated clip with the ECG that drove it; gives its manifest line."""
    from echopulse.io.sets import write_clip_files

    settings, line = job.settings, clips.line(i)
    drives = settings.needs_ecg and settings.condition != "null-ecg"
    truth = _truth_of_ecg(clips.line(donor)["truth"], settings.shift_s) if drives else {}
    seen = measure(clip.frames, clip.frame_times_s) if settings.masks else Measurement(None)
    provenance = clip.provenance | {
        "condition": settings.condition,
        "source_id": line["id"],
        "ecg_source_id": clips.ids[donor] if drives else None,
        "ecg_shift_s": settings.shift_s,
        "synthesis_seed": settings.seed,
        "measured": seen.plain() if settings.masks else None,
        **{name: value for name, value in line["provenance"].items() if name.startswith("irreducible_ef_")},
    }
    return write_clip_files(
        job.folder,
        replace(clip, provenance=provenance),
        name=line["id"],
        subject=line["subject"],
        split=line["split"],
        source="synthetic",
        exam=line["exam"],
        masks=seen.masks,
        truth=truth,
    )


def _truth_of_ecg(truth: dict[str, Any], shift_s: float) -> dict[str, Any]:
    """What is known of the ECG alone; nothing that is known of its patient's heart holds for the generated one."""
    kept = {name: truth[name] for name in ("r_times_s", "t_end_times_s", "rhythm") if truth.get(name) is not None}
    return {k: [None if t is None else t + shift_s for t in v] if k.endswith("_s") else v for k, v in kept.items()}


def _note(job: _Job, name: str, outcome: dict[str, Any]) -> None:
    save_json(job.folder / _LINES / f"{name}.json", outcome)
