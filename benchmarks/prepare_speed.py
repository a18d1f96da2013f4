"""How fast `prepare` is, and that its memory stays flat: synthetic DICOM clips of one pattern.

Run: `python benchmarks/prepare_speed.py [--clips 1000] [--workers 2]`. Prints the rate and the memory of the main
process and its workers after each tenth.
"""

import argparse
import os
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, UltrasoundMultiFrameImageStorage, generate_uid

from echopulse.io.prepare import PrepareSettings, prepare_set


def write_clip(path: Path, number: int, frames: int, side: int) -> None:
    """A beating sector as an uncompressed multi-frame ultrasound DICOM."""
    rng = np.random.default_rng(number)
    y, x = np.mgrid[:side, :side]
    inside = (np.hypot(x - side / 2, y - 4) < side - 12) & (np.abs(np.arctan2(x - side / 2, y - 4)) < 0.7)
    speckle = rng.integers(60, 200, (side, side))
    clip = np.zeros((frames, side, side), np.uint8)
    for i in range(frames):
        radius = side * (0.14 + 0.04 * np.cos(2 * np.pi * i / 20))
        clip[i] = np.where(inside, np.where(np.hypot(x - side / 2, y - side / 2) < radius, 20, speckle), 0)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UltrasoundMultiFrameImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    dataset.PatientID, dataset.Modality, dataset.FrameTime = f"P{number // 3}", "US", 25
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = clip.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.PixelData = clip.tobytes()
    dataset.save_as(path, enforce_file_format=True)


def memory_mib(process: int) -> float:
    """Resident memory of a process."""
    with open(f"/proc/{process}/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmRSS"))


def descendants(process: int) -> list[int]:
    """All processes that it started, and theirs."""
    children = [int(pid) for pid in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    return children + [pid for child in children for pid in descendants(child)]


def main() -> None:
    """Writes the clips, prepares them, prints the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--clips", type=int, default=1000)
    parser.add_argument("--frames", type=int, default=30)
    parser.add_argument("--side", type=int, default=200)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        source, folder = Path(name) / "source", Path(name) / "set"
        source.mkdir()
        for number in range(options.clips):
            write_clip(source / f"{number:06d}.dcm", number, options.frames, options.side)
        parts, start, stop = Path(name) / "set.preparing" / "parts", time.perf_counter(), threading.Event()
        print("clips done   seconds   main MiB   largest worker MiB")

        def watch() -> None:
            shown = 0
            while not stop.wait(0.2):
                done = len(list(parts.glob("*.json"))) if parts.is_dir() else 0
                if done < shown + options.clips / 10:
                    continue
                shown = done
                try:
                    workers = max(map(memory_mib, descendants(os.getpid())), default=0.0)
                except (OSError, StopIteration):
                    continue  # a worker ended meanwhile
                main_mib = memory_mib(os.getpid())
                print(f"{done:10d} {time.perf_counter() - start:9.1f} {main_mib:10.0f} {workers:20.0f}", flush=True)

        watcher = threading.Thread(target=watch)
        watcher.start()
        outcome = prepare_set(source, folder, PrepareSettings(), workers=options.workers, salt="benchmark")
        seconds = time.perf_counter() - start
        stop.set()
        watcher.join()
        clips = outcome.report["clips"]
        print(f"{clips['kept']} kept, {clips['skipped']} skipped: {clips['kept'] / seconds:.1f} clips/s", end="")
        print(f" of {options.frames} frames of {options.side}x{options.side}, {options.workers} workers")
        sys.exit(clips["kept"] != options.clips)


if __name__ == "__main__":
    main()
