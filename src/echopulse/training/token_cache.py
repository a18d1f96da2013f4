"""Codes and ECG tracks of prepared sets or phantom patients, made once by a frozen tokenizer and kept on disk."""

import copy
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from tqdm import tqdm

from echopulse.axes import VIEWS
from echopulse.config import load_json, save_json
from echopulse.errors import InputError
from echopulse.models.checkpoints import write_tensors
from echopulse.models.tokenizer import VideoTokenizer
from echopulse.nn.precision import fast_dtype
from echopulse.phantom import PHANTOM_VERSION
from echopulse.sampling.request import FPS_RANGE
from echopulse.signals import EcgSignal
from echopulse.signals.track import EcgTrack
from echopulse.training.data import ClipPool
from echopulse.training.phantom_data import PhantomDataset

MAX_FRAMES_AT_ONCE = 151
_PICTURE_STRIDE = 6

_LAYOUT = 5  # of the cache's files


@dataclass(frozen=True, eq=False)
class CachedClip:
    """One clip as the generator trains on it.

    Attributes:
        codes: int32 (token frames, rows, columns); the whole clip encoded in one stream; none of what is no video.
        pictures: int32 (n, rows, columns); frames 0, `picture_stride`, ... as clips of one frame: the first pictures of
            clips that would begin there.
        track: its ECG.
        fps: frames per second.
        view: index in `axes.VIEWS`, −1 if unknown.
        ef: ejection fraction between 0 and 1, NaN if unknown.
        contraction: float32 (frames,), how far the left ventricle has contracted, 0 at end-diastole and 1 at
            end-systole; NaN if unknown.
    """

    codes: np.ndarray
    pictures: np.ndarray
    track: EcgTrack
    fps: float
    view: int
    ef: float
    contraction: np.ndarray

    @property
    def picture_stride(self) -> int:
        """Every how many frames are also coded alone."""
        return picture_stride(self.fps)


def picture_stride(fps: float) -> int:
    """Every how many frames of a clip are coded alone: all of those that are too few to be a video."""
    return _PICTURE_STRIDE if _is_video(fps) else 1


def _is_video(fps: float) -> bool:
    return fps >= FPS_RANGE[0]


def build_token_cache(
    folder: Path, source: Sequence[Path] | PhantomDataset, tokenizer: VideoTokenizer, min_frames: int
) -> list[CachedClip]:
    """Reads the cache in `folder`, or makes it where it is absent or belongs to other data or another tokenizer.

    Clips without an ECG are left out.

    Args:
        folder: where `cache.json` and `cache.safetensors` are.
        source: folders of prepared sets, or phantom patients, which are rendered once.
        tokenizer: makes the codes.
        min_frames: shorter clips of sets are left out.

    Raises:
        InputError: no clip has an ECG.
    """
    pool = source if isinstance(source, PhantomDataset) else ClipPool(source, min_frames)
    key = _key(pool, tokenizer)
    index, data = folder / "cache.json", folder / "cache.safetensors"
    if not (index.is_file() and data.is_file() and load_json(index)["key"] == key):
        folder.mkdir(parents=True, exist_ok=True)
        _write(pool, tokenizer, key, index, data)
    return _read(index, data)


def _key(pool: ClipPool | PhantomDataset, tokenizer: VideoTokenizer) -> str:
    digest = hashlib.sha256(f"layout {_LAYOUT}".encode())
    for name, tensor in tokenizer.state_dict().items():
        digest.update(name.encode() + tensor.float().numpy().tobytes())
    if isinstance(pool, PhantomDataset):
        digest.update(f"{PHANTOM_VERSION}|{pool.series}|{pool}".encode())
        return digest.hexdigest()
    for part, i in pool.entries:
        digest.update(f"{part.folder}|{part.ids[i]}|{part.line(i)['num_frames']}".encode())
    return digest.hexdigest()


def _clips(pool: ClipPool | PhantomDataset) -> Iterator[tuple[np.ndarray, EcgSignal, float, str, dict[str, Any]]]:
    """Frames, ECG, frames/s, view and truth of every clip."""
    if isinstance(pool, PhantomDataset):
        for i in range(len(pool)):
            paired = pool.clip(i)
            assert paired.clip.ecg is not None
            yield paired.clip.frames, paired.clip.ecg, paired.clip.fps, paired.clip.view, paired.truth
        return
    for part, i in pool.entries:
        line = part.line(i)
        if line["ecg"]:
            yield part.frames(i), part.ecg(i), line["fps"], line["view"], line["truth"]


def true_contraction(truth: dict[str, Any], num_frames: int) -> np.ndarray:
    """Contraction at a clip's first frames from its truth (`lv_volume_ml`, `edv_ml`, `esv_ml`), NaN where unknown."""
    result = np.full(num_frames, np.nan, np.float32)
    if all(truth.get(name) is not None for name in ("lv_volume_ml", "edv_ml", "esv_ml")):
        volume = np.asarray(truth["lv_volume_ml"], np.float32)[:num_frames]
        result[: len(volume)] = contraction_of(volume, truth["edv_ml"], truth["esv_ml"])
    return result


def contraction_of(volume_ml: np.ndarray, edv_ml: float, esv_ml: float) -> np.ndarray:
    """How far a left ventricle of a volume has contracted, 0 at end-diastole and 1 at end-systole; float32."""
    return np.clip((edv_ml - volume_ml) / max(edv_ml - esv_ml, 1.0), -0.5, 1.5).astype(np.float32)


def _write(pool: ClipPool | PhantomDataset, tokenizer: VideoTokenizer, key: str, index: Path, data: Path) -> None:
    tensors: dict[str, torch.Tensor] = {}
    clips: list[dict[str, Any]] = []
    dtype = fast_dtype()  # what generation encodes in, too
    tokenizer = copy.deepcopy(tokenizer).to(dtype)
    progress = tqdm(_clips(pool), total=len(pool), desc="tokens", unit="clip", disable=None)
    for number, (frames, ecg, fps, view, truth) in enumerate(progress):
        frames = frames[: min(len(frames) - 1, MAX_FRAMES_AT_ONCE - 1) // 2 * 2 + 1]
        video = torch.from_numpy(np.array(frames)).to(dtype)[None, :, None] / 255
        with torch.inference_mode():
            pictures = tokenizer.encode(video[0, :: picture_stride(fps), None])[:, 0].int()
            tensors[f"{number}.codes"] = tokenizer.encode(video)[0].int() if _is_video(fps) else pictures[:0].clone()
        tensors[f"{number}.pictures"] = pictures
        track = EcgTrack.from_signal(ecg)
        tensors[f"{number}.ecg"] = torch.from_numpy(track.samples).half()
        tensors[f"{number}.leads"] = torch.from_numpy(track.lead_ids)
        tensors[f"{number}.r"] = torch.from_numpy(np.asarray(track.r_times_s, np.float64))
        tensors[f"{number}.contraction"] = torch.from_numpy(true_contraction(truth, len(frames)))
        clips.append(
            {
                "fps": fps,
                "view": VIEWS.index(view) if view in VIEWS else -1,
                "ef_percent": truth.get("ef_percent"),
                "ecg_start_s": track.start_s,
            }
        )
    if not clips:
        raise InputError(f"none of the {len(pool)} clips has an ECG; the generator trains on paired clips")
    write_tensors(tensors, data)
    save_json(index, {"key": key, "clips": clips})


def _read(index: Path, data: Path) -> list[CachedClip]:
    result = []
    with safe_open(data, "pt") as file:
        for number, clip in enumerate(load_json(index)["clips"]):
            track = EcgTrack(
                samples=file.get_tensor(f"{number}.ecg").float().numpy(),
                lead_ids=file.get_tensor(f"{number}.leads").numpy(),
                r_times_s=file.get_tensor(f"{number}.r").numpy(),
                start_s=clip["ecg_start_s"],
            )
            ef = clip["ef_percent"]
            result.append(
                CachedClip(
                    codes=file.get_tensor(f"{number}.codes").numpy(),
                    pictures=file.get_tensor(f"{number}.pictures").numpy(),
                    track=track,
                    fps=clip["fps"],
                    view=clip["view"],
                    ef=float("nan") if ef is None else ef / 100,
                    contraction=file.get_tensor(f"{number}.contraction").numpy(),
                )
            )
    return result
