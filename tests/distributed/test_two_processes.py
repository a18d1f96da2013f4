"""Two processes with half a batch each give the entropy, the losses and the gradients of one with the whole."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

WORKER = Path(__file__).with_name("worker.py")


def _run(kind: str, world: int, output: Path) -> dict[str, Tensor]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    paths = os.pathsep.join(filter(None, sys.path))
    common = {"PYTHONPATH": paths, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world)}
    processes = [
        subprocess.Popen(
            [sys.executable, str(WORKER), kind, str(output)],
            env=os.environ | common | {"RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors[-2000:]
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
