"""Fixed feature networks of the perceptual loss: Gabor energies, which need no weights, and VGG16, which does."""

import hashlib
import math
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from echopulse.errors import InputError

VGG16_DIGEST = "25d244c5fdb86c278c3442bce00783954c822e6564e34bea523f31bddfdcc4d1"
"""SHA-256 over the 26 float32 tensors of VGG16's convolutions in order, weight before bias, RGB."""

_VGG16_PLAN = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
_VGG16_MEAN = (123.68, 116.779, 103.939)


class GaborFeatures(nn.Module):
    """Local energy of texture by place, scale and direction: first-order scattering (Bruna 2013) with a logarithm.

    Each scale's picture is filtered by zero-mean complex Gabor filters; their moduli are averaged over a few pixels and
    their logarithm taken. Where speckle lies within that window does not matter, how strong, coarse and oriented it is
    does: the loss asks for texture where the pixel error asks for its absence. No weights, nothing trained.

    Args:
        scales: octaves, from 3 pixels a wave on.
        directions: of the filters.
        floor: modulus below which differences fade, in units of pixels between 0 and 1.
    """

    _filters: Tensor

    def __init__(self, scales: int = 4, directions: int = 4, floor: float = 0.004) -> None:
        super().__init__()
        self.scales, self.floor = scales, floor
        self.register_buffer("_filters", _gabor_filters((3.0, 4.25), directions, size=9), persistent=False)

    @property
    def name(self) -> str:
        """What is in use, for logs."""
        return "Gabor energies (no weights)"

    def forward(self, pictures: Float[Tensor, "n c h w"]) -> list[Float[Tensor, "n k gh gw"]]:
        """Logarithms of local energies, finest scale first."""
        x = pictures.float().mean(dim=1, keepdim=True)
        features = []
        for scale in range(self.scales):
            if min(x.shape[-2:]) < 16:
                break
            with torch.autocast(x.device.type, enabled=False):  # bfloat16 would leave rounding errors as texture
                real, imaginary = F.conv2d(F.pad(x, (4, 4, 4, 4), mode="reflect"), self._filters).chunk(2, dim=1)
            modulus = (real.square() + imaginary.square() + 1e-8).sqrt()
            window = max(8 >> scale, 2)
            features.append((F.avg_pool2d(modulus, 2 * window, stride=window) + self.floor).log())
            x = F.avg_pool2d(x, 2)
        return features


class Vgg16Features(nn.Module):
    """VGG16 up to its fourth block (Simonyan 2015), the paper's perceptual network; features of unit length a place.

    Args:
        file: safetensors with `features.<i>.weight` and `.bias` as torchvision names them; `echopulse convert vgg16`
            writes one.

    Raises:
        InputError: not that file.
    """

    _mean: Tensor
    features: nn.Sequential

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.features = _vgg16_layers()
        self.register_buffer("_mean", torch.tensor(_VGG16_MEAN).view(3, 1, 1), persistent=False)
        self.load_state_dict(_read_vgg16(file))
        self.requires_grad_(False)

    @property
    def name(self) -> str:
        """What is in use, for logs."""
        return f"VGG16 (ImageNet, {VGG16_DIGEST[:8]})"

    def forward(self, pictures: Float[Tensor, "n c h w"]) -> list[Float[Tensor, "n k gh gw"]]:
        """Activations before each of the first four poolings."""
        x = 255 * pictures.expand(-1, 3, -1, -1) - self._mean
        features = []
        for layer in list(self.features)[:23]:
            if isinstance(layer, nn.MaxPool2d):
                features.append(F.normalize(x, dim=1))
            x = layer(x)
        return [*features, F.normalize(x, dim=1)]


def vgg16_shapes() -> dict[str, tuple[int, ...]]:
    """Shapes of VGG16's 26 tensors by torchvision's names."""
    with torch.device("meta"):
        return {f"features.{name}": tuple(x.shape) for name, x in _vgg16_layers().state_dict().items()}


def _vgg16_layers() -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = 3
    for width, depth in _VGG16_PLAN:
        for _ in range(depth):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)


def vgg16_digest(tensors: dict[str, Tensor]) -> str:
    """SHA-256 of a VGG16's convolutions, whatever file they came in."""
    digest = hashlib.sha256()
    for name in sorted(tensors, key=lambda name: (int(name.split(".")[1]), name.endswith("bias"))):
        digest.update(tensors[name].float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _read_vgg16(file: Path) -> dict[str, Tensor]:
    if not file.is_file():
        raise InputError(f"{file}: no such file; expected VGG16 as `echopulse convert vgg16` writes it")
    try:
        tensors = load_file(file)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{file}: not a safetensors file ({error})") from error
    if {name: tuple(x.shape) for name, x in tensors.items()} != vgg16_shapes():
        raise InputError(f"{file}: not VGG16; expected its 13 convolutions as features.<i>.weight and .bias")
    if vgg16_digest(tensors) != VGG16_DIGEST:
        raise InputError(f"{file}: not the ImageNet weights of VGG16; their SHA-256 begins with {VGG16_DIGEST[:8]}")
    return tensors


def _gabor_filters(wavelengths: tuple[float, ...], directions: int, size: int) -> Float[Tensor, "k 1 s s"]:
    """Real parts, then imaginary ones; a wave of amplitude 1 at a filter's own frequency gives modulus 1."""
    at = torch.arange(size, dtype=torch.float64) - size // 2
    y, x = torch.meshgrid(at, at, indexing="ij")
    filters = []
    for wavelength in wavelengths:
        window = torch.exp(-(x.square() + y.square()) / (2 * (0.5 * wavelength) ** 2))
        for i in range(directions):
            angle = math.pi * i / directions
            phase = 2 * math.pi * (x * math.cos(angle) + y * math.sin(angle)) / wavelength
            wave = torch.polar(window, phase)
            wave = wave - window * wave.sum() / window.sum()
            filters.append(2 * wave / (wave * torch.polar(torch.ones_like(phase), -phase)).sum().abs())
    bank = torch.stack(filters).unsqueeze(1)
    return torch.cat([bank.real, bank.imag]).float()
