"""The decoding loop: all hidden → predict → keep the most confident → repeat (MaskGIT, Chang 2022; paper eq. 8)."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from echopulse.errors import InputError
from echopulse.models.ecg_encoder import EcgFeatures
from echopulse.models.quantizer import join_factors
from echopulse.models.video_transformer import Conditions, VideoTransformer
from echopulse.sampling.schedule import cosine_share, keep_most_confident


@dataclass(frozen=True)
class DecodeSettings:
    """How codes are drawn.

    Attributes:
        steps: passes through the network for one window.
        guidance: weight w of `null + w (conditional − null)`; 1 switches guidance off.
        guided_share: first share of the steps that is guided; later ones cost half.
        temperature: of the softmax that codes are drawn from.
        choice_temperature: Gumbel noise on the confidence, annealed to 0 (paper: 0.9).
    """

    steps: int = 8
    guidance: float = 1.5
    guided_share: float = 0.5
    temperature: float = 1.0
    choice_temperature: float = 2.0

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= 256:
            raise InputError(f"steps is {self.steps}; expected 1 to 256")
        if not (math.isfinite(self.guidance) and 0 <= self.guidance <= 20):
            raise InputError(f"guidance is {self.guidance}; expected 0 to 20 (1 switches it off)")
        if not 0 <= self.guided_share <= 1:
            raise InputError(f"guided share is {self.guided_share}; expected 0 to 1")
        if not 0 <= self.choice_temperature <= 100:
            raise InputError(f"choice temperature is {self.choice_temperature}; expected 0 to 100")
        if not 0 < self.temperature <= 5:
            raise InputError(f"temperature is {self.temperature}; expected more than 0, at most 5")


def decode_window(
    model: VideoTransformer,
    codes: Int[Tensor, "b t gh gw"],
    known: Bool[Tensor, "b t gh gw"],
    conditions: Conditions,
    settings: DecodeSettings,
    generator: torch.Generator,
) -> Int[Tensor, "b t gh gw"]:
    """Fills the hidden codes of a window.

    Args:
        model: the generator.
        codes: values where known.
        known: which are given and stay.
        conditions: of this window, with the ECG encoded.
        settings: how to draw.
        generator: all randomness comes from here.
    """
    shape = codes.shape
    flat_known = known.flatten(1)
    total = int((~flat_known).sum(-1).max())
    for step in range(settings.steps):
        guided = settings.guidance != 1 and step < math.ceil(settings.guided_share * settings.steps)
        logits = _logits(model, codes, flat_known.view(shape), conditions, settings.guidance if guided else 1.0)
        drawn, confidence = _draw(logits, model.config.factors, settings.temperature, generator)
        progress = (step + 1) / settings.steps
        codes = torch.where(flat_known.view(shape), codes, drawn)
        if step + 1 == settings.steps:
            break
        noise = _gumbel(confidence.shape, generator) * settings.choice_temperature * (1 - progress)
        remaining = math.ceil(cosine_share(progress) * total)
        flat_known = ~keep_most_confident((confidence + noise).flatten(1), ~flat_known, remaining)
    return codes


def _logits(
    model: VideoTransformer, codes: Tensor, known: Tensor, conditions: Conditions, guidance: float
) -> Float[Tensor, "b t gh gw k"]:
    """Guided logits, both branches in one batch (Ho 2022)."""
    if guidance == 1:
        return model(codes, known, conditions).float()
    null = conditions.without_ecg()
    both = Conditions(
        EcgFeatures(*(torch.cat([x, x]) for x in conditions.ecg)),
        *(torch.cat([x, y]) for x, y in zip(conditions[1:], null[1:], strict=True)),
    )
    yes, no = model(torch.cat([codes, codes]), torch.cat([known, known]), both).float().chunk(2)
    return no + guidance * (yes - no)


def _draw(
    logits: Tensor, factors: tuple[int, ...], temperature: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draws every factor and joins them; the confidence is the log probability of the code drawn."""
    parts, confidence = [], torch.zeros(logits.shape[:-1])
    for part in logits.split(factors, dim=-1):
        log_p = torch.log_softmax(part / temperature, dim=-1)
        index = (log_p + _gumbel(log_p.shape, generator)).argmax(-1)
        confidence += torch.gather(log_p, -1, index.unsqueeze(-1)).squeeze(-1)
        parts.append(index)
    return join_factors(torch.stack(parts, dim=-1), factors), confidence


def _gumbel(shape: torch.Size, generator: torch.Generator) -> Tensor:
    uniform = torch.rand(shape, generator=generator).clamp_(1e-9, 1 - 1e-7)
    return -torch.log(-torch.log(uniform))
