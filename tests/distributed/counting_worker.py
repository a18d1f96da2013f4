"""One process of `test_global_count`: trains a line on its share of the points."""

import os
import sys
from pathlib import Path

import torch
from processes import communication_threads
from torch import Tensor, nn

from echopulse.training.engine import TrainSettings, train


class Line:
    """Fit `y = 2x` on twelve points, the first two of which fall to rank 0 where there are two ranks."""

    def __init__(self, world: int) -> None:
        torch.manual_seed(0)
        self.model = nn.Linear(1, 1)
        self.splits = (12,) if world == 1 else (2, 10)

    def batch(self, step: int, rank: int) -> Tensor:
        return torch.rand(12, 1, generator=torch.Generator().manual_seed(step)).split(self.splits)[rank]

    def count(self, batch: Tensor) -> float:
        return float(len(batch))

    def losses(self, model: nn.Module, batch: Tensor, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        return torch.mean((model(batch) - 2 * batch) ** 2), {}

    def sample(self, model: nn.Module, folder: Path, step: int) -> None:
        pass

    def export(self, model: nn.Module, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        (folder / "line.txt").write_text(" ".join(str(float(p.detach())) for p in model.parameters()))


if __name__ == "__main__":
    torch.set_num_threads(1)
    settings = TrainSettings(5, 1, warmup=1, learning_rate=0.1, precision="no", ema_decay=0.5)
    train(Line(int(os.environ["WORLD_SIZE"])), settings, Path(sys.argv[1]), quiet=True)
    assert not communication_threads()
