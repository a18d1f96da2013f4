"""`echopulse demo`: the shipped model on a shipped ECG."""

from pathlib import Path
from typing import Annotated

import tyro

from echopulse.config import save_json
from echopulse.errors import InputError


def demo(output: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="DIR")] = Path("echopulse_demo")) -> None:
    """Generate a beating heart from an ECG that comes with the package.

    Args:
        output: folder to write to; made if it is absent.
    """
    from echopulse.cli.generate import run_generation
    from echopulse.io.ecg import read_ecg
    from echopulse.sampling.pipeline import GenerationRequest

    record = Path(__file__).parent.parent / "weights" / "demo_ecg" / "demo.hea"
    try:
        output.mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(f"{output}: cannot make this folder ({error.strerror})") from error
    signal = read_ecg(record)
    video, strip, report = output / "echo.mp4", output / "frames.png", output / "report.json"
    result = run_generation(signal, GenerationRequest(seconds=4.0), video, overlay=True)
    save_json(report, result)
    _write_strip(video, strip)
    timing, ecg = result["timing_s"], result["ecg"]
    speed = result["video"]["num_frames"] / (timing["sample"] + timing["decode"])
    print(f"ECG: {len(ecg['leads'])} leads, {ecg['heart_rate_bpm']:.0f} beats a minute, quality {ecg['quality']}")
    print(f"wrote {video}   {result['video']['num_frames']} frames beating with that ECG")
    print(f"wrote {strip}  one beat in pictures")
    print(f"wrote {report} what was done, with timing and provenance")
    print(f"generated at {speed:.1f} frames/s; playback is {result['video']['fps']:g}")
    print("next: echopulse generate YOUR_ECG -o echo.mp4 --overlay     WFDB, DICOM, EDF, Apple Watch, CSV or NPY")
    print("      echopulse simulate -o set --num 8                     paired phantom patients with exact truth")
    print("Synthetic, for research and teaching; not for diagnosis.")


def _write_strip(video: Path, target: Path) -> None:
    """Eight frames of the first second side by side."""
    import numpy as np
    from PIL import Image

    from echopulse.io.files import whole_file
    from echopulse.io.video import read_video

    frames = read_video(video).frames
    picked = frames[np.linspace(0, min(len(frames) - 1, 21), 8).round().astype(int)]
    with whole_file(target) as temporary:
        Image.fromarray(np.concatenate(list(picked), axis=1)).save(temporary, format="PNG")
