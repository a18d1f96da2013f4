"""Errors of walls against their definitions, and what a segmenter has to say of a reconstruction."""

import pytest
import torch
from torch import Tensor

from echopulse.axes import MASK_CLASSES
from echopulse.objectives.walls import overlap_errors, walls_loss


def test_overlap_errors_are_dice_and_area() -> None:
    true, made = torch.zeros(2, 1, 4, 8, 8, dtype=torch.bool)
    true[0, 0, 2:6, 2:6] = True
    made[0, 0, 2:6, 3:7] = True  # the same area, a pixel off: 12 of 16 pixels shared
    assert float(overlap_errors(true, made.float())) == pytest.approx(0.25)
    true[0, 1, :4], made[0, 1, :2] = True, True  # half of the area: Dice 2 * 16 / 48
    assert float(overlap_errors(true, made.float())) == pytest.approx((0.25 + 1 / 3 + 0.5) / 2)
    made[0, 2] = True  # a structure that is not in the picture
    assert float(overlap_errors(true, made.float())) == pytest.approx((0.25 + 1 / 3 + 0.5) / 2)
    assert float(overlap_errors(true, true.float())) == 0
    assert float(overlap_errors(torch.zeros_like(true), made.float())) == 0


def disc(radius: float, grey: float = 0.8) -> Tensor:
    rows, columns = torch.meshgrid(*2 * [torch.arange(32.0)], indexing="ij")
    return grey * torch.sigmoid(4 * (radius - torch.hypot(rows - 16, columns - 16)))


def bright_is_cavity(pictures: Tensor) -> Tensor:
    """Scores of a segmenter that takes what is brighter than 0.4 for the cavity, and sees nothing else."""
    assert pictures.shape[1:] == (1, 32, 32)
    scores = torch.zeros(len(pictures), len(MASK_CLASSES), 32, 32)
    scores[:, MASK_CLASSES.index("lv_cavity")] = 60 * (pictures[:, 0] - 0.4)
    others = torch.arange(len(MASK_CLASSES)) > MASK_CLASSES.index("lv_cavity")
    return scores.masked_fill(others[:, None, None], -30)


def test_walls_loss_sees_the_chosen_frame_of_each_clip_and_teaches_the_decoder() -> None:
    video = torch.stack([disc(5), disc(9), disc(7)])[None, :, None].expand(2, -1, 3, -1, -1)
    made = video.clone()
    made[1, 2] = disc(5)
    made.requires_grad_(True)
    same = walls_loss(bright_is_cavity, video, made, torch.tensor([[0], [1]]))
    wrong = walls_loss(bright_is_cavity, video, made, torch.tensor([[0], [2]]))
    assert 0 < 5 * float(same.detach()) < float(wrong.detach())
    more = walls_loss(bright_is_cavity, video, made, torch.tensor([[0, 1], [1, 2]]))
    assert float(same.detach()) < float(more.detach()) < float(wrong.detach())
    wrong.backward()
    assert made.grad is not None and made.grad[1, 2].abs().sum() > 0
    assert not made.grad[1, :2].any() and not made.grad[0, 1:].any()


def test_walls_loss_leaves_clips_without_a_ventricle_alone() -> None:
    video = torch.zeros(2, 1, 1, 32, 32)
    assert float(walls_loss(bright_is_cavity, video, video + 0.9, torch.tensor([[0], [0]]))) == 0
