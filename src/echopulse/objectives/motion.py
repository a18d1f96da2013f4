"""What the ECG encoder's heads read of the heart's motion, against the truth where a set has one."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

_EF_SCALE = 10.0  # so that an error of ten points weighs as one of the whole stroke


def motion_loss(
    contraction: Float[Tensor, "b n"],
    ef: Float[Tensor, " b"],
    true_contraction: Float[Tensor, "b n"],
    true_ef: Float[Tensor, " b"],
) -> dict[str, Tensor]:
    """Errors of contraction and ejection fraction; NaN in the truth is left out.

    Args:
        contraction: as read: 0 at end-diastole, 1 at end-systole.
        ef: as read, between 0 and 1.
        true_contraction: the truth.
        true_ef: the truth.

    Returns:
        `contraction_error`, mean squared; `ef_error`, smooth absolute error of tenths; zero where nothing is known.
    """
    known = ~true_contraction.isnan()
    square = (contraction.float() - torch.where(known, true_contraction, 0.0)).square() * known
    return {"contraction_error": square.sum() / known.sum().clamp(min=1), "ef_error": ef_error(ef, true_ef)}


def ef_error(ef: Float[Tensor, " b"], true_ef: Float[Tensor, " b"]) -> Tensor:
    """Smooth absolute error of ejection fractions in tenths, over those whose truth is not NaN."""
    told = ~true_ef.isnan()
    truth = _EF_SCALE * torch.where(told, true_ef, 0.0)
    error = F.smooth_l1_loss(_EF_SCALE * ef.float(), truth, beta=0.2, reduction="none")
    return (error * told).sum() / told.sum().clamp(min=1)
