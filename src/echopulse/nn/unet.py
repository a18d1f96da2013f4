"""A small U-Net trunk."""

from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from echopulse.nn.activation import gelu_of_maps


class UNet(nn.Module):
    """Maps to maps of the same size (Ronneberger 2015), in residual steps, skips added and not concatenated.

    Args:
        inputs: channels that come in.
        widths: channels at full size, 1/2, 1/4, ...; multiples of 8.
        outputs: channels that go out.
    """

    def __init__(self, inputs: int, widths: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        pairs = list(pairwise(widths))
        self.stem = nn.Conv2d(inputs, widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList(Residual(width) for width in widths)
        self.downs = nn.ModuleList(nn.Conv2d(fine, coarse, 2, stride=2) for fine, coarse in pairs)
        self.ups = nn.ModuleList(nn.Conv2d(coarse, 4 * fine, 1) for fine, coarse in pairs)
        self.up_blocks = nn.ModuleList(Residual(width) for width in widths[:-1])
        self.head = nn.Conv2d(widths[0], outputs, 3, padding=1)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k h w"]:
        """Height and width are multiples of `2 ** (len(widths) - 1)`."""
        x = self.stem(x)
        skips = []
        for block, down in zip(self.down_blocks[:-1], self.downs, strict=True):
            x = block(x)
            skips.append(x)
            x = down(x)
        x = self.down_blocks[-1](x)
        for block, up in zip(reversed(self.up_blocks), reversed(self.ups), strict=True):
            x = block(F.pixel_shuffle(up(x), 2) + skips.pop())
        return self.head(x)


class Residual(nn.Module):
    """Two convolutions around a skip.

    Args:
        width: channels, a multiple of 8.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, width)
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """The same shape."""
        return x + self.second(gelu_of_maps(self.first(gelu_of_maps(self.norm(x)))))
