"""Tensors from files of unknown origin: safetensors, or pickles by torch's restricted reader."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from echopulse.errors import InputError

_INNER = ("model", "state_dict", "model_state_dict")
"""Where trainers keep a network's tensors in a file that holds more."""


def read_tensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a weight file by name.

    Args:
        file: `.safetensors`, or anything that `torch.save` wrote of a dictionary of tensors (`.bin`, `.pt`, `.pth`), or
            of a dictionary that holds such a one as `model` or `state_dict`, as trainers' checkpoints do.

    Raises:
        InputError: no such file, a damaged one, or a pickle that holds more than tensors; nothing of it is run.
    """
    if not file.is_file():
        raise InputError(f"{file}: no such file; expected weights (.safetensors, .bin or .pt)")
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        content: Any = torch.load(file, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = str(error).split(". ")[0].splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{file}: not a file of weights that can be read safely ({reason})") from error
    if isinstance(content, dict) and not _is_state(content):
        content = next((content[key] for key in _INNER if _is_state(content.get(key))), content)
    if not _is_state(content):
        raise InputError(f"{file}: expected a dictionary of tensors by name, got a {type(content).__name__} of others")
    return content


def strip_prefix(
    tensors: dict[str, Tensor], anchor: str, is_own: Callable[[str], bool], what: str
) -> tuple[dict[str, Tensor], list[str]]:
    """Finds one network among the tensors of a file that may hold several.

    Args:
        tensors: by name.
        anchor: a name that only this network has; what stands before it in the file is the network's prefix.
        is_own: whether a name, without prefix, is this network's.
        what: the network, for the message.

    Returns:
        The network's tensors without prefix, and the names of the others.

    Raises:
        InputError: the file does not hold the anchor exactly once.
    """
    prefixes = [name.removesuffix(anchor) for name in tensors if name.endswith(anchor)]
    if len(prefixes) != 1:
        raise InputError(f"not the {what}: expected one tensor {anchor}, found {len(prefixes)}")
    prefix = prefixes[0]
    stripped = {name.removeprefix(prefix): name for name in tensors if name.startswith(prefix)}
    own = {short: tensors[name] for short, name in stripped.items() if is_own(short)}
    return own, sorted(set(tensors) - {stripped[short] for short in own})


def _is_state(content: Any) -> bool:
    """Whether this is a dictionary of tensors by name."""
    return isinstance(content, dict) and all(isinstance(k, str) and isinstance(x, Tensor) for k, x in content.items())
