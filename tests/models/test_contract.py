"""What every network promises: shapes, repeatability, strict files, gradients, bfloat16, independent rows."""

import pickle
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from echopulse.config import load_json, save_json
from echopulse.errors import InputError
from echopulse.models.checkpoints import load_network, locate_checkpoint, save_network
from echopulse.models.critic import TokenCritic
from echopulse.models.ecg_encoder import EcgEncoder, EcgEncoderConfig, EcgFeatures
from echopulse.models.presets import generator_config, tokenizer_config
from echopulse.models.published_generator import PublishedGenerator, PublishedGeneratorConfig
from echopulse.models.tokenizer import TokenizerConfig, VideoTokenizer
from echopulse.models.video_transformer import CodePredictor, Conditions, EcgWindow, GeneratorConfig, VideoTransformer


@dataclass(frozen=True)
class Contract:
    """One network, inputs for a batch of two, and how to run it."""

    network: type[nn.Module]
    config_class: type
    config: Any
    inputs: Callable[[], tuple[Tensor, ...]]
    run: Callable[[Any, tuple[Tensor, ...]], tuple[Tensor, ...]]
    shapes: tuple[tuple[int, ...], ...]
    num_signals: int
    """How many of the inputs, the first ones, are pictures or ECG samples."""


def _videos() -> tuple[Tensor, ...]:
    return (torch.rand(2, 5, 1, 32, 48, generator=torch.Generator().manual_seed(5)),)


def _run_tokenizer(network: VideoTokenizer, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    output = network(inputs[0], quantize=False)
    return network.features(inputs[0]), output.reconstruction


def _ecg_inputs() -> tuple[Tensor, ...]:
    random = torch.Generator().manual_seed(6)
    ecg, marks = torch.randn(2, 3, 750, generator=random), torch.rand(2, 750, generator=random)
    present = torch.tensor([[True, True, True], [True, False, True]])
    return ecg, marks, torch.tensor([[0, 1, 7], [1, 5, 11]]), present


def _run_encoder(network: EcgEncoder, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    features = network(*inputs)
    return features.tokens, features.token_times_s, features.visible.float(), features.fine


def _generator_inputs() -> tuple[Tensor, ...]:
    random = torch.Generator().manual_seed(7)
    codes = torch.randint(0, 64, (2, 4, 8, 8), generator=random)
    known = torch.rand(codes.shape, generator=random) < 0.5
    times = (torch.arange(8).view(4, 2) / 25 - 0.15).repeat(2, 1, 1)
    rest = (torch.tensor([True, False]), times, torch.tensor([0.04, 0.5]), torch.tensor([0, -1]))
    return *_ecg_inputs(), codes, known, *rest, torch.tensor([0.3, float("nan")])


def _run_generator(network: VideoTransformer, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    window, (codes, known), rest = EcgWindow(*inputs[:4]), inputs[4:6], inputs[6:]
    return (network(codes, known, Conditions(window, *rest), codes),)


def _critic_inputs() -> tuple[Tensor, ...]:
    random = torch.Generator().manual_seed(9)
    tokens, fine = torch.randn(2, 30, 32, generator=random), torch.randn(2, 188, 16, generator=random)
    visible = torch.ones(2, 30, dtype=torch.bool)
    codes, _, *rest = _generator_inputs()[4:]
    return tokens, fine, torch.linspace(-1, 1, 30).repeat(2, 1), visible, codes, *rest


def _run_critic(network: TokenCritic, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    tokens, fine, times, visible, codes, *rest = inputs
    return (network(codes, Conditions(EcgFeatures(tokens, times, visible, fine), *rest)),)


def _picture_inputs() -> tuple[Tensor, ...]:
    tokens, fine, times, visible, codes, has_ecg, frame_times, *rest = _critic_inputs()
    known = torch.rand(codes[:, :1].shape, generator=torch.Generator().manual_seed(12)) < 0.5
    return tokens, fine, times, visible, codes[:, :1], known, has_ecg, frame_times[:, :1], *rest


def _run_picture(network: CodePredictor, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    tokens, fine, times, visible, codes, known, *rest = inputs
    return (network(codes, known, Conditions(EcgFeatures(tokens, times, visible, fine), *rest), codes),)


def _published_inputs() -> tuple[Tensor, ...]:
    random = torch.Generator().manual_seed(10)
    return torch.randn(2, 1, 24, generator=random), torch.randint(0, 65, (2, 4, 8, 8), generator=random)


def _run_published(network: PublishedGenerator, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (network.logits(inputs[1], inputs[0]),)


CONTRACTS = [
    Contract(
        VideoTokenizer,
        TokenizerConfig,
        tokenizer_config("tiny"),
        _videos,
        _run_tokenizer,
        ((2, 3, 2, 3, 32), (2, 5, 1, 32, 48)),
        1,
    ),
    Contract(
        EcgEncoder,
        EcgEncoderConfig,
        generator_config("tiny").ecg,
        _ecg_inputs,
        _run_encoder,
        ((2, 30, 32), (2, 30), (2, 30), (2, 188, 16)),
        2,
    ),
    Contract(
        VideoTransformer,
        GeneratorConfig,
        generator_config("tiny"),
        _generator_inputs,
        _run_generator,
        ((2, 4, 8, 8, 20),),
        2,
    ),
    Contract(
        EcgEncoder,
        EcgEncoderConfig,
        replace(generator_config("tiny").ecg, published=True),
        _ecg_inputs,
        _run_encoder,
        ((2, 30, 32), (2, 30), (2, 30), (2, 188, 16)),
        2,
    ),
    Contract(TokenCritic, GeneratorConfig, generator_config("tiny"), _critic_inputs, _run_critic, ((2, 4, 8, 8),), 2),
    Contract(
        CodePredictor, GeneratorConfig, generator_config("tiny"), _picture_inputs, _run_picture, ((2, 1, 8, 8, 20),), 2
    ),
    Contract(
        PublishedGenerator,
        PublishedGeneratorConfig,
        PublishedGeneratorConfig(64, 256, width=32, depth=2, heads=2, head_dim=16, context_dim=24, bias_width=16),
        _published_inputs,
        _run_published,
        ((2, 4, 8, 8, 64),),
        1,
    ),
]


@pytest.fixture(params=CONTRACTS, ids=lambda contract: contract.network.__name__)
def contract(request: pytest.FixtureRequest) -> Contract:
    return request.param


@pytest.fixture
def network(contract: Contract) -> nn.Module:
    torch.manual_seed(11)
    return contract.network(contract.config).eval()


@pytest.fixture
def saved(contract: Contract, network: nn.Module, tmp_path: Path) -> Path:
    save_network(network, contract.config, tmp_path / "network")
    return tmp_path / "network"


def _load(contract: Contract, folder: Path) -> nn.Module:
    return load_network(contract.network, contract.config_class, folder)


def test_output_shapes(contract: Contract, network: nn.Module) -> None:
    with torch.inference_mode():
        outputs = contract.run(network, contract.inputs())
    assert tuple(tuple(output.shape) for output in outputs) == contract.shapes


def test_same_seed_gives_the_same_result_and_another_seed_another(contract: Contract) -> None:
    results = []
    for seed in (4, 4, 5):
        torch.manual_seed(seed)
        with torch.inference_mode():
            results.append(contract.run(contract.network(contract.config).eval(), contract.inputs())[0])
    assert torch.equal(results[0], results[1])
    assert not torch.allclose(results[0], results[2])


def test_a_batch_of_two_is_two_batches_of_one(contract: Contract, network: nn.Module) -> None:
    inputs = contract.inputs()
    with torch.inference_mode():
        both = contract.run(network, inputs)
        rows = [contract.run(network, tuple(x[i : i + 1] for x in inputs)) for i in range(2)]
    for together, *alone in zip(both, *rows, strict=True):
        torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-5)


def test_every_parameter_gets_a_gradient(contract: Contract, network: nn.Module) -> None:
    network.train()
    random = torch.Generator().manual_seed(8)
    outputs = contract.run(network, contract.inputs())
    loss = sum((x * torch.randn(x.shape, generator=random)).sum() for x in outputs if x.requires_grad)
    assert isinstance(loss, Tensor)
    loss.backward()
    without = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)


def test_bfloat16_is_finite(contract: Contract, network: nn.Module) -> None:
    network.to(torch.bfloat16)
    inputs = contract.inputs()
    signals = tuple(x.to(torch.bfloat16) for x in inputs[: contract.num_signals])
    with torch.inference_mode():
        outputs = contract.run(network, signals + inputs[contract.num_signals :])
    assert outputs[0].dtype == torch.bfloat16
    assert all(torch.isfinite(output).all() for output in outputs)


def test_saved_and_loaded_network_gives_equal_outputs(contract: Contract, network: nn.Module, saved: Path) -> None:
    loaded = _load(contract, saved)
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())
    with torch.inference_mode():
        before, after = (contract.run(net, contract.inputs()) for net in (network, loaded))
    own, read = network.state_dict(), loaded.state_dict()
    assert list(own) == list(read) and all(torch.equal(own[name], read[name]) for name in own)
    for x, y in zip(before, after, strict=True):  # where memory lies may change how a convolution adds
        torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-6)
    assert sorted(path.name for path in saved.iterdir()) == ["config.json", "model.safetensors"]


def test_saved_weights_are_as_readable_as_their_config(contract: Contract, saved: Path) -> None:
    weights, config = (saved / name for name in ("model.safetensors", "config.json"))
    assert weights.stat().st_mode == config.stat().st_mode


def test_missing_tensor_is_refused_by_name(contract: Contract, saved: Path) -> None:
    tensors = load_file(saved / "model.safetensors")
    name = sorted(tensors)[0]
    del tensors[name]
    save_file(tensors, saved / "model.safetensors")
    with pytest.raises(InputError, match=f"1 tensors missing.*{name}"):
        _load(contract, saved)


def test_unknown_tensor_is_refused_by_name(contract: Contract, saved: Path) -> None:
    tensors = load_file(saved / "model.safetensors")
    save_file(tensors | {"stranger": torch.zeros(2)}, saved / "model.safetensors")
    with pytest.raises(InputError, match=r"1 unknown .*stranger"):
        _load(contract, saved)


def test_wrongly_shaped_tensor_is_refused_by_name(contract: Contract, saved: Path) -> None:
    tensors = load_file(saved / "model.safetensors")
    name = next(name for name, tensor in tensors.items() if tensor.ndim == 2)
    tensors[name] = tensors[name].T.contiguous()[:1]
    save_file(tensors, saved / "model.safetensors")
    with pytest.raises(InputError, match=f"{name} has shape"):
        _load(contract, saved)


class _Explosive:
    """Unpickling it would make the file that it names."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_pickle_is_refused_and_never_run(contract: Contract, saved: Path) -> None:
    trap = saved / "unpickled"
    (saved / "model.safetensors").write_bytes(pickle.dumps(_Explosive(trap)))
    with pytest.raises(InputError, match="not a safetensors file"):
        _load(contract, saved)
    assert not trap.exists()


@pytest.mark.parametrize("content", [b"", b"\xff" * 100, b"\x08\0\0\0\0\0\0\0{}      "], ids=["empty", "noise", "bare"])
def test_garbage_weights_are_refused(contract: Contract, saved: Path, content: bytes) -> None:
    (saved / "model.safetensors").write_bytes(content)
    with pytest.raises(InputError, match=r"model\.safetensors"):
        _load(contract, saved)


def test_truncated_weights_are_refused(contract: Contract, saved: Path) -> None:
    content = (saved / "model.safetensors").read_bytes()
    (saved / "model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="not a safetensors file"):
        _load(contract, saved)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_missing_file_is_refused(contract: Contract, saved: Path, name: str) -> None:
    (saved / name).unlink()
    with pytest.raises(InputError, match=f"{name}: no such file"):
        _load(contract, saved)


def test_config_of_another_network_is_refused(contract: Contract, saved: Path) -> None:
    save_json(saved / "config.json", load_json(saved / "config.json") | {"stranger": 1})
    with pytest.raises(InputError, match="unknown field stranger"):
        _load(contract, saved)


def test_folder_without_index_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no index\.json"):
        locate_checkpoint(tmp_path)


def test_unknown_checkpoint_names_what_there_is() -> None:
    with pytest.raises(InputError, match="no checkpoint 'nothing-of-that-name'; shipped"):
        locate_checkpoint("nothing-of-that-name")
