"""Absent leads, the order of leads, and sampling of the fine features in time."""

from collections.abc import Callable

import pytest
import torch

from echopulse.errors import InputError
from echopulse.models.ecg_encoder import EcgEncoder, EcgEncoderConfig, EcgFeatures, sample_fine
from echopulse.models.video_transformer import EcgWindow

MakeWindow = Callable[..., EcgWindow]


def _run(encoder: EcgEncoder, window: EcgWindow) -> EcgFeatures:
    with torch.inference_mode():
        return encoder(*window)


def test_absent_lead_changes_nothing_whatever_it_holds(encoder: EcgEncoder, make_window: MakeWindow) -> None:
    window = make_window(leads=3)
    present = torch.tensor([[True, False, True]])
    loud = window.ecg.clone()
    loud[:, 1] = 1e3 * torch.randn(loud[:, 1].shape, generator=torch.Generator().manual_seed(1))
    without = EcgWindow(window.ecg[:, [0, 2]], window.marks, window.lead_ids[:, [0, 2]], present[:, [0, 2]])
    quiet, noisy = (_run(encoder, window._replace(ecg=ecg, present=present)) for ecg in (window.ecg, loud))
    missing = _run(encoder, without)
    for other in (noisy, missing):
        torch.testing.assert_close(other.fine, quiet.fine, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(other.tokens[other.visible], quiet.tokens[quiet.visible], rtol=1e-4, atol=1e-5)
    assert quiet.visible.sum() == 2 * encoder.num_patches


def test_present_lead_and_beat_marks_do_matter(encoder: EcgEncoder, make_window: MakeWindow) -> None:
    window = make_window(leads=3)
    base = _run(encoder, window)
    fewer = _run(encoder, window._replace(present=torch.tensor([[True, False, True]])))
    unmarked = _run(encoder, window._replace(marks=torch.zeros_like(window.marks)))
    assert not torch.allclose(base.fine, fewer.fine, atol=1e-3)
    assert not torch.allclose(base.fine, unmarked.fine, atol=1e-3)


def test_order_of_leads_does_not_matter(encoder: EcgEncoder, make_window: MakeWindow) -> None:
    window, order = make_window(leads=3), [2, 0, 1]
    turned = EcgWindow(window.ecg[:, order], window.marks, window.lead_ids[:, order], window.present[:, order])
    base, other = _run(encoder, window), _run(encoder, turned)
    torch.testing.assert_close(other.fine, base.fine, rtol=1e-4, atol=1e-5)
    by_lead = base.tokens.unflatten(1, (3, -1))[:, order].flatten(1, 2)
    torch.testing.assert_close(other.tokens, by_lead, rtol=1e-4, atol=1e-5)


def test_leads_are_told_apart(encoder: EcgEncoder, make_window: MakeWindow) -> None:
    window = make_window(leads=3)
    renamed = _run(encoder, window._replace(lead_ids=window.lead_ids + 6))
    assert not torch.allclose(renamed.fine, _run(encoder, window).fine, atol=1e-3)


def test_token_times_are_the_middles_of_the_patches(encoder: EcgEncoder, make_window: MakeWindow) -> None:
    times = _run(encoder, make_window(leads=2)).token_times_s
    one_lead = torch.arange(10) * 0.3 + 0.15 - 1.5
    torch.testing.assert_close(times, torch.cat([one_lead, one_lead])[None], rtol=0, atol=1e-6)


def test_fine_features_stay_near_their_cause(encoder: EcgEncoder, make_window: MakeWindow) -> None:
    window = make_window()
    moved = window.marks.clone()
    moved[:, 400] += 1.0
    steps = (_run(encoder, window._replace(marks=moved)).fine - _run(encoder, window).fine).abs().sum(-1)[0]
    assert int(steps.argmax()) == pytest.approx(400 / 4, abs=3)


def test_fine_sampling_hits_the_grid_and_interpolates_between() -> None:
    fine = torch.randn(2, 188, 5, generator=torch.Generator().manual_seed(0))
    at = torch.tensor([[0.0, 10.0, 10.25, 187.0], [1.0, 93.75, 186.0, 50.5]])
    values = sample_fine(fine, at * 0.016 - 1.5, 3.0)
    expected = torch.stack(
        [
            torch.stack([fine[0, 0], fine[0, 10], 0.75 * fine[0, 10] + 0.25 * fine[0, 11], fine[0, 187]]),
            torch.stack(
                [fine[1, 1], 0.25 * fine[1, 93] + 0.75 * fine[1, 94], fine[1, 186], (fine[1, 50] + fine[1, 51]) / 2]
            ),
        ]
    )
    torch.testing.assert_close(values, expected, rtol=1e-3, atol=1e-3)


def test_fine_sampling_holds_the_ends() -> None:
    fine = torch.randn(1, 188, 5, generator=torch.Generator().manual_seed(0))
    values = sample_fine(fine, torch.tensor([[-9.0, 9.0]]), 3.0)
    assert torch.equal(values, fine[:, [0, 187]])


@pytest.mark.parametrize(
    ("change", "message"), [(dict(patch=70), "multiple of the patch"), (dict(width=32, heads=3), "not a multiple")]
)
def test_impossible_configs_are_refused(change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        EcgEncoderConfig(**change)
