"""Checkpoints: a folder with `config.json` and `model.safetensors` per network. Loading is strict; nothing is unpickled."""

from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from echopulse.config import from_dict, load_json, save_json, to_dict
from echopulse.errors import InputError

N = TypeVar("N", bound=nn.Module)


def save_network(network: nn.Module, config: Any, folder: Path) -> None:
    """Writes a network: weights first under a temporary name, config last."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / ".model.safetensors.part"
    save_file({k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}, temporary)
    temporary.replace(folder / "model.safetensors")
    save_json(folder / "config.json", to_dict(config))


def load_network(network_class: type[N], config_class: type, folder: Path) -> N:
    """Reads a network that `save_network` wrote, ready for inference on the CPU.

    Raises:
        InputError: a file is missing or damaged, or the tensors are not this network's.
    """
    config = from_dict(config_class, load_json(folder / "config.json"), str(folder / "config.json"))
    network = network_class(config)
    file = folder / "model.safetensors"
    try:
        tensors = load_file(file)
    except FileNotFoundError as error:
        raise InputError(f"{file}: no such file; the checkpoint is incomplete") from error
    except (SafetensorError, OSError) as error:
        raise InputError(f"{file}: not a safetensors file ({error})") from error
    own = network.state_dict()
    missing, extra = sorted(set(own) - set(tensors)), sorted(set(tensors) - set(own))
    if missing or extra:
        raise InputError(
            f"{file} is not a {network_class.__name__} of this config: {len(missing)} tensors missing "
            f"({', '.join(missing[:3])}), {len(extra)} unknown ({', '.join(extra[:3])})"
        )
    for name, tensor in tensors.items():
        if tensor.shape != own[name].shape:
            raise InputError(f"{file}: {name} has shape {tuple(tensor.shape)}; expected {tuple(own[name].shape)}")
    network.load_state_dict({name: tensor.to(own[name].dtype) for name, tensor in tensors.items()})
    return network.eval().requires_grad_(False)
