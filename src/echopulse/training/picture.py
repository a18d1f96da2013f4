"""The picture network: draws the first pictures of clips, which hold the anatomy, beside a frozen generator."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from echopulse.models.video_transformer import CodePredictor, VideoTransformer
from echopulse.objectives.masked import masked_code_loss
from echopulse.sampling.decode import DecodeSettings
from echopulse.sampling.progressive import Scene, with_first_pictures
from echopulse.training.companion import CompanionTask, take_weights
from echopulse.training.data import batch_rng
from echopulse.training.generator import GeneratorBatch
from echopulse.training.token_cache import CachedClip

_SHOWN = 8
_FPS = 25.0


class PictureTask(CompanionTask):
    """Predict the hidden codes of pictures alone.

    A generator learns anatomy from the few patients whose videos it trains on. A picture costs an eighth of a window to
    train on and a small part of a video to render, so a network that draws nothing else sees several times as many
    patients in the same time, and the generator stays as it is.

    Args: as of `CompanionTask`; clips may be of any length.
    """

    _folder = "picture"

    def _begun(self, generator: VideoTransformer) -> CodePredictor:
        return begun_from(generator)

    def _usable(self, clips: list[CachedClip]) -> list[CachedClip]:
        return clips

    def batch(self, step: int, rank: int) -> GeneratorBatch:
        """Pictures of random clips with their ECG, conditions and masks."""
        return self._collated(batch_rng(self._seed, step, rank), self._batch, self._picture)

    def losses(self, model: nn.Module, batch: GeneratorBatch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy of the hidden codes (paper eq. 7)."""
        b = batch.to(next(model.parameters()).device)
        logits = model(b.seen, b.known, self._heard(b), b.codes)
        terms = masked_code_loss(logits, b.codes, b.hidden, self.generator.config.factors)
        return terms["cross_entropy"], terms

    def sample(self, model: nn.Module, folder: Path, step: int) -> None:
        """First pictures of the first clips above drawn ones."""
        assert isinstance(model, CodePredictor)
        clips = self.clips[:_SHOWN]
        scenes = [Scene(clip.track, 0.0, _FPS, clip.view, clip.ef) for clip in clips]
        draws = [torch.Generator().manual_seed(row) for row in range(len(clips))]
        settings = DecodeSettings(picture_temperature=1.0)
        made = with_first_pictures(self.generator.cpu(), scenes, settings, draws, model)
        drawn = torch.stack([scene.first for scene in made if scene.first is not None])
        true = torch.from_numpy(np.stack([clip.pictures[:1] for clip in clips])).long()
        rows = [torch.cat(list(self._tokenizer.decode(codes)[:, 0, 0].float()), dim=1) for codes in (true, drawn)]
        picture = (torch.cat(rows).clamp(0, 1) * 255).round().byte().numpy()
        Image.fromarray(picture).save(folder / f"{step:07d}.png")


def begun_from(generator: VideoTransformer) -> CodePredictor:
    """A picture network with the weights of a generator, without its encoder."""
    network = CodePredictor(generator.config)
    take_weights(network, generator)
    return network
