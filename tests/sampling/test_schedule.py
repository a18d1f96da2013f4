"""The masking schedule and what stays."""

import pytest
import torch

from echopulse.sampling.schedule import cosine_share, halton_rank, keep_most_confident


def test_cosine_goes_from_all_hidden_to_none() -> None:
    assert cosine_share(0.0) == 1
    assert cosine_share(1.0) == pytest.approx(0, abs=1e-12)
    assert cosine_share(0.5) == pytest.approx(0.5**0.5)
    shares = [cosine_share(i / 20) for i in range(21)]
    assert shares == sorted(shares, reverse=True)


def test_least_confident_stay_hidden() -> None:
    confidence = torch.tensor([[0.9, 0.1, 0.5, 0.3, 0.7], [0.1, 0.2, 0.3, 0.4, 0.5]])
    hidden = torch.ones_like(confidence, dtype=torch.bool)
    assert keep_most_confident(confidence, hidden, 2).tolist() == [
        [False, True, False, True, False],
        [True, True, False, False, False],
    ]


def test_what_was_known_is_never_hidden_again() -> None:
    random = torch.Generator().manual_seed(0)
    for _ in range(20):
        confidence = torch.randn(3, 40, generator=random)
        hidden = torch.rand(3, 40, generator=random) < 0.6
        confidence[~hidden] = -100.0
        after = keep_most_confident(confidence, hidden, 10)
        assert not (after & ~hidden).any()
        assert after.sum(1).tolist() == [min(10, int(row.sum()) - 1) for row in hidden]


@pytest.mark.parametrize("num_hidden", [0, 1, 4, 5, 6, 99])
def test_at_least_one_is_always_revealed(num_hidden: int) -> None:
    hidden = torch.tensor([[True] * 5 + [False] * 3])
    after = keep_most_confident(torch.randn(1, 8), hidden, num_hidden)
    assert int(after.sum()) == min(num_hidden, 4)


def test_nothing_hidden_stays_so() -> None:
    assert not keep_most_confident(torch.randn(2, 6), torch.zeros(2, 6, dtype=torch.bool), 3).any()


@pytest.mark.parametrize("grid", [(4, 8, 8), (6, 16, 16), (1, 3, 5)])
def test_halton_gives_every_place_one_turn(grid: tuple[int, int, int]) -> None:
    assert sorted(halton_rank(grid).flatten().tolist()) == list(range(torch.Size(grid).numel()))


def test_first_turns_of_halton_are_spread_evenly() -> None:
    """An eighth of all places: every octant of the grid gets its share, where chance would leave gaps."""
    first = (halton_rank((8, 16, 16)) < 256).float()
    octants = first.view(2, 4, 2, 8, 2, 8).sum((1, 3, 5))
    assert octants.min() >= 28 and octants.max() <= 36
