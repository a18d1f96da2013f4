"""Losses of the quantizers: what they reward, masks, and agreement with another implementation."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from echopulse.models.quantizer import Quantizer, QuantizerConfig, make_quantizer
from echopulse.objectives.quantization import quantizer_losses

LFQ = QuantizerConfig(kind="lfq", levels=(2,) * 4, group=4)


def _losses(x: Tensor, config: QuantizerConfig = LFQ, valid: Tensor | None = None) -> dict[str, Tensor]:
    """With projections that change nothing."""
    dims = len(config.levels)
    quantizer = Quantizer(config, dims)
    with torch.no_grad():
        quantizer.project_in.weight.copy_(torch.eye(dims))
        quantizer.project_in.bias.zero_()
    return quantizer_losses(config, quantizer(x), valid)


@pytest.mark.parametrize("group", [1, 2, 4])
@torch.no_grad()
def test_entropy_loss_prefers_all_codes_to_one(group: int) -> None:
    config = replace(LFQ, entropy_group=group)
    digits = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 4)
    uniform = _losses(2 * digits, config)["entropy"]
    collapsed = _losses(2 * digits[:1].expand(16, -1), config)["entropy"]
    unsure = _losses(0 * digits, config)["entropy"]
    assert float(uniform) < -0.9 * config.entropy_weight * 0.693
    assert float(uniform) < float(collapsed) - 0.05
    assert float(uniform) < float(unsure) - 0.05
    assert abs(float(collapsed)) < 1e-5 and abs(float(unsure)) < 1e-5


@torch.no_grad()
def test_only_groups_of_bits_see_that_bits_agree() -> None:
    """All bits equal: each is balanced, but two codes of sixteen are in use."""
    x = torch.tensor([[2.0] * 4, [-2.0] * 4])
    single, joint = (float(_losses(x, replace(LFQ, entropy_group=group))["entropy"]) for group in (1, 4))
    assert single == pytest.approx(-0.1 * 0.693, rel=0.05)
    assert joint == pytest.approx(-0.1 * 0.693 / 4, rel=0.05)


@pytest.mark.parametrize("diversity", [1.0, 2.5])
def test_entropy_of_all_bits_is_that_of_an_independent_library(diversity: float) -> None:
    library = pytest.importorskip("vector_quantize_pytorch")
    x = torch.randn(60, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    other = library.LFQ(
        codebook_size=32, dim=5, entropy_loss_weight=1.0, commitment_loss_weight=0.25, diversity_gamma=diversity
    ).train()
    theirs = other(x[None], inv_temperature=1.0).entropy_aux_loss
    theirs.backward()
    expected, x.grad = x.grad, None
    config = QuantizerConfig(
        kind="lfq", levels=(2,) * 5, entropy_weight=1.0, commitment_weight=0.25, diversity=diversity, entropy_group=5
    )
    terms = _losses(x, config)
    # theirs sums over the bits and adds the commitment; ours is a mean over the bits
    mine = 5 * terms["entropy"] + terms["commitment"]
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)
    mine.backward()
    torch.testing.assert_close(x.grad, expected, rtol=1e-3, atol=1e-5)


@torch.no_grad()
def test_commitment_is_zero_on_the_codes_alone() -> None:
    on, off = torch.tensor([[1.0, -1.0, 1.0, 1.0]]), torch.tensor([[1.5, -1.5, 1.5, 0.5]])
    assert float(_losses(on)["commitment"]) == 0
    assert float(_losses(off)["commitment"]) == pytest.approx(LFQ.commitment_weight * 0.25)


@pytest.mark.parametrize("kind", ["lfq", "bsq", "vq"])
def test_tokens_that_do_not_count_change_nothing(kind: str) -> None:
    levels = (9,) if kind == "vq" else (2,) * 4
    config = QuantizerConfig(kind=kind, levels=levels, group=1, code_dim=3)  # type: ignore[arg-type]
    torch.manual_seed(0)
    quantizer = make_quantizer(config, 6)
    x = torch.randn(2, 5, 6)
    valid = torch.tensor([[True] * 5, [True, True, False, False, False]])
    masked = quantizer_losses(config, quantizer(x), valid)
    alone = quantizer_losses(config, quantizer(x[valid]))
    names = {"lfq": {"entropy", "commitment"}, "bsq": {"entropy"}, "vq": {"codebook", "commitment"}}
    assert set(masked) == names[kind]
    for name, value in masked.items():
        torch.testing.assert_close(value, alone[name])


def test_codebook_and_commitment_pull_on_their_own_side() -> None:
    config = QuantizerConfig(kind="vq", levels=(9,), group=1, code_dim=3)
    torch.manual_seed(0)
    quantizer = make_quantizer(config, 6)
    for name, moves in (("codebook", "codebook"), ("commitment", "project_in.weight")):
        quantizer.zero_grad()
        quantizer_losses(config, quantizer(torch.randn(20, 6)))[name].backward()
        moved = {key for key, p in quantizer.named_parameters() if p.grad is not None and p.grad.any()}
        assert moves in moved and len(moved & {"codebook", "project_in.weight"}) == 1


def test_fsq_needs_no_losses() -> None:
    config = QuantizerConfig(kind="fsq", levels=(4, 4), group=1)
    assert quantizer_losses(config, make_quantizer(config, 8)(torch.zeros(1, 8))) == {}
