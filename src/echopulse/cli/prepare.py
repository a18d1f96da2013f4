"""`echopulse prepare`: any source of echo clips to a prepared set."""

import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import tyro

from echopulse.errors import InputError

_SHOWN = 20


def prepare(
    source: tyro.conf.Positional[Path],
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="SET")],
    format: Literal["auto", "folder", "camus", "echonet", "echoxflow", "shards"] = "auto",
    size: int = 128,
    max_seconds: float | None = None,
    view: str = "unknown",
    fps: float | None = None,
    ecg: Path | None = None,
    ecg_start: float = 0.0,
    rate: float | None = None,
    shards: bool = False,
    salt: str | None = None,
    workers: int = 0,
) -> None:
    """Make a prepared set from ultrasound DICOM, videos with ECG files, or a public dataset.

    Names, dates and identifiers stay behind; patients get names from a salt. A run that was cut off goes on where
    it stopped. Exit code 1: something was skipped; 2: nothing was usable.

    Args:
        source: a DICOM or video file, a folder, a CSV with a `video` column, a zip or tar, or the root of a dataset.
        output: folder of the new set.
        format: what the source is; found by its layout if left out.
        size: picture side in pixels.
        max_seconds: cut longer clips.
        view: view of clips that do not say it, such as a4c.
        fps: frames per second of clips that do not say it.
        ecg: ECG file of a single video.
        ecg_start: time of its first sample in seconds after frame 0.
        rate: sampling rate in Hz of ECG files that do not say it.
        shards: write WebDataset shards in place of single files.
        salt: secret that the names of patients are made with; a random one is made and kept beside the set if left out.
        workers: processes; 0 means one per core.
    """
    from echopulse.io.datasets import SourceOptions, known_view
    from echopulse.io.prepare import PrepareSettings, prepare_set
    from echopulse.io.prepare.report import summary

    if workers < 0:
        raise InputError(f"--workers is {workers}; expected 0 or more")
    if view != "unknown" and known_view(view) == "unknown":
        raise InputError(f"--view is {view!r}; expected a4c, a2c, a3c, a5c, plax or psax")
    if ecg is not None and (source.is_dir() or not ecg.exists()):
        raise InputError(f"--ecg {ecg}: expected an existing ECG file, for a single video; pair others by a CSV")
    options = SourceOptions(known_view(view), fps, ecg, ecg_start, rate)
    settings = PrepareSettings(None if format == "auto" else format, size, max_seconds, shards, options)
    outcome = prepare_set(source, output, settings, workers=workers or os.cpu_count() or 1, salt=salt)
    for path, reason in outcome.skipped[:_SHOWN]:
        print(f"skipped: {path}: {reason}", file=sys.stderr)
    rest = len(outcome.skipped) - _SHOWN
    if outcome.skipped:
        print(f"{f'and {rest} more; ' if rest > 0 else ''}all in {output}.skipped.txt", file=sys.stderr)
    print(summary(outcome.report))
    if outcome.salt_file is not None:
        print(
            f"salt: {outcome.salt_file} (random; keep it secret and apart from the set: it links new clips to the same "
            "patients; delete it if you need no link)"
        )
    print(f"{'done' if outcome.fresh else 'finished before, nothing to do'}: {output}")
    if outcome.report["clips"]["skipped"]:
        sys.exit(1)
