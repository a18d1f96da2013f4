"""`echopulse info`: what a file, a set or a checkpoint is."""

import json
import sys
from dataclasses import dataclass
from math import log2, prod
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from echopulse.config import from_dict, load_json
from echopulse.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from echopulse.signals import EcgSignal, EchoClip

_VIDEO_ENDINGS = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".gif", ".npz")


@dataclass(frozen=True)
class _Ecg:
    """An ECG with its marks."""

    signal: "EcgSignal"
    r_times_s: "np.ndarray"
    t_ends_s: "np.ndarray"


@dataclass(frozen=True)
class _Finding:
    """A description, and what there is to draw."""

    description: dict[str, Any]
    ecg: _Ecg | None = None
    picture: "np.ndarray | None" = None
    set_folder: Path | None = None


def info(
    what: tyro.conf.Positional[str],
    rate: float | None = None,
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
    plot: Annotated[Path | None, tyro.conf.arg(metavar="PNG")] = None,
) -> None:
    """Describe an ECG, an ultrasound recording, a video, a prepared set or a checkpoint.

    Args:
        what: file, folder, or the name of a shipped checkpoint (`compact`).
        rate: sampling rate in Hz of an ECG file that does not say it.
        as_json: print one JSON object.
        plot: draw the ECG with its R peaks and T ends, or the contact sheet of a set, as PNG.
    """
    if plot is not None and (plot.suffix.lower() != ".png" or not plot.parent.is_dir()):
        raise InputError(f"--plot is {plot}; expected a .png in an existing folder")
    found = _find(what, rate)
    if plot is not None:
        _plot(found, plot, what)
    if as_json:
        print(json.dumps(found.description))
        return
    print(_table(found.description))
    if found.ecg is not None and (sys.stdout.encoding or "").lower().startswith("utf"):
        from echopulse.io.ecg_plot import sparkline

        print(sparkline(found.ecg.signal, found.ecg.r_times_s, found.ecg.t_ends_s))


def describe(what: str, rate: float | None = None) -> dict[str, Any]:
    """The description as plain values (layout: `formats.md`).

    Raises:
        InputError: nothing there, or nothing known.
    """
    return _find(what, rate).description


def _find(what: str, rate: float | None) -> _Finding:
    from echopulse.io.shards import find_shards
    from echopulse.io.ultrasound import is_ultrasound
    from echopulse.models.checkpoints import locate_checkpoint

    path = Path(what)
    if (path / "manifest.jsonl").is_file() or (path.is_dir() and find_shards(path)):
        return _Finding(_describe_set(path), set_folder=path)
    if path.is_dir() or not path.exists():
        try:
            return _Finding(_describe_checkpoint(locate_checkpoint(what)))
        except InputError:
            if path.is_dir() and not (path / "index.json").exists():
                raise InputError(
                    f"{path}: neither a prepared set (manifest.jsonl) nor a checkpoint (index.json)"
                ) from None
            if path.is_dir():
                raise
    if path.suffix.lower() in _VIDEO_ENDINGS and (own := _own_video(path)) is not None:
        return own
    if path.is_file() and is_ultrasound(path):
        return _find_ultrasound(path)
    return _find_ecg(path, rate)


def _find_ecg(path: Path, rate: float | None) -> _Finding:
    from echopulse.io.ecg import read_ecg

    ecg = read_ecg(path, sampling_rate_hz=rate)
    facts, marked = _describe_ecg(ecg)
    return _Finding({"kind": "ecg", "format": ecg.format, **facts}, marked)


def _describe_ecg(ecg: "EcgSignal") -> tuple[dict[str, Any], _Ecg]:
    from echopulse.signals.processing import assess_quality, detect_t_ends

    quality = assess_quality(ecg)
    start = ecg.crop(ecg.start_s, ecg.start_s + 12.0)  # what is drawn at most
    early = quality.r_times_s[quality.r_times_s < start.end_s]
    marked = _Ecg(ecg, quality.r_times_s, detect_t_ends(start, early))
    return {
        "leads": list(ecg.leads),
        "sampling_rate_hz": ecg.sampling_rate_hz,
        "num_samples": ecg.num_samples,
        "duration_s": ecg.duration_s,
        "heart_rate_bpm": quality.heart_rate_bpm,
        "r_times_s": [round(float(r), 4) for r in quality.r_times_s],
        "quality": quality.verdict,
        "quality_reasons": list(quality.reasons),
    }, marked


def _own_video(path: Path) -> _Finding | None:
    """A video that carries our note; None for one of others, whose sector and ECG are to be found."""
    from echopulse.io.video import read_video

    try:
        clip = read_video(path)
    except InputError:
        if path.suffix.lower() == ".npz":
            raise
        return None  # the reader of ultrasound says what is wrong with it
    if not clip.provenance and path.suffix.lower() != ".npz":
        return None
    facts, marked = (None, None) if clip.ecg is None else _describe_ecg(clip.ecg)
    kind = path.suffix.lower().removeprefix(".")
    return _Finding(_describe_clip(clip, kind) | {"ecg": facts, "provenance": clip.provenance}, marked)


def _find_ultrasound(path: Path) -> _Finding:
    from echopulse.io.ultrasound import read_echo

    reading = read_echo(path)
    with path.open("rb") as file:
        dicom = file.read(132)[128:] == b"DICM"
    facts, marked = (None, None) if reading.clip.ecg is None else _describe_ecg(reading.clip.ecg)
    kind = "dicom" if dicom else path.suffix.lower().removeprefix(".")
    description = _describe_clip(reading.clip, kind) | {
        "heart_rate_bpm": reading.heart_rate_bpm,
        "ecg": facts,
        "ecg_confidence": reading.ecg_confidence,
        "color_doppler": reading.color_doppler,
        "crop": list(reading.crop),
        "warnings": list(reading.warnings),
        "removed": list(reading.removed),
    }
    return _Finding(description, marked, reading.ecg_picture)


def _describe_clip(clip: "EchoClip", kind: str) -> dict[str, Any]:
    return {
        "kind": "video",
        "format": kind,
        "num_frames": clip.num_frames,
        "size": list(clip.frames.shape[1:]),
        "fps": clip.fps,
        "duration_s": clip.duration_s,
        "view": clip.view,
        "has_ecg": clip.ecg is not None,
        "has_masks": False,
        "has_truth": False,
    }


def _plot(found: _Finding, path: Path, what: str) -> None:
    """Draws the ECG, below it what was read of a picture; for a set its contact sheet."""
    from PIL import Image

    from echopulse.io.contact_sheet import write_contact_sheet
    from echopulse.io.ecg_plot import draw_ecg
    from echopulse.io.files import whole_file
    from echopulse.io.sets import PreparedSet

    if found.set_folder is not None:
        write_contact_sheet(PreparedSet(found.set_folder), path)
        return
    if found.ecg is None:
        raise InputError(f"{what}: no ECG in it to draw; leave out --plot")
    page = draw_ecg(found.ecg.signal, found.ecg.r_times_s, found.ecg.t_ends_s)
    if found.picture is not None:
        seen = Image.fromarray(found.picture)
        both = Image.new("RGB", (max(page.width, seen.width), page.height + seen.height))
        both.paste(page)
        both.paste(seen, (0, page.height))
        page = both
    with whole_file(path) as temporary:
        page.save(temporary, format="PNG")


def _describe_set(path: Path) -> dict[str, Any]:
    from echopulse.io.sets import PreparedSet

    clips = PreparedSet(path)
    lines = [clips.line(i) for i in range(len(clips))]
    return {
        "kind": "set",
        "num_clips": len(lines),
        "num_subjects": len({line["subject"] for line in lines}),
        "num_frames": sum(line["num_frames"] for line in lines),
        "fps": sorted({line["fps"] for line in lines}),
        "size": list(clips.frames(0).shape[1:]) if lines else None,
        "splits": {
            split: sum(line["split"] == split for line in lines) for split in sorted({x["split"] for x in lines})
        },
        "views": {view: sum(line["view"] == view for line in lines) for view in sorted({x["view"] for x in lines})},
        "sources": sorted({line["source"] for line in lines}),
        "with_ecg": sum(line["ecg"] is not None for line in lines),
        "has_ecg": all(line["ecg"] for line in lines),
        "has_masks": all(line.get("masks") for line in lines),
        "has_truth": all(line.get("truth") for line in lines),
    }


def _describe_checkpoint(folder: Path) -> dict[str, Any]:
    from safetensors import safe_open

    from echopulse.models.tokenizer import TokenizerConfig, VideoTokenizer
    from echopulse.models.video_transformer import GeneratorConfig

    networks = {}
    for name in ("tokenizer", "detail", "generator", "picture", "critic", "ef_reader", "segmenter"):
        if name != "tokenizer" and not (folder / name).is_dir():
            continue
        with safe_open(folder / name / "model.safetensors", "pt") as file:
            count = sum(prod(file.get_slice(key).get_shape()) for key in file.keys())
        networks[name] = {"parameters": count}
    tokenizer = VideoTokenizer(from_dict(TokenizerConfig, load_json(folder / "tokenizer" / "config.json")))
    size = (128, 128)  # what a tokenizer without a generator is described for; it takes others
    if "generator" in networks:
        generator = from_dict(GeneratorConfig, load_json(folder / "generator" / "config.json"))
        size = generator.rows * tokenizer.config.patch, generator.columns * tokenizer.config.patch
    grid = tokenizer.grid_shape(11, *size)
    tokens = grid[0] * grid[1] * grid[2]
    index = load_json(folder / "index.json")
    return {
        "kind": "checkpoint",
        "name": index.get("name"),
        "networks": networks,
        "size": list(size),
        "codebook_size": tokenizer.codebook_size,
        "tokens_per_11_frames": tokens,
        "bits_per_11_frames": round(tokens * log2(tokenizer.codebook_size), 1),
        "training_data": index.get("training_data"),
        "licence": index.get("licence"),
        "decoding": index.get("decoding"),
    }


def _table(description: dict[str, Any]) -> str:
    width = max(map(len, description))
    rows = []
    for name, value in description.items():
        text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        rows.append(f"{name:<{width}}  {text if len(text) <= 150 else text[:147] + '...'}")
    return "\n".join(rows)
