"""Pixel losses of the tokenizer."""

import torch
from jaxtyping import Float
from torch import Tensor


def reconstruction_loss(
    video: Float[Tensor, "b f c h w"], reconstruction: Float[Tensor, "b f c h w"], quantizer_losses: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Mean squared error over all pixels of all frames (paper eq. 2) beside the quantizer's terms (eq. 4).

    Args:
        video: pixels in [0, 1].
        reconstruction: what the decoder made of it.
        quantizer_losses: already weighted terms by name.

    Returns:
        Each term by name; their sum is the loss. The pixel term is scaled by 20 so that it is near 0.1 in training,
        the size for which the quantizer's weights are set.
    """
    error = torch.mean((reconstruction.float() - video.float()) ** 2)
    return {"reconstruction": 20 * error, **quantizer_losses}
