"""How fast is generation? Frames per second, time to the first frame of a stream, memory, and what each choice costs.

    python benchmarks/speed.py [--checkpoint compact] [--seconds 30] [--paper]

Every row is timed in one run on the same machine, so that ratios mean something where seconds do not. `--paper` also
times the `paper` preset (random weights, 11 frames, 18 steps, guided); it takes a minute or two. The last line is JSON:
a stream as it is by default, at the checkpoint's own decoding, which has no rehearsals; and the `paper` preset keeping
as much: what its null branch made of a window is reused for as large a share of the steps. Rows with rehearsals are
means of several patients, who need different numbers of them.
"""

import argparse
import json
import resource
import time
from dataclasses import replace
from statistics import fmean

import torch

from echopulse.models.presets import generator_config, tokenizer_config
from echopulse.models.tokenizer import VideoTokenizer
from echopulse.models.video_transformer import VideoTransformer
from echopulse.nn.precision import fast_dtype
from echopulse.phantom import sample_patient, simulate_clip
from echopulse.sampling.decode import DecodeSettings
from echopulse.sampling.pipeline import GenerationRequest, Pipeline
from echopulse.signals.track import EcgTrack

_PATIENTS = 4
_PAPER_STEPS = 18


def track_of(seed: int) -> EcgTrack:
    """The ECG of a patient in sinus rhythm."""
    ecg = simulate_clip(sample_patient(seed, rhythm="sinus"), fps=1.0, seconds=10.0, size=(32, 32)).clip.ecg
    assert ecg is not None
    return EcgTrack.from_signal(ecg)


def timed(
    pipeline: Pipeline, track: EcgTrack, seconds: float, settings: DecodeSettings | None = None
) -> tuple[float, float]:
    """Seconds until the first frames and until the last one, of a stream as it is by default or with these settings."""
    begin = time.perf_counter()
    first = 0.0
    for piece in pipeline.stream(track, GenerationRequest(seconds=seconds, start_s=0.0), settings=settings):
        assert len(piece.pictures)
        first = first or time.perf_counter() - begin
    return first, time.perf_counter() - begin


def ways_of(usual: DecodeSettings) -> list[tuple[bool, int]]:
    """`keep` and `null_every`: all worked out in every step, then bit by bit what the settings leave out."""
    return sorted({(False, 1), (usual.keep, 1), (usual.keep, usual.null_every)})


def peak_memory_mib() -> float:
    """Largest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", default="compact")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--paper", action="store_true")
    arguments = parser.parse_args()
    tracks = [track_of(1_000_000 + i) for i in range(_PATIENTS)]
    track = tracks[0]
    pipeline = Pipeline.load(arguments.checkpoint)
    usual = pipeline.default_settings
    timed(pipeline, track, 1.0)  # warm caches
    first, _ = timed(pipeline, track, 1.0)
    print("steps  guidance  frames/s")
    for steps in (4, usual.steps, 16):
        for guidance in (1.0, usual.guidance):
            settings = replace(usual, steps=steps, guidance=guidance, guidance_alone=None, rehearsals=0)
            _, took = timed(pipeline, track, 4.0, settings)
            print(f"{steps:5d}  {guidance:8.1f}  {100 / took:8.1f}")
    print(" keep  null branch every  frames/s")
    for keep, every in ways_of(usual):
        _, took = timed(pipeline, track, 4.0, replace(usual, keep=keep, null_every=every, rehearsals=0))
        print(f"{keep!s:>5}  {every:17d}  {100 / took:8.1f}")
    memory, rates = {}, {}
    for seconds in (arguments.seconds / 6, arguments.seconds):
        for rehearsals in sorted({0, usual.rehearsals}):
            settings = replace(usual, rehearsals=rehearsals)
            took = fmean(timed(pipeline, one, seconds, settings)[1] for one in tracks)
            rates[rehearsals] = seconds * 25 / took
            print(f"{seconds:g} s, rehearsals {rehearsals}: {rates[rehearsals]:.1f} frames/s")
        memory[seconds] = round(peak_memory_mib())
    print("peak memory, MiB, after", ", ".join(f"{s:g} s: {m}" for s, m in memory.items()))
    paper_s = None
    if arguments.paper:
        networks = VideoTokenizer(tokenizer_config("paper")), VideoTransformer(generator_config("paper"))
        paper = Pipeline(*networks, {}, fast_dtype())
        null_every = 1 + (usual.null_every - 1) * _PAPER_STEPS // usual.steps
        settings = DecodeSettings(_PAPER_STEPS, guidance=3.0, guided_share=1.0, keep=usual.keep, null_every=null_every)
        timed(paper, track, 11 / 25, replace(settings, steps=1))  # warm caches
        for keep, every in ways_of(settings):
            _, paper_s = timed(paper, track, 11 / 25, replace(settings, keep=keep, null_every=every))
            print(f"paper, keep {keep}, null branch every {every}: {paper_s:.1f} s")
    result = {
        "compact_frames_per_s": round(rates[0], 2),
        "compact_first_frame_s": round(first, 3),
        "paper_clip_s": None if paper_s is None else round(paper_s, 2),
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
