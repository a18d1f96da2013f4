"""Reads the ejection fraction from a whole ECG: a small network on the median beat."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from echopulse.axes import STANDARD_LEADS
from echopulse.errors import InputError
from echopulse.signals.track import BEAT_SAMPLES


@dataclass(frozen=True)
class EfReaderConfig:
    """Shape of the reader.

    Attributes:
        width, depth: of its hidden layers.
        dropout: share of hidden values that training leaves out.
    """

    width: int = 256
    depth: int = 3
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.width < 1 or self.depth < 1 or not 0 <= self.dropout < 1:
            raise InputError(
                f"EF reader of width {self.width}, depth {self.depth}, dropout {self.dropout}; "
                "expected 1 or more, 1 or more, 0 to less than 1"
            )


class EfReader(nn.Module):
    """The ejection fraction from the median beat of every lead and from the rhythm.

    Beside the generator's encoder, which sees 3 seconds: noise averages out over the whole recording, and shapes lie in
    their places once beats are aligned. On phantom ECGs this made the error less than half.
    """

    def __init__(self, config: EfReaderConfig) -> None:
        super().__init__()
        self.config = config
        leads = len(STANDARD_LEADS)
        layers: list[nn.Module] = []
        inner = leads * BEAT_SAMPLES + leads + 2
        for _ in range(config.depth):
            layers += [nn.Linear(inner, config.width), nn.LayerNorm(config.width), nn.GELU()]
            layers += [nn.Dropout(config.dropout)]
            inner = config.width
        self.layers = nn.Sequential(*layers, nn.Linear(inner, 1))
        nn.init.constant_(self.layers[-1].bias, 0.5)  # type: ignore[arg-type]

    def forward(
        self, beat: Float[Tensor, "b l n"], present: Bool[Tensor, "b l"], rr_s: Float[Tensor, "b 2"]
    ) -> Float[Tensor, " b"]:
        """Ejection fractions between 0 and 1, not clamped.

        Args:
            beat: median beat of each of the standard leads.
            present: False for leads that are not there.
            rr_s: mean and standard deviation of the beat intervals, seconds.
        """
        there = present.to(beat.dtype)
        rhythm = torch.stack([rr_s[:, 0].clamp(min=0.2).log(), 5 * rr_s[:, 1]], dim=1)
        return self.layers(torch.cat([(beat * there.unsqueeze(-1)).flatten(1), there, rhythm], dim=1)).squeeze(-1)
