"""Codes, digits and factors; straight-through gradients; agreement with another implementation."""

import pytest
import torch

from echopulse.errors import InputError
from echopulse.models.quantizer import (
    Quantizer,
    QuantizerConfig,
    VectorQuantizer,
    join_factors,
    make_quantizer,
    split_factors,
)

CONFIGS = [
    QuantizerConfig(kind="lfq", levels=(2,) * 5, group=5),
    QuantizerConfig(kind="lfq", levels=(2,) * 5, group=2),
    QuantizerConfig(kind="fsq", levels=(4, 3, 5), group=3),
    QuantizerConfig(kind="fsq", levels=(4, 3, 5), group=2),
    QuantizerConfig(kind="fsq", levels=(8, 2), group=1),
    QuantizerConfig(kind="bsq", levels=(2,) * 5, group=2),
]
VQ = QuantizerConfig(kind="vq", levels=(40,), group=1, code_dim=6)


@pytest.fixture(params=CONFIGS, ids=lambda c: f"{c.kind}{'x'.join(map(str, c.levels))}by{c.group}")
def config(request: pytest.FixtureRequest) -> QuantizerConfig:
    return request.param


@pytest.fixture
def open_quantizer(config: QuantizerConfig) -> Quantizer:
    """With projections that change nothing: features are the values themselves."""
    return _open(config)


def _open(config: QuantizerConfig) -> Quantizer:
    dims = len(config.levels)
    quantizer = Quantizer(config, dims)
    for layer in (quantizer.project_in, quantizer.project_out):
        with torch.no_grad():
            layer.weight.copy_(torch.eye(dims))
            layer.bias.zero_()
    return quantizer


@torch.no_grad()
def test_every_code_goes_there_and_back(open_quantizer: Quantizer) -> None:
    codes = torch.arange(open_quantizer.codebook_size)
    values = open_quantizer.embed(codes)
    length = open_quantizer.config.kind == "bsq"
    assert values.norm(dim=-1).max() == pytest.approx(1) if length else values.abs().max() == 1
    assert values.unique(dim=0).shape[0] == len(codes), "two codes share an embedding"
    with torch.no_grad():  # before the hyperbolic tangent that bounds FSQ
        features = torch.atanh(values * 0.999) if open_quantizer.config.kind == "fsq" else values
        again, found, _, _ = open_quantizer(features)
    assert torch.equal(found, codes)
    torch.testing.assert_close(again, values)


def test_first_dimension_is_most_significant(open_quantizer: Quantizer, config: QuantizerConfig) -> None:
    step = open_quantizer.codebook_size // config.levels[0]
    values = open_quantizer.embed(torch.tensor([0, step]))
    low = -(len(config.levels) ** -0.5) if config.kind == "bsq" else -1.0
    assert values[0].tolist() == pytest.approx([low] * len(config.levels))
    assert values[1, 0] > low + 0.1 and values[1, 1:].tolist() == pytest.approx([low] * (len(config.levels) - 1))


@pytest.mark.parametrize("config", [*CONFIGS, VQ], ids=lambda c: c.kind)
def test_embedding_is_what_the_forward_pass_returns(config: QuantizerConfig) -> None:
    torch.manual_seed(0)
    quantizer = make_quantizer(config, 12)
    with torch.no_grad():
        features, codes, _, _ = quantizer(torch.randn(2, 3, 4, 12))
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


@pytest.mark.parametrize("config", [*CONFIGS, VQ], ids=lambda c: c.kind)
def test_gradient_goes_straight_through(config: QuantizerConfig) -> None:
    torch.manual_seed(0)
    quantizer = make_quantizer(config, 12)
    x = torch.randn(6, 12, requires_grad=True)
    features = quantizer(x).features
    (features * torch.randn(features.shape)).sum().backward()
    assert x.grad is not None and (x.grad.abs().sum(-1) > 0).all()
    assert quantizer.project_in.weight.grad is not None and quantizer.project_in.weight.grad.any(dim=1).all()


def test_without_rounding_the_bounded_value_passes(open_quantizer: Quantizer, config: QuantizerConfig) -> None:
    x = torch.linspace(-3, 3, 7 * len(config.levels)).view(7, -1)
    with torch.no_grad():
        free, codes, _, _ = open_quantizer(x, quantize=False)
        rounded, same_codes, _, _ = open_quantizer(x)
    bounds = {"fsq": torch.tanh, "bsq": lambda z: torch.nn.functional.normalize(z, dim=-1), "lfq": lambda z: z}
    torch.testing.assert_close(free, bounds[config.kind](x))
    assert torch.equal(codes, same_codes)
    assert not torch.allclose(free, rounded)


def test_vector_quantizer_takes_the_most_similar_code() -> None:
    torch.manual_seed(0)
    quantizer = VectorQuantizer(VQ, 12)
    with torch.no_grad():
        _, codes, before, after = quantizer(torch.randn(30, 12))
        similarity = torch.nn.functional.cosine_similarity(before[:, None], quantizer.codebook[None], dim=-1)
    assert torch.equal(codes, similarity.argmax(1)) and codes.unique().numel() > 10
    torch.testing.assert_close(after, quantizer.codebook[codes])


def test_codes_of_lfq_are_those_of_an_independent_library() -> None:
    library = pytest.importorskip("vector_quantize_pytorch")
    other = library.LFQ(codebook_size=32, dim=5).eval()
    quantizer = _open(QuantizerConfig(kind="lfq", levels=(2,) * 5))
    x = torch.randn(50, 5, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        mine, theirs = quantizer(x), other(x[None])
    assert torch.equal(mine.codes, theirs.indices[0])
    torch.testing.assert_close(mine.after, theirs.quantized[0])


def test_codes_of_fsq_are_those_of_an_independent_library() -> None:
    """Odd levels, which both place alike; the library's first dimension is the least significant."""
    library = pytest.importorskip("vector_quantize_pytorch")
    other = library.FSQ([5, 3, 7])
    quantizer = _open(QuantizerConfig(kind="fsq", levels=(7, 3, 5), group=1))
    codes = torch.arange(105)
    torch.testing.assert_close(quantizer.embed(codes).flip(-1), other.indices_to_codes(codes))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(levels=()), "expected at least 2 each"),
        (dict(kind="fsq", levels=(4, 1)), "expected at least 2 each"),
        (dict(kind="fsq", levels=(8,) * 9), r"at most 2\^24"),
        (dict(levels=(2, 3)), "LFQ levels .* expected 2 in every dimension"),
        (dict(kind="bsq", levels=(2, 3)), "BSQ levels .* expected 2 in every dimension"),
        (dict(kind="vq", levels=(2, 3)), "one number, the codebook size"),
        (dict(kind="vq", levels=(8,), code_dim=0), "code_dim 0"),
        (dict(entropy_group=0), "entropy_group is 0"),
        (dict(group=0), "group is 0"),
    ],
)
def test_impossible_alphabets_are_refused(change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        QuantizerConfig(**change)
