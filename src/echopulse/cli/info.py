"""`echopulse info`: what a file, a set or a checkpoint is."""

import json
from math import log2, prod
from pathlib import Path
from typing import Annotated, Any

import tyro

from echopulse.config import from_dict, load_json
from echopulse.errors import InputError

_VIDEO_ENDINGS = (".mp4", ".avi", ".gif", ".npz")


def info(
    what: tyro.conf.Positional[str],
    rate: float | None = None,
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> None:
    """Describe an ECG, a video, a prepared set or a checkpoint.

    Args:
        what: file, folder, or the name of a shipped checkpoint (`compact`).
        rate: sampling rate in Hz of an ECG file that does not say it.
        as_json: print one JSON object.
    """
    description = describe(what, rate)
    print(json.dumps(description) if as_json else _table(description))


def describe(what: str, rate: float | None = None) -> dict[str, Any]:
    """The description as plain values (layout: `formats.md`).

    Raises:
        InputError: nothing there, or nothing known.
    """
    from echopulse.models.checkpoints import locate_checkpoint

    path = Path(what)
    if (path / "manifest.jsonl").is_file():
        return _describe_set(path)
    if path.is_dir() or not path.exists():
        try:
            return _describe_checkpoint(locate_checkpoint(what))
        except InputError:
            if path.is_dir():
                raise InputError(
                    f"{path}: neither a prepared set (manifest.jsonl) nor a checkpoint (index.json)"
                ) from None
    if path.suffix.lower() in _VIDEO_ENDINGS:
        return _describe_video(path)
    return _describe_ecg(path, rate)


def _describe_ecg(path: Path, rate: float | None) -> dict[str, Any]:
    from echopulse.io.ecg import read_ecg
    from echopulse.signals.processing import assess_quality

    ecg = read_ecg(path, sampling_rate_hz=rate)
    quality = assess_quality(ecg)
    return {
        "kind": "ecg",
        "format": ecg.format,
        "leads": list(ecg.leads),
        "sampling_rate_hz": ecg.sampling_rate_hz,
        "num_samples": ecg.num_samples,
        "duration_s": ecg.duration_s,
        "heart_rate_bpm": quality.heart_rate_bpm,
        "r_times_s": [round(float(r), 4) for r in quality.r_times_s],
        "quality": quality.verdict,
        "quality_reasons": list(quality.reasons),
    }


def _describe_video(path: Path) -> dict[str, Any]:
    from echopulse.io.video import read_video

    clip = read_video(path)
    return {
        "kind": "video",
        "format": path.suffix.lower().removeprefix("."),
        "num_frames": clip.num_frames,
        "size": list(clip.frames.shape[1:]),
        "fps": clip.fps,
        "duration_s": clip.duration_s,
        "view": clip.view,
        "has_ecg": clip.ecg is not None,
        "provenance": clip.provenance,
    }


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
        "views": {view: sum(line["view"] == view for line in lines) for view in sorted({x["view"] for x in lines})},
        "sources": sorted({line["source"] for line in lines}),
        "has_ecg": all(line["ecg"] for line in lines),
        "has_masks": all(line.get("masks") for line in lines),
        "has_truth": all(line.get("truth") for line in lines),
    }


def _describe_checkpoint(folder: Path) -> dict[str, Any]:
    from safetensors import safe_open

    from echopulse.models.tokenizer import TokenizerConfig, VideoTokenizer
    from echopulse.models.video_transformer import GeneratorConfig

    networks = {}
    for name in ("tokenizer", "generator"):
        with safe_open(folder / name / "model.safetensors", "pt") as file:
            count = sum(prod(file.get_slice(key).get_shape()) for key in file.keys())
        networks[name] = {"parameters": count}
    tokenizer = VideoTokenizer(from_dict(TokenizerConfig, load_json(folder / "tokenizer" / "config.json")))
    generator = from_dict(GeneratorConfig, load_json(folder / "generator" / "config.json"))
    patch = tokenizer.config.patch
    grid = tokenizer.grid_shape(11, generator.rows * patch, generator.columns * patch)
    tokens = grid[0] * grid[1] * grid[2]
    index = load_json(folder / "index.json")
    return {
        "kind": "checkpoint",
        "name": index.get("name"),
        "networks": networks,
        "size": [generator.rows * patch, generator.columns * patch],
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
