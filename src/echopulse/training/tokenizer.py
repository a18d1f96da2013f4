"""Stage one: the video tokenizer."""

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from echopulse.models.checkpoints import save_network
from echopulse.models.tokenizer import TokenizerConfig, VideoTokenizer
from echopulse.objectives.reconstruction import reconstruction_loss
from echopulse.training.data import ClipPool, batch_rng, sample_videos


class TokenizerTask:
    """Reconstruct clips through the codes.

    Args:
        config: the network.
        folders: prepared sets to train on.
        batch: clips a step.
        seed: of the batches.
        frames: frames a clip, odd.
        size: picture side in pixels.
        continuous_steps: first steps without rounding, so that no code starts dead.
    """

    def __init__(
        self,
        config: TokenizerConfig,
        folders: Sequence[Path],
        *,
        batch: int,
        seed: int = 0,
        frames: int = 11,
        size: int = 128,
        continuous_steps: int = 150,
    ) -> None:
        torch.manual_seed(seed)
        self.model = VideoTokenizer(config)
        self.model.grid_shape(frames, size, size)
        self.pool = ClipPool(folders, frames)
        self._batch, self._seed, self._frames, self._size = batch, seed, frames, size
        self._continuous_steps = continuous_steps

    def batch(self, step: int, rank: int) -> Tensor:
        """Random pieces of clips, (batch, frames, 1, size, size)."""
        return sample_videos(self.pool, batch_rng(self._seed, step, rank), self._batch, self._frames, self._size)

    def losses(self, model: nn.Module, batch: Tensor, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Reconstruction and quantizer terms; logs PSNR and the share of the codebook in use."""
        video = batch.to(next(model.parameters()).device)
        output = model(video, step >= self._continuous_steps)
        terms = reconstruction_loss(video, output.reconstruction, output.losses)
        with torch.no_grad():
            error = torch.mean((output.reconstruction.float().clamp(0, 1) - video) ** 2)
            used = torch.tensor(float(output.codes.unique().numel()))
        return sum(terms.values()), terms | {"psnr_db": -10 * torch.log10(error), "codes_in_batch": used}  # type: ignore[return-value]

    def sample(self, model: nn.Module, folder: Path, step: int) -> None:
        """Original above reconstruction, five clips, their last frame."""
        video = sample_videos(self.pool, batch_rng(self._seed, 0, 10_000), 5, self._frames, self._size)
        with torch.autocast("cpu", torch.bfloat16):
            again = model(video).reconstruction.float()
        rows = [torch.cat(list(x[:, -1, 0]), dim=1) for x in (video, again)]
        picture = (torch.cat(rows).clamp(0, 1) * 255).round().byte().numpy()
        Image.fromarray(picture).save(folder / f"{step:07d}.png")

    def export(self, model: nn.Module, folder: Path) -> None:
        """Writes `tokenizer/` of a checkpoint folder."""
        assert isinstance(model, VideoTokenizer)
        save_network(model, model.config, folder / "tokenizer")
