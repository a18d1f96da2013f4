"""Losses against the same sums written out by hand."""

import math

import pytest
import torch

from echopulse.models.quantizer import join_factors
from echopulse.objectives.masked import critic_loss, masked_code_loss, masked_patch_loss
from echopulse.objectives.reconstruction import reconstruction_loss

FACTORS = (3, 2)


def _case() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 2, 1, 2, 5, generator=random)
    codes = torch.randint(0, 6, (2, 2, 1, 2), generator=random)
    hidden = torch.tensor([True, False, True, True, False, False, True, False]).view(2, 2, 1, 2)
    return logits, codes, hidden


def test_loss_is_the_mean_cross_entropy_of_the_hidden_codes() -> None:
    logits, codes, hidden = _case()
    total, right = 0.0, 0
    for at in hidden.nonzero().tolist():
        row, code = logits[tuple(at)].tolist(), int(codes[tuple(at)])
        first, second = divmod(code, 2)
        total += math.log(sum(map(math.exp, row[:3]))) - row[first]
        total += math.log(sum(map(math.exp, row[3:]))) - row[3 + second]
        right += row.index(max(row[:3])) == first and row[3:].index(max(row[3:])) == second
    terms = masked_code_loss(logits, codes, hidden, FACTORS)
    assert float(terms["cross_entropy"]) == pytest.approx(total / 4, rel=1e-5)
    assert float(terms["accuracy"]) == right / 4


def test_visible_codes_do_not_matter() -> None:
    logits, codes, hidden = _case()
    other = torch.where(hidden, codes, 5 - codes)
    moved = torch.where(hidden.unsqueeze(-1), logits, -3 * logits)
    base, changed = masked_code_loss(logits, codes, hidden, FACTORS), masked_code_loss(moved, other, hidden, FACTORS)
    assert torch.equal(base["cross_entropy"], changed["cross_entropy"])


def test_uniform_answer_costs_the_logarithm_of_the_codebook() -> None:
    _, codes, hidden = _case()
    terms = masked_code_loss(torch.zeros(2, 2, 1, 2, 5), codes, hidden, FACTORS)
    assert float(terms["cross_entropy"]) == pytest.approx(math.log(6))


def test_certain_answer_costs_nothing() -> None:
    parts = torch.tensor([[2, 1], [0, 0]])
    logits = torch.zeros(1, 1, 1, 2, 5)
    for i, (first, second) in enumerate(parts.tolist()):
        logits[0, 0, 0, i, [first, 3 + second]] = 50.0
    codes = join_factors(parts, FACTORS).view(1, 1, 1, 2)
    terms = masked_code_loss(logits, codes, torch.ones_like(codes, dtype=torch.bool), FACTORS)
    assert float(terms["cross_entropy"]) < 1e-6 and float(terms["accuracy"]) == 1


def test_gradient_is_zero_on_visible_positions() -> None:
    logits, codes, hidden = _case()
    logits.requires_grad_()
    masked_code_loss(logits, codes, hidden, FACTORS)["cross_entropy"].backward()
    assert logits.grad is not None
    assert torch.equal(logits.grad.any(-1), hidden)


def test_reconstruction_is_the_mean_squared_error_of_the_frames_that_count() -> None:
    video = torch.zeros(1, 3, 1, 2, 2)
    again = torch.tensor([0.1, 0.2, 5.0]).view(1, 3, 1, 1, 1).expand_as(video)
    assert float(reconstruction_loss(video, again)) == pytest.approx((0.01 + 0.04 + 25) / 3)
    mask = torch.tensor([[True, True, False]])
    assert float(reconstruction_loss(video, again, mask)) == pytest.approx(0.025)


def test_patch_error_is_one_for_the_mean_and_zero_for_the_normalised_truth() -> None:
    ecg = torch.randn(2, 3, 12, generator=torch.Generator().manual_seed(1)) * 5 + 2
    hidden = torch.tensor([True, False, True]).expand(2, 3, 3)
    patches = ecg.view(2, 3, 3, 4)
    normed = (patches - patches.mean(-1, keepdim=True)) / patches.std(-1, keepdim=True, correction=0)
    mean = masked_patch_loss(torch.zeros(2, 3, 3, 4), ecg, hidden)["patch_error"]
    exact = masked_patch_loss(normed, ecg, hidden)["patch_error"]
    assert float(mean) == pytest.approx(1, abs=1e-3) and float(exact) < 1e-6
    wrong_where_seen = torch.where(hidden[..., None], normed, normed + 9)
    assert float(masked_patch_loss(wrong_where_seen, ecg, hidden)["patch_error"]) < 1e-6


def test_flat_patches_cost_nothing_when_drawn_flat() -> None:
    hidden = torch.ones(1, 1, 2, dtype=torch.bool)
    assert float(masked_patch_loss(torch.zeros(1, 1, 2, 4), torch.ones(1, 1, 8), hidden)["patch_error"]) == 0


def test_critic_loss_is_the_mean_binary_cross_entropy() -> None:
    scores, real = (
        torch.tensor([[2.0, -1.0, 0.5]]).view(1, 1, 1, 3),
        torch.tensor([True, False, False]).view(1, 1, 1, 3),
    )
    expected = (math.log1p(math.exp(-2)) + math.log1p(math.exp(-1)) + math.log1p(math.exp(0.5))) / 3
    terms = critic_loss(scores, real)
    assert float(terms["critic_entropy"]) == pytest.approx(expected, rel=1e-5)
    assert float(terms["accuracy"]) == pytest.approx(2 / 3)
    assert float(critic_loss(torch.zeros(1, 1, 1, 3), real)["critic_entropy"]) == pytest.approx(math.log(2))
