"""Stage one: the video tokenizer."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn

from echopulse.errors import InputError
from echopulse.models.checkpoints import find_network, load_network, save_network
from echopulse.models.discriminator import DiscriminatorConfig, PatchDiscriminator
from echopulse.models.perceptual import GaborFeatures, Vgg16Features
from echopulse.models.segmenter import ChamberSegmenter, SegmenterConfig
from echopulse.models.tokenizer import TokenizerConfig, VideoTokenizer
from echopulse.objectives.adversarial import adaptive_weight, discriminator_loss, generator_loss
from echopulse.objectives.perceptual import perceptual_loss
from echopulse.objectives.quantization import quantizer_losses
from echopulse.objectives.reconstruction import reconstruction_loss
from echopulse.objectives.walls import walls_loss
from echopulse.training.data import ClipPool, batch_rng, sample_videos
from echopulse.training.moving_textures import moving_textures
from echopulse.training.phantom_data import PhantomDataset

WALLS_FRAMES = 3
"""Frames of each clip, evenly apart, in which a segmenter looks for the walls."""


@dataclass(frozen=True)
class TokenizerLosses:
    """Which terms the tokenizer is trained with (paper eq. 1).

    Attributes:
        pixel_weight: of the mean squared error; 20 makes the term near 0.1 in training, the size for which the other
            weights are set.
        perceptual: `gabor` energies, `vgg16` (needs its weights) or `none`.
        perceptual_weight: of the perceptual term.
        vgg16: file of the weights, from `echopulse convert vgg16`.
        segmenter: run or checkpoint of one that has to see the same ventricle in the reconstruction, or none.
        walls_weight: of that term.
        adversarial: discriminator of `image`s or of `video`, or `none`.
        adversarial_weight: multiplies the adaptive weight (eq. 6).
        adversarial_start: first step with the adversarial term.
        discriminator: its shape; the kind is `adversarial`'s.
        discriminator_learning_rate: its peak.
        continuous_steps: first steps without rounding, so that no code starts dead.
        only: the part that learns. The other stays as it is: with `decoder` every clip keeps its codes, with `encoder`
            every code keeps its picture, so that what a generator draws stays valid.
    """

    pixel_weight: float = 20.0
    perceptual: Literal["gabor", "vgg16", "none"] = "gabor"
    perceptual_weight: float = 0.05
    vgg16: str | None = None
    segmenter: str | None = None
    walls_weight: float = 1.0
    adversarial: Literal["image", "video", "none"] = "none"
    adversarial_weight: float = 0.5
    adversarial_start: int = 0
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    discriminator_learning_rate: float = 3e-4
    continuous_steps: int = 150
    only: Literal["encoder", "decoder"] | None = None

    def __post_init__(self) -> None:
        if (self.perceptual == "vgg16") != (self.vgg16 is not None):
            raise InputError(
                f"perceptual = {self.perceptual} with vgg16 = {self.vgg16}; the network and its file go together"
            )
        if min(self.pixel_weight, self.perceptual_weight, self.walls_weight, self.adversarial_weight) < 0:
            raise InputError("a weight of the tokenizer's losses is negative; expected 0 or more")


class TokenizerBatch(NamedTuple):
    """One step's clips, and of each the frame that the perceptual loss looks at."""

    video: Tensor
    chosen: Tensor

    def to(self, device: torch.device) -> "TokenizerBatch":
        """The same batch on a device."""
        return TokenizerBatch(self.video.to(device), self.chosen.to(device))


class TokenizerTask:
    """Reconstruct clips through the codes.

    Args:
        tokenizer: the network to train; a config makes a new one.
        data: what to train on: folders of prepared sets, or phantom patients.
        batch: clips a step.
        losses: the terms of the loss.
        seed: of the batches.
        frames: frames a clip, odd.
        size: picture side in pixels.
        textures: share of the clips that is replaced by moving textures, for generality.

    Raises:
        InputError: sizes that do not fit.
    """

    def __init__(
        self,
        tokenizer: VideoTokenizer | TokenizerConfig,
        data: Sequence[Path] | PhantomDataset,
        *,
        batch: int,
        losses: TokenizerLosses | None = None,
        seed: int = 0,
        frames: int = 11,
        size: int = 128,
        textures: float = 0.0,
    ) -> None:
        torch.manual_seed(seed)
        self.terms = losses or TokenizerLosses()
        self.model = tokenizer if isinstance(tokenizer, VideoTokenizer) else VideoTokenizer(tokenizer)
        self.model.grid_shape(frames, size, size)
        if not 0 <= textures <= 1:
            raise InputError(f"share of moving textures is {textures}; expected 0 to 1")
        if self.terms.only is not None:
            encoder = {parameter for module in self.model.encoder_modules for parameter in module.parameters()}
            for parameter in self.model.parameters():
                if (parameter in encoder) != (self.terms.only == "encoder"):
                    parameter.requires_grad_(False)
        self.perceptual = _perceptual_network(self.terms)
        self.segmenter = None if self.terms.segmenter is None else _frozen_segmenter(self.terms.segmenter, size)
        self.pool = data if isinstance(data, PhantomDataset) else ClipPool(data, frames)
        self._batch, self._seed, self._frames, self._size = batch, seed, frames, size
        self._textures = round(textures * batch)

    def batch(self, step: int, rank: int) -> TokenizerBatch:
        """Random pieces of clips, (batch, frames, c, size, size), the last ones moving textures."""
        rng = batch_rng(self._seed, step, rank)
        video = sample_videos(self.pool, rng, self._batch - self._textures, self._frames, self._size)
        if self._textures:
            video = torch.cat([video, moving_textures(rng, self._textures, self._frames, self._size)])
        chosen = torch.from_numpy(rng.integers(max(self._frames - 1, 1), size=self._batch))
        return TokenizerBatch(self._colored(video), chosen)

    def losses(self, model: nn.Module, batch: TokenizerBatch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The sum of all terms; each by name, weighted; PSNR and how the codebook is used."""
        batch = batch.to(next(model.parameters()).device)
        output = model(batch.video, step >= self.terms.continuous_steps)
        error = reconstruction_loss(batch.video, output.reconstruction)
        terms = {"reconstruction": self.terms.pixel_weight * error}
        if self.perceptual is not None:
            change = isinstance(self.perceptual, GaborFeatures)
            network = self.perceptual.to(batch.video.device)
            features = perceptual_loss(network, batch.video, output.reconstruction, batch.chosen, change=change)
            terms["perceptual"] = self.terms.perceptual_weight * features
        if self.segmenter is not None:
            later = self._frames // WALLS_FRAMES * torch.arange(WALLS_FRAMES, device=batch.video.device)
            frames = (batch.chosen[:, None] + later) % self._frames
            seen = walls_loss(self.segmenter.to(batch.video.device), batch.video, output.reconstruction, frames)
            terms["walls"] = self.terms.walls_weight * seen
        if self.terms.only != "decoder":
            terms |= quantizer_losses(self.model.config.quantizer, output.quantized)
        terms |= self._adversarial_terms(batch.video, output.reconstruction, terms, step)
        figures = {"psnr_db": -10 * torch.log10(error.detach())} | _codebook_use(output.quantized.codes)
        return torch.stack(list(terms.values())).sum(), terms | figures

    def _adversarial_terms(self, video: Tensor, made: Tensor, terms: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        return {}

    def sample(self, model: nn.Module, folder: Path, step: int) -> None:
        """Original, reconstruction and difference one above the other: five clips, their last frame."""
        video = sample_videos(self.pool, batch_rng(self._seed, 0, 10_000), 5, self._frames, self._size)
        device = next(model.parameters()).device
        again = model(self._colored(video).to(device)).reconstruction.float().cpu()
        difference = (again[:, :, :1] - video) / 2 + 0.5
        rows = [torch.cat(list(x[:, -1, 0]), dim=1) for x in (video, again, difference)]
        picture = (torch.cat(rows).clamp(0, 1) * 255).round().byte().numpy()
        Image.fromarray(picture).save(folder / f"{step:07d}.png")

    def export(self, model: nn.Module, folder: Path) -> None:
        """Writes `tokenizer/` of a checkpoint folder."""
        assert isinstance(model, VideoTokenizer)
        save_network(model, model.config, folder / "tokenizer")

    def _colored(self, video: Tensor) -> Tensor:
        return video.repeat(1, 1, self.model.config.channels, 1, 1)


class AdversarialTokenizerTask(TokenizerTask):
    """`TokenizerTask` with a discriminator of pictures or clips, as the terms of the loss say.

    Raises:
        InputError: no discriminator asked for, one of videos for single frames, or a frozen last layer, on which the
            weight of eq. 6 is measured.
    """

    def __init__(
        self,
        tokenizer: VideoTokenizer | TokenizerConfig,
        data: Sequence[Path] | PhantomDataset,
        *,
        losses: TokenizerLosses,
        **options: Any,
    ) -> None:
        super().__init__(tokenizer, data, losses=losses, **options)
        if losses.adversarial == "none":
            raise InputError("adversarial = none makes no discriminator; expected image or video")
        if losses.adversarial == "video" and self._frames < 3:
            raise InputError("a video discriminator needs clips of 3 frames or more; choose adversarial = image")
        if not self.model.last_layer.requires_grad:
            raise InputError(
                "adversarial training needs a decoder that learns; this one's last layer is frozen (LoRA?)"
            )
        shape = replace(losses.discriminator, kind=losses.adversarial, channels=self.model.config.channels)
        self.discriminator = PatchDiscriminator(shape)
        self.discriminator_learning_rate = losses.discriminator_learning_rate
        self.discriminator_start = losses.adversarial_start
        self._pair: tuple[Tensor, Tensor] | None = None

    def _adversarial_terms(self, video: Tensor, made: Tensor, terms: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        if step < self.discriminator_start:
            return {}
        self._pair = video, made.detach()
        self.discriminator.requires_grad_(False)
        loss = generator_loss(self.discriminator(made))
        self.discriminator.requires_grad_(True)
        reference = terms.get("perceptual", terms["reconstruction"])
        return {
            "adversarial": self.terms.adversarial_weight
            * adaptive_weight(reference, loss, self.model.last_layer)
            * loss
        }

    def discriminator_losses(self, discriminator: nn.Module, batch: TokenizerBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Hinge loss on the clips and reconstructions that `losses` has just made of this batch."""
        assert self._pair is not None, "losses comes first"
        real, made = discriminator(torch.cat(self._pair)).chunk(2)
        self._pair = None
        terms = discriminator_loss(real, made)
        return torch.stack(list(terms.values())).sum(), terms


def tokenizer_task(
    tokenizer: VideoTokenizer | TokenizerConfig,
    data: Sequence[Path] | PhantomDataset,
    *,
    losses: TokenizerLosses,
    **options: Any,
) -> TokenizerTask:
    """The task that the losses call for; arguments as in `TokenizerTask`."""
    kind = TokenizerTask if losses.adversarial == "none" else AdversarialTokenizerTask
    return kind(tokenizer, data, losses=losses, **options)


def _perceptual_network(terms: TokenizerLosses) -> GaborFeatures | Vgg16Features | None:
    match terms.perceptual:
        case "gabor":
            return GaborFeatures()
        case "vgg16":
            assert terms.vgg16 is not None
            return Vgg16Features(Path(terms.vgg16))
        case _:
            return None


def _frozen_segmenter(place: str, size: int) -> ChamberSegmenter:
    network = load_network(ChamberSegmenter, SegmenterConfig, find_network(place, "segmenter"))
    if network.config.size != size:
        raise InputError(f"the segmenter was trained on pictures of {network.config.size}; the clips are {size} wide")
    return network.requires_grad_(False)


def _codebook_use(codes: Tensor) -> dict[str, Tensor]:
    """Different codes in the batch, and how many equally frequent ones would have the same entropy."""
    counts = codes.unique(return_counts=True)[1].float()
    share = counts / counts.sum()
    return {
        "codes_in_batch": torch.tensor(float(len(counts))),
        "code_perplexity": torch.exp(-(share * share.log()).sum()),
    }
