"""Auditions: where no first picture is given, pictures are drawn until one is clear, and the clip begins with it.

Some drawn pictures are muddled: a ventricle whose border nobody finds, unlike in any true one. On those the heart beats
as told, but neither a viewer nor a segmenter can see it. To keep the clearest of several instead would also leave out
what is merely rare: pictures of little contrast, which some patients have.
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
    """The scenes with the first one of at most `settings.auditions` pictures that is clear, else with the clearest.

    Args:
        model: the generator.
        scenes: without first pictures, which `settings` want drawn before all else.
        settings: how codes are drawn, and what is clear.
        generators: one a clip.
        show: what a first token frame looks like.
        segmenter: finds the ventricle, or doubts. It should not be the one that judges the clips later.
        picture_network: draws them, where the checkpoint has one; else the generator does.
    """
    seeds = [torch.randint(2**62, (settings.auditions,), generator=one).tolist() for one in generators]
    chosen, doubts = list(scenes), np.full(len(scenes), np.inf)
    waiting = list(range(len(scenes)))
    for attempt in range(settings.auditions):
        draws = [torch.Generator().manual_seed(seeds[row][attempt]) for row in waiting]
        candidates = with_first_pictures(model, [scenes[row] for row in waiting], settings, draws, picture_network)
        for row, candidate, doubt in zip(waiting, candidates, segmenter.doubt(show(waiting, candidates)), strict=True):
            if attempt == 0 or doubt < doubts[row]:
                chosen[row], doubts[row] = candidate, doubt
        waiting = [row for row in waiting if doubts[row] > settings.clear_doubt]
        if not waiting:
            break
    return chosen
