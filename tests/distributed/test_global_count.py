"""Two processes with unlike shares of the terms train as one with all: the loss is divided by the global number."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

WORKER = Path(__file__).with_name("counting_worker.py")


def _trained(world: int, folder: Path) -> list[float]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    paths = os.pathsep.join(filter(None, sys.path))
    common = {"PYTHONPATH": paths, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world)}
    processes = [
        subprocess.Popen(
            [sys.executable, str(WORKER), str(folder)],
            env=os.environ | common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors[-2000:]
    return [float(x) for x in (folder / "export" / "line.txt").read_text().split()]


def test_two_processes_equal_one(tmp_path: Path) -> None:
    one, two = (_trained(world, tmp_path / str(world)) for world in (1, 2))
    assert two == pytest.approx(one, rel=1e-5)
