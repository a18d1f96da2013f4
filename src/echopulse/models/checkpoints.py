"""Checkpoints: a folder with `config.json` and `model.safetensors` per network; strict loading, no pickles."""

from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from echopulse.config import from_dict, load_json, save_json, to_dict
from echopulse.errors import InputError

N = TypeVar("N", bound=nn.Module)

_SHIPPED = Path(__file__).parent.parent / "weights"


def save_network(network: nn.Module, config: Any, folder: Path) -> None:
    """Writes a network: weights first under a temporary name, config last."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(network.state_dict(), folder / "model.safetensors")
    save_json(folder / "config.json", to_dict(config))


def write_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Writes a safetensors file under a temporary name, then renames it.

    Others may read it as any new file: safetensors 0.8 by itself leaves it to its owner alone (its issue 782).
    """
    temporary = path.with_name(f".{path.name}.part")
    temporary.touch()
    mode = temporary.stat().st_mode
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, temporary)
    temporary.chmod(mode)
    temporary.replace(path)


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
    return load_strictly(network, tensors, f"{file} is not a {network_class.__name__} of this config")


def load_strictly(network: N, tensors: dict[str, Tensor], mismatch: str) -> N:
    """Loads tensors that must be the network's, all of them and no others; it is then ready for inference.

    Args:
        network: gets the tensors, in its own precision.
        tensors: by the network's names.
        mismatch: how the error begins.

    Raises:
        InputError: a tensor is missing, unknown or of another shape.
    """
    own = network.state_dict()
    missing, extra = sorted(set(own) - set(tensors)), sorted(set(tensors) - set(own))
    if missing or extra:
        raise InputError(
            f"{mismatch}: {len(missing)} tensors missing ({', '.join(missing[:3])}), "
            f"{len(extra)} unknown ({', '.join(extra[:3])})"
        )
    for name, tensor in tensors.items():
        if tensor.shape != own[name].shape:
            raise InputError(f"{mismatch}: {name} has shape {tuple(tensor.shape)}; expected {tuple(own[name].shape)}")
    network.load_state_dict({name: tensor.to(own[name].dtype) for name, tensor in tensors.items()})
    return network.eval().requires_grad_(False)


def find_network(name: str | Path, network: str) -> Path:
    """The folder of one network: in a training run, in a checkpoint folder, that folder itself, or a shipped one.

    Args:
        name: a folder, or what `locate_checkpoint` takes.
        network: as `tokenizer` or `generator`.

    Raises:
        InputError: there is none.
    """
    place = Path(name)
    for folder in (place / "export" / network, place / network, place, _SHIPPED / place):
        if (folder / "config.json").is_file():
            return folder
    if place.exists() or (isinstance(name, Path) and len(place.parts) > 1):  # a path is never a hub id
        raise InputError(f"{place} holds no {network}; expected a run of `train {network}` or a checkpoint folder")
    folder = locate_checkpoint(str(name)) / network
    if not folder.is_dir():
        raise InputError(f"checkpoint {name} has no {network}")
    return folder


def locate_checkpoint(name: str | Path, *, revision: str | None = None) -> Path:
    """The folder of a checkpoint: a shipped name, a local folder, or a hub repository id (`owner/name`).

    Raises:
        InputError: there is nothing of that name.
    """
    if isinstance(name, str) and (_SHIPPED / name / "index.json").is_file():
        return _SHIPPED / name
    folder = Path(name)
    if (folder / "index.json").is_file():
        return folder
    if folder.exists():
        raise InputError(f"{folder} is no checkpoint: it has no index.json")
    names = sorted(path.parent.name for path in _SHIPPED.glob("*/index.json"))
    text = str(name)
    if text.count("/") == 1 and not text.startswith((".", "/", "~")):
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

        try:
            return Path(snapshot_download(text, revision=revision, allow_patterns=["*.json", "*.safetensors", "*.md"]))
        except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
            raise InputError(
                f"checkpoint {text!r} is no local folder and cannot be had from the hub: {error}"
            ) from error
    raise InputError(f"no checkpoint {text!r}; shipped: {', '.join(names) or 'none'}; or give a folder or a hub id")
