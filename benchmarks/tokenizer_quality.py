"""What a tokenizer keeps of held-out clips, beside H.264 (or H.265, AV1) at the same number of bits.

    echopulse simulate -o held-out --num 100 --seed 1000000 --no-masks
    python benchmarks/tokenizer_quality.py base held-out [--detail] [--search STEPS] [--continuous RUN]
        [--picture OUT.png] [--codecs h264 h264-slow h265 av1]

Clips are cut to their first `--frames` frames. `--continuous` names the same network trained without rounding for as
many steps (`echopulse train tokenizer --continuous-steps N`, N the number of steps); it is measured without rounding.
Figures that begin with `search` are those of codes as `echopulse reconstruct --search` finds them.
Means are over clips; the last line is JSON.
"""

import argparse
import json
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from echopulse.axes import MASK_CLASSES
from echopulse.cli.reconstruct import code_search
from echopulse.cli.reconstruct import round_trip as streamed
from echopulse.errors import InputError
from echopulse.evaluation.pixel import pixel_scores
from echopulse.evaluation.segmentation import segment_clip
from echopulse.io.sets import PreparedSet
from echopulse.models.detail import DetailNetwork
from echopulse.models.tokenizer import VideoTokenizer
from echopulse.nn.precision import fast_dtype
from echopulse.sampling.detail import DetailStream
from echopulse.signals.ventricle import find_beats, lv_curve

LAG, REACH, PATCH, EVERY = 2, 5, 9, 4
"""Speckle: frames between two pictures, largest displacement in pixels, side of a patch, frames between two pairs."""


class Clip(NamedTuple):
    """Pictures of a held-out patient, uint8 (frames, height, width), with the EF that is true of them, if known."""

    frames: np.ndarray
    fps: float
    ef_percent: float | None


def read_clips(folders: Sequence[Path], frames: int, limit: int | None) -> list[Clip]:
    """The first frames of the clips of prepared sets.

    Raises:
        InputError: no clip is long enough.
    """
    clips = []
    for part in map(PreparedSet, folders):
        for i in range(len(part)):
            line = part.line(i)
            if line["num_frames"] >= frames:
                ef = line["truth"].get("ef_percent")
                clips.append(Clip(np.array(part.frames(i)[:frames]), line["fps"], ef))
    if not clips:
        raise InputError(f"no clip of {frames} frames or more in {', '.join(map(str, folders))}")
    return clips[:limit]


@torch.inference_mode()
def round_trip(tokenizer: VideoTokenizer, frames: np.ndarray, quantize: bool = True) -> tuple[np.ndarray, Tensor]:
    """A clip after coding, uint8, and its codes."""
    video = torch.from_numpy(frames)[None, :, None].to(next(tokenizer.parameters()).dtype) / 255
    output = tokenizer(video.expand(-1, -1, tokenizer.config.channels, -1, -1), quantize)
    again = (255 * output.reconstruction[0].float().mean(dim=1)).round().clamp(0, 255)
    return again.byte().numpy(), output.quantized.codes


# codes ------------------------------------------------------------------------------------------------------


def code_use(tokenizer: VideoTokenizer, codes: Tensor) -> dict[str, Any]:
    """How the codebook is used.

    `share_of_codes` counts a code once; so few tokens as `tokens` cannot show more than `share_if_uniform` of them.
    `bits_per_token` is the entropy of the codes' histogram. `ones_low`, `ones_high` are the least and most balanced
    bit of LFQ and BSQ; `rarest_level` is the share of the rarest level of any FSQ digit, times its number of levels.
    """
    size, levels = tokenizer.codebook_size, tokenizer.config.quantizer.levels
    counts = torch.bincount(codes.flatten(), minlength=size).double()
    share = counts[counts > 0] / counts.sum()
    result: dict[str, Any] = {
        "tokens": codes.numel(),
        "codebook": size,
        "share_of_codes": len(share) / size,
        "share_if_uniform": float(1 - np.exp(-codes.numel() / size)),
        "bits_per_token": float(-(share * share.log2()).sum()),
    }
    if tokenizer.config.quantizer.kind == "vq":
        return result
    digits, rest = [], codes.flatten()
    for number in reversed(levels):
        digits.append(torch.bincount(rest % number, minlength=number) / rest.numel())
        rest = rest // number
    if set(levels) == {2}:
        ones = [float(digit[1]) for digit in digits]
        return result | {"ones_low": min(ones), "ones_high": max(ones)}
    return result | {"rarest_level": min(float(digit.min()) * len(digit) for digit in digits)}


# spectrum ---------------------------------------------------------------------------------------------------


def radial_power(frames: np.ndarray) -> np.ndarray:
    """Mean power of the frames by whole cycles per image, from 0 to half the Nyquist frequency; Hann window."""
    side = frames.shape[1]
    if frames.shape[2] != side:
        raise InputError(f"pictures of {side}x{frames.shape[2]}; the spectrum is that of square ones")
    window = np.outer(np.hanning(side), np.hanning(side))
    pictures = frames / 255.0
    pictures = (pictures - pictures.mean(axis=(1, 2), keepdims=True)) * window
    power = (np.abs(np.fft.fft2(pictures)) ** 2).mean(axis=0)
    cycles = np.fft.fftfreq(side, 1 / side)
    ring = np.rint(np.hypot(cycles[:, None], cycles[None])).astype(int)
    mean = np.bincount(ring.ravel(), power.ravel()) / np.bincount(ring.ravel())
    return mean[: side // 4 + 1]


# speckle ----------------------------------------------------------------------------------------------------


def speckle_motion(frames: np.ndarray, again: np.ndarray, muscle: np.ndarray) -> dict[str, np.ndarray]:
    """Follows patches of the heart's muscle from a frame to the next but one by block matching.

    Matching is by correlation of texture: what is finer than a Gaussian of 2 pixels, divided by its local strength, so
    that the outline of the wall does not lead.

    Args:
        frames: uint8 (frames, height, width).
        again: its reconstruction.
        muscle: bool, where patches may lie.

    Returns:
        One row a patch: `original` and `reconstruction`, the displacement (rows, columns) of their own best match;
        `kept` and `still`, how well the reconstruction's texture matches itself along the original's displacement, and
        at none; `texture`, how well the original's matches along its own.
    """
    start = np.arange(0, len(frames) - LAG, EVERY)
    inside = ndimage.uniform_filter(muscle[start].astype(np.float32), (0, PATCH, PATCH)) > 0.8
    inside[:, :, : PATCH + REACH] = inside[:, :, -PATCH - REACH :] = False
    inside[:, : PATCH + REACH] = inside[:, -PATCH - REACH :] = False
    inside &= (np.indices(inside.shape[1:]) % 3 == 0).all(axis=0)
    at = torch.from_numpy(inside)
    real, made = (_matches(torch.from_numpy(_texture(x)), start, at) for x in (frames, again))
    shifts = torch.stack(torch.meshgrid(*2 * [torch.arange(-REACH, REACH + 1)], indexing="ij"), dim=-1).flatten(0, 1)
    best, own, patch = real.argmax(dim=0), made.argmax(dim=0), torch.arange(real.shape[1])
    return {
        "original": shifts[best].numpy(),
        "reconstruction": shifts[own].numpy(),
        "texture": real[best, patch].numpy(),
        "kept": made[best, patch].numpy(),
        "still": made[len(shifts) // 2].numpy(),
    }


def _texture(frames: np.ndarray) -> np.ndarray:
    fine = frames - ndimage.gaussian_filter(frames.astype(np.float32), (0, 2, 2))
    return fine / (np.sqrt(ndimage.gaussian_filter(fine**2, (0, 4, 4))) + 1)


def _matches(texture: Tensor, start: np.ndarray, at: Tensor) -> Tensor:
    """Correlation of every chosen patch with the later frame at all displacements, (displacements, patches)."""
    earlier, later = texture[start], F.pad(texture[start + LAG], 4 * [REACH])
    height, width = texture.shape[1:]
    rows = []
    for down in range(2 * REACH + 1):
        for right in range(2 * REACH + 1):
            shifted = later[:, down : down + height, right : right + width]
            rows.append(_correlation(earlier, shifted)[at])
    return torch.stack(rows)


def _correlation(x: Tensor, y: Tensor) -> Tensor:
    """Correlation of the patches around every pixel."""
    mean = F.avg_pool2d(torch.stack([x, y, x * x, y * y, x * y], dim=1), PATCH, 1, PATCH // 2)
    a, b, aa, bb, ab = mean.unbind(dim=1)
    return (ab - a * b) / ((aa - a * a) * (bb - b * b)).clamp(min=1e-6).sqrt()


def motion_summary(parts: Iterable[dict[str, np.ndarray]]) -> dict[str, Any]:
    """Over patches that move by a pixel or more and whose texture the original keeps (correlation 0.5 or more)."""
    rows = list(parts)
    joined = {name: np.concatenate([part[name] for part in rows]) for name in rows[0]}
    chosen = (np.abs(joined["original"]).max(axis=1) >= 1) & (joined["texture"] >= 0.5)
    real, made = joined["original"][chosen], joined["reconstruction"][chosen]
    if len(real) < 2:
        raise InputError("no patch of muscle moves; the speckle of still clips cannot be followed")
    return {
        "patches": len(real),
        "displacement_correlation": float(np.corrcoef(real.ravel(), made.ravel())[0, 1]),
        "displacement_error_px": float(np.median(np.hypot(*(made - real).T))),
        "original_along_motion": float(joined["texture"][chosen].mean()),
        "along_motion": float(joined["kept"][chosen].mean()),
        "standing_still": float(joined["still"][chosen].mean()),
    }


# video codecs -----------------------------------------------------------------------------------------------


def _h264_bytes(packet: bytes) -> int:
    """Bytes of coded pictures among the units of a packet, which three bytes 0 0 1 set apart."""
    return sum(len(unit) for unit in packet.split(b"\0\0\1")[1:] if unit and unit[0] & 31 in (1, 5))


def _h265_bytes(packet: bytes) -> int:
    return sum(len(unit) for unit in packet.split(b"\0\0\1")[1:] if unit and unit[0] >> 1 & 63 < 32)


class Codec(NamedTuple):
    """A codec by PyAV: encoder and decoder, its options, the coarsest rate factor, and which bytes count.

    Neither an encoder's note about itself nor the stream's headers count, where they can be told apart.
    """

    encoder: str
    decoder: str
    options: dict[str, str]
    coarsest: int = 51
    count: Callable[[bytes], int] = len
    pixels: str = "gray"


_X265 = "keyint=1000:log-level=none:pools=none:frame-threads=1"
CODECS = {
    "h264": Codec("libx264", "h264", {"preset": "medium", "g": "1000", "threads": "1"}, count=_h264_bytes),
    "h264-slow": Codec(
        "libx264", "h264", {"preset": "veryslow", "tune": "psnr", "g": "1000", "threads": "1"}, count=_h264_bytes
    ),
    "h265": Codec("libx265", "hevc", {"preset": "veryslow", "tune": "psnr", "x265-params": _X265}, count=_h265_bytes),
    "av1": Codec(
        "libsvtav1", "libdav1d", {"preset": "3", "svtav1-params": "tune=1:keyint=1000:lp=1"}, 63, pixels="yuv420p"
    ),
}


def compressed(frames: np.ndarray, bits: float, codec: Codec) -> tuple[np.ndarray, float]:
    """A clip by a codec at the largest size that the bits allow, by bisection over its constant rate factor.

    Grey, one key frame.

    Returns:
        The decoded clip and its bits; those at the coarsest setting where even they are too many.
    """
    low, high = 0.0, float(codec.coarsest)
    best = _encode(frames, high, codec)
    for _ in range(9):
        middle = (low + high) / 2
        trial = _encode(frames, middle, codec)
        if trial[1] <= bits:
            high, best = middle, trial
        else:
            low = middle
    return best


def _encode(frames: np.ndarray, crf: float, codec: Codec) -> tuple[np.ndarray, float]:
    encoder: Any = av.CodecContext.create(codec.encoder, "w")
    encoder.height, encoder.width = frames.shape[1:]
    encoder.pix_fmt, encoder.time_base, encoder.framerate = codec.pixels, Fraction(1, 25), Fraction(25)
    factor = f"{crf:.0f}" if codec.encoder == "libsvtav1" else f"{crf:.4f}"  # which takes whole numbers alone
    encoder.options = codec.options | {"crf": factor}
    decoder: Any = av.CodecContext.create(codec.decoder, "r")
    packets = []
    for i, picture in enumerate(frames):
        frame = av.VideoFrame.from_ndarray(picture, format="gray")
        if codec.pixels != "gray":
            frame = frame.reformat(format=codec.pixels, src_color_range="JPEG", dst_color_range="JPEG")
        frame.pts = i
        packets += encoder.encode(frame)
    packets += encoder.encode(None)
    bits = 8 * sum(codec.count(bytes(packet)) for packet in packets)
    decoded = [frame for packet in [*packets, None] for frame in decoder.decode(packet)]
    return np.stack([frame.to_ndarray()[: frames.shape[1]] for frame in decoded]), bits  # luma lies on top of chroma


# ejection fraction --------------------------------------------------------------------------------------------


def ejection_fraction(masks: np.ndarray, fps: float) -> float | None:
    """EF in percent of a clip's masks; None where the curve cannot tell it."""
    return find_beats(lv_curve(masks), np.arange(len(masks)) / fps).ef_percent


def _mean_difference(pairs: Iterable[tuple[float | None, float | None]]) -> tuple[float | None, int]:
    known = [abs(x - y) for x, y in pairs if x is not None and y is not None]
    return (float(np.mean(known)) if known else None), len(known)


# everything ---------------------------------------------------------------------------------------------------


def pixels(originals: Sequence[np.ndarray], made: Sequence[np.ndarray]) -> dict[str, float]:
    """Means over clips of PSNR, MSE, MAE and SSIM."""
    scores = [pixel_scores(x, y) for x, y in zip(originals, made, strict=True)]
    return {name: float(np.mean([getattr(score, name) for score in scores])) for name in ("psnr", "mse", "mae", "ssim")}


def spectrum(originals: Sequence[np.ndarray], made: Sequence[np.ndarray]) -> dict[str, float]:
    """Least and largest ratio of the power spectra from 4 cycles per image to half the Nyquist frequency."""
    real, again = (np.mean([radial_power(frames[::5]) for frames in clips], axis=0)[4:] for clips in (originals, made))
    return {"spectrum_low": float((again / real).min()), "spectrum_high": float((again / real).max())}


def measure(tokenizer: VideoTokenizer, clips: Sequence[Clip]) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Pixels, codes and spectrum of a tokenizer on clips, and the reconstructions."""
    made, codes = zip(*(round_trip(tokenizer, clip.frames) for clip in clips), strict=True)
    originals = [clip.frames for clip in clips]
    bits = codes[0].numel() * tokenizer.bits_per_code
    result = pixels(originals, made) | {"bits_per_clip": bits} | code_use(tokenizer, torch.cat(codes))
    return result | spectrum(originals, made), list(made)


def heart(clips: Sequence[Clip], made: Sequence[np.ndarray]) -> dict[str, Any]:
    """EF on originals and reconstructions, and whether the muscle's speckle moves with it."""
    motion, efs = [], []
    for clip, again in zip(clips, made, strict=True):
        masks = segment_clip(clip.frames)
        motion.append(speckle_motion(clip.frames, again, masks == MASK_CLASSES.index("lv_myocardium")))
        both = (ejection_fraction(x, clip.fps) for x in (masks, segment_clip(again)))
        efs.append((clip.ef_percent, *both))
    segmenter, _ = _mean_difference((truth, real) for truth, real, _ in efs)
    difference, number = _mean_difference((real, again) for _, real, again in efs)
    figures = {"ef_clips": number, "ef_segmenter_mae": segmenter, "ef_difference": difference}
    return motion_summary(motion) | figures


def looks(clips: Sequence[Clip], made: Sequence[np.ndarray], prefix: str) -> dict[str, Any]:
    """Pixels, spectrum and heart of reconstructions, by names that begin alike."""
    originals = [clip.frames for clip in clips]
    found = pixels(originals, made) | spectrum(originals, made) | heart(clips, made)
    return {f"{prefix}{name}": value for name, value in found.items()}


def save_picture(
    path: Path, originals: Sequence[np.ndarray], made: Sequence[np.ndarray], frame: int = 12, rows: int = 3
) -> None:
    """Original, reconstruction and difference (grey is none) side by side, one clip a row, twice the size."""
    lines = []
    for x, y in list(zip(originals, made, strict=True))[:rows]:
        difference = np.clip(128 + y[frame].astype(np.int16) - x[frame], 0, 255).astype(np.uint8)
        lines.append(np.concatenate([x[frame], y[frame], difference], axis=1))
    picture = Image.fromarray(np.concatenate(lines))
    picture.resize((2 * picture.width, 2 * picture.height), Image.Resampling.LANCZOS).save(path)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", help="a shipped name, a folder or a training run")
    parser.add_argument("sets", type=Path, nargs="+", metavar="SET")
    parser.add_argument("--continuous", help="the same network, trained without rounding")
    parser.add_argument("--clips", type=int, help="at most so many")
    parser.add_argument("--frames", type=int, default=75)
    parser.add_argument("--codecs", nargs="+", choices=tuple(CODECS), default=["h264"], help="at the same bits")
    parser.add_argument("--detail", action="store_true", help="also with the checkpoint's detail network")
    parser.add_argument("--search", type=int, metavar="STEPS", help="also with codes that are searched")
    parser.add_argument("--picture", type=Path, help="file for original | reconstruction | difference")
    options = parser.parse_args(arguments)
    try:
        clips = read_clips(options.sets, options.frames, options.clips)
        originals = [clip.frames for clip in clips]
        tokenizer = VideoTokenizer.from_pretrained(options.checkpoint).to(fast_dtype())
        result, made = measure(tokenizer, clips)
        if options.picture is not None:
            save_picture(options.picture, originals, made)
        for name in options.codecs:
            packed = [compressed(x, result["bits_per_clip"], CODECS[name]) for x in originals]
            psnr, size = pixels(originals, [x for x, _ in packed])["psnr"], float(np.mean([bits for _, bits in packed]))
            result |= {f"{name}_psnr": psnr, f"{name}_bits_per_clip": size}
            result[f"gain_over_{name}_db"] = result["psnr"] - psnr
        if options.continuous is not None:
            free = VideoTokenizer.from_pretrained(options.continuous).to(fast_dtype())
            unrounded = [round_trip(free, x, quantize=False)[0] for x in originals]
            result["continuous_psnr"] = pixels(originals, unrounded)["psnr"]
            result["quantization_cost_db"] = result["continuous_psnr"] - result["psnr"]
        result |= heart(clips, made)
        searches = {"": None}
        if options.search:
            searches["search_"] = code_search(tokenizer, options.checkpoint, options.search)
        network = DetailNetwork.from_pretrained(options.checkpoint).to(fast_dtype()) if options.detail else None
        for name, search in searches.items():
            if search is not None:
                again = [streamed(tokenizer, x, search=search)[0].round().astype(np.uint8) for x in originals]
                result |= looks(clips, again, name)
            if network is not None:
                streams = [DetailStream(network, [seed]) for seed in range(len(originals))]
                again = [
                    streamed(tokenizer, x, stream, search)[0] for x, stream in zip(originals, streams, strict=True)
                ]
                drawn = [frames.round().astype(np.uint8) for frames in again]
                if options.picture is not None:
                    save_picture(options.picture.with_stem(f"{options.picture.stem}-{name}detail"), originals, drawn)
                result |= looks(clips, drawn, f"{name}detail_")
    except InputError as error:
        parser.error(str(error))
    result = {"checkpoint": options.checkpoint, "num_clips": len(clips), "frames": options.frames} | result
    for name, value in result.items():
        print(f"{name:26} {value:.5g}" if isinstance(value, float) else f"{name:26} {value}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
