"""Training of a network that stands beside a frozen generator: the critic, the picture network."""

import shutil
from abc import ABC, abstractmethod
from pathlib import Path

import torch
from torch import nn

from echopulse.errors import InputError
from echopulse.models.checkpoints import save_network
from echopulse.models.tokenizer import VideoTokenizer
from echopulse.models.video_transformer import Conditions, EcgWindow, VideoTransformer, WindowTransformer
from echopulse.training.generator import GeneratorBatch, GeneratorTask
from echopulse.training.token_cache import CachedClip


class CompanionTask(GeneratorTask, ABC):
    """Batches as the generator's; its encoder reads their ECG, and the export holds the network beside it.

    Args:
        generator: trained; it stays as it is.
        clips: from `token_cache.build_token_cache`.
        tokenizer: the generator's.
        checkpoint: folder of both, which the export copies.
        batch: rows a step.
        seed: of the batches.
        network: to go on from; None begins one.

    Raises:
        InputError: the network to go on from has another shape than one that begins here.
    """

    _folder: str  # of the network in a checkpoint

    def __init__(
        self,
        generator: VideoTransformer,
        clips: list[CachedClip],
        tokenizer: VideoTokenizer,
        *,
        checkpoint: Path,
        batch: int,
        seed: int = 0,
        network: WindowTransformer | None = None,
    ) -> None:
        super().__init__(generator, clips, tokenizer, batch=batch, seed=seed)
        self.generator = generator.eval().requires_grad_(False)
        self._checkpoint = checkpoint
        begun = self._begun(generator)
        if network is not None and network.config != begun.config:
            raise InputError(f"the {self._folder} network to go on from has another shape than this generator's")
        self.model = network or begun

    @abstractmethod
    def _begun(self, generator: VideoTransformer) -> WindowTransformer:
        """A network that has learned nothing yet but what the generator has."""

    @torch.no_grad()
    def _heard(self, batch: GeneratorBatch) -> Conditions:
        """The conditions of a batch with the ECG encoded."""
        assert isinstance(batch.conditions.ecg, EcgWindow)
        generator = self.generator.to(batch.codes.device)
        return batch.conditions._replace(ecg=generator.encode_ecg(batch.conditions.ecg))

    def export(self, model: nn.Module, folder: Path) -> None:
        """Writes the generator's checkpoint folder again, with the network beside it."""
        assert isinstance(model, WindowTransformer)
        shutil.copytree(self._checkpoint, folder, dirs_exist_ok=True)
        save_network(model, model.config, folder / self._folder)


def take_weights(network: WindowTransformer, generator: VideoTransformer) -> None:
    """Gives a network the generator's weights of the same name and shape; others stay as they are."""
    own = network.state_dict()
    shared = {name: x for name, x in generator.state_dict().items() if name in own and x.shape == own[name].shape}
    network.load_state_dict(own | shared)
