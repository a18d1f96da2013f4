"""Video without end: windows that slide along the ECG, each with the memory of the first frame.

Slot 0 of every window is the clip's first token frame; the next slots repeat the last token frames of the window
before (the overlap) and the rest is new. Codes are handed on as they are: nothing is decoded and encoded again,
so neither brightness nor anatomy can drift through pixels.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Int
from scipy.optimize import isotonic_regression
from torch import Tensor

from echopulse.models.critic import TokenCritic
from echopulse.models.ecg_encoder import EcgFeatures, sample_contraction
from echopulse.models.ef_reader import EfReader
from echopulse.models.video_transformer import CodePredictor, Conditions, EcgWindow, TextFeatures, VideoTransformer
from echopulse.sampling.decode import EF_RANGE, DecodeSettings, decode_window
from echopulse.signals.track import EcgTrack

OVERLAP = 2
"""Token frames that a window takes over from the one before: 4 frames."""

_EF_WINDOWS = 8  # of an ECG, at most, that its EF is read from

_FILLED_S = 0.68
_AT_REST = 0.35
"""So long after an R peak a ventricle is hardly more contracted than this until the next: of 395 phantom patients 381
are not, and none by more than 0.1. For beats of a second or more; with the root of the interval where they are shorter,
as Bazett's QT.
"""


@dataclass(frozen=True, eq=False)
class Scene:
    """What to generate.

    Attributes:
        track: the ECG, covering the clip; None hides the ECG.
        start_s: time of frame 0 on the ECG's clock.
        fps: frames per second.
        view: index in `axes.VIEWS`.
        ef: ejection fraction that the generator is told, between 0 and 1, or NaN for "as each window of the ECG says".
        first: token frame of a given first image, (1, gh, gw), or None.
        past: last token frames of a clip to go on from, `OVERLAP` or more, whose first one is `first`; or None.
        past_length: token frames of that clip, its first one included.
        text: a description, or None.
        first_contraction: how far the ventricle has contracted in frame 0, which windows far from it are told; NaN if
            unknown. See `read_contraction`.
        wanted_ef: ejection fraction that the clip should show, NaN if none is known; `rehearsed` makes `ef` serve it.
    """

    track: EcgTrack | None
    start_s: float
    fps: float
    view: int
    ef: float
    first: Int[Tensor, "1 gh gw"] | None = None
    past: Int[Tensor, "n gh gw"] | None = None
    past_length: int = 0
    text: TextFeatures | None = None
    first_contraction: float = float("nan")
    wanted_ef: float = float("nan")

    def after(self, codes: Int[Tensor, "n gh gw"]) -> "Scene":
        """The scene as it goes on from the first token frames of its clip."""
        return replace(self, past=codes, past_length=len(codes))


def generate_codes(
    model: VideoTransformer,
    scene: Scene,
    num_token_frames: int,
    settings: DecodeSettings,
    seed: int,
    critic: TokenCritic | None = None,
) -> Iterator[Int[Tensor, "1 t gh gw"]]:
    """Draws the codes of a clip window by window.

    Args:
        model: the generator.
        scene: what to generate.
        num_token_frames: new token frames: `1 + k` for a clip of `1 + 2k` frames, `k` for `2k` frames that go on.
        settings: how codes are drawn.
        seed: of all randomness.
        critic: the generator's, where there is one.

    Yields:
        The new token frames of each window, in order; together `num_token_frames`.
    """
    generators = [torch.Generator().manual_seed(seed)]
    scenes = with_first_pictures(model, [scene], settings, generators)
    yield from generate_batch(model, scenes, num_token_frames, settings, generators, critic)


def generate_batch(
    model: VideoTransformer,
    scenes: Sequence[Scene],
    num_token_frames: int,
    settings: DecodeSettings,
    generators: Sequence[torch.Generator],
    critic: TokenCritic | None = None,
) -> Iterator[Int[Tensor, "b t gh gw"]]:
    """Draws several clips of one length in the same passes through the network; see `generate_codes`.

    Where the first picture is to be drawn apart, `with_first_pictures` comes before.

    Args:
        model: the generator.
        scenes: what to generate; all from nothing, all from a first image, or all from clips of one length.
        num_token_frames: new token frames of each.
        settings: how codes are drawn.
        generators: one a clip, so that a clip's randomness does not depend on its neighbours.
        critic: the generator's, where there is one.

    Yields:
        The new token frames, in order: a first picture that is given or was drawn apart, then those of each window;
        together `num_token_frames`.
    """
    c = model.config
    codes = torch.zeros(len(scenes), c.slots, c.rows, c.columns, dtype=torch.long)
    given, position = _given(scenes)  # slots that are known; token frame of slot 1
    for row, scene in zip(codes, scenes, strict=True):
        if scene.first is not None:
            row[0] = scene.first[0]
        if scene.past is not None:
            row[1 : 1 + OVERLAP] = scene.past[-OVERLAP:]
    made = 0
    if given == 1:  # a first picture is seen before what follows is drawn
        yield codes[:, :1]
        made = 1
    while made < num_token_frames:
        conditions = Conditions.joined([window_conditions(model, scene, position) for scene in scenes])
        known = torch.zeros_like(codes, dtype=torch.bool)
        known[:, :given] = True
        codes = decode_window(model, codes, known, conditions, settings, generators, critic)
        fresh = codes[:, given : given + num_token_frames - made]
        yield fresh
        made += fresh.shape[1]
        codes = torch.cat([codes[:, :1], codes[:, -OVERLAP:], torch.zeros_like(codes[:, 1 + OVERLAP :])], dim=1)
        given = 1 + OVERLAP
        position += c.slots - 1 - OVERLAP


def with_first_pictures(
    model: VideoTransformer,
    scenes: Sequence[Scene],
    settings: DecodeSettings,
    generators: Sequence[torch.Generator],
    picture_network: CodePredictor | None = None,
) -> list[Scene]:
    """The scenes with a first token frame, drawn as a window of its own; as they are where none is to be drawn.

    Args:
        model: the generator.
        scenes: what to generate.
        settings: how codes are drawn.
        generators: one a clip, or several: as many scenes are made of each, one after the other.
        picture_network: draws them, where the checkpoint has one; else the generator does.
    """
    drawing = picture_drawing(scenes, settings)
    if drawing is None:
        return list(scenes)
    c, each = model.config, len(generators) // len(scenes)
    conditions = [window_conditions(model, scene, 1) for scene in scenes]
    joined = Conditions.joined([one for one in conditions for _ in range(each)])
    alone = joined._replace(frame_times_s=joined.frame_times_s[:, :1])
    nothing = torch.zeros(len(generators), 1, c.rows, c.columns, dtype=torch.long)
    pictures = decode_window(picture_network or model, nothing, nothing.bool(), alone, drawing, generators)
    repeated = [scene for scene in scenes for _ in range(each)]
    return [replace(scene, first=picture) for scene, picture in zip(repeated, pictures, strict=True)]


def picture_drawing(scenes: Sequence[Scene], settings: DecodeSettings) -> DecodeSettings | None:
    """How first pictures are drawn before all else; None where they are given, or drawn with what follows."""
    return settings.of_picture if all(scene.first is None for scene in scenes) else None


def _given(scenes: Sequence[Scene]) -> tuple[int, int]:
    """Known slots of the first window, and the token frame of its slot 1."""
    kinds = {(scene.first is not None, scene.past is not None, scene.past_length) for scene in scenes}
    assert len(kinds) == 1, "clips of one batch have to begin alike"
    first, past, length = kinds.pop()
    return (1 + OVERLAP, length - OVERLAP) if past else (int(first), 1)


def read_ef(track: EcgTrack, model: VideoTransformer, reader: EfReader | None = None) -> float:
    """The ejection fraction that an ECG shows, between 0 and 1.

    By the reader, from the median beat; without a reader or a beat by the generator's encoder, the mean over its
    windows; NaN where that does not read motion.
    """
    found = None if reader is None else track.median_beat()
    if reader is None or found is None:
        ef = _ef_of_windows(model, track)
    else:
        ef = float(reader(*(torch.from_numpy(part)[None] for part in found))[0])
    return float(np.clip(ef, *EF_RANGE))


def _ef_of_windows(model: VideoTransformer, track: EcgTrack) -> float:
    """The mean of what the encoder reads from windows of an ECG; NaN where it does not read motion."""
    c = model.config.ecg
    if not c.reads_motion:
        return float("nan")
    count = min(max(int((track.end_s - track.start_s) / c.window_s), 1), _EF_WINDOWS)
    first, last = track.start_s + c.window_s / 2, max(track.end_s - c.window_s / 2, track.start_s + c.window_s / 2)
    read = []
    for middle in np.linspace(first, last, count):
        ef = model.encode_ecg(_ecg_window(model, track, float(middle))).ef
        assert ef is not None
        read.append(float(ef[0]))
    return float(np.mean(read))


def read_contraction(track: EcgTrack, model: VideoTransformer, time_s: float) -> float:
    """How far the ventricle has contracted at a time, by the ECG around it; NaN where that is not read or not there."""
    c = model.config.ecg
    if not c.reads_motion or not track.start_s <= time_s <= track.end_s:
        return float("nan")
    features = _ecg_features(model, track, time_s)
    return float(sample_contraction(features, torch.zeros(1, 1, 2), c.window_s)[0, 0, 0])


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
    half = c.ecg.window_s / 2
    return Conditions(
        ecg=_ecg_features(model, scene.track, middle),
        has_ecg=torch.tensor([scene.track is not None]),
        frame_times_s=torch.from_numpy(np.clip(times - middle, -half, half)).float()[None],
        first_gap_s=torch.tensor([(numbers[1, 0] - numbers[0, 0]) / scene.fps]).float(),
        view=torch.tensor([scene.view]),
        ef=torch.tensor([scene.ef]).float(),
        text=scene.text,
        first_contraction=torch.tensor([scene.first_contraction]).float(),
    )


def _ecg_features(model: VideoTransformer, track: EcgTrack | None, middle_s: float) -> EcgFeatures:
    """What the encoder reads around a time, with the contraction of a heart that fills after each beat."""
    features = model.encode_ecg(_ecg_window(model, track, middle_s))
    if track is None or features.contraction is None:
        return features
    since_beat_s = track.since_beat_s(middle_s + model.config.ecg.fine_times_s)
    read = features.contraction[0].detach().double().numpy()
    filling = torch.from_numpy(as_filling(read, since_beat_s, track.period_s))
    return features._replace(contraction=filling.to(features.contraction)[None])


def as_filling(contraction: np.ndarray, since_beat_s: np.ndarray, period_s: float) -> np.ndarray:
    """The contraction without what belongs to no beat: from its end-systole on, a ventricle only fills until the next.

    The falling curve that is nearest to what was read takes its place (isotonic regression). Where a beat began before
    the window, in the long diastole of a slow heart, the encoder may take a wave for another beat: there it is bounded.

    Args:
        contraction: (n,) as read at rising times.
        since_beat_s: (n,) seconds since the R peak before, NaN before the first.
        period_s: median time between beats.
    """
    told = contraction.copy()
    known = np.flatnonzero(~np.isnan(since_beat_s))
    filled_s = _FILLED_S * min(1.0, period_s) ** 0.5
    for beat in np.split(known, np.flatnonzero(np.diff(since_beat_s[known]) < 0) + 1):
        systole, rest = beat[since_beat_s[beat] <= filled_s], beat[since_beat_s[beat] > filled_s]
        told[rest] = told[rest].clip(max=_AT_REST)
        falling = beat[np.argmax(told[systole]) :] if len(systole) else beat
        if len(falling):
            told[falling] = isotonic_regression(told[falling], increasing=False).x
    return told


def _ecg_window(model: VideoTransformer, track: EcgTrack | None, middle_s: float) -> EcgWindow:
    """The ECG around a time, as the encoder takes it; flat without a track."""
    num_samples = model.config.ecg.num_samples
    if track is None:
        leads = np.zeros(1, np.int64)
        samples, marks = np.zeros((1, num_samples), np.float32), np.zeros(num_samples, np.float32)
    else:
        leads, (samples, marks) = track.lead_ids, track.window(middle_s, num_samples)
    dtype = model.head.weight.dtype
    return EcgWindow(
        torch.from_numpy(samples)[None].to(dtype),
        torch.from_numpy(marks)[None].to(dtype),
        torch.from_numpy(leads)[None],
        torch.ones(1, len(leads), dtype=torch.bool),
    )


def frame_numbers(slots: int, position: int) -> np.ndarray:
    """The two frame numbers of every slot, (slots, 2); slot 0 holds frame 0 twice."""
    first = 2 * (position + np.arange(slots - 1)) - 1
    return np.concatenate([[[0, 0]], np.stack([first, first + 1], axis=1)])
