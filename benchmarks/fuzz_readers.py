"""Do the readers survive damaged files? Every copy must be refused in one line or read, soon and in little memory.

    python benchmarks/fuzz_readers.py FOLDER --kind {ecg,ultrasound} [--copies 2000] [--seed 0]

FOLDER holds sample files, each read from where its siblings are (a WFDB header needs its signal file). A copy is cut
short, has bits flipped, bytes replaced, removed or repeated, or a number in it changed. A separate process reads it,
with 2 GiB of address space over what it has after importing and 10 seconds. The last line is JSON; the exit code is 1
if any copy crashed a reader, hung it, ran out of memory or raised anything but InputError.
"""

import argparse
import json
import os
import queue
import random
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path

MEMORY_BYTES = 2 << 30
TIMEOUT_S = 10.0
MAX_SAMPLE_BYTES = 4 << 20
NUMBERS = (b"0", b"-1", b"1", b"65535", b"2147483648", b"99999999999", b"1e308", b"nan")


def read_ecg_sample(path: Path) -> str:
    """Reads a file as an ECG and checks that it looks like one."""
    import numpy as np

    from echopulse.io.ecg import read_ecg

    try:
        ecg = read_ecg(path)
    except ValueError as error:
        if "--rate" not in str(error):
            raise
        ecg = read_ecg(path, sampling_rate_hz=500.0)
    assert np.isfinite(ecg.samples_mv).all() and ecg.samples_mv.shape == (len(ecg.leads), ecg.num_samples)
    return f"{len(ecg.leads)} leads, {ecg.num_samples} samples"


def read_ultrasound_sample(path: Path) -> str:
    """Reads a file as an ultrasound clip and checks that it looks like one."""
    import numpy as np

    from echopulse.io.ultrasound import read_echo

    clip = read_echo(path).clip
    assert clip.num_frames >= 1 and clip.frames.dtype == np.uint8 and clip.frames.ndim == 3
    return f"{clip.num_frames} frames"


READERS = {"ecg": read_ecg_sample, "ultrasound": read_ultrasound_sample}


def work(kind: str) -> None:
    """Reads the files named on standard input, one line of JSON each."""
    from echopulse.errors import InputError

    read = READERS[kind]
    if kind == "ecg":
        import echopulse.io.ecg
    else:
        import echopulse.io.ultrasound  # noqa: F401
    now = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY_BYTES, now + MEMORY_BYTES))
    for line in sys.stdin:
        try:
            outcome, detail = "read", read(Path(line.rstrip("\n")))
        except InputError as error:
            detail = str(error)
            outcome = "out of memory" if "MemoryError" in detail else "refused" if "\n" not in detail else "two lines"
        except BaseException as error:
            outcome, detail = "other error", f"{type(error).__name__}: {error}"
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        print(json.dumps({"outcome": outcome, "detail": detail[:300], "peak_mib": peak}), flush=True)


class Reader:
    """The process that reads; replaced when it dies or hangs."""

    def __init__(self, kind: str) -> None:
        self.command = [sys.executable, __file__, "--kind", kind, "--worker"]
        self.start()

    def start(self) -> None:
        """Starts a process and a thread that collects its answers."""
        self.process = subprocess.Popen(
            self.command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self.answers: queue.Queue[str] = queue.Queue()
        threading.Thread(target=collect, args=(self.process, self.answers), daemon=True).start()

    def __call__(self, path: Path) -> dict:
        """The outcome for one file."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{path}\n")
        self.process.stdin.flush()
        try:
            answer = self.answers.get(timeout=TIMEOUT_S)
        except queue.Empty:
            answer = json.dumps({"outcome": "hang", "detail": f"over {TIMEOUT_S:g} s", "peak_mib": 0})
        if answer:
            result = json.loads(answer)
        else:
            result = {"outcome": "crash", "detail": f"exit code {self.process.wait()}", "peak_mib": 0}
        if result["outcome"] in ("hang", "crash"):
            self.stop()
            self.start()
        return result

    def stop(self) -> None:
        """Ends the process."""
        self.process.kill()
        self.process.wait()


def collect(process: subprocess.Popen, answers: queue.Queue) -> None:
    """Hands on every line of a process, and an empty one when it ends."""
    assert process.stdout is not None
    for line in process.stdout:
        answers.put(line)
    answers.put("")


def mutate(content: bytes, dice: random.Random) -> bytes:
    """A damaged copy; half of the damage is near the beginning, where headers are."""
    damaged = bytearray(content)
    reach = len(damaged) if dice.random() < 0.5 else min(len(damaged), 4096)
    place = dice.randrange(reach)
    kind = dice.randrange(6)
    if kind == 0:
        del damaged[place:]
    elif kind == 1:
        for _ in range(dice.choice((1, 3, 30))):
            damaged[dice.randrange(reach)] ^= 1 << dice.randrange(8)
    elif kind == 2:
        damaged[place : place + dice.choice((1, 2, 4, 8))] = dice.randbytes(dice.choice((1, 2, 4, 8)))
    elif kind == 3:
        del damaged[place : place + dice.choice((1, 7, 500))]
    elif kind == 4:
        damaged[place:place] = damaged[place : place + dice.choice((1, 50, 5000))]
    else:
        spans = [match.span() for match in re.finditer(rb"\d+", bytes(damaged[:reach]))] or [(0, 0)]
        start, end = dice.choice(spans)
        damaged[start:end] = dice.choice(NUMBERS)
    return bytes(damaged)


def samples(folder: Path) -> list[tuple[Path, list[Path]]]:
    """Every file of acceptable size below a folder, with its siblings of the same stem."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.stat().st_size <= MAX_SAMPLE_BYTES]
    return [(file, [path for path in files if path.with_suffix("") == file.with_suffix("")]) for file in files]


def main() -> int:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--kind", choices=READERS, required=True)
    parser.add_argument("--copies", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.kind)
        return 0
    if arguments.folder is None or not samples(arguments.folder):
        parser.error("FOLDER must hold sample files")
    dice, outcomes, peak_mib = random.Random(arguments.seed), Counter(), 0
    choices = samples(arguments.folder)
    read = Reader(arguments.kind)
    with tempfile.TemporaryDirectory() as place:
        for number in range(arguments.copies):
            file, siblings = choices[number % len(choices)]
            folder = Path(place, str(number))
            folder.mkdir()
            for sibling in siblings:
                if sibling != file:
                    shutil.copy(sibling, folder / sibling.name)
            copy = folder / file.name
            copy.write_bytes(mutate(file.read_bytes(), dice))
            result = read(copy)
            outcomes[result["outcome"]] += 1
            peak_mib = max(peak_mib, result["peak_mib"])
            if result["outcome"] not in ("read", "refused"):
                kept = Path(tempfile.gettempdir(), f"fuzz-{arguments.kind}-{arguments.seed}-{number}")
                shutil.copytree(folder, kept, dirs_exist_ok=True)
                print(f"{file.name} copy {number}: {result['outcome']}: {result['detail']} (kept in {kept})")
            shutil.rmtree(folder)
    read.stop()
    print(json.dumps({"copies": arguments.copies, "files": len(choices), "peak_mib": peak_mib, **outcomes}))
    return 0 if set(outcomes) <= {"read", "refused"} else 1


if __name__ == "__main__":
    sys.exit(main())
