"""Patch discriminators of the tokenizer's adversarial loss: of pictures, or of clips (Isola 2017; Yu 2024)."""

from dataclasses import dataclass
from typing import Literal

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from echopulse.errors import InputError


@dataclass(frozen=True)
class DiscriminatorConfig:
    """Shape of a discriminator.

    Attributes:
        kind: `video` sees three frames at once from its first layer on, `image` one.
        channels: picture channels.
        width: channels after the first layer; doubled at each further one, up to four times.
        depth: layers that halve the grid after the first, which reduces by 4.
    """

    kind: Literal["image", "video"] = "video"
    channels: int = 1
    width: int = 32
    depth: int = 2

    def __post_init__(self) -> None:
        if self.width < 1 or self.depth < 1:
            raise InputError(f"discriminator width = {self.width}, depth = {self.depth}; expected 1 or more")


class PatchDiscriminator(nn.Module):
    """Says of each patch how real it looks; spectrally normalised (Miyato 2018), so it needs no batch statistics."""

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        time = 3 if config.kind == "video" else 1
        layers: list[nn.Module] = [
            nn.Conv3d(config.channels, config.width, (time, 8, 8), stride=(1, 4, 4), padding=(time // 2, 2, 2))
        ]
        width = config.width
        for _ in range(config.depth):
            wider = min(2 * width, 4 * config.width)
            stride = (2, 2, 2) if config.kind == "video" else (1, 2, 2)
            layers.append(nn.Conv3d(width, wider, (time, 4, 4), stride=stride, padding=(time // 2, 1, 1)))
            width = wider
        layers.append(nn.Conv3d(width, 1, (1, 3, 3), padding=(0, 1, 1)))
        self.layers = nn.ModuleList(spectral_norm(layer) for layer in layers)

    def forward(self, video: Float[Tensor, "b f c h w"]) -> Float[Tensor, "b t gh gw"]:
        """One number a patch, positive where the patch looks real.

        Raises:
            InputError: other channels, or fewer than two frames for a discriminator of videos.
        """
        _, f, c, _, _ = video.shape
        if c != self.config.channels:
            raise InputError(f"the discriminator got {c} channels; it was made for {self.config.channels}")
        if self.config.kind == "video" and f < 2:
            raise InputError(
                f"a video discriminator got clips of {f} frame; give clips of 3 frames or more, or choose kind = image"
            )
        x = rearrange(2 * video - 1, "b f c h w -> b c f h w")
        *hidden, last = self.layers
        for layer in hidden:
            x = F.leaky_relu(layer(x), 0.2)
        return last(x).squeeze(1)
