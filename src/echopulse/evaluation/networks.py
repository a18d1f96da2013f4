"""The two public networks whose code is small enough to keep here: VGG16's trunk and TransNetV2's trunk."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

VGG16_CHANNELS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
LPIPS_SHIFT, LPIPS_SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Vgg16(nn.Module):
    """Convolutions of VGG16 (Simonyan and Zisserman 2014), ImageNet weights as torchvision publishes them."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for block in VGG16_CHANNELS:
            for channels in block:
                layers += [nn.Conv2d(before, channels, 3, padding=1), nn.ReLU()]
                before = channels
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers[:-1])

    def load(self, tensors: Mapping[str, Tensor]) -> "Vgg16":
        """Takes the tensors of a torchvision VGG16; its classifier is left out."""
        self.load_state_dict({name: value for name, value in tensors.items() if name.startswith("features.")})
        return self.eval().requires_grad_(False)

    def forward(self, pictures: Tensor) -> list[Tensor]:
        """Activations after the last ReLU of each of the five blocks.

        Args:
            pictures: float (batch, 3, height, width), normalised.
        """
        outputs, x = [], pictures
        for layer in self.features:
            if isinstance(layer, nn.MaxPool2d):
                outputs.append(x)
            x = layer(x)
        return [*outputs, x]


class Lpips(nn.Module):
    """LPIPS, version 0.1, VGG variant (Zhang 2018): weighted squared differences of unit-length VGG16 features."""

    shift: Tensor
    scale: Tensor

    def __init__(self, trunk: Vgg16, heads: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.trunk = trunk
        for i in range(len(VGG16_CHANNELS)):
            self.register_buffer(f"head{i}", heads[f"lin{i}.model.1.weight"].float())
        self.register_buffer("shift", torch.tensor(LPIPS_SHIFT).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor(LPIPS_SCALE).view(1, 3, 1, 1))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Distance of each pair.

        Args:
            x: float (batch, 1 or 3, height, width) in [0, 1].
            y: the same shape.

        Returns:
            (batch,).
        """
        both = [self.trunk((2 * pictures - 1 - self.shift) / self.scale) for pictures in (x, y)]
        total = torch.zeros(x.shape[0])
        for i, (a, b) in enumerate(zip(*both, strict=True)):
            a, b = (f / (f.square().sum(dim=1, keepdim=True).sqrt() + 1e-10) for f in (a, b))
            total = total + nn.functional.conv2d((a - b).square(), getattr(self, f"head{i}")).mean(dim=(1, 2, 3))
        return total


class TransNetV2(nn.Module):
    """Dilated (2+1)-D convolutions of TransNetV2 (Soucek and Lokoc 2020), trained to find cuts; its head is left out.

    Sees the order and speed of motion, and little of texture: its input is 27x48.
    """

    def __init__(self) -> None:
        super().__init__()
        self.SDDCNN = nn.ModuleList(_Stack(inputs, filters) for inputs, filters in ((3, 16), (64, 32), (128, 64)))

    def load(self, tensors: Mapping[str, Tensor]) -> "TransNetV2":
        """Takes the tensors of a published TransNetV2."""
        self.load_state_dict({name: value for name, value in tensors.items() if name.startswith("SDDCNN.")})
        return self.eval().requires_grad_(False)

    def forward(self, video: Tensor) -> Tensor:
        """Features of a video, float (batch, 3, frames, 27, 48) in [0, 1] to (batch, 256, frames, 3, 6)."""
        for stack in self.SDDCNN:
            video = stack(video)
        return video


class _Stack(nn.Module):
    def __init__(self, inputs: int, filters: int) -> None:
        super().__init__()
        self.DDCNN = nn.ModuleList([_DilatedConvolutions(inputs, filters), _DilatedConvolutions(4 * filters, filters)])

    def forward(self, x: Tensor) -> Tensor:
        first = torch.relu(self.DDCNN[0](x))
        return nn.functional.avg_pool3d(torch.relu(self.DDCNN[1](first)) + first, (1, 2, 2))


class _DilatedConvolutions(nn.Module):
    def __init__(self, inputs: int, filters: int) -> None:
        super().__init__()
        for dilation in (1, 2, 4, 8):
            self.add_module(f"Conv3D_{dilation}", _SeparableConvolution(inputs, filters, dilation))
        self.bn = nn.BatchNorm3d(4 * filters, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(torch.cat([self.get_submodule(f"Conv3D_{d}")(x) for d in (1, 2, 4, 8)], dim=1))


class _SeparableConvolution(nn.Module):
    def __init__(self, inputs: int, filters: int, dilation: int) -> None:
        super().__init__()
        space = nn.Conv3d(inputs, 2 * filters, (1, 3, 3), padding=(0, 1, 1), bias=False)
        time = nn.Conv3d(
            2 * filters, filters, (3, 1, 1), dilation=(dilation, 1, 1), padding=(dilation, 0, 0), bias=False
        )
        self.layers = nn.Sequential(space, time)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)
