"""A checkpoint with weights of half the size, for shipping: generation computes in bfloat16 where the processor can."""

import shutil
from pathlib import Path

import torch

from echopulse.config import save_json
from echopulse.errors import InputError
from echopulse.models.checkpoints import write_tensors
from echopulse.models.convert.state_file import read_tensors


def round_checkpoint(source: Path, folder: Path) -> list[str]:
    """Copies a checkpoint, its networks' weights rounded to bfloat16.

    Args:
        source: folder with a folder for each network; an index is made where there is none.
        folder: of the copy; a model card that lies there stays.

    Returns:
        Names of the networks.

    Raises:
        InputError: no network, or one that cannot be read.
    """
    names = sorted(path.parent.name for path in source.glob("*/config.json"))
    if not names:
        raise InputError(f"{source} holds no network; expected a checkpoint folder or the export of a run")
    for name in names:
        tensors = read_tensors(source / name / "model.safetensors")
        place = folder / name
        place.mkdir(parents=True, exist_ok=True)
        rounded = {key: x.to(torch.bfloat16) if x.is_floating_point() else x for key, x in tensors.items()}
        write_tensors(rounded, place / "model.safetensors")
        shutil.copyfile(source / name / "config.json", place / "config.json")
    if (source / "index.json").is_file():
        shutil.copyfile(source / "index.json", folder / "index.json")
    else:
        save_json(folder / "index.json", {"name": folder.resolve().name, "training_data": "", "licence": ""})
    return names
