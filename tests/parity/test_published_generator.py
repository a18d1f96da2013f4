"""The released generator and ECG encoder: tiny ones are reproduced, and all names of the full ones find their place."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from echopulse.errors import InputError
from echopulse.models.convert.published_generator import convert_generator
from echopulse.models.convert.published_st_mem import convert_st_mem
from echopulse.models.convert.state_file import read_tensors
from echopulse.models.ecg_encoder import EcgEncoder, EcgEncoderConfig
from echopulse.models.published_generator import PublishedGenerator, PublishedGeneratorConfig

FOLDER = Path(__file__).parents[3] / "shared" / "data" / "parity"
Tensors = dict[str, Tensor]


def _read(name: str) -> Tensors:
    if not (FOLDER / name).is_file():
        pytest.skip("the parity fixtures are not there")
    with safe_open(FOLDER / name, "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}


def _weights(tensors: Tensors) -> Tensors:
    return {name.removeprefix("weights."): x for name, x in tensors.items() if name.startswith("weights.")}


@pytest.fixture(scope="module")
def maskgit() -> Tensors:
    return _read("maskgit_tiny.safetensors")


@pytest.fixture(scope="module")
def st_mem() -> Tensors:
    return _read("st_mem_tiny.safetensors")


def _convert_tiny_st_mem(tensors: Tensors) -> tuple[EcgEncoder, list[str]]:
    return convert_st_mem(tensors, head_dim=16)


def _relative(x: Tensor, y: Tensor) -> float:
    return float((x - y).norm() / y.norm())


@torch.inference_mode()
def test_generator_gives_the_released_logits(maskgit: Tensors) -> None:
    network, others = convert_generator(_weights(maskgit))
    assert others == []
    for context, name in ((maskgit["input.context"], "logits"), (None, "logits_without_context")):
        logits = network.logits(maskgit["input.ids"], context).flatten(1, 3)
        assert _relative(logits, maskgit[f"output.{name}"]) < 1e-5


@torch.inference_mode()
def test_encoder_gives_the_published_tokens(st_mem: Tensors) -> None:
    network, others = _convert_tiny_st_mem(_weights(st_mem))
    assert others == []
    ecg = st_mem["input.ecg"]
    tokens = network.mix(network.lead_tokens(ecg, torch.arange(12).expand(2, -1)), torch.ones(2, 12, dtype=torch.bool))
    assert _relative(tokens.flatten(1, 2), st_mem["output.tokens_after_last_block"]) < 1e-5
    assert _relative(network.pooled(ecg, lead=1), st_mem["output.embedding_lead_ii_mean"]) < 1e-5


@pytest.mark.parametrize(
    ("layout", "convert", "config"),
    [
        ("maskgit", convert_generator, PublishedGeneratorConfig()),
        ("st_mem", convert_st_mem, EcgEncoderConfig(window_s=9.0, published=True)),
    ],
)
def test_every_published_name_finds_its_place(layout: str, convert: Callable[..., Any], config: Any) -> None:
    file = FOLDER / "published_layouts.json"
    if not file.is_file():
        pytest.skip("the parity fixtures are not there")
    shapes = json.loads(file.read_text())[layout]
    network, others = convert({name: torch.zeros(shape) for name, shape in shapes.items()})
    assert others == []
    assert network.config == config


def test_networks_are_found_behind_a_prefix_and_others_are_named(maskgit: Tensors, st_mem: Tensors) -> None:
    both = {f"maskgit.{name}": x for name, x in _weights(maskgit).items()}
    both |= {f"ecg.{name}": x for name, x in _weights(st_mem).items()} | {"ecg.mask_embedding": torch.zeros(1)}
    network, others = convert_generator(both)
    assert isinstance(network, PublishedGenerator) and all(name.startswith("ecg.") for name in others)
    encoder, others = _convert_tiny_st_mem(both)
    assert "ecg.mask_embedding" in others and len(others) == 1 + len(_weights(maskgit))
    assert torch.equal(encoder.norm.weight, st_mem["weights.norm.weight"])


def test_trainers_checkpoint_is_read_and_nothing_of_it_is_run(tmp_path: Path, maskgit: Tensors) -> None:
    torch.save({"step": 5, "model": _weights(maskgit), "opt": {"lr": 1e-4}}, tmp_path / "model-5.pt")
    assert read_tensors(tmp_path / "model-5.pt").keys() == _weights(maskgit).keys()
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(InputError, match="not the released generator"):
        convert_generator(read_tensors(tmp_path / "a.safetensors"))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("to_logits.bias", None, "1 tensors missing .head.bias"),
        ("to_logits.bias", torch.zeros(3), "head.bias has shape"),
        ("to_logits.weight", None, "to_logits.weight. is missing"),
        ("transformer.layers.0.9.weight", torch.zeros(3), "1 unknown .transformer.layers.0.9.weight"),
        ("continuous_pos_bias.net.0.0.weight", None, "expected one tensor"),
    ],
)
def test_another_generator_is_refused(maskgit: Tensors, name: str, change: Tensor | None, message: str) -> None:
    tensors = _weights(maskgit)
    tensors.pop(name, None)
    if change is not None:
        tensors[name] = change
    with pytest.raises(InputError, match=message):
        convert_generator(tensors)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("norm.bias", None, "1 tensors missing .norm.bias"),
        ("lead_embeddings.3", None, "12 lead embeddings"),
        ("pos_embedding", None, "pos_embedding. is missing"),
        ("block1.attn.fn.gate", torch.zeros(3), "1 unknown .block1.attn.fn.gate"),
    ],
)
def test_another_encoder_is_refused(st_mem: Tensors, name: str, change: Tensor | None, message: str) -> None:
    tensors = _weights(st_mem)
    tensors.pop(name, None)
    if change is not None:
        tensors[name] = change
    with pytest.raises(InputError, match=message):
        _convert_tiny_st_mem(tensors)
