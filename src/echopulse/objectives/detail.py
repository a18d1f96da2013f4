"""Losses of the detail network."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

_WINDOW = 7
_C1, _C2 = 0.01**2, 0.03**2

_LEAST_CYCLES = 4
"""Of the spectrum that is compared, per image; fewer are the outlines' business."""

_DARK = 1e-4
"""Power that a ring of an empty picture has for its logarithm."""


def structural_dissimilarity(pictures: Float[Tensor, "n 1 h w"], made: Float[Tensor, "n 1 h w"]) -> Tensor:
    """One minus the structural similarity of pictures in [0, 1], in square windows of 7 pixels (Wang 2004)."""

    def local(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, _WINDOW, stride=1)

    a, b = pictures.float(), made.float()
    mean_a, mean_b = local(a), local(b)
    covariance = local(a * b) - mean_a * mean_b
    spread = local(a * a) - mean_a.square() + local(b * b) - mean_b.square()
    structure = (2 * covariance + _C2) / (spread + _C2)
    return 1 - ((2 * mean_a * mean_b + _C1) / (mean_a.square() + mean_b.square() + _C1) * structure).mean()


def energy_score(
    true: Float[Tensor, "n c h w"], first: Float[Tensor, "n c h w"], second: Float[Tensor, "n c h w"]
) -> Tensor:
    """Energy score of two draws, over square patches of several sizes (Gneiting & Raftery 2007, eq. 22).

    A proper score: the expectation is least where a patch is drawn from the distribution of true patches given what
    the draw was made from, so neither the mean nor too much noise wins. Channels of a patch are judged together. Beside
    the patches, two views of them are judged that their distances hardly see: what a small blur takes away, which is
    fine grain, and, where channels are consecutive frames, the change from one to the next, which is flicker.
    """
    total = torch.zeros((), device=true.device)
    for view in (torch.Tensor.float, _fine, _change)[: 3 if true.shape[1] > 1 else 2]:
        x, a, b = view(true), view(first), view(second)
        for side in (2, 4, 8):
            near = 0.5 * (_distance(x, a, side) + _distance(x, b, side))
            total = total + (near - 0.5 * _distance(a, b, side)) / side
    return total


def spectral_error(true: Float[Tensor, "n c h w"], made: Float[Tensor, "n c h w"]) -> Tensor:
    """How far the power spectrum of made pictures is from that of true ones, by whole cycles per image.

    Mean power over all pictures (Hann window) in rings from 4 cycles along the shorter side to half the Nyquist
    frequency; mean square of the logarithms' differences. Too much and too little count alike; where grains lie does
    not. The patches of the energy score hardly tell neighbouring rings apart. Pictures of fewer than 16 pixels have no
    such ring: 0.
    """
    height, width = true.shape[-2:]
    last = min(height, width) // 4
    if last < _LEAST_CYCLES:
        return torch.zeros((), device=true.device)
    window = torch.outer(*(torch.hann_window(side, periodic=False, device=true.device) for side in (height, width)))
    rows = torch.fft.fftfreq(height, device=true.device)[:, None]
    columns = torch.fft.rfftfreq(width, device=true.device)
    ring = (min(height, width) * torch.hypot(rows, columns)).round().long()
    ring = ring.clamp(max=last + 1).flatten()  # what is finer goes into one ring, which is left out
    both = torch.stack([true.float(), made.float()])
    waves = torch.fft.rfft2((both - both.mean((-2, -1), keepdim=True)) * window)
    power = waves.abs().square().mean((1, 2)).flatten(1)
    rings = power.new_zeros(2, last + 2).index_add(1, ring, power)[:, _LEAST_CYCLES:-1]
    return (rings + _DARK).log().diff(dim=0).square().mean()


def _fine(pictures: Tensor) -> Tensor:
    x = pictures.float()
    return x - F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


def _change(frames: Tensor) -> Tensor:
    return frames.float().diff(dim=1)


def _distance(a: Tensor, b: Tensor, side: int) -> Tensor:
    """Mean over patches of their Euclidean distance."""
    square = (a - b).square().sum(1, keepdim=True)
    return (F.avg_pool2d(square, side, stride=max(side // 2, 1)) * side**2 + 1e-6).sqrt().mean()
