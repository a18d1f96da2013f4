"""Auditions: where no first picture is given, several are drawn, and the clip begins with the clearest.

Some drawn pictures are muddled: a ventricle whose border nobody finds, unlike in any true one. On those the heart beats
as told, but neither a viewer nor a segmenter can see it. Dim, glaring and flat pictures are less clear than others,
drawn or true; a choice that held this against them would make patients alike, which they are not. Some are allowed more
doubt, therefore, as their grey levels say.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from echopulse.models.segmenter import ChamberSegmenter
from echopulse.models.video_transformer import CodePredictor, VideoTransformer
from echopulse.sampling.decode import DecodeSettings
from echopulse.sampling.progressive import Scene, with_first_pictures

Show = Callable[[Sequence[int], Sequence[Scene]], np.ndarray]
"""Clips of a batch and scenes with a first picture: those pictures, uint8 (scenes, height, width)."""


def auditioned(
    model: VideoTransformer,
    scenes: Sequence[Scene],
    settings: DecodeSettings,
    generators: Sequence[torch.Generator],
    show: Show,
    segmenter: ChamberSegmenter,
    picture_network: CodePredictor | None = None,
) -> list[Scene]:
    """The scenes with the clearest of `settings.auditions` first pictures, the doubt that is allowed taken off.

    Args:
        model: the generator.
        scenes: without first pictures, which `settings` want drawn before all else.
        settings: how codes are drawn.
        generators: one a clip.
        show: what a first token frame looks like.
        segmenter: finds the ventricle. It should not be the one that judges the clips later.
        picture_network: draws them, where the checkpoint has one; else the generator does.
    """
    rows = [row for row in range(len(scenes)) for _ in range(settings.auditions)]
    seeds = [int(torch.randint(2**62, (), generator=generators[row])) for row in rows]
    draws = [torch.Generator().manual_seed(seed) for seed in seeds]
    candidates = with_first_pictures(model, scenes, settings, draws, picture_network)
    pictures = show(rows, candidates)
    doubt = (segmenter.doubt(pictures) - allowed_doubt(pictures, settings)).reshape(len(scenes), settings.auditions)
    return [candidates[row * settings.auditions + int(best)] for row, best in enumerate(doubt.argmin(1))]


def allowed_doubt(pictures: np.ndarray, settings: DecodeSettings) -> np.ndarray:
    """How much doubt each picture is allowed for its grey levels.

    Args:
        pictures: uint8 (n, height, width).
        settings: hold `grey_allowance`.

    Returns:
        Shape (n,); for comparisons only, since it lacks a constant.
    """
    if settings.grey_allowance is None:
        return np.zeros(len(pictures))
    return grey_terms(pictures) @ np.array(settings.grey_allowance)


def grey_terms(pictures: np.ndarray) -> np.ndarray:
    """What `DecodeSettings.grey_allowance` has coefficients of, for uint8 (n, height, width); shape (n, 5)."""
    mean, deviation = pictures.mean((1, 2)) / 255, pictures.std((1, 2)) / 255
    return np.stack([mean, deviation, mean**2, mean * deviation, deviation**2], axis=1)
