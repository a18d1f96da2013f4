"""What the generator may and may not depend on."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from echopulse.errors import InputError
from echopulse.models.ecg_encoder import EcgEncoderConfig
from echopulse.models.presets import PRESETS, generator_config, tokenizer_config
from echopulse.models.video_transformer import Conditions, EcgWindow, GeneratorConfig, VideoTransformer, WindowPasses

MakeConditions = Callable[..., Conditions]


@pytest.fixture(scope="module")
def codes() -> Tensor:
    return torch.randint(0, 64, (1, 4, 8, 8), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def known() -> Tensor:
    return torch.rand(1, 4, 8, 8, generator=torch.Generator().manual_seed(1)) < 0.5


def _run(model: VideoTransformer, codes: Tensor, known: Tensor, conditions: Conditions) -> Tensor:
    with torch.inference_mode():
        return model(codes, known, conditions, torch.zeros_like(codes))


def test_values_of_hidden_codes_do_not_matter(
    generator: VideoTransformer, codes: Tensor, known: Tensor, make_conditions: MakeConditions
) -> None:
    other = torch.where(known, codes, 63 - codes)
    x, y = (_run(generator, c, known, make_conditions()) for c in (codes, other))
    assert torch.equal(x, y)


def test_values_of_known_codes_and_what_is_known_do_matter(
    generator: VideoTransformer, codes: Tensor, known: Tensor, make_conditions: MakeConditions
) -> None:
    base = _run(generator, codes, known, make_conditions())
    other = torch.where(known, 63 - codes, codes)
    assert not torch.allclose(base, _run(generator, other, known, make_conditions()), atol=1e-3)
    assert not torch.allclose(base, _run(generator, codes, ~known, make_conditions()), atol=1e-3)


@pytest.fixture(params=[{}, {"position_bias": False}, {"cross_every": 1}], ids=["bias", "no bias", "more context"])
def window(request: pytest.FixtureRequest, make_conditions: MakeConditions) -> tuple[VideoTransformer, Conditions]:
    """A network and three windows."""
    torch.manual_seed(4)
    model = VideoTransformer(replace(generator_config("tiny"), **request.param)).eval()
    with torch.inference_mode():
        conditions = make_conditions(3)
        return model, conditions._replace(ecg=model.encode_ecg(conditions.ecg))


@pytest.fixture(scope="module")
def states() -> tuple[Tensor, Tensor, Tensor]:
    """Codes of three windows, which of them are known, and which a pass later; in each window other numbers."""
    random = torch.Generator().manual_seed(5)
    codes, uniform = torch.randint(0, 64, (3, 4, 8, 8), generator=random), torch.rand(3, 4, 8, 8, generator=random)
    share = torch.tensor([0.9, 0.3, 0.6]).view(3, 1, 1, 1)
    return codes, uniform < share, uniform < share + 0.1


@torch.inference_mode()
def test_passes_over_a_window_are_those_of_windows_alone(
    window: tuple[VideoTransformer, Conditions], states: tuple[Tensor, Tensor, Tensor]
) -> None:
    (model, conditions), (codes, *turns) = window, states
    passes = WindowPasses(model, conditions)
    for known in turns:
        whole = model.features(codes, known, conditions).flatten(1, 3)
        torch.testing.assert_close(passes(codes, known), whole, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(passes(codes[:2], known[:2]), whole[:2], rtol=1e-4, atol=1e-5)
        places = ~known
        logits = model.passes(conditions)(codes, known)(places)
        torch.testing.assert_close(
            logits(0, torch.empty(int(places.sum()), 0, dtype=torch.long)),
            model(codes, known, conditions, codes)[places][:, : model.config.factors[0]],
            rtol=1e-4,
            atol=1e-4,
        )


@torch.inference_mode()
def test_kept_features_stay_and_all_others_are_worked_out_again(
    window: tuple[VideoTransformer, Conditions], states: tuple[Tensor, Tensor, Tensor]
) -> None:
    (model, conditions), (codes, before, after) = window, states
    passes = WindowPasses(model, conditions, keep=True)
    first = passes(codes, before)
    torch.testing.assert_close(first, model.features(codes, before, conditions).flatten(1, 3), rtol=1e-4, atol=1e-5)
    second, whole = passes(codes, after), model.features(codes, after, conditions).flatten(1, 3)
    same = (first == second).all(-1)
    assert not (same & ~before.flatten(1)).any(), "hidden codes see what has become known"
    assert same[1].sum() > before[1].sum() - 32 > 40, "known ones are left alone, but for a few to a round number"
    assert (second - whole).norm() < 0.5 * (second - first).norm(), "nearer to a whole pass than the pass before"
    everything = torch.ones_like(after)
    other = (codes + 1) % 64
    torch.testing.assert_close(
        passes(other, everything), model.features(other, None, conditions).flatten(1, 3), rtol=1e-4, atol=1e-5
    )


@torch.inference_mode()
def test_a_window_left_out_of_a_pass_catches_up(
    window: tuple[VideoTransformer, Conditions], states: tuple[Tensor, Tensor, Tensor]
) -> None:
    (model, conditions), (codes, before, after) = window, states
    passes = WindowPasses(model, conditions, keep=True)
    first = passes(codes, before).clone()
    assert passes(codes[:1], after[:1]).shape[0] == 1
    last = passes(codes, after)
    moved = (last[2] != first[2]).any(-1)
    assert moved[~before[2].flatten()].all() and not moved.all()


def test_ecg_matters_only_where_there_is_one(
    generator: VideoTransformer, codes: Tensor, known: Tensor, make_conditions: MakeConditions
) -> None:
    outputs = {}
    for there in (True, False):
        for seed in (0, 1):
            conditions = make_conditions(seed=seed)._replace(has_ecg=torch.tensor([there]))
            outputs[there, seed] = _run(generator, codes, known, conditions)
    assert torch.equal(outputs[False, 0], outputs[False, 1])
    assert not torch.allclose(outputs[True, 0], outputs[True, 1], atol=1e-3)
    assert not torch.allclose(outputs[True, 0], outputs[False, 0], atol=1e-3)


def test_null_branch_of_guidance_knows_neither_ecg_nor_ef(
    generator: VideoTransformer, codes: Tensor, known: Tensor, make_conditions: MakeConditions
) -> None:
    first, second = make_conditions(seed=0), make_conditions(seed=1)._replace(ef=torch.tensor([0.2]))
    x, y = (_run(generator, codes, known, conditions.without_ecg()) for conditions in (first, second))
    assert torch.equal(x, y)
    assert first.without_ecg().view is first.view and bool(first.has_ecg.all())


def test_encoding_the_ecg_beforehand_changes_nothing(
    generator: VideoTransformer, codes: Tensor, known: Tensor, make_conditions: MakeConditions
) -> None:
    conditions = make_conditions()
    with torch.inference_mode():
        beforehand = conditions._replace(ecg=generator.encode_ecg(conditions.ecg))
    assert torch.equal(_run(generator, codes, known, conditions), _run(generator, codes, known, beforehand))


def test_ef_matters_and_unknown_ef_is_finite(
    generator: VideoTransformer, codes: Tensor, known: Tensor, make_conditions: MakeConditions
) -> None:
    low, high, unknown, middle = (
        _run(generator, codes, known, make_conditions()._replace(ef=torch.tensor([ef])))
        for ef in (0.2, 0.7, float("nan"), 0.5)
    )
    assert torch.isfinite(unknown).all()
    assert not torch.equal(low, high) and not torch.equal(unknown, low)
    assert not torch.equal(unknown, middle), "an unknown EF must not read as 50 %"


def test_one_row_with_unknown_ef_leaves_the_other_alone(
    generator: VideoTransformer, codes: Tensor, known: Tensor, make_conditions: MakeConditions
) -> None:
    two = make_conditions(batch=2)._replace(ef=torch.tensor([float("nan"), 0.4]))
    both = _run(generator, codes.repeat(2, 1, 1, 1), known.repeat(2, 1, 1, 1), two)
    alone = _run(generator, codes, known, make_conditions()._replace(ef=torch.tensor([0.4])))
    torch.testing.assert_close(both[1:], alone, rtol=1e-4, atol=1e-5)


def test_views_differ_and_may_be_unknown(
    generator: VideoTransformer, codes: Tensor, known: Tensor, make_conditions: MakeConditions
) -> None:
    outputs = [
        _run(generator, codes, known, make_conditions()._replace(view=torch.tensor([view]))) for view in (0, 1, -1)
    ]
    assert all(torch.isfinite(output).all() for output in outputs)
    assert not any(torch.equal(outputs[i], outputs[j]) for i, j in ((0, 1), (0, 2), (1, 2)))


def test_time_of_the_frames_matters(
    generator: VideoTransformer, codes: Tensor, known: Tensor, make_conditions: MakeConditions
) -> None:
    conditions = make_conditions()
    later = conditions._replace(frame_times_s=conditions.frame_times_s + 0.1)
    farther = conditions._replace(first_gap_s=torch.tensor([2.0]))
    base = _run(generator, codes, known, conditions)
    assert not torch.allclose(base, _run(generator, codes, known, later), atol=1e-4)
    assert not torch.allclose(base, _run(generator, codes, known, farther), atol=1e-4)


def test_shorter_windows_are_fine(
    generator: VideoTransformer, codes: Tensor, known: Tensor, make_conditions: MakeConditions
) -> None:
    assert _run(generator, codes[:, :3], known[:, :3], make_conditions(slots=3)).shape == (1, 3, 8, 8, 20)


def test_pooled_ecg_is_one_vector_without_time(
    generator: VideoTransformer, codes: Tensor, known: Tensor, make_conditions: MakeConditions
) -> None:
    pooled = VideoTransformer(replace(generator.config, pooled_ecg=True)).eval()
    pooled.load_state_dict(generator.state_dict())
    usual = make_conditions()
    assert isinstance(usual.ecg, EcgWindow)
    later = usual._replace(ecg=usual.ecg._replace(marks=usual.ecg.marks.roll(40, 1)))
    other = usual._replace(ecg=usual.ecg._replace(ecg=2 * usual.ecg.ecg))
    assert torch.equal(_run(pooled, codes, known, usual), _run(pooled, codes, known, later))
    assert not torch.allclose(_run(generator, codes, known, usual), _run(generator, codes, known, later), atol=1e-3)
    assert not torch.allclose(_run(pooled, codes, known, usual), _run(pooled, codes, known, other), atol=1e-4)
    with torch.inference_mode():
        features = pooled.encode_ecg(usual.ecg)
        whole = generator.encode_ecg(usual.ecg)
    assert features.tokens.shape[1] == 1
    torch.testing.assert_close(features.tokens[:, 0], whole.tokens.mean(1))


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_of_both_networks_belong_together(preset: str) -> None:
    tokenizer, generator = tokenizer_config(preset), generator_config(preset)
    assert generator.factors == tokenizer.quantizer.factors
    assert generator.rows * tokenizer.patch == generator.columns * tokenizer.patch == 128


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(slots=1), "slots = 1"),
        (dict(cross_every=0), "cross_every = 0"),
        (dict(depth=2, cross_every=3), "cross_every = 3"),
        (dict(pooled_ecg=True, ecg=EcgEncoderConfig(reads_motion=True)), "leaves no time in the ECG"),
    ],
)
def test_impossible_configs_are_refused(change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        GeneratorConfig(**change)
