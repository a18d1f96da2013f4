"""Auditions: where no first picture is given, several are drawn, and the clip begins with the clearest.

Some drawn pictures are muddled: a ventricle whose border nobody finds, unlike in any true one. On those the heart beats
as told, but neither a viewer nor a segmenter can see it. Dim, glaring and flat pictures are less clear than others,
drawn or true; a choice that held this against them would make patients alike, which they are not.
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
    """The scenes with the clearest for its grey levels of `settings.auditions` first pictures; see `unexpected_doubt`.

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
    doubt = unexpected_doubt(show(rows, candidates), segmenter, settings).reshape(len(scenes), settings.auditions)
    return [candidates[row * settings.auditions + int(best)] for row, best in enumerate(doubt.argmin(1))]


def unexpected_doubt(pictures: np.ndarray, segmenter: ChamberSegmenter, settings: DecodeSettings) -> np.ndarray:
    """The segmenter's doubt about pictures, less what their brightness and contrast let one expect.

    Args:
        pictures: uint8 (n, height, width).
        segmenter: in doubt.
        settings: hold `doubt_of_grey`.

    Returns:
        Shape (n,); for comparisons only, since a constant is not taken off.
    """
    doubt = segmenter.doubt(pictures)
    if settings.doubt_of_grey is None:
        return doubt
    return doubt - grey_terms(pictures) @ np.array(settings.doubt_of_grey)


def grey_terms(pictures: np.ndarray) -> np.ndarray:
    """What `DecodeSettings.doubt_of_grey` has coefficients of, for uint8 (n, height, width); shape (n, 5)."""
    mean, deviation = pictures.mean((1, 2)) / 255, pictures.std((1, 2)) / 255
    return np.stack([mean, deviation, mean**2, mean * deviation, deviation**2], axis=1)
