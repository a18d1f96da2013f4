"""Perceptual loss (paper eq. 3): squared difference of deep features of randomly chosen frames."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from echopulse.errors import InputError


def perceptual_loss(
    network: Callable[[Tensor], list[Tensor]],
    video: Float[Tensor, "b f c h w"],
    reconstruction: Float[Tensor, "b f c h w"],
    chosen: Int[Tensor, " b"],
    *,
    change: bool = False,
) -> Tensor:
    """Mean squared difference of features, the mean over layers.

    Differs from the paper: with `change`, the change from the chosen frame to the next one is compared (where there is
    one), so that texture has to move as it does in the original instead of standing still or flickering.

    Args:
        network: pictures to a list of features; see `models.perceptual`.
        video: pixels in [0, 1].
        reconstruction: what the decoder made of it.
        chosen: index of a frame of each clip; the last frame only where it is the only one.
        change: compare the change to the next frame, too; for networks without a notion of what a picture is.

    Raises:
        InputError: a frame that the clip does not have.
    """
    frames = video.shape[1]
    if int(chosen.min()) < 0 or int(chosen.max()) > max(frames - 2, 0):
        raise InputError(f"chosen frames {chosen.tolist()}; expected 0 to {max(frames - 2, 0)} of {frames} frames")
    real, made = (network(_pictures(x.float(), chosen, change)) for x in (video, reconstruction))
    return torch.stack([torch.mean((x - y).square()) for x, y in zip(made, real, strict=True)]).mean()


def _pictures(video: Tensor, chosen: Tensor, change: bool) -> Tensor:
    """The chosen frames, then their change to the next frame."""
    clip = torch.arange(len(video), device=video.device)
    frame = video[clip, chosen]
    if not change or video.shape[1] == 1:
        return frame
    return torch.cat([frame, video[clip, chosen + 1] - frame])
