"""ECG encoder: a spatio-temporal ViT over lead patches (ST-MEM) and a light convolutional branch for fine timing."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from echopulse.axes import STANDARD_LEADS
from echopulse.errors import InputError
from echopulse.nn.transformer import Block, PlainBlock

ECG_RATE_HZ = 250.0
"""The rate at which the encoder reads: ST-MEM's (Na 2024)."""

FINE_STRIDE = 4
"""ECG samples per step of the fine branch: 62.5 steps a second."""


@dataclass(frozen=True)
class EcgEncoderConfig:
    """Shape of the ECG encoder; the defaults are ST-MEM base, with a 3-second window.

    Attributes:
        window_s: seconds of ECG that one call sees.
        patch: samples of a patch (75 = 0.3 s).
        width, depth, heads, mult: of the ViT.
        fine_width: channels of the convolutional branch.
        fine_dilations: dilations of its residual layers, in steps of 16 ms.
        published: the ViT of the published ST-MEM: norms around the patch embedding, one separator, a position of its
            own at both ends of a lead, plain blocks.
        reads_motion: heads that read the ventricle's contraction and the ejection fraction, see `EcgFeatures`.
    """

    window_s: float = 3.0
    patch: int = 75
    width: int = 768
    depth: int = 12
    heads: int = 12
    mult: float = 4.0
    fine_width: int = 128
    fine_dilations: tuple[int, ...] = (1, 2, 4, 8, 16)
    published: bool = False
    reads_motion: bool = False

    def __post_init__(self) -> None:
        if self.num_samples % self.patch:
            raise InputError(
                f"ECG window of {self.window_s} s is {self.num_samples} samples; "
                f"expected a multiple of the patch, {self.patch} samples"
            )
        if self.width % self.heads:
            raise InputError(f"ECG encoder width {self.width} is not a multiple of its {self.heads} heads")

    @property
    def num_samples(self) -> int:
        """Samples of a window at `ECG_RATE_HZ`."""
        return round(self.window_s * ECG_RATE_HZ)

    @property
    def fine_times_s(self) -> np.ndarray:
        """Times of the fine branch's steps, relative to the window's middle."""
        return np.arange(0, self.num_samples, FINE_STRIDE) / ECG_RATE_HZ - self.window_s / 2


class EcgFeatures(NamedTuple):
    """What the generator gets of an ECG window.

    Attributes:
        tokens: patch embeddings as a sequence, all leads.
        token_times_s: time of each patch's middle, relative to the window's middle.
        visible: False where a lead is absent.
        fine: features every `FINE_STRIDE` samples, first one at the window's start.
        contraction: where the encoder reads motion: how far the left ventricle has contracted at each of these times,
            0 at end-diastole and 1 at end-systole.
        ef: where the encoder reads motion: the ejection fraction, between 0 and 1.
    """

    tokens: Float[Tensor, "b m d"]
    token_times_s: Float[Tensor, "b m"]
    visible: Bool[Tensor, "b m"]
    fine: Float[Tensor, "b q e"]
    contraction: Float[Tensor, "b q"] | None = None
    ef: Float[Tensor, " b"] | None = None

    def without_time(self) -> "EcgFeatures":
        """One vector in place of the sequence, the mean of the visible embeddings, and no fine features."""
        seen = self.visible.unsqueeze(-1).to(self.tokens.dtype)
        mean = (self.tokens * seen).sum(1, keepdim=True) / seen.sum(1, keepdim=True).clamp(min=1)
        visible = self.visible.any(1, keepdim=True)
        return EcgFeatures(mean, torch.zeros_like(self.token_times_s[:, :1]), visible, torch.zeros_like(self.fine))


class EcgEncoder(nn.Module):
    """Encodes a window of ECG, any subset of the 12 standard leads.

    Patches of every lead go through one ViT; positions are shared by leads, each lead has an embedding of its own and a
    separator token at both ends (Na 2024, arXiv 2402.09450). Absent leads are hidden from attention, never zero-filled.

    Differs from ST-MEM: the beat marks (R peaks found beforehand, one Gaussian bump each) and the raw leads also feed a
    convolutional branch at 62.5 Hz, because 0.3 s patches are too coarse to tell one frame from the next.
    """

    def __init__(self, config: EcgEncoderConfig) -> None:
        super().__init__()
        self.config = config
        c = config
        self.num_patches = c.num_samples // c.patch
        linear = nn.Linear(c.patch, c.width)
        self.embed = nn.Sequential(nn.LayerNorm(c.patch), linear, nn.LayerNorm(c.width)) if c.published else linear
        # As loud as the patches: at 0.02, the pre-training of a tiny encoder on sine waves, whose hidden patches can be
        # told, was at 0.97 of the variance after 300 steps; at 0.5 it was at 0.89.
        self.position = nn.Parameter(torch.randn(self.num_patches + 2 * c.published, c.width) * 0.5)
        self.lead = nn.Embedding(len(STANDARD_LEADS), c.width)
        self.separator = nn.Parameter(torch.randn(*(() if c.published else (2,)), c.width) * 0.5)
        self.blocks = nn.ModuleList(
            PlainBlock(c.width, c.heads, c.mult) if c.published else Block(c.width, c.heads, c.width // c.heads, c.mult)
            for _ in range(c.depth)
        )
        self.norm = nn.LayerNorm(c.width)
        e = c.fine_width
        self.fine_lead = nn.Embedding(len(STANDARD_LEADS), e)
        self.fine_in = nn.Sequential(
            nn.Conv1d(1, e // 2, 9, stride=2, padding=4), nn.GELU(), nn.Conv1d(e // 2, e, 9, stride=2, padding=4)
        )
        self.marks_in = nn.Conv1d(1, e, 9, stride=FINE_STRIDE, padding=4)
        self.fine_layers = nn.ModuleList(_Dilated(e, dilation) for dilation in c.fine_dilations)
        self.to_contraction = self.to_ef = None
        if c.reads_motion:
            self.to_contraction = nn.Sequential(nn.LayerNorm(e), nn.Linear(e, 1))
            both = c.width + e
            self.to_ef = nn.Sequential(nn.LayerNorm(both), nn.Linear(both, 64), nn.GELU(), nn.Linear(64, 1))
            nn.init.constant_(self.to_ef[-1].bias, 0.5)  # type: ignore[arg-type]

    def forward(
        self,
        ecg: Float[Tensor, "b l s"],
        marks: Float[Tensor, "b s"],
        lead_ids: Int[Tensor, "b l"],
        present: Bool[Tensor, "b l"],
    ) -> EcgFeatures:
        """Encodes.

        Args:
            ecg: standardised leads at `ECG_RATE_HZ`, one window.
            marks: bumps of height 1 on the R peaks; zero where they are unknown.
            lead_ids: index of each row in `axes.STANDARD_LEADS`.
            present: False for rows that only pad the batch.
        """
        tokens = self.norm(self.mix(self.lead_tokens(ecg, lead_ids), present)[:, :, 1:-1])
        visible = present.unsqueeze(-1).expand(-1, -1, self.num_patches)
        middle = (torch.arange(self.num_patches, device=ecg.device) + 0.5) * (self.config.patch / ECG_RATE_HZ)
        times = (middle - self.config.window_s / 2).repeat(ecg.shape[1]).expand(ecg.shape[0], -1)
        tokens, visible = rearrange(tokens, "b l p d -> b (l p) d"), rearrange(visible, "b l p -> b (l p)")
        fine = self._fine_features(ecg, marks, lead_ids, present)
        if self.to_contraction is None or self.to_ef is None:
            return EcgFeatures(tokens, times, visible, fine)
        weight = visible.to(tokens.dtype) / visible.sum(1, keepdim=True).clamp(min=1)
        whole = torch.cat([torch.einsum("bmd,bm->bd", tokens, weight), fine.mean(1)], dim=-1)
        contraction, ef = self.to_contraction(fine).squeeze(-1), self.to_ef(whole).squeeze(-1)
        return EcgFeatures(tokens, times, visible, fine, contraction, ef)

    def lead_tokens(self, ecg: Float[Tensor, "b l s"], lead_ids: Int[Tensor, "b l"]) -> Float[Tensor, "b l p d"]:
        """Embedded patches of each lead between its two separators, before any attention."""
        assert ecg.shape[-1] == self.config.num_samples
        x = self.embed(rearrange(ecg, "b l (p k) -> b l p k", k=self.config.patch))
        first, last = self.separator.expand(2, -1)[:, None, None, None].expand(-1, *lead_ids.shape, 1, -1)
        position = self.position if self.config.published else F.pad(self.position, (0, 0, 1, 1))
        return torch.cat([first, x, last], dim=2) + position + self.lead(lead_ids).unsqueeze(2)

    def mix(self, tokens: Float[Tensor, "b l p d"], present: Bool[Tensor, "b l"]) -> Float[Tensor, "b l p d"]:
        """Attention over the tokens of all present leads, any number of each; before the last norm."""
        leads = tokens.shape[1]
        visible = present.unsqueeze(-1).expand(tokens.shape[:3])
        hidden = rearrange(visible, "b l p -> b 1 1 (l p)")
        tokens = rearrange(tokens, "b l p d -> b (l p) d")
        for block in self.blocks:
            tokens = block(tokens, bias=hidden)
        return rearrange(tokens, "b (l p) d -> b l p d", l=leads)

    def pooled(self, ecg: Float[Tensor, "b l s"], lead: int) -> Float[Tensor, "b d"]:
        """One vector a window: the mean over one lead's patches, then the norm, as the released generator takes it.

        Args:
            ecg: all standard leads.
            lead: index in `axes.STANDARD_LEADS`.
        """
        lead_ids = torch.arange(len(STANDARD_LEADS), device=ecg.device).expand(ecg.shape[0], -1)
        tokens = self.mix(self.lead_tokens(ecg, lead_ids), torch.ones_like(lead_ids, dtype=torch.bool))
        return self.norm(tokens[:, lead, 1:-1].mean(1))

    def _fine_features(self, ecg: Tensor, marks: Tensor, lead_ids: Tensor, present: Tensor) -> Tensor:
        b = ecg.shape[0]
        x = self.fine_in(rearrange(ecg, "b l s -> (b l) 1 s"))
        x = rearrange(x, "(b l) e q -> b l e q", b=b) * torch.sigmoid(self.fine_lead(lead_ids)).unsqueeze(-1)
        weight = present.to(x.dtype) / present.sum(1, keepdim=True).clamp(min=1)
        x = torch.einsum("bleq,bl->beq", x, weight) + self.marks_in(marks.unsqueeze(1))
        for layer in self.fine_layers:
            x = layer(x)
        return rearrange(x, "b e q -> b q e")


class _Dilated(nn.Module):
    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, width)
        self.conv = nn.Conv1d(width, width, 5, padding=2 * dilation, dilation=dilation)

    def forward(self, x: Tensor) -> Tensor:
        return x + F.gelu(self.conv(self.norm(x)))


def sample_contraction(features: EcgFeatures, times_s: Float[Tensor, "b t two"], window_s: float) -> Tensor:
    """Contraction at given times, of their shape; `features` are those of an encoder that reads motion."""
    assert features.contraction is not None
    fine = features.contraction.unsqueeze(-1)
    return sample_fine(fine, times_s.flatten(1), window_s).view(times_s.shape)


def sample_fine(fine: Float[Tensor, "b q e"], times_s: Float[Tensor, "b n"], window_s: float) -> Float[Tensor, "b n e"]:
    """Fine features at given times by linear interpolation; times are relative to the window's middle, seconds."""
    place = (times_s + window_s / 2) * (ECG_RATE_HZ / FINE_STRIDE)
    place = place.clamp(0, fine.shape[1] - 1)
    low = place.floor().long().clamp(max=fine.shape[1] - 2)
    weight = (place - low).unsqueeze(-1).to(fine.dtype)
    index = low.unsqueeze(-1).expand(-1, -1, fine.shape[-1])
    return torch.gather(fine, 1, index) * (1 - weight) + torch.gather(fine, 1, index + 1) * weight
