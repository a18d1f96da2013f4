"""Masked autoencoder that pre-trains the ECG encoder (ST-MEM, Na 2024, arXiv 2402.09450)."""

from dataclasses import dataclass, field

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from echopulse.errors import InputError
from echopulse.models.ecg_encoder import EcgEncoder, EcgEncoderConfig
from echopulse.nn.transformer import PlainBlock


@dataclass(frozen=True)
class EcgAutoencoderConfig:
    """Shape of the autoencoder; the defaults are ST-MEM's.

    Attributes:
        encoder: the encoder that is wanted.
        width, depth, heads, mult: of the decoder, which is thrown away.
        hidden_share: share of each lead's patches that the encoder does not see.
    """

    encoder: EcgEncoderConfig = field(default_factory=EcgEncoderConfig)
    width: int = 256
    depth: int = 4
    heads: int = 4
    mult: float = 4.0
    hidden_share: float = 0.75

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise InputError(f"ECG decoder width {self.width} is not a multiple of its {self.heads} heads")
        if not 1 <= self.num_kept < self.num_patches:
            raise InputError(
                f"hidden share {self.hidden_share} leaves {self.num_kept} of {self.num_patches} patches to see; "
                "expected at least one, and one hidden"
            )

    @property
    def num_patches(self) -> int:
        """Patches of one lead."""
        return self.encoder.num_samples // self.encoder.patch

    @property
    def num_kept(self) -> int:
        """Patches of one lead that the encoder sees."""
        return self.num_patches - round(self.hidden_share * self.num_patches)


class EcgAutoencoder(nn.Module):
    """The encoder sees a few patches of every lead; a small decoder, shared by leads, draws the others.

    The decoder works lead by lead, so all that leads tell of each other must be in the encoder's output. The encoder's
    convolutional branch takes no part; it learns only where the encoder reads motion, see `training.ecg`.
    """

    def __init__(self, config: EcgAutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = EcgEncoder(config.encoder)
        for name, parameter in self.encoder.named_parameters():
            parameter.requires_grad_(config.encoder.reads_motion or not name.startswith(("fine_", "marks_in")))
        self.to_decoder = nn.Linear(config.encoder.width, config.width)
        self.hidden = nn.Parameter(torch.randn(config.width) * 0.5)
        self.position = nn.Parameter(torch.randn(config.num_patches + 2, config.width) * 0.5)
        self.blocks = nn.ModuleList(PlainBlock(config.width, config.heads, config.mult) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width)
        self.to_patch = nn.Linear(config.width, config.encoder.patch)

    def forward(
        self,
        ecg: Float[Tensor, "b l s"],
        lead_ids: Int[Tensor, "b l"],
        present: Bool[Tensor, "b l"],
        kept: Int[Tensor, "b l k"],
    ) -> Float[Tensor, "b l p v"]:
        """Draws every patch, normalised.

        Args:
            ecg: standardised leads, one window.
            lead_ids: index of each row in `axes.STANDARD_LEADS`.
            present: False for rows that only pad the batch.
            kept: numbers of the patches that the encoder sees.
        """
        tokens = self.encoder.lead_tokens(ecg, lead_ids)
        ends = torch.tensor([0, tokens.shape[2] - 1], device=kept.device).expand(*kept.shape[:2], 2)
        seen = torch.cat([kept + 1, ends], dim=-1)  # in the sequence with separators
        tokens = torch.gather(tokens, 2, _along(seen, tokens.shape[-1]))
        tokens = self.to_decoder(self.encoder.norm(self.encoder.mix(tokens, present)))
        x = self.hidden.to(tokens.dtype).expand(*kept.shape[:2], len(self.position), -1)
        x = torch.scatter(x, 2, _along(seen, x.shape[-1]), tokens) + self.position
        x = rearrange(x, "b l p d -> (b l) p d")
        for block in self.blocks:
            x = block(x)
        return rearrange(self.to_patch(self.norm(x[:, 1:-1])), "(b l) p s -> b l p s", b=kept.shape[0])


def _along(index: Tensor, width: int) -> Tensor:
    return index.unsqueeze(-1).expand(-1, -1, -1, width)
