"""Pixel loss of the tokenizer."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def reconstruction_loss(
    video: Float[Tensor, "b f c h w"],
    reconstruction: Float[Tensor, "b f c h w"],
    frame_mask: Bool[Tensor, "b f"] | None = None,
) -> Tensor:
    """Mean squared error over all pixels of all frames (paper eq. 2).

    Args:
        video: pixels in [0, 1].
        reconstruction: what the decoder made of it.
        frame_mask: frames that count; None for all.
    """
    error = (reconstruction.float() - video.float()).square()
    return torch.mean(error if frame_mask is None else error[frame_mask])
