"""The decoding loop against models whose answers are known."""

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from echopulse.errors import InputError
from echopulse.models.critic import TokenCritic
from echopulse.models.ecg_encoder import EcgFeatures
from echopulse.models.presets import generator_config
from echopulse.models.quantizer import split_factors
from echopulse.models.video_transformer import Conditions
from echopulse.sampling.decode import DecodeSettings, decode_window
from echopulse.sampling.schedule import halton_rank

FACTORS = (16, 4)
SHAPE = (1, 4, 8, 8)


@pytest.fixture
def conditions() -> Conditions:
    times = torch.arange(8).view(1, 4, 2) / 25
    features = EcgFeatures(
        torch.randn(1, 10, 32), torch.zeros(1, 10), torch.ones(1, 10, dtype=torch.bool), torch.randn(1, 188, 16)
    )
    known = (torch.ones(1, dtype=torch.bool), times, torch.tensor([0.04]), torch.tensor([0]), torch.tensor([0.6]))
    return Conditions(features, *known)


@pytest.fixture
def truth() -> Tensor:
    return torch.randint(0, 64, SHAPE, generator=torch.Generator().manual_seed(0))


def _hidden() -> tuple[Tensor, Tensor]:
    return torch.zeros(SHAPE, dtype=torch.long), torch.zeros(SHAPE, dtype=torch.bool)


def _certain(codes: Tensor) -> Tensor:
    """Logits that leave no doubt."""
    parts = split_factors(codes, FACTORS)
    one_hot = [torch.nn.functional.one_hot(parts[..., i], size) for i, size in enumerate(FACTORS)]
    return 1e4 * torch.cat(one_hot, dim=-1).float()


def _seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("settings", [DecodeSettings(steps=1), DecodeSettings(steps=5), DecodeSettings(guidance=1.0)])
def test_certain_answer_is_reproduced(
    known_answer: Callable, conditions: Conditions, truth: Tensor, settings: DecodeSettings
) -> None:
    model = known_answer(_certain(truth))
    assert torch.equal(decode_window(model, *_hidden(), conditions, settings, _seeded()), truth)


@pytest.mark.parametrize("steps", [1, 2, 8, 13])
def test_model_is_asked_once_a_step(known_answer: Callable, conditions: Conditions, steps: int) -> None:
    model = known_answer(torch.zeros(20))
    decode_window(model, *_hidden(), conditions, DecodeSettings(steps=steps), _seeded())
    assert len(model.calls) == steps


def test_known_codes_never_change(known_answer: Callable, conditions: Conditions, truth: Tensor) -> None:
    model = known_answer(torch.zeros(20))
    known = torch.rand(SHAPE, generator=_seeded(5)) < 0.4
    codes = torch.where(known, truth, 0)
    made = decode_window(model, codes, known, conditions, DecodeSettings(steps=6), _seeded())
    assert torch.equal(made[known], truth[known])
    for seen, visible, _ in model.calls:
        assert torch.equal(seen[:1][known], truth[known])
        assert visible[:1][known].all()


def test_whole_window_known_comes_back(known_answer: Callable, conditions: Conditions, truth: Tensor) -> None:
    model = known_answer(torch.zeros(20))
    everything = torch.ones(SHAPE, dtype=torch.bool)
    assert torch.equal(decode_window(model, truth, everything, conditions, DecodeSettings(), _seeded()), truth)


def test_codes_are_revealed_by_the_cosine_schedule(known_answer: Callable, conditions: Conditions) -> None:
    model = known_answer(torch.zeros(20))
    decode_window(model, *_hidden(), conditions, DecodeSettings(steps=4), _seeded())
    hidden = [int((~known[:1]).sum()) for _, known, _ in model.calls]
    assert hidden == [256] + [math.ceil(256 * math.cos(math.pi / 2 * i / 4)) for i in (1, 2, 3)]


def test_what_was_revealed_stays_as_it_is(known_answer: Callable, conditions: Conditions) -> None:
    model = known_answer(torch.zeros(20))
    final = decode_window(model, *_hidden(), conditions, DecodeSettings(steps=6), _seeded())
    previous = torch.zeros(SHAPE, dtype=torch.bool)
    for codes, known, _ in model.calls:
        assert (known[:1] | ~previous).all()
        assert torch.equal(codes[:1][known[:1]], final[known[:1]])
        previous = known[:1]


def test_uniform_answer_gives_every_code(known_answer: Callable, conditions: Conditions) -> None:
    model = known_answer(torch.zeros(20))
    made = [decode_window(model, *_hidden(), conditions, DecodeSettings(steps=2), _seeded(i)) for i in range(12)]
    counts = torch.bincount(torch.stack(made).flatten(), minlength=64)
    assert counts.shape == (64,), "a code outside the codebook"
    # 3072 draws of 64 codes: 48 each, standard deviation 6.9
    assert counts.min() > 20 and counts.max() < 83


def test_codes_follow_the_probabilities(known_answer: Callable, conditions: Conditions) -> None:
    logits = torch.full((20,), -1e4)
    logits[[3, 5]] = torch.tensor([math.log(0.75), math.log(0.25)])
    logits[16 + 2] = 0.0
    made = decode_window(known_answer(logits), *_hidden(), conditions, DecodeSettings(steps=1), _seeded())
    assert set(made.unique().tolist()) == {3 * 4 + 2, 5 * 4 + 2}
    assert float((made == 14).float().mean()) == pytest.approx(0.75, abs=0.1)


def test_low_temperature_takes_the_likeliest(known_answer: Callable, conditions: Conditions) -> None:
    logits = torch.zeros(20)
    logits[[3, 16 + 2]] = 1.0
    settings = DecodeSettings(steps=2, temperature=0.01, guidance=1.0)
    made = decode_window(known_answer(logits), *_hidden(), conditions, settings, _seeded())
    assert made.unique().tolist() == [14]


def test_all_randomness_comes_from_the_generator(known_answer: Callable, conditions: Conditions) -> None:
    model = known_answer(torch.zeros(20))
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(len(results))
        results.append(decode_window(model, *_hidden(), conditions, DecodeSettings(steps=3), _seeded(seed)))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


# guidance ------------------------------------------------------------------------------------------


def test_without_guidance_every_call_is_one_row_with_the_ecg(known_answer: Callable, conditions: Conditions) -> None:
    model = known_answer(torch.zeros(20))
    decode_window(model, *_hidden(), conditions, DecodeSettings(steps=4, guidance=1.0), _seeded())
    assert [codes.shape[0] for codes, _, _ in model.calls] == [1] * 4
    assert all(asked.has_ecg.tolist() == [True] for _, _, asked in model.calls)


@pytest.mark.parametrize(("share", "rows"), [(0.5, [2, 2, 2, 1, 1]), (1.0, [2] * 5), (0.0, [1] * 5)])
def test_guided_steps_ask_both_branches_in_one_batch(
    known_answer: Callable, conditions: Conditions, share: float, rows: list[int]
) -> None:
    model = known_answer(torch.zeros(20))
    decode_window(model, *_hidden(), conditions, DecodeSettings(steps=5, guided_share=share, guidance=2.0), _seeded())
    assert [codes.shape[0] for codes, _, _ in model.calls] == rows
    for codes, known, asked in model.calls:
        if codes.shape[0] == 2:
            assert torch.equal(codes[0], codes[1]) and torch.equal(known[0], known[1])
            assert asked.has_ecg.tolist() == [True, False]
            assert asked.ef[0] == conditions.ef[0] and bool(asked.ef[1].isnan())
            assert torch.equal(asked.view, conditions.view.repeat(2))


def _lifted_by_the_ecg(asked: Conditions) -> Tensor:
    """Logits of 2 for code 0 and, with the ECG, of 1 for code 1."""
    answer = torch.zeros(asked.has_ecg.shape[0], 1, 1, 1, 20)
    answer[..., 0] = 2.0
    answer[..., 1] = asked.has_ecg.float().view(-1, 1, 1, 1)
    answer[..., 16] = 100.0
    return answer


def test_the_null_branch_may_be_asked_less_often_than_the_other(known_answer: Callable, conditions: Conditions) -> None:
    """The difference that it made lasts: with the weight of the test below, code 1 is lifted in every step."""

    model = known_answer(_lifted_by_the_ecg)
    settings = DecodeSettings(steps=6, guidance=3.0, guided_share=0.8, temperature=0.01, null_every=3)
    made = decode_window(model, *_hidden(), conditions, settings, _seeded())
    assert [codes.shape[0] for codes, _, _ in model.calls] == [2, 1, 1, 2, 1, 1]
    hidden_last = ~model.calls[5][1]
    assert made[~hidden_last].unique().tolist() == [4]
    assert made[hidden_last].unique().tolist() == [0], "the last step is not guided"


def test_guidance_extrapolates_from_the_null_branch(known_answer: Callable, conditions: Conditions) -> None:
    """Null says code 0 at 0.0, the ECG says code 1 at 1.0: only a weight above 2 lifts code 1 above a logit of 2."""

    made = {}
    for weight in (1.0, 1.5, 3.0):
        settings = DecodeSettings(steps=1, guidance=weight, guided_share=1.0, temperature=0.01)
        made[weight] = decode_window(known_answer(_lifted_by_the_ecg), *_hidden(), conditions, settings, _seeded())
    assert made[1.0].unique().tolist() == [0]
    assert made[1.5].unique().tolist() == [0]
    assert made[3.0].unique().tolist() == [4]


# what decides which codes stay -----------------------------------------------------------------------


class KnownScores(TokenCritic):
    """Scores codes by a function of them, and remembers what it saw."""

    def __init__(self, score: Callable[[Tensor], Tensor]) -> None:
        super().__init__(generator_config("tiny"))
        self.score = score
        self.calls: list[Tensor] = []

    def forward(self, codes: Tensor, conditions: Conditions) -> Tensor:
        self.calls.append(codes.clone())
        return self.score(codes)


def test_critic_decides_and_takes_back_what_it_doubts(known_answer: Callable, conditions: Conditions) -> None:
    """Draws are uniform over 64 codes and the critic believes in the even ones alone: what it hides, given or drawn
    before, is drawn again, so that few odd ones are left. By confidence, half of all codes stay odd."""
    shares = {}
    for order in ("critic", "confidence"):
        model, critic = known_answer(torch.zeros(20)), KnownScores(lambda codes: 100.0 * (codes % 2 == 0))
        settings = DecodeSettings(steps=16, order=order, guidance=1.0)
        made = decode_window(model, *_hidden(), conditions, settings, _seeded(), critic)
        shares[order] = float((made % 2 == 1).float().mean())
        assert len(critic.calls) == (15 if order == "critic" else 0)
        hidden = [int((~known).sum()) for _, known, _ in model.calls]
        assert hidden == [256] + [math.ceil(256 * math.cos(math.pi / 2 * i / 16)) for i in range(1, 16)]
    assert shares["critic"] < 0.1 and 0.4 < shares["confidence"] < 0.6


def test_critic_may_hide_again_what_stayed_but_never_what_was_given(
    known_answer: Callable, conditions: Conditions, truth: Tensor
) -> None:
    known = torch.rand(SHAPE, generator=_seeded(5)) < 0.4
    model, critic = known_answer(torch.zeros(20)), KnownScores(lambda codes: torch.rand(codes.shape))
    codes = torch.where(known, truth, 0)
    settings = DecodeSettings(steps=8, guidance=1.0)
    made = decode_window(model, codes, known, conditions, settings, _seeded(), critic)
    assert torch.equal(made[known], truth[known])
    visible = [asked[:1] for _, asked, _ in model.calls]
    assert all((now | ~known).all() for now in visible)
    assert any((before & ~now).any() for before, now in pairwise(visible))


def test_critic_that_knows_nothing_leaves_the_codes_as_the_model_draws_them(
    known_answer: Callable, conditions: Conditions
) -> None:
    critic = KnownScores(lambda codes: torch.zeros(codes.shape))
    model = known_answer(torch.zeros(20))
    made = [
        decode_window(model, *_hidden(), conditions, DecodeSettings(steps=4), _seeded(i), critic) for i in range(12)
    ]
    counts = torch.bincount(torch.stack(made).flatten(), minlength=64)
    assert counts.min() > 20 and counts.max() < 83


def test_automatic_order_is_the_critic_where_there_is_one(known_answer: Callable, conditions: Conditions) -> None:
    model = known_answer(torch.zeros(20))
    for order, asked in (("auto", 3), ("critic", 3), ("confidence", 0), ("halton", 0)):
        critic = KnownScores(lambda codes: torch.zeros(codes.shape))
        decode_window(model, *_hidden(), conditions, DecodeSettings(steps=4, order=order), _seeded(), critic)
        assert len(critic.calls) == asked
    plain, automatic = (
        decode_window(model, *_hidden(), conditions, DecodeSettings(steps=4, order=order), _seeded())
        for order in ("confidence", "auto")
    )
    assert torch.equal(plain, automatic)
    with pytest.raises(InputError, match="this checkpoint has none"):
        decode_window(model, *_hidden(), conditions, DecodeSettings(order="critic"), _seeded())


def test_halton_reveals_places_in_its_order_from_a_random_start(known_answer: Callable, conditions: Conditions) -> None:
    seen = []
    for seed in (0, 1, 1):
        model = known_answer(torch.zeros(20))
        decode_window(model, *_hidden(), conditions, DecodeSettings(steps=4, order="halton"), _seeded(seed))
        hidden = [int((~known[:1]).sum()) for _, known, _ in model.calls]
        assert hidden == [256] + [math.ceil(256 * math.cos(math.pi / 2 * i / 4)) for i in (1, 2, 3)]
        seen.append(model.calls[1][1][0])
    assert not torch.equal(seen[0], seen[1]) and torch.equal(seen[1], seen[2])
    first = (halton_rank((4, 8, 8)) < 256 - hidden[1]).nonzero()
    rolled = {tuple(row) for row in seen[0].nonzero().tolist()}
    shifts = [(t, y, x) for t in range(4) for y in range(8) for x in range(8)]
    sizes = torch.tensor([4, 8, 8])
    assert any({tuple(row) for row in ((first + torch.tensor(s)) % sizes).tolist()} == rolled for s in shifts)


def test_temperature_moves_towards_its_end(known_answer: Callable, conditions: Conditions) -> None:
    settings = DecodeSettings(steps=18, temperature=0.9, final_temperature=0.0)
    temperatures = [settings.temperature_at(step) for step in range(18)]
    assert temperatures == pytest.approx([0.9 * (18 - step) / 18 for step in range(18)])
    assert {DecodeSettings(temperature=0.7).temperature_at(step) for step in range(8)} == {0.7}
    logits = torch.zeros(20)
    logits[3] = logits[16 + 2] = 3.0
    cold, warm = (
        decode_window(
            known_answer(logits),
            *_hidden(),
            conditions,
            DecodeSettings(steps=6, guidance=1.0, choice_temperature=0.0, order="halton", final_temperature=final),
            _seeded(),
        )
        for final in (0.0, None)
    )
    assert float((cold == 14).float().mean()) > float((warm == 14).float().mean()) + 0.1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(steps=0), "steps is 0"),
        (dict(steps=257), "steps is 257"),
        (dict(guidance=-0.1), "guidance is -0.1"),
        (dict(guidance=float("nan")), "guidance is nan"),
        (dict(guidance=21.0), "guidance is 21"),
        (dict(grey_allowance=(1.0, 2.0)), r"grey allowance is \(1.0, 2.0\); expected 5 coefficients"),
        (dict(grey_allowance=(0.0, 0.0, 0.0, 0.0, float("nan"))), "expected 5 coefficients of at most 10,000"),
        (dict(grey_allowance=(0.0, 0.0, 0.0, 0.0, 1e5)), "expected 5 coefficients of at most 10,000"),
        (dict(temperature=0.0), "temperature is 0"),
        (dict(temperature=float("nan")), "temperature is nan"),
        (dict(final_temperature=-1.0), "final temperature is -1"),
        (dict(order="random"), "order is 'random'"),
        (dict(null_every=0), "null_every is 0"),
        (dict(ef_contrast=0.0), "EF contrast is 0"),
    ],
)
def test_impossible_settings_are_refused(change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        DecodeSettings(**change)


def test_an_ef_asked_for_is_told_farther_from_the_one_that_the_ecg_shows() -> None:
    plain, wide = DecodeSettings(), DecodeSettings(ef_contrast=1.5)
    assert plain.told_ef(0.3, 0.5) == pytest.approx(0.3) and wide.told_ef(0.3, 0.5) == pytest.approx(0.2)
    assert wide.told_ef(0.5, 0.5) == pytest.approx(0.5) and wide.told_ef(None, 0.45) == 0.45
    assert wide.told_ef(0.1, 0.5) == 0.05 and wide.told_ef(0.8, 0.5) == 0.85, "kept within what it was trained on"
    assert wide.told_ef(0.3, math.nan) == 0.3 and math.isnan(wide.told_ef(None, math.nan)), "no ECG to read it from"
