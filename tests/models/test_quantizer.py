"""Codes, digits and factors; straight-through gradients; what LFQ's losses reward."""

import pytest
import torch

from echopulse.errors import InputError
from echopulse.models.quantizer import Quantizer, QuantizerConfig, join_factors, split_factors

CONFIGS = [
    QuantizerConfig(kind="lfq", levels=(2,) * 5, group=5),
    QuantizerConfig(kind="lfq", levels=(2,) * 5, group=2),
    QuantizerConfig(kind="fsq", levels=(4, 3, 5), group=3),
    QuantizerConfig(kind="fsq", levels=(4, 3, 5), group=2),
    QuantizerConfig(kind="fsq", levels=(8, 2), group=1),
]


@pytest.fixture(params=CONFIGS, ids=lambda c: f"{c.kind}{'x'.join(map(str, c.levels))}by{c.group}")
def config(request: pytest.FixtureRequest) -> QuantizerConfig:
    return request.param


@pytest.fixture
def open_quantizer(config: QuantizerConfig) -> Quantizer:
    """With projections that change nothing: features are the values themselves."""
    dims = len(config.levels)
    quantizer = Quantizer(config, dims)
    for layer in (quantizer.project_in, quantizer.project_out):
        with torch.no_grad():
            layer.weight.copy_(torch.eye(dims))
            layer.bias.zero_()
    return quantizer


def test_every_code_goes_there_and_back(open_quantizer: Quantizer) -> None:
    codes = torch.arange(open_quantizer.codebook_size)
    values = open_quantizer.embed(codes)
    assert values.abs().max() == 1
    assert values.unique(dim=0).shape[0] == len(codes), "two codes share an embedding"
    with torch.no_grad():  # before the hyperbolic tangent that bounds FSQ
        features = torch.atanh(values * 0.999) if open_quantizer.config.kind == "fsq" else values
        again, found, _ = open_quantizer(features)
    assert torch.equal(found, codes)
    torch.testing.assert_close(again, values)


def test_first_dimension_is_most_significant(open_quantizer: Quantizer, config: QuantizerConfig) -> None:
    step = open_quantizer.codebook_size // config.levels[0]
    values = open_quantizer.embed(torch.tensor([0, step]))
    assert values[0].tolist() == [-1.0] * len(config.levels)
    assert values[1, 0] > -1 and values[1, 1:].tolist() == [-1.0] * (len(config.levels) - 1)


def test_embedding_is_what_the_forward_pass_returns(config: QuantizerConfig) -> None:
    torch.manual_seed(0)
    quantizer = Quantizer(config, 12)
    with torch.no_grad():
        features, codes, _ = quantizer(torch.randn(2, 3, 4, 12))
        torch.testing.assert_close(quantizer.embed(codes), features, rtol=1e-5, atol=1e-6)
    assert codes.shape == (2, 3, 4)


def test_factors_are_inverse_and_in_range(config: QuantizerConfig) -> None:
    size = 1
    for factor in config.factors:
        size *= factor
    codes = torch.arange(size).view(1, -1)
    parts = split_factors(codes, config.factors)
    assert parts.shape == (1, size, len(config.factors))
    assert all(parts[..., i].unique().tolist() == list(range(n)) for i, n in enumerate(config.factors))
    assert torch.equal(join_factors(parts, config.factors), codes)


def test_factors_follow_the_digits() -> None:
    config = QuantizerConfig(kind="fsq", levels=(4, 3, 5), group=2)
    assert config.factors == (12, 5)
    assert split_factors(torch.tensor([2 * 15 + 1 * 5 + 4]), config.factors).tolist() == [[2 * 3 + 1, 4]]


def test_gradient_goes_straight_through(config: QuantizerConfig) -> None:
    torch.manual_seed(0)
    quantizer = Quantizer(config, 12)
    x = torch.randn(6, 12, requires_grad=True)
    features, _, _ = quantizer(x)
    (features * torch.randn(features.shape)).sum().backward()
    assert x.grad is not None and (x.grad.abs().sum(-1) > 0).all()
    assert quantizer.project_in.weight.grad is not None and quantizer.project_in.weight.grad.any(dim=1).all()


def test_without_rounding_the_bounded_value_passes(open_quantizer: Quantizer, config: QuantizerConfig) -> None:
    x = torch.linspace(-3, 3, 7 * len(config.levels)).view(7, -1)
    with torch.no_grad():
        free, codes, _ = open_quantizer(x, quantize=False)
        rounded, same_codes, _ = open_quantizer(x)
    torch.testing.assert_close(free, torch.tanh(x) if config.kind == "fsq" else x)
    assert torch.equal(codes, same_codes)
    assert not torch.allclose(free, rounded)


def _lfq() -> Quantizer:
    quantizer = Quantizer(QuantizerConfig(kind="lfq", levels=(2,) * 4, group=4, diversity=1.0), 4)
    with torch.no_grad():
        quantizer.project_in.weight.copy_(torch.eye(4))
        quantizer.project_in.bias.zero_()
    return quantizer


@torch.no_grad()
def test_entropy_loss_prefers_all_codes_to_one() -> None:
    quantizer = _lfq()
    digits = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 4)
    uniform = quantizer(2 * digits)[2]["entropy"]
    collapsed = quantizer(2 * digits[:1].expand(16, -1))[2]["entropy"]
    unsure = quantizer(0 * digits)[2]["entropy"]
    assert float(uniform) < -0.9 * quantizer.config.entropy_weight * 0.693
    assert float(uniform) < float(collapsed) - 0.05
    assert float(uniform) < float(unsure) - 0.05
    assert abs(float(collapsed)) < 1e-5 and abs(float(unsure)) < 1e-5


@torch.no_grad()
def test_commitment_is_zero_on_the_codes_alone() -> None:
    quantizer = _lfq()
    on, off = torch.tensor([[1.0, -1.0, 1.0, 1.0]]), torch.tensor([[1.5, -1.5, 1.5, 0.5]])
    assert float(quantizer(on)[2]["commitment"]) == 0
    assert float(quantizer(off)[2]["commitment"]) == pytest.approx(quantizer.config.commitment_weight * 0.25)


def test_fsq_needs_no_losses() -> None:
    assert Quantizer(QuantizerConfig(kind="fsq", levels=(4, 4), group=1), 8)(torch.zeros(1, 8))[2] == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(levels=()), "expected at least 2 each"),
        (dict(kind="fsq", levels=(4, 1)), "expected at least 2 each"),
        (dict(kind="fsq", levels=(8,) * 9), r"at most 2\^24"),
        (dict(levels=(2, 3)), "expected 2 in every dimension"),
        (dict(group=0), "group is 0"),
    ],
)
def test_impossible_alphabets_are_refused(change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        QuantizerConfig(**change)
