"""The decoding loop: all hidden → predict → keep what seems right → repeat (MaskGIT, Chang 2022; paper eq. 8)."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from echopulse.config import from_dict
from echopulse.errors import InputError
from echopulse.models.critic import TokenCritic
from echopulse.models.published_generator import PublishedGenerator
from echopulse.models.quantizer import join_factors
from echopulse.models.video_transformer import CodePredictor, Conditions, LogitsAt
from echopulse.nn.code_head import FactorLogits
from echopulse.sampling.schedule import cosine_share, halton_rank, keep_most_confident

ORDERS = ("auto", "critic", "confidence", "halton")
_MAX_STEPS = 256
_MAX_REHEARSALS = 16
_MAX_AUDITIONS = 64

EF_RANGE = 0.05, 0.85
"""What a generator is told of an ejection fraction, and what is read of one, is kept within."""


@dataclass(frozen=True)
class DecodeSettings:
    """How codes are drawn.

    Attributes:
        steps: passes through the network for one window.
        guidance: weight w of `null + w (conditional − null)`; 1 switches guidance off.
        guidance_alone: the same for clips that start from no picture; None: no other. Beside a picture, guidance has to
            move what would stand still.
        guided_share: first share of the steps that is guided; later ones cost half.
        temperature: of the softmax that codes are drawn from, in the first step.
        final_temperature: what it moves towards, by a straight line that ends after the last step; None: it stays. The
            paper anneals from 0.9 to 0.
        choice_temperature: Gumbel noise on what decides which codes stay, annealed to 0.
        order: what decides which codes stay: the `critic`'s score, which may also take back what stayed before
            (Lezama 2022); the `confidence` of the draw (Chang 2022); `halton`, evenly spread places (Besnier 2025);
            `auto`, the critic where the checkpoint has one, else confidence.
        detail: share of the detail that the checkpoint's detail network, where there is one, adds to decoded frames.
        picture_temperature: for clips that start from no picture: draw the first one before all else, at this
            temperature; see `of_picture`. None draws it together with what follows.
        ef_contrast: how far from the ejection fraction that the ECG shows the generator is told that one asked for
            lies, in units of how far it does: above 1, since all else that the ECG shows pulls the heart back.
        rehearsals: how often, at most, a clip's first seconds are generated and measured, and the ejection fraction
            that the generator is told is corrected; for checkpoints that have a segmenter.
        auditions: how many first pictures are drawn where none is given, of which the clearest is kept; for checkpoints
            that have a segmenter, and where first pictures are drawn before all else.
        keep: after the first pass over a window, work only on what is hidden or has changed; see `WindowPasses`.
        null_every: every how many guided steps the null branch is computed; between, the difference that it made is
            kept.
        grey_allowance: doubt that a picture is allowed in auditions for the mean b and the standard deviation c of its
            grey levels (both of white): coefficients of b, c, b², bc and c². Fitted so that what is chosen is as bright
            as true pictures are, and differs as much; without it patients come out alike. None: nothing.
    """

    steps: int = 8
    guidance: float = 1.5
    guided_share: float = 0.5
    temperature: float = 1.0
    choice_temperature: float = 2.0
    final_temperature: float | None = None
    order: str = "auto"
    detail: float = 1.0
    picture_temperature: float | None = None
    ef_contrast: float = 1.0
    guidance_alone: float | None = None
    rehearsals: int = 0
    auditions: int = 1
    keep: bool = False
    null_every: int = 1
    grey_allowance: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= _MAX_STEPS:
            raise InputError(f"steps is {self.steps}; expected 1 to {_MAX_STEPS}")
        for guidance in (self.guidance, 1.0 if self.guidance_alone is None else self.guidance_alone):
            if not (math.isfinite(guidance) and 0 <= guidance <= 20):
                raise InputError(f"guidance is {guidance}; expected 0 to 20 (1 switches it off)")
        if not 0 <= self.guided_share <= 1:
            raise InputError(f"guided share is {self.guided_share}; expected 0 to 1")
        if not 0 <= self.choice_temperature <= 100:
            raise InputError(f"choice temperature is {self.choice_temperature}; expected 0 to 100")
        for temperature in (self.temperature, 1.0 if self.picture_temperature is None else self.picture_temperature):
            if not 0 < temperature <= 5:
                raise InputError(f"temperature is {temperature}; expected more than 0, at most 5")
        if self.final_temperature is not None and not 0 <= self.final_temperature <= 5:
            raise InputError(f"final temperature is {self.final_temperature}; expected 0 to 5")
        if not 0 < self.ef_contrast <= 3:
            raise InputError(f"EF contrast is {self.ef_contrast}; expected more than 0, at most 3")
        if not 0 <= self.rehearsals <= _MAX_REHEARSALS:
            raise InputError(f"rehearsals is {self.rehearsals}; expected 0 to {_MAX_REHEARSALS}")
        if not 1 <= self.auditions <= _MAX_AUDITIONS:
            raise InputError(f"auditions is {self.auditions}; expected 1 (the first picture stays) to {_MAX_AUDITIONS}")
        terms = (0.0,) * 5 if self.grey_allowance is None else self.grey_allowance
        if len(terms) != 5 or not all(abs(term) <= 1e4 for term in terms):
            raise InputError(f"grey allowance is {terms}; expected 5 coefficients of at most 10,000")
        if not 1 <= self.null_every <= _MAX_STEPS:
            raise InputError(f"null_every is {self.null_every}; expected 1 to {_MAX_STEPS}")
        if not 0 <= self.detail <= 1:
            raise InputError(f"detail is {self.detail}; expected 0 to 1")
        if self.order not in ORDERS:
            raise InputError(f"order is {self.order!r}; expected one of {', '.join(ORDERS)}")

    @classmethod
    def from_index(cls, index: Mapping[str, Any]) -> "DecodeSettings":
        """The decoding that a checkpoint was tuned for.

        Args:
            index: its `index.json`.

        Raises:
            InputError: unknown fields or impossible values.
        """
        return from_dict(cls, index.get("decoding", {}), "index.json, decoding")

    @property
    def of_picture(self) -> "DecodeSettings | None":
        """How the first picture is drawn where none is given; None: together with what follows.

        It holds the anatomy, which should vary as patients do, where motion should follow the ECG. So it is drawn
        without guidance, in four times the steps, each of which costs an eighth of a window's, and in an order that
        does not prefer what is likely: by confidence, black comes first, and pictures turn out dim and alike (Fréchet
        distance 2.2 against 0.75 in this order, 0.55 between halves of the truth; 64 phantom patients). Every pass is
        whole: in few codes there is little to keep.
        """
        if self.picture_temperature is None:
            return None
        return replace(
            self,
            steps=min(4 * self.steps, _MAX_STEPS),
            guidance=1.0,
            temperature=self.picture_temperature,
            final_temperature=None,
            order="halton",
            picture_temperature=None,
            keep=False,
        )

    def told_ef(self, asked: float | None, shown: float) -> float:
        """What the generator is told, for an EF that is asked for and the one that the ECG shows, between 0 and 1.

        NaN where neither is known.
        """
        if asked is None or math.isnan(shown):
            return shown if asked is None else asked
        return min(max(shown + self.ef_contrast * (asked - shown), EF_RANGE[0]), EF_RANGE[1])

    def temperature_at(self, step: int) -> float:
        """Temperature of the draws of a step, the first one being 0."""
        final = self.temperature if self.final_temperature is None else self.final_temperature
        return self.temperature + (final - self.temperature) * step / self.steps


def asked_for(steps: int | None, guidance: float | None, rehearsals: int | None) -> dict[str, float]:
    """Fields of `DecodeSettings` that a user's choices replace; None leaves a field to the checkpoint.

    Args:
        steps: passes through the network for one window.
        guidance: weight, beside a picture or not.
        rehearsals: how often.
    """
    given = {"steps": steps, "guidance": guidance, "guidance_alone": guidance, "rehearsals": rehearsals}
    return {name: value for name, value in given.items() if value is not None}


def decode_window(
    model: CodePredictor | PublishedGenerator,
    codes: Int[Tensor, "b t gh gw"],
    known: Bool[Tensor, "b t gh gw"],
    conditions: Conditions,
    settings: DecodeSettings,
    generator: torch.Generator | Sequence[torch.Generator],
    critic: TokenCritic | None = None,
) -> Int[Tensor, "b t gh gw"]:
    """Fills the hidden codes of a window.

    Args:
        model: the generator.
        codes: values where known.
        known: which are given and stay.
        conditions: of this window, with the ECG encoded.
        settings: how to draw.
        generator: all randomness comes from here; one for each row makes rows independent of each other.
        critic: the generator's, where there is one.

    Raises:
        InputError: the settings ask for a critic, and there is none.
    """
    if settings.order == "critic" and critic is None:
        raise InputError("order is 'critic', but this checkpoint has none; choose confidence or halton")
    if settings.order not in ("auto", "critic"):
        critic = None
    fill = ~known
    hidden = fill
    total = int(fill.flatten(1).sum(-1).max())
    logits_of = _guided_passes(model, conditions, settings)
    turns = _halton_turns(codes.shape, generator) if settings.order == "halton" else None
    for step in range(settings.steps):
        logits = logits_of(step, codes, hidden)
        uniform = _uniform((*codes.shape, len(model.config.factors)), generator)[hidden]
        drawn, log_p = draw_codes(logits, model.config.factors, settings.temperature_at(step), uniform)
        codes = codes.masked_scatter(hidden, drawn)
        if step + 1 == settings.steps:
            break
        progress = (step + 1) / settings.steps
        remaining = math.ceil(cosine_share(progress) * total)
        if turns is not None:
            score, places = -turns, hidden
        else:
            confidence = torch.zeros(codes.shape).masked_scatter(hidden, log_p)
            score = confidence if critic is None else critic(codes, conditions).float()
            score = score + _gumbel(score.shape, generator) * settings.choice_temperature * (1 - progress)
            places = hidden if critic is None else fill
        hidden = keep_most_confident(score.flatten(1), places.flatten(1), remaining).view(codes.shape)
    return codes


def _guided_passes(
    model: CodePredictor | PublishedGenerator, conditions: Conditions, settings: DecodeSettings
) -> Callable[[int, Tensor, Tensor], FactorLogits]:
    """What gives the logits of the hidden codes, for a step, codes and which are hidden; both branches in one batch.

    Guided logits are `yes + (guidance − 1) (yes − no)`, no being those of the null branch (Ho 2022). The difference is
    that of the last step in which the null branch was computed, at the codes that are still hidden.
    """
    guided_steps = math.ceil(settings.guided_share * settings.steps) if settings.guidance != 1 else 0
    branches = Conditions.joined([conditions, conditions.without_ecg()]) if guided_steps else conditions
    passes = model.passes(branches, keep=settings.keep)
    both: LogitsAt | None = None

    def logits_of(step: int, codes: Tensor, hidden: Tensor) -> FactorLogits:
        nonlocal both
        if step >= guided_steps:
            return passes(codes, ~hidden)(hidden)
        twice, now = torch.cat([hidden, hidden]), None
        if step % settings.null_every == 0:
            both = passes(torch.cat([codes, codes]), ~twice)
        else:
            now = passes(codes, ~hidden)(hidden)
        assert both is not None
        before_now = both(twice)

        def guided(i: int, before: Tensor) -> Tensor:
            yes, no = before_now(i, torch.cat([before, before])).float().chunk(2)
            start = yes if now is None else now(i, before).float()
            return start.add(yes - no, alpha=settings.guidance - 1)

        return guided

    return logits_of


def draw_codes(
    logits: FactorLogits, factors: tuple[int, ...], temperature: float, uniform: Float[Tensor, "n g"]
) -> tuple[Int[Tensor, " n"], Float[Tensor, " n"]]:
    """Draws one factor after the other and joins them.

    Args:
        logits: of each factor, given those that were drawn before it.
        factors: their sizes.
        temperature: of the softmax.
        uniform: numbers in [0, 1), one a factor, which say what is drawn: the place on the cumulative probability.

    Returns:
        Codes, and their confidence: the log probability of the code drawn.
    """
    drawn = torch.empty(len(uniform), 0, dtype=torch.long, device=uniform.device)
    confidence = torch.zeros(len(uniform), device=uniform.device)
    for i, (size, place) in enumerate(zip(factors, uniform.unbind(-1), strict=True)):
        p = torch.softmax(logits(i, drawn).float() / temperature, dim=-1)
        reached = p.cumsum(-1)
        place = (place * reached[:, -1]).unsqueeze(-1)
        index = torch.searchsorted(reached, place, right=True).clamp(max=size - 1)
        confidence += p.gather(-1, index).squeeze(-1).log()
        drawn = torch.cat([drawn, index], dim=-1)
    return join_factors(drawn, factors), confidence


def _halton_turns(shape: torch.Size, generator: torch.Generator | Sequence[torch.Generator]) -> Tensor:
    """When each place's turn comes, in each row from another start: the grid is rolled at random."""
    grid = (shape[1], shape[2], shape[3])
    rows = [generator] * shape[0] if isinstance(generator, torch.Generator) else generator
    shifts = [[int(torch.randint(size, (1,), generator=row)) for size in grid] for row in rows]
    return torch.stack([halton_rank(grid).roll(shift, dims=(0, 1, 2)) for shift in shifts]).float()


def _gumbel(shape: torch.Size, generator: torch.Generator | Sequence[torch.Generator]) -> Tensor:
    return -torch.log(-torch.log(_uniform(shape, generator).clamp_(1e-9, 1 - 1e-7)))


def _uniform(shape: Sequence[int], generator: torch.Generator | Sequence[torch.Generator]) -> Tensor:
    """Numbers in [0, 1); with a generator for each row, a row's do not depend on the others."""
    if isinstance(generator, torch.Generator):
        return torch.rand(shape, generator=generator)
    return torch.stack([torch.rand(shape[1:], generator=row) for row in generator])
