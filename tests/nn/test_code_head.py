"""The head of codes: a joint distribution over factors, the same in training and in drawing."""

from itertools import product

import pytest
import torch
from torch.nn import functional as F

from echopulse.nn.code_head import CodeHead

FACTORS = (3, 2, 4)


def _head(joint_width: int) -> CodeHead:
    torch.manual_seed(0)
    head = CodeHead(5, FACTORS, joint_width)
    if head.joint:
        for layer in head.given:
            torch.nn.init.normal_(layer.weight)
    return head


@pytest.mark.parametrize("joint_width", [0, 8])
def test_probabilities_of_all_codes_add_up_to_one_and_drawing_uses_those_of_training(joint_width: int) -> None:
    head = _head(joint_width)
    codes = torch.tensor(list(product(*map(range, FACTORS))))
    x = torch.randn(1, 5).expand(len(codes), -1)
    parts = head(x, codes).split(FACTORS, dim=-1)
    log_p = -sum(F.cross_entropy(part, codes[:, i], reduction="none") for i, part in enumerate(parts))
    assert isinstance(log_p, torch.Tensor)
    assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-5)
    drawing = head.one_by_one(x)
    for i, part in enumerate(parts):
        torch.testing.assert_close(drawing(i, codes[:, :i]), part)


def test_factors_see_those_before_them_alone() -> None:
    head, x = _head(8), torch.randn(1, 5)
    for place in range(3):
        codes = torch.zeros(1, 3, dtype=torch.long)
        other = codes.clone()
        other[0, place] = 1
        both = (head(x, c).split(FACTORS, dim=-1) for c in (codes, other))
        changed = [not torch.equal(a, b) for a, b in zip(*both, strict=True)]
        assert changed == [i > place for i in range(3)]


def test_a_joint_head_begins_near_the_linear_layer_and_learns_what_that_cannot() -> None:
    torch.manual_seed(0)
    head = CodeHead(5, (2, 2), 8)
    x, codes = torch.ones(64, 5), torch.randint(0, 2, (64, 1)).expand(-1, 2)  # two factors that are always equal
    torch.testing.assert_close(head(x, codes), F.linear(x, head.weight, head.bias), rtol=0, atol=0.1)
    optimizer = torch.optim.Adam(head.parameters(), 0.03)
    for _ in range(150):
        loss = sum(F.cross_entropy(part, codes[:, i]) for i, part in enumerate(head(x, codes).split((2, 2), -1)))
        assert isinstance(loss, torch.Tensor)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.75, "ln 2 of the first, nothing of the second; independent ones cost 2 ln 2"


def test_a_joint_head_asks_for_the_factors() -> None:
    with pytest.raises(AssertionError, match="factors that it may see"):
        _head(8)(torch.ones(1, 5))
