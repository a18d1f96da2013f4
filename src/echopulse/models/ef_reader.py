"""Reads the ejection fraction from a whole ECG: a small network on the median beat."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from echopulse.axes import STANDARD_LEADS
from echopulse.errors import InputError
from echopulse.signals.track import BEAT_SAMPLES

_LEAST_MV = 1e-3  # standard deviation of a component that counts half
_FARTHEST = 10.0  # standard deviations that an ECG unlike any in training can lie off


@dataclass(frozen=True)
class EfReaderConfig:
    """Shape of the reader.

    Attributes:
        components: of a lead's beat.
        width, depth: of its hidden layers.
        dropout: share of hidden values that training leaves out.
    """

    components: int = 16
    width: int = 512
    depth: int = 3
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if not 1 <= self.components <= BEAT_SAMPLES:
            raise InputError(f"EF reader of {self.components} components; expected 1 to {BEAT_SAMPLES}")
        if self.width < 1 or self.depth < 1 or not 0 <= self.dropout < 1:
            raise InputError(
                f"EF reader of width {self.width}, depth {self.depth}, dropout {self.dropout}; "
                "expected 1 or more, 1 or more, 0 to less than 1"
            )


class EfReader(nn.Module):
    """The ejection fraction from the median beat of every lead and from the rhythm.

    Beside the generator's encoder, which sees 3 seconds: noise averages out over the whole recording, and shapes lie in
    their places once beats are aligned. On phantom ECGs this made the error less than half. What tells the EF is small
    beside the QRS complex, so each lead's beat is taken apart into its principal components, all of unit variance.
    """

    mean: Tensor
    basis: Tensor

    def __init__(self, config: EfReaderConfig) -> None:
        super().__init__()
        self.config = config
        leads = len(STANDARD_LEADS)
        self.register_buffer("mean", torch.zeros(leads, BEAT_SAMPLES))
        self.register_buffer("basis", torch.randn(leads, BEAT_SAMPLES, config.components))
        layers: list[nn.Module] = []
        inner = leads * config.components + leads + 2
        for _ in range(config.depth):
            layers += [nn.Linear(inner, config.width), nn.LayerNorm(config.width), nn.GELU()]
            layers += [nn.Dropout(config.dropout)]
            inner = config.width
        self.layers = nn.Sequential(*layers, nn.Linear(inner, 1))
        nn.init.constant_(self.layers[-1].bias, 0.5)  # type: ignore[arg-type]

    @torch.no_grad()
    def fit(self, beat: Float[Tensor, "b l n"], present: Bool[Tensor, "b l"]) -> None:
        """Sets the components to those of the given beats, in millivolts; those of leads that none has stay."""
        for lead, there in enumerate(present.T):
            beats = beat[there, lead].double()
            if len(beats) > 1:
                variance, vectors = torch.linalg.eigh(beats.T.cov())
                scale = variance.clamp(min=0).sqrt() / (variance.clamp(min=0) + _LEAST_MV**2)
                self.mean[lead] = beats.mean(0)
                self.basis[lead] = (vectors * scale).flip(1)[:, : self.config.components]

    def forward(
        self, beat: Float[Tensor, "b l n"], present: Bool[Tensor, "b l"], rr_s: Float[Tensor, "b 2"]
    ) -> Float[Tensor, " b"]:
        """Ejection fractions between 0 and 1, not clamped.

        Args:
            beat: median beat of each of the standard leads, millivolts.
            present: False for leads that are not there.
            rr_s: mean and standard deviation of the beat intervals, seconds.
        """
        there = present.to(beat.dtype)
        parts = torch.einsum("bln,lnk->blk", beat - self.mean, self.basis).clamp(-_FARTHEST, _FARTHEST)
        rhythm = torch.stack([rr_s[:, 0].clamp(min=0.2).log(), 5 * rr_s[:, 1]], dim=1)
        return self.layers(torch.cat([(parts * there.unsqueeze(-1)).flatten(1), there, rhythm], dim=1)).squeeze(-1)
