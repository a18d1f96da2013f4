"""Worker scripts run by several processes that find each other."""

import os
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path


def run_workers(script: Path, world: int, *arguments: object) -> None:
    """Runs a script as `world` ranks on this machine and waits until all are done."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    paths = os.pathsep.join(filter(None, sys.path))
    common = {"PYTHONPATH": paths, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world)}
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), *map(str, arguments)],
            env=os.environ | common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world)
    ]
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert all(process.returncode == 0 for process in processes), "\n".join(text[-2000:] for text in errors)


def communication_threads() -> list[str]:
    """Names of gloo's threads in this process, which must end with the process group: later they may abort it.

    One that was joined may be listed for a moment yet; one that is still there after five seconds stays.
    """
    until = time.monotonic() + 5
    while True:
        names = []
        for task in Path("/proc/self/task").glob("*"):
            with suppress(OSError):  # it has ended
                names.append((task / "comm").read_text().strip())
        left = [name for name in names if "gloo" in name]
        if not left or time.monotonic() > until:
            return left
        time.sleep(0.05)
