"""Tensors from files of unknown origin: safetensors, or pickles by torch's restricted reader."""

import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from echopulse.errors import InputError


def read_tensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a weight file by name.

    Args:
        file: `.safetensors`, or anything that `torch.save` wrote of a dictionary of tensors (`.bin`, `.pt`, `.pth`).

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
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(x, Tensor) for name, x in content.items()
    ):
        raise InputError(f"{file}: expected a dictionary of tensors by name, got a {type(content).__name__} of others")
    return content
