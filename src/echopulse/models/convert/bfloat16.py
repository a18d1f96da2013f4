"""A checkpoint with weights of half the size, for shipping: generation computes in bfloat16 where the processor can."""

import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from echopulse.config import save_json
from echopulse.errors import InputError


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
        file = source / name / "model.safetensors"
        try:
            tensors = load_file(file)
        except (FileNotFoundError, SafetensorError, OSError) as error:
            raise InputError(f"{file}: cannot be read ({error})") from error
        place = folder / name
        place.mkdir(parents=True, exist_ok=True)
        rounded = {key: x.to(torch.bfloat16) if x.is_floating_point() else x for key, x in tensors.items()}
        save_file(rounded, place / ".model.safetensors.part")
        (place / ".model.safetensors.part").replace(place / "model.safetensors")
        shutil.copyfile(source / name / "config.json", place / "config.json")
    if (source / "index.json").is_file():
        shutil.copyfile(source / "index.json", folder / "index.json")
    else:
        save_json(folder / "index.json", {"name": folder.resolve().name, "training_data": "", "licence": ""})
    return names
