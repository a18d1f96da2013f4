"""Two processes with unlike shares of the terms train as one with all: the loss is divided by the global number."""

from pathlib import Path

import pytest
from processes import run_workers

WORKER = Path(__file__).with_name("counting_worker.py")


def _trained(world: int, folder: Path) -> list[float]:
    run_workers(WORKER, world, folder)
    return [float(x) for x in (folder / "export" / "line.txt").read_text().split()]


def test_two_processes_equal_one(tmp_path: Path) -> None:
    one, two = (_trained(world, tmp_path / str(world)) for world in (1, 2))
    assert two == pytest.approx(one, rel=1e-5)
