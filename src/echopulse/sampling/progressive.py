"""Video without end: windows that slide along the ECG, each with the memory of the first frame.

Slot 0 of every window is the clip's first token frame; the next slots repeat the last token frames of the window
before (the overlap) and the rest is new. Codes are handed on as they are: nothing is decoded and encoded again,
so neither brightness nor anatomy can drift through pixels.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from echopulse.models.video_transformer import Conditions, EcgWindow, VideoTransformer
from echopulse.sampling.decode import DecodeSettings, decode_window
from echopulse.signals.track import EcgTrack

OVERLAP = 2
"""Token frames that a window takes over from the one before: 4 frames."""


@dataclass(frozen=True, eq=False)
class Scene:
    """What to generate.

    Attributes:
        track: the ECG, covering the clip.
        start_s: time of frame 0 on the ECG's clock.
        fps: frames per second.
        view: index in `axes.VIEWS`.
        ef: ejection fraction between 0 and 1, or NaN for "as the ECG says".
        first: token frame of a given first image, (1, gh, gw), or None.
    """

    track: EcgTrack
    start_s: float
    fps: float
    view: int
    ef: float
    first: Int[Tensor, "1 gh gw"] | None = None


def generate_codes(
    model: VideoTransformer, scene: Scene, num_token_frames: int, settings: DecodeSettings, seed: int
) -> Iterator[Int[Tensor, "1 t gh gw"]]:
    """Draws the codes of a clip window by window.

    Args:
        model: the generator.
        scene: what to generate.
        num_token_frames: length of the clip: `1 + k` for `1 + 2k` frames.
        settings: how codes are drawn.
        seed: of all randomness.

    Yields:
        The new token frames of each window, in order; together at least `num_token_frames`, cut to that number.
    """
    c = model.config
    generator = torch.Generator().manual_seed(seed)
    codes = torch.zeros(1, c.slots, c.rows, c.columns, dtype=torch.long)
    known = torch.zeros_like(codes, dtype=torch.bool)
    if scene.first is not None:
        codes[0, 0], known[0, 0] = scene.first[0], True
    made, position = 0, 1  # token frames yielded; token frame of slot 1
    while made < num_token_frames:
        conditions = window_conditions(model, scene, position)
        codes = decode_window(model, codes, known, conditions, settings, generator)
        fresh = codes if made == 0 else codes[:, 1 + OVERLAP :]
        fresh = fresh[:, : num_token_frames - made]
        yield fresh
        made += fresh.shape[1]
        codes = torch.cat([codes[:, :1], codes[:, -OVERLAP:], torch.zeros_like(codes[:, 1 + OVERLAP :])], dim=1)
        known = torch.zeros_like(known)
        known[:, : 1 + OVERLAP] = True
        position += c.slots - 1 - OVERLAP


def window_conditions(model: VideoTransformer, scene: Scene, position: int) -> Conditions:
    """Everything but the codes that a window depends on.

    Args:
        model: the generator.
        scene: what is generated.
        position: index of slot 1's token frame in the clip, 1 for the first window.
    """
    c = model.config
    numbers = frame_numbers(c.slots, position)
    times = scene.start_s + numbers / scene.fps
    middle = float(times[1:].mean())
    samples, marks = scene.track.window(middle, c.ecg.num_samples)
    dtype = model.head.weight.dtype
    window = EcgWindow(
        torch.from_numpy(samples)[None].to(dtype),
        torch.from_numpy(marks)[None].to(dtype),
        torch.from_numpy(scene.track.lead_ids)[None],
        torch.ones(1, len(scene.track.lead_ids), dtype=torch.bool),
    )
    half = c.ecg.window_s / 2
    return Conditions(
        ecg=model.encode_ecg(window),
        has_ecg=torch.ones(1, dtype=torch.bool),
        frame_times_s=torch.from_numpy(np.clip(times - middle, -half, half)).float()[None],
        first_gap_s=torch.tensor([(numbers[1, 0] - numbers[0, 0]) / scene.fps]).float(),
        view=torch.tensor([scene.view]),
        ef=torch.tensor([scene.ef]).float(),
    )


def frame_numbers(slots: int, position: int) -> np.ndarray:
    """The two frame numbers of every slot, (slots, 2); slot 0 holds frame 0 twice."""
    first = 2 * (position + np.arange(slots - 1)) - 1
    return np.concatenate([[[0, 0]], np.stack([first, first + 1], axis=1)])
