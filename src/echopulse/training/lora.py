"""Low-rank adaptation of the tokenizer to new data (Hu 2021), by `peft`."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from echopulse.errors import InputError
from echopulse.models.checkpoints import save_network, write_tensors
from echopulse.models.tokenizer import VideoTokenizer
from echopulse.training.tokenizer import TokenizerTask

TARGETS = r".*\.(attention\.(to_q|to_kv|to_out)|feed_forward\.(to_gate|to_out))"
"""The linear layers that get an adapter: all projections of attention and feed-forward layers."""

_PREFIX = "base_model.model."
_SCALE = 2.0


def add_lora(tokenizer: VideoTokenizer, rank: int, *, stem: bool = False) -> None:
    """Puts adapters into a tokenizer, in place, and freezes everything else; the outputs stay as they were.

    Args:
        tokenizer: any.
        rank: of the adapters.
        stem: adapters in the convolutional stem too; the paper's network has none.

    Raises:
        InputError: a rank below 1, or `peft` is not installed.
    """
    if rank < 1:
        raise InputError(f"rank of LoRA is {rank}; expected 1 or more, usually 4 to 64")
    try:
        from peft import inject_adapter_in_model
    except ImportError as error:
        raise InputError('LoRA needs peft: pip install "echopulse[train]"') from error
    inject_adapter_in_model(_config(rank, _stem_layers(tokenizer) if stem else ()), tokenizer)


def trained_share(network: nn.Module) -> tuple[int, float]:
    """Number of trained parameters, and their share of all."""
    total = sum(p.numel() for p in network.parameters())
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    return trained, trained / total


def save_adapter(tokenizer: VideoTokenizer, folder: Path, *, base: str) -> None:
    """Writes the adapters alone, as `peft` lays them out.

    Args:
        tokenizer: after `add_lora`.
        folder: gets `adapter_model.safetensors` and `adapter_config.json`.
        base: name of the network that they belong to.
    """
    tensors = {
        _PREFIX + name.replace(".default.", "."): tensor.detach().cpu()
        for name, tensor in tokenizer.state_dict().items()
        if ".lora_" in name
    }
    rank = next(tensor.shape[0] for name, tensor in tensors.items() if ".lora_A." in name)
    names = (name.removeprefix(_PREFIX).rsplit(".lora_", 1)[0] for name in tensors)
    config = _config(rank, (name for name in names if not re.fullmatch(TARGETS, name)))
    config.base_model_name_or_path = base
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(tensors, folder / "adapter_model.safetensors")
    config.save_pretrained(str(folder))


def load_adapter(tokenizer: VideoTokenizer, folder: Path) -> VideoTokenizer:
    """Merges saved adapters into the tokenizer that they were trained on, in place.

    Raises:
        InputError: no adapter there, or one of another network.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        tensors = load_file(folder / "adapter_model.safetensors")
        scale = config["lora_alpha"] / config["r"]
    except FileNotFoundError as error:
        raise InputError(f"{folder}: no adapter; expected adapter_config.json and adapter_model.safetensors") from error
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder}: not an adapter ({error})") from error
    try:
        _merge(tokenizer, {name.removeprefix(_PREFIX): tensor for name, tensor in tensors.items()}, scale)
    except (KeyError, RuntimeError) as error:
        raise InputError(f"{folder}: the adapter does not fit this tokenizer; it is another network's") from error
    return tokenizer


class LoraTask(TokenizerTask):
    """`TokenizerTask` on a tokenizer with adapters; exports the adapters and the merged network.

    Args:
        tokenizer: after `add_lora`.
        data: as in `TokenizerTask`.
        init: name of the checkpoint that the tokenizer came from.
        **options: as in `TokenizerTask`.
    """

    def __init__(self, tokenizer: VideoTokenizer, data: Any, *, init: str, **options: Any) -> None:
        super().__init__(tokenizer, data, **options)
        self._init = init
        trained, share = trained_share(tokenizer)
        print(f"LoRA on {init}: {trained:,} parameters trained, {100 * share:.2f} % of {trained / share:,.0f}")

    def export(self, model: nn.Module, folder: Path) -> None:
        """Writes `adapter/`, and the merged network to `tokenizer/`."""
        assert isinstance(model, VideoTokenizer)
        save_adapter(model, folder / "adapter", base=self._init)
        save_network(merged(model), model.config, folder / "tokenizer")


def merged(tokenizer: VideoTokenizer) -> VideoTokenizer:
    """A copy without adapters that computes the same; the original stays as it is."""
    plain, tensors = VideoTokenizer(tokenizer.config), tokenizer.state_dict()
    plain.load_state_dict({k.replace(".base_layer.", "."): v for k, v in tensors.items() if ".lora_" not in k})
    _merge(plain, {k.replace(".default.", "."): v for k, v in tensors.items() if ".lora_" in k}, _SCALE)
    return plain


@torch.no_grad()
def _merge(tokenizer: VideoTokenizer, adapters: dict[str, Tensor], scale: float) -> None:
    """Adds the product of each adapter's two matrices to the weight that it belongs to."""
    parameters = dict(tokenizer.named_parameters())
    for name in sorted({name.rsplit(".lora_", 1)[0] for name in adapters}):
        up, down = adapters[f"{name}.lora_B.weight"], adapters[f"{name}.lora_A.weight"]
        weight = parameters[f"{name}.weight"]
        weight.add_(scale * (up.flatten(1) @ down.flatten(1)).view(weight.shape))


def _stem_layers(tokenizer: VideoTokenizer) -> list[str]:
    """Names of the linear and convolutional layers between pixels and tokens."""
    stem = ("patches.", "unpatches.", "first_", "pair_")
    kinds = (nn.Linear, nn.Conv2d)
    return [name for name, layer in tokenizer.named_modules() if name.startswith(stem) and isinstance(layer, kinds)]


def _config(rank: int, layers: Iterable[str] = ()):
    """Adapters on `TARGETS` and on the layers of these names."""
    from peft import LoraConfig

    targets = "|".join([TARGETS, *(re.escape(name) for name in sorted(set(layers)))])
    return LoraConfig(r=rank, lora_alpha=int(_SCALE * rank), target_modules=targets, lora_dropout=0.0, bias="none")
