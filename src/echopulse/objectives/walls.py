"""The ventricle's walls: how far they are from where they should be, by masks or by what a segmenter sees."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from echopulse.axes import MASK_CLASSES

VENTRICLE = tuple(MASK_CLASSES.index(name) for name in ("lv_cavity", "lv_myocardium"))
"""Classes of the left ventricle."""


def overlap_errors(masks: Bool[Tensor, "n k h w"], moved: Float[Tensor, "n k h w"]) -> Tensor:
    """How far moved masks of k structures are from the true ones: in place, and in area alone.

    In place: one minus the Dice coefficient, in its form for grey values (Milletari 2016). In area: the difference as a
    share of the larger one, which displacements that are a little too small everywhere leave in every beat. Structures
    that are not in a picture do not count.

    Returns:
        The mean of the sum of both; 0 where there is no structure at all.
    """
    true, made = masks.float(), moved.float()
    area, made_area = true.sum((-2, -1)), made.sum((-2, -1))
    there = area > 0
    dice = 2 * (true * made).sum((-2, -1)) / (true.square() + made.square()).sum((-2, -1)).clamp(min=1)
    errors = 1 - dice + (made_area - area).abs() / torch.maximum(made_area, area).clamp(min=1)
    return (errors * there).sum() / there.sum().clamp(min=1)


def walls_loss(
    segmenter: Callable[[Tensor], Tensor],
    video: Float[Tensor, "b f c h w"],
    reconstruction: Float[Tensor, "b f c h w"],
    chosen: Int[Tensor, "b k"],
) -> Tensor:
    """`overlap_errors` of the ventricle that a segmenter sees in chosen frames, original and reconstruction.

    Pixels say little of a wall: a reconstruction whose walls move too little, or are too soft to be placed, is a few
    points of ejection fraction off and hardly any pixel error. Clips without a ventricle do not count.

    Args:
        segmenter: grey pictures (n, 1, h, w) to scores of `axes.MASK_CLASSES`; not trained here.
        video: pixels in [0, 1].
        reconstruction: what the decoder made of it.
        chosen: indices of k frames of each clip.
    """
    clip = torch.arange(len(video), device=video.device)[:, None]
    real, made = (x[clip, chosen].flatten(0, 1).float().mean(1, keepdim=True) for x in (video, reconstruction))
    with torch.no_grad():
        classes = segmenter(real).argmax(1, keepdim=True)
    ventricle = torch.tensor(VENTRICLE, device=video.device)
    return overlap_errors(classes == ventricle[:, None, None], segmenter(made).softmax(1)[:, VENTRICLE])
