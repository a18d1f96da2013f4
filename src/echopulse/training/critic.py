"""The token critic: tells the frozen generator's draws from real codes (paper eq. 9–10; Lezama 2022)."""

from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from echopulse.models.critic import TokenCritic
from echopulse.models.video_transformer import Conditions, VideoTransformer
from echopulse.objectives.masked import critic_loss
from echopulse.sampling.decode import draw_codes
from echopulse.training.companion import CompanionTask, take_weights
from echopulse.training.generator import GeneratorBatch


class CriticTask(CompanionTask):
    """Judge windows in which the generator has drawn the hidden codes.

    The critic is half as deep as the generator and starts from the generator's first layers.

    Args: as of `CompanionTask`.
    """

    _pictures = False  # they are drawn in an order of their own
    _folder = "critic"

    def _begun(self, generator: VideoTransformer) -> TokenCritic:
        c = generator.config
        critic = TokenCritic(replace(c, depth=max(c.cross_every, c.depth // 2)))
        take_weights(critic, generator)
        return critic

    def count(self, batch: GeneratorBatch) -> float:
        """Codes, of which the loss is the mean."""
        return float(batch.codes.numel())

    def losses(self, model: nn.Module, batch: GeneratorBatch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Binary cross-entropy against `1[token was real]`."""
        mixed, conditions = self._drawn(batch.to(next(model.parameters()).device))
        terms = critic_loss(model(mixed, conditions), ~batch.hidden.to(mixed.device))
        return terms["critic_entropy"], terms

    @torch.no_grad()
    def _drawn(self, b: GeneratorBatch) -> tuple[Tensor, Conditions]:
        """The window with the generator's draws in the hidden places, and the conditions with the ECG encoded."""
        conditions, factors = self._heard(b), self.generator.config.factors
        uniform = torch.rand(int(b.hidden.sum()), len(factors)).to(b.codes.device)
        logits = self.generator.passes(conditions)(b.codes, b.known)(b.hidden)
        drawn, _ = draw_codes(logits, factors, 1.0, uniform)
        return b.codes.masked_scatter(b.hidden, drawn), conditions

    def sample(self, model: nn.Module, folder: Path, step: int) -> None:
        """Truth (white: real) above the critic's probability, the slots of a window side by side; four windows."""
        torch.manual_seed(0)
        batch = self.batch(0, 10_000).to(next(model.parameters()).device)
        mixed, conditions = self._drawn(batch)
        shown = [(~batch.hidden).float(), model(mixed, conditions).sigmoid().float()]
        rows = [torch.cat(list(x), dim=1) for pair in zip(*(x[:4] for x in shown), strict=True) for x in pair]
        picture = torch.cat(rows).repeat_interleave(8, 0).repeat_interleave(8, 1).mul(255)
        Image.fromarray(picture.round().byte().cpu().numpy()).save(folder / f"{step:07d}.png")
