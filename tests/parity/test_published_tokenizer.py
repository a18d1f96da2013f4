"""The released tokenizer: a tiny one's outputs are reproduced, and every name of the full one finds its place."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from echopulse.errors import InputError
from echopulse.models.convert.published_tokenizer import convert_tokenizer
from echopulse.models.presets import tokenizer_config
from echopulse.models.tokenizer import VideoTokenizer

FOLDER = Path(__file__).parents[3] / "shared" / "data" / "parity"


@pytest.fixture(scope="module")
def fixture() -> dict[str, Tensor]:
    if not (FOLDER / "cvivit_tiny.safetensors").is_file():
        pytest.skip("the parity fixtures are not there")
    with safe_open(FOLDER / "cvivit_tiny.safetensors", "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}


def _weights(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("weights."): x for name, x in tensors.items() if name.startswith("weights.")}


@pytest.fixture(scope="module")
def network(fixture: dict[str, Tensor]) -> VideoTokenizer:
    tokenizer, others = convert_tokenizer(_weights(fixture))
    assert others == []
    return tokenizer


def _relative(x: Tensor, y: Tensor) -> float:
    return float((x - y).norm() / y.norm())


@torch.inference_mode()
def test_indices_are_equal_and_pixels_within_rounding(network: VideoTokenizer, fixture: dict[str, Tensor]) -> None:
    video = fixture["input.video"].transpose(1, 2)
    assert torch.equal(network.encode(video), fixture["output.indices"])
    assert _relative(network.features(video), fixture["output.encoded"]) < 1e-5
    assert _relative(network(video).reconstruction.transpose(1, 2), fixture["output.recon"]) < 1e-5
    decoded = network.decode(fixture["output.indices"]).transpose(1, 2)
    assert _relative(decoded, fixture["output.decoded_from_indices"]) < 1e-5


def test_every_released_name_finds_its_place() -> None:
    if not (FOLDER / "published_layouts.json").is_file():
        pytest.skip("the parity fixtures are not there")
    shapes = json.loads((FOLDER / "published_layouts.json").read_text())["cvivit"]
    tensors = {name: torch.zeros(shape) for name, shape in shapes.items()}
    network, others = convert_tokenizer(tensors)
    assert others == []
    assert network.config == tokenizer_config("published")
    assert network.grid_shape(11, 128, 128) == (6, 16, 16)


def test_loss_networks_in_the_file_are_named_and_left_out(fixture: dict[str, Tensor]) -> None:
    _, others = convert_tokenizer(_weights(fixture) | {"discr.0.weight": torch.zeros(1), "vgg.0.bias": torch.zeros(1)})
    assert others == ["discr.0.weight", "vgg.0.bias"]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("vq.project_out.bias", None, "1 tensors missing .quantizer.project_out.bias"),
        ("vq.project_out.bias", torch.zeros(3), "quantizer.project_out.bias has shape"),
        ("to_pixels_first_frame.0.weight", None, "to_pixels_first_frame.0.weight. is missing"),
        ("to_pixels.7.weight", torch.zeros(3), "1 unknown .to_pixels.7.weight"),
        ("enc_spatial_transformer.layers.0.9.weight", torch.zeros(3), "1 unknown"),
    ],
)
def test_another_network_is_refused(fixture: dict[str, Tensor], name: str, change: Tensor | None, message: str) -> None:
    tensors = _weights(fixture)
    if change is None:
        del tensors[name]
    else:
        tensors[name] = change
    with pytest.raises(InputError, match=message):
        convert_tokenizer(tensors)
