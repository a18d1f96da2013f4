"""`echopulse reconstruct`: videos through the tokenizer's codes and back, with figures and a side-by-side video."""

import math
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from echopulse.config import save_json
from echopulse.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from echopulse.models.tokenizer import VideoTokenizer
    from echopulse.sampling.detail import DetailStream
    from echopulse.training.code_search import CodeSearch

_CHUNK = 64
"""Frames that are coded and measured at once."""


def reconstruct(
    videos: tyro.conf.Positional[tuple[Path, ...]],
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"], metavar="DIR")] = None,
    json: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None,
    checkpoint: str = "compact",
    detail: bool = False,
    seed: int = 0,
    search: int = 0,
) -> None:
    """Code videos and decode them again: how much is lost?

    Pixels are grey between 0 and 1. A clip with an even number of frames gets its last frame twice, a side that the
    patch does not divide gets its last row or column repeated; both are cut off before anything is measured.

    Args:
        videos: video files, .npy files (uint8, frames x height x width, or clips first) or prepared sets.
        output: folder for videos of original, reconstruction and their difference (grey is none), side by side.
        json: the figures, for machines.
        checkpoint: a shipped name, a folder, a training run, or a hub id.
        detail: draw the speckle that codes leave out, by the checkpoint's detail network: it looks like the original's
            and moves with the wall, but its grains lie elsewhere, so pixel errors grow.
        seed: of the speckle.
        search: steps in which better codes than the encoder's are looked for, such as 24; each takes several times as
            long as decoding. Where the checkpoint has a segmenter, the ventricle that it sees counts beside the pixels.
    """
    from tqdm import tqdm

    from echopulse.io.video import write_pictures
    from echopulse.models.detail import DetailNetwork
    from echopulse.models.tokenizer import VideoTokenizer
    from echopulse.nn.precision import fast_dtype
    from echopulse.sampling.detail import DetailStream

    if not videos:
        raise InputError("reconstruct needs a video file, a .npy array or a prepared set")
    if json is not None and not json.parent.is_dir():
        raise InputError(f"{json.parent}: no such folder; create it first")
    tokenizer = VideoTokenizer.from_pretrained(checkpoint).to(fast_dtype())
    texture = DetailNetwork.from_pretrained(checkpoint).to(fast_dtype()) if detail else None
    better = code_search(tokenizer, checkpoint, search) if search else None
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
    rows: list[tuple[float, ...]] = []
    clips = (clip for path in videos for clip in _clips(path))
    for name, frames, fps in tqdm(clips, desc="clips", unit="clip", disable=None):
        stream = None if texture is None else DetailStream(texture, [seed])
        pictures = _compared(tokenizer, frames, rows, stream, better)
        if output is not None:
            write_pictures(pictures, fps, output / f"{name}.mp4")
        else:
            deque(pictures, maxlen=0)
    figures = _figures(rows, tokenizer, checkpoint) | {"detail": detail, "search": search}
    print("  ".join(f"{name} {x:.5g}" if isinstance(x, float) else f"{name} {x}" for name, x in figures.items()))
    if json is not None:
        save_json(json, figures)


def code_search(tokenizer: "VideoTokenizer", checkpoint: str, steps: int) -> "CodeSearch":
    """A search for codes that sees walls where the checkpoint has a segmenter."""
    from echopulse.models.checkpoints import find_network, load_network
    from echopulse.models.segmenter import ChamberSegmenter, SegmenterConfig
    from echopulse.training.code_search import CodeSearch

    try:
        folder = find_network(checkpoint, "segmenter")
    except InputError:
        return CodeSearch(tokenizer, steps)
    if folder == find_network(checkpoint, "tokenizer"):  # the name of that network's own folder
        return CodeSearch(tokenizer, steps)
    dtype = next(tokenizer.parameters()).dtype
    return CodeSearch(tokenizer, steps, load_network(ChamberSegmenter, SegmenterConfig, folder).to(dtype))


def round_trip(
    tokenizer: "VideoTokenizer",
    frames: "np.ndarray",
    detail: "DetailStream | None" = None,
    search: "CodeSearch | None" = None,
) -> tuple["np.ndarray", int]:
    """All of a clip after coding, as `round_trip_pieces` gives it, and the number of its codes."""
    import numpy as np

    again = np.concatenate(list(round_trip_pieces(tokenizer, frames, detail, search)))
    return again, math.prod(tokenizer.grid_shape(*_padded(tokenizer, frames)))


def round_trip_pieces(
    tokenizer: "VideoTokenizer",
    frames: "np.ndarray",
    detail: "DetailStream | None" = None,
    search: "CodeSearch | None" = None,
) -> Iterator["np.ndarray"]:
    """A clip after coding, in pieces; a causal tokenizer streams it, so its length is not bounded by the memory.

    Args:
        tokenizer: any.
        frames: uint8 (frames, height, width).
        detail: adds speckle to what comes back.
        search: finds codes; the encoder does without it.

    Yields:
        float32 (frames, height, width) in [0, 255], in order, as many frames in all as the clip has.
    """
    import numpy as np
    import torch

    num, height, width = frames.shape
    dtype = next(tokenizer.parameters()).dtype
    padded, causal = _padded(tokenizer, frames), tokenizer.config.causal
    chunk = _CHUNK if causal else num

    def pieces() -> Iterator[torch.Tensor]:
        for start in range(0, num, chunk):
            piece = frames[start : start + chunk]
            ends = padded[0] - num if start + chunk >= num else 0
            piece = np.pad(piece, ((0, ends), (0, padded[1] - height), (0, padded[2] - width)), mode="edge")
            video = torch.from_numpy(piece).to(dtype) / 255
            yield video[None, :, None].expand(-1, -1, tokenizer.config.channels, -1, -1)

    with torch.inference_mode():
        if causal:
            made = tokenizer.decode_stream((tokenizer.encode_stream if search is None else search.stream)(pieces()))
        else:
            made = (tokenizer.decode(tokenizer.encode(video)) for video in pieces())
        done = 0
        for piece in made:
            piece = piece.float().mean(dim=2, keepdim=True) if detail is None else detail(piece)
            again = 255 * piece[0, : num - done, 0, :height, :width].clamp(0, 1)
            done += len(again)
            yield again.numpy()


def _padded(tokenizer: "VideoTokenizer", frames: "np.ndarray") -> tuple[int, int, int]:
    """Frames, height and width that the tokenizer takes, at least those of the clip."""
    (num, *size), patch = frames.shape, tokenizer.config.patch
    height, width = (side + -side % patch for side in size)
    return num + 1 - num % 2, height, width


def _compared(
    tokenizer: "VideoTokenizer",
    frames: "np.ndarray",
    rows: list[tuple[float, ...]],
    detail: "DetailStream | None",
    search: "CodeSearch | None",
) -> Iterator["np.ndarray"]:
    """Original, reconstruction and difference side by side, frame by frame; then adds the clip's figures to `rows`."""
    import numpy as np

    sums, done = np.zeros(3), 0
    for again in round_trip_pieces(tokenizer, frames, detail, search):
        piece = frames[done : done + len(again)]
        done += len(again)
        sums += _error_sums(piece, again)
        difference = np.clip(128 + again / 2 - piece / 2, 0, 255)
        yield from np.concatenate([piece, again.round(), difference.round()], axis=2).astype(np.uint8)
    tokens = math.prod(tokenizer.grid_shape(*_padded(tokenizer, frames)))
    rows.append((len(frames), tokens, sums[0] / frames.size, sums[1] / frames.size, sums[2] / len(frames)))


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


def _error_sums(frames: "np.ndarray", again: "np.ndarray") -> tuple[float, float, float]:
    """Sums of squared and absolute errors and of each frame's SSIM, NaN where its window is larger than the picture."""
    import torch

    from echopulse.evaluation.pixel import SSIM_WINDOW, ssim_map

    x, y = (torch.from_numpy(part / 255.0) for part in (frames, again))
    similar = float(ssim_map(x, y).mean(dim=(1, 2)).sum()) if min(x.shape[1:]) >= SSIM_WINDOW else math.nan
    return float((x - y).square().sum()), float((x - y).abs().sum()), similar


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
