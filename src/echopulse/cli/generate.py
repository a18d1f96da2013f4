"""`echopulse generate`: an ECG file in, a video out."""

import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import tyro

from echopulse.cli.measure import measure
from echopulse.config import save_json
from echopulse.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image


def generate(
    ecg: tyro.conf.Positional[Path],
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="FILE")],
    view: Literal["a4c", "a2c"] = "a4c",
    seconds: float = 3.0,
    fps: float = 25.0,
    seed: int = 0,
    start: float | None = None,
    ef: float | None = None,
    image: Path | None = None,
    text: str | None = None,
    text_encoder: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None,
    rate: float | None = None,
    checkpoint: str = "compact",
    steps: int | None = None,
    guidance: float | None = None,
    rehearsals: int | None = None,
    overlay: bool = False,
    report: Path | None = None,
) -> None:
    """Generate an echocardiogram video that beats with an ECG.

    Args:
        ecg: WFDB record, DICOM waveform, EDF/BDF, Apple Watch CSV, or CSV/NPY with --rate.
        output: .mp4, .gif, .avi (lossless) or .npz.
        view: apical four- or two-chamber.
        seconds: length; a shorter ECG is repeated from its first to its last R peak.
        fps: frames per second.
        seed: another seed is another patient.
        start: where in the ECG the video starts, in seconds; its beginning if left out.
        ef: wanted ejection fraction in percent; the ECG decides if left out.
        image: picture to start from.
        text: a description, for checkpoints that were trained with text.
        text_encoder: folder of the T5 model that reads the text.
        rate: sampling rate in Hz of an ECG file that does not say it.
        checkpoint: shipped name, folder or hub repository.
        steps: passes through the network for one window.
        guidance: how strongly the ECG is followed; 1 switches guidance off.
        rehearsals: how often, at most, the first seconds are generated and measured and what is told corrected, so that
            the ejection fraction comes out right; 0 is fastest.
        overlay: draw the ECG under the picture.
        report: also write a JSON report, with the ejection fraction and beats measured on the video.
    """
    from echopulse.io.ecg import read_ecg
    from echopulse.io.video import check_output
    from echopulse.sampling.decode import asked_for
    from echopulse.sampling.pipeline import GenerationRequest

    check_output(output)
    if report is not None and (not report.parent.is_dir() or report.is_dir()):
        raise InputError(f"{report}: cannot write the report there; give a file in an existing folder")
    if overlay and output.suffix.lower() == ".npz":
        raise InputError(f"{output}: .npz holds data, no drawing; leave out --overlay or choose .mp4, .gif or .avi")
    request = GenerationRequest(view, seconds, fps, seed, start, ef, text)
    signal = read_ecg(ecg, sampling_rate_hz=rate, max_duration_s=(start or 0.0) + seconds + 60.0)
    if start is not None and not signal.start_s <= start < signal.end_s:
        raise InputError(f"--start is {start:g} s; the ECG covers {signal.start_s:g} to {signal.end_s:g} s")
    result = run_generation(
        signal,
        request,
        output,
        checkpoint=checkpoint,
        image=image,
        text_encoder=text_encoder,
        decoding=asked_for(steps, guidance, rehearsals),
        overlay=overlay,
        measured=report is not None,
    )
    if report is not None:
        save_json(report, result)
    timing, video = result["timing_s"], result["video"]
    rate_text = video["num_frames"] / (timing["sample"] + timing["decode"])
    print(f"{output}: {video['num_frames']} frames at {fps:g}/s; generated at {rate_text:.1f} frames/s")


def run_generation(
    signal: Any,
    request: Any,
    output: Path,
    *,
    checkpoint: str = "compact",
    image: Path | None = None,
    text_encoder: Path | None = None,
    decoding: Mapping[str, Any] = MappingProxyType({}),
    overlay: bool = False,
    measured: bool = True,
) -> dict[str, Any]:
    """Generates and writes a clip.

    Args:
        signal: the ECG.
        request: what to generate.
        output: the video.
        checkpoint: shipped name, folder or hub repository.
        image: picture to start from.
        text_encoder: folder of the T5 model.
        decoding: fields of `DecodeSettings` in place of the checkpoint's.
        overlay: draw the ECG under the picture.
        measured: segment the clip and read EF and beats.

    Returns:
        The report (layout: `docs/generate.md`).
    """
    from echopulse.sampling.pipeline import Pipeline
    from echopulse.signals.processing import assess_quality

    clock = time.perf_counter()
    pipeline = Pipeline.load(checkpoint, text_encoder=text_encoder)
    load_s = time.perf_counter() - clock
    quality = assess_quality(signal)
    if quality.verdict in ("flat", "poor"):
        print(f"echopulse: warning: ECG quality is {quality.verdict}: {'; '.join(quality.reasons)}", file=sys.stderr)
    settings = replace(pipeline.default_settings, **decoding)
    picture = None if image is None else read_picture(image, pipeline.size)
    clip, timing = pipeline(signal, request, image=picture, settings=settings)
    clock = time.perf_counter()
    clip.save(output, overlay=overlay)
    timing = {"load": load_s, **timing, "write": time.perf_counter() - clock}
    return {
        "ecg": {
            "file": Path(signal.source).name,
            "format": signal.format,
            "leads": list(signal.leads),
            "sampling_rate_hz": signal.sampling_rate_hz,
            "duration_s": signal.duration_s,
            "heart_rate_bpm": quality.heart_rate_bpm,
            "quality": quality.verdict,
            "quality_reasons": list(quality.reasons),
        },
        "video": {"num_frames": clip.num_frames, "fps": clip.fps, "size": list(clip.frames.shape[1:])},
        "timing_s": {name: round(value, 4) for name, value in timing.items()},
        **(measure(clip.frames, clip.frame_times_s).plain() if measured else {}),
        "r_times_s": clip.provenance["r_times_s"],
        "provenance": clip.provenance,
    }


def read_picture(path: Path, size: tuple[int, int]) -> np.ndarray:
    """A picture file as grey uint8 of (height, width), fitted without distortion on black.

    Raises:
        InputError: no such file, or not a picture.
    """
    from PIL import Image

    try:
        with Image.open(path) as picture:
            return fit_picture(picture, size)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: not a picture that can be read ({error})") from error


def fit_picture(picture: "Image", size: tuple[int, int]) -> np.ndarray:
    """A picture as grey uint8 of (height, width), fitted without distortion on black."""
    from PIL import Image, ImageOps

    return np.asarray(ImageOps.pad(picture.convert("L"), (size[1], size[0]), Image.Resampling.BICUBIC))
