"""Domain transfer as in the paper: a tokenizer adapts to real echocardiograms by low-rank adapters (LoRA).

    python benchmarks/domain_transfer.py [--checkpoint base] [--clips CLIPS.npy]      five folds
    python benchmarks/domain_transfer.py --train A.npy --test B.npy                   adapts on A, tests on B

Arrays are uint8 (clips, frames, height, width). Clips are resized to 128x128, pixels are grey in [0, 1], errors are
over the first 11 frames of each test clip. Only the pixel error and the quantizer's own terms are minimised: these
figures are about pixels. The last line is JSON.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from echopulse.errors import InputError
from echopulse.models.tokenizer import VideoTokenizer
from echopulse.objectives.quantization import quantizer_losses
from echopulse.objectives.reconstruction import reconstruction_loss
from echopulse.training.lora import add_lora, trained_share

FRAMES, SIZE, FOLDS = 11, 128, 5
CLIPS = Path(__file__).parents[2] / "shared" / "data" / "echo" / "a4c_clips_60.npy"


def read_clips(file: Path) -> Tensor:
    """All frames of all clips, float32 (clips, frames, 1, 128, 128) in [0, 1].

    Raises:
        InputError: not an array of grey clips of 11 frames or more.
    """
    try:
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: not a .npy array of numbers ({error})") from error
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[1] < FRAMES:
        raise InputError(
            f"{file}: {array.dtype} {array.shape}; expected uint8 (clips, {FRAMES} or more, height, width)"
        )
    video = torch.from_numpy(np.array(array)).float() / 255
    resized = F.interpolate(video, size=(SIZE, SIZE), mode="bilinear", antialias=True, align_corners=False)
    return resized.clamp(0, 1).unsqueeze(2)


@torch.inference_mode()
def errors(tokenizer: VideoTokenizer, clips: Tensor) -> dict[str, float]:
    """Mean squared and mean absolute error over the first frames of all clips."""
    square = absolute = 0.0
    for clip in clips[:, :FRAMES].split(4):
        with torch.autocast("cpu", torch.bfloat16):
            again = tokenizer(clip.expand(-1, -1, tokenizer.config.channels, -1, -1)).reconstruction
        difference = again.float().mean(dim=2, keepdim=True).clamp(0, 1) - clip
        square += float(difference.square().mean(dim=(1, 2, 3, 4)).sum())
        absolute += float(difference.abs().mean(dim=(1, 2, 3, 4)).sum())
    return {"mse": square / len(clips), "mae": absolute / len(clips)}


def adapt(
    tokenizer: VideoTokenizer, train: Tensor, test: Tensor, settings: argparse.Namespace
) -> list[dict[str, float]]:
    """Trains adapters, printing the test errors after every epoch; returns them, the one before training first."""
    rng = np.random.default_rng(settings.seed)
    torch.manual_seed(settings.seed)
    add_lora(tokenizer, settings.rank, stem=settings.stem)
    number, share = trained_share(tokenizer)
    print(f"  {number:,} parameters trained, {100 * share:.2f} % of all", flush=True)
    optimizer = torch.optim.AdamW([p for p in tokenizer.parameters() if p.requires_grad], lr=0.0, weight_decay=0.0)
    curve = [errors(tokenizer, test)]
    _print(0, curve[-1])
    steps = -(-len(train) // settings.batch) * settings.epochs
    done = 0
    for epoch in range(1, settings.epochs + 1):
        for chosen in torch.from_numpy(rng.permutation(len(train))).split(settings.batch):
            rate = min(1.0, (done + 1) / 10) * (0.55 + 0.45 * np.cos(np.pi * done / steps))
            optimizer.param_groups[0]["lr"] = settings.learning_rate * rate
            video = _augmented(train[chosen], rng).expand(-1, -1, tokenizer.config.channels, -1, -1)
            with torch.autocast("cpu", torch.bfloat16):
                output = tokenizer(video)
                terms = quantizer_losses(tokenizer.config.quantizer, output.quantized)
                loss = 20 * reconstruction_loss(video, output.reconstruction) + sum(terms.values())
            loss.backward()
            torch.nn.utils.clip_grad_norm_(tokenizer.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            done += 1
        if epoch % settings.every == 0 or epoch in (1, settings.epochs):
            curve.append(errors(tokenizer, test))
            _print(epoch, curve[-1])
    return curve


def _augmented(clips: Tensor, rng: np.random.Generator) -> Tensor:
    """Random pieces in time with random contrast (as in the paper) and left-right flips."""
    pieces = []
    for clip in clips:
        start = rng.integers(len(clip) - FRAMES + 1)
        piece = clip[start : start + FRAMES]
        piece = (rng.uniform(0.9, 1.1) * piece.clamp(min=1e-6) ** rng.uniform(0.9, 1.1)).clamp(0, 1)
        pieces.append(piece.flip(-1) if rng.uniform() < 0.5 else piece)
    return torch.stack(pieces)


def _print(epoch: int, figures: dict[str, float]) -> None:
    print(f"  epoch {epoch:3d}  MSE {figures['mse']:.3e}  MAE {figures['mae']:.3e}", flush=True)


def _folds(clips: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Train and test clips of each fold; every clip is tested once."""
    fold = torch.arange(len(clips)) % FOLDS
    return [(clips[fold != i], clips[fold == i]) for i in range(FOLDS)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", default="base", help="a shipped name, a folder or a training run")
    parser.add_argument("--clips", type=Path, default=CLIPS, help="array for the five folds")
    parser.add_argument("--train", type=Path)
    parser.add_argument("--test", type=Path)
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--stem", action=argparse.BooleanOptionalAction, default=True, help="adapters in the stem too")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--every", type=int, default=5, help="epochs between two points of the curve")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    settings = parser.parse_args(arguments)
    begin = time.monotonic()
    try:
        if (settings.train is None) != (settings.test is None):
            raise InputError("--train and --test go together")
        if settings.train is None:
            parts = _folds(read_clips(settings.clips))
        else:
            parts = [(read_clips(settings.train), read_clips(settings.test))]
        curves = []
        for number, (train, test) in enumerate(parts, 1):
            print(f"part {number} of {len(parts)}: {len(train)} clips to adapt on, {len(test)} to test on", flush=True)
            tokenizer = VideoTokenizer.from_pretrained(settings.checkpoint).float().train()
            curves.append(adapt(tokenizer, train, test, settings))
    except InputError as error:
        parser.error(str(error))
    minutes = (time.monotonic() - begin) / 60
    mean = {
        when: {name: float(np.mean([curve[at][name] for curve in curves])) for name in ("mse", "mae")}
        for when, at in (("before", 0), ("after", -1))
    }
    print(f"mean over {len(curves)}: {settings.epochs} epochs, {minutes:.1f} minutes in all")
    print(json.dumps(mean | {"minutes": round(minutes, 2), "epochs": settings.epochs}))


if __name__ == "__main__":
    main()
