"""How fast are tokenizers? Frames per second of encoding and decoding, bfloat16 against float32.

    python benchmarks/tokenizer_speed.py [--presets compact base] [--frames 75] [--repeats 5]

Clips of 128x128; the weights are random, which makes no difference to the speed. All variants take turns within one
run, each keeps its best time, so that ratios mean something where seconds do not. The last line is JSON.
"""

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import torch

from echopulse.models.presets import TOKENIZER_PRESETS, tokenizer_config
from echopulse.models.tokenizer import VideoTokenizer

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


def seconds(call: Callable[[], Any]) -> float:
    """Wall-clock time of one call."""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


@torch.inference_mode()
def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--presets", nargs="+", default=["compact", "base"], choices=TOKENIZER_PRESETS)
    parser.add_argument("--frames", type=int, default=75)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    calls: dict[tuple[str, str, str], Callable[[], Any]] = {}
    for preset in options.presets:
        for name, dtype in DTYPES.items():
            network = VideoTokenizer(tokenizer_config(preset)).to(dtype).eval()
            video = torch.rand(1, options.frames, network.config.channels, 128, 128, dtype=dtype)
            codes = network.encode(video)
            calls[preset, "encode", name] = lambda network=network, video=video: network.encode(video)
            calls[preset, "decode", name] = lambda network=network, codes=codes: network.decode(codes)
    best = {key: min(seconds(call), seconds(call)) for key, call in calls.items()}
    for _ in range(options.repeats):
        best = {key: min(best[key], seconds(call)) for key, call in calls.items()}
    rate = {key: options.frames / s for key, s in best.items()}
    result: dict[str, Any] = {"threads": torch.get_num_threads(), "frames": options.frames}
    print(f"{'preset':10} {'':8} {'bfloat16':>10} {'float32':>10} {'ratio':>7}   frames/s, {result['threads']} threads")
    for preset in options.presets:
        result[preset] = {}
        for way in ("encode", "decode"):
            fast, exact = (rate[preset, way, name] for name in DTYPES)
            print(f"{preset:10} {way:8} {fast:10.1f} {exact:10.1f} {fast / exact:7.2f}")
            result[preset] |= {f"{way}_bfloat16": fast, f"{way}_float32": exact, f"{way}_ratio": fast / exact}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
