"""Two processes with half a batch each give the entropy, the losses and the gradients of one with the whole."""

from pathlib import Path

import pytest
import torch
from processes import run_workers
from safetensors.torch import load_file
from torch import Tensor

WORKER = Path(__file__).with_name("worker.py")


def _run(kind: str, world: int, output: Path) -> dict[str, Tensor]:
    run_workers(WORKER, world, kind, output)
    return load_file(output)


@pytest.mark.parametrize("kind", ["lfq", "bsq"])
def test_two_processes_equal_one(kind: str, tmp_path: Path) -> None:
    """Relative tolerance 1e-4: sums of float32 in another order, through the adaptive weight."""
    one, two = (_run(kind, world, tmp_path / f"{world}.safetensors") for world in (1, 2))
    assert set(one) == set(two)
    assert {"term.entropy", "term.adversarial", "term.perceptual", "term.discriminator_real"} <= set(one)
    for name, expected in one.items():
        tolerance = 1e-4 * float(expected.abs().max()) + 1e-7  # a bias before a softmax has no gradient but rounding
        torch.testing.assert_close(two[name], expected, rtol=1e-4, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}")
