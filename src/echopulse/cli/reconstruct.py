"""`echopulse reconstruct`: videos through the tokenizer's codes and back, with figures and a side-by-side video."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from echopulse.config import save_json
from echopulse.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from echopulse.models.tokenizer import VideoTokenizer

_CHUNK = 64
"""Frames that are coded and measured at once."""


def reconstruct(
    videos: tyro.conf.Positional[tuple[Path, ...]],
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"], metavar="DIR")] = None,
    json: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None,
    checkpoint: str = "compact",
) -> None:
    """Code videos and decode them again: how much is lost?

    Pixels are grey between 0 and 1. A clip with an even number of frames gets its last frame twice, a side that the
    patch does not divide gets its last row or column repeated; both are cut off before anything is measured.

    Args:
        videos: video files, .npy files (uint8, frames x height x width, or clips first) or prepared sets.
        output: folder for videos of original, reconstruction and their difference (grey is none), side by side.
        json: the figures, for machines.
        checkpoint: a shipped name, a folder, a training run, or a hub id.
    """
    import numpy as np
    from tqdm import tqdm

    from echopulse.models.tokenizer import VideoTokenizer
    from echopulse.sampling.pipeline import fast_dtype
    from echopulse.signals import EchoClip

    if not videos:
        raise InputError("reconstruct needs a video file, a .npy array or a prepared set")
    if json is not None and not json.parent.is_dir():
        raise InputError(f"{json.parent}: no such folder; create it first")
    tokenizer = VideoTokenizer.from_pretrained(checkpoint).to(fast_dtype())
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
    rows: list[tuple[float, ...]] = []
    clips = (clip for path in videos for clip in _clips(path))
    for name, frames, fps in tqdm(clips, desc="clips", unit="clip", disable=None):
        again, tokens = round_trip(tokenizer, frames)
        rows.append((len(frames), tokens, *_errors(frames, again)))
        if output is not None:
            difference = np.clip(128 + again / 2 - frames / 2, 0, 255).round().astype(np.uint8)
            side_by_side = np.concatenate([frames, again.round().astype(np.uint8), difference], axis=2)
            EchoClip(side_by_side, fps).save(output / f"{name}.mp4")
    figures = _figures(rows, tokenizer, checkpoint)
    print("  ".join(f"{name} {x:.5g}" if isinstance(x, float) else f"{name} {x}" for name, x in figures.items()))
    if json is not None:
        save_json(json, figures)


def round_trip(tokenizer: "VideoTokenizer", frames: "np.ndarray") -> tuple["np.ndarray", int]:
    """A clip after coding, and the number of its codes.

    A causal tokenizer streams the clip in pieces, so its length is not bounded by the memory.

    Args:
        tokenizer: any.
        frames: uint8 (frames, height, width).

    Returns:
        float32 of the same shape, in [0, 255]; codes of the whole clip.
    """
    import numpy as np
    import torch

    num, height, width = frames.shape
    patch, dtype = tokenizer.config.patch, next(tokenizer.parameters()).dtype
    more = ((0, 1 - num % 2), (0, -height % patch), (0, -width % patch))
    tokens = 0

    def pieces() -> Iterator[torch.Tensor]:
        for start in range(0, num, chunk):
            piece = frames[start : start + chunk]
            ends = (more[0] if start + chunk >= num else (0, 0), *more[1:])
            video = torch.from_numpy(np.pad(piece, ends, mode="edge")).to(dtype) / 255
            yield video[None, :, None].expand(-1, -1, tokenizer.config.channels, -1, -1)

    def counted(codes: Iterator[torch.Tensor]) -> Iterator[torch.Tensor]:
        nonlocal tokens
        for piece in codes:
            tokens += piece.numel()
            yield piece

    chunk = _CHUNK if tokenizer.config.causal else num
    with torch.inference_mode():
        if tokenizer.config.causal:
            made = tokenizer.decode_stream(counted(tokenizer.encode_stream(pieces())))
        else:
            made = (tokenizer.decode(codes) for codes in counted(tokenizer.encode(video) for video in pieces()))
        parts = [255 * piece[0].float().mean(dim=1).clamp(0, 1) for piece in made]
    return torch.cat(parts)[:num, :height, :width].numpy(), tokens


def _clips(path: Path) -> Iterator[tuple[str, "np.ndarray", float]]:
    """Name, uint8 frames and frame rate of everything behind a path."""
    from echopulse.io.sets import PreparedSet
    from echopulse.io.video import read_video

    if path.is_dir():
        prepared = PreparedSet(path)
        for i, name in enumerate(prepared.ids):
            yield name, prepared.frames(i), float(prepared.line(i)["fps"])
    elif path.suffix == ".npy":
        clips = _read_array(path)
        for i, frames in enumerate(clips):
            yield f"{path.stem}-{i:04d}" if len(clips) > 1 else path.stem, frames, 25.0
    else:
        clip = read_video(path)
        yield path.stem, clip.frames, clip.fps


def _read_array(path: Path) -> "np.ndarray":
    import numpy as np

    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; expected a .npy array of frames") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a .npy array of numbers ({error})") from error
    if array.dtype != np.uint8 or array.ndim not in (3, 4) or 0 in array.shape:
        raise InputError(
            f"{path}: {array.dtype} of shape {array.shape}; expected uint8 (frames, height, width), or clips first"
        )
    return array if array.ndim == 4 else array[None]


def _errors(frames: "np.ndarray", again: "np.ndarray") -> tuple[float, float, float]:
    """MSE, MAE and SSIM of a clip, NaN for an SSIM whose window is larger than the picture."""
    import torch

    from echopulse.evaluation.pixel import SSIM_WINDOW, ssim_map

    square = absolute = similar = 0.0
    for start in range(0, len(frames), _CHUNK):
        x, y = (torch.from_numpy(part[start : start + _CHUNK] / 255.0) for part in (frames, again))
        square += float((x - y).square().sum())
        absolute += float((x - y).abs().sum())
        fits = min(x.shape[1:]) >= SSIM_WINDOW
        similar += float(ssim_map(x, y).mean(dim=(1, 2)).sum()) if fits else math.nan
    return square / frames.size, absolute / frames.size, similar / len(frames)


def _figures(rows: list[tuple[float, ...]], tokenizer: "VideoTokenizer", checkpoint: str) -> dict[str, Any]:
    """Means over all pixels of all frames; PSNR is that of the mean squared error."""
    import numpy as np

    table = np.array(rows)
    mse, mae, ssim = (float(np.average(table[:, i], weights=table[:, 0])) for i in (2, 3, 4))
    tokens = float(table[:, 1].mean())
    return {
        "mse": mse,
        "mae": mae,
        "psnr": -10 * math.log10(max(mse, 1e-12)),
        "ssim": None if math.isnan(ssim) else ssim,
        "num_clips": len(rows),
        "num_frames": int(table[:, 0].sum()),
        "checkpoint": checkpoint,
        "tokens_per_clip": tokens,
        "bits_per_clip": tokens * tokenizer.bits_per_code,
    }
