"""One process of `test_two_processes`: losses and gradients of its share of a batch, as training takes them."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import torch
from processes import communication_threads
from safetensors.torch import save_file
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from echopulse.models.discriminator import DiscriminatorConfig
from echopulse.models.presets import tokenizer_config
from echopulse.models.quantizer import QuantizerConfig
from echopulse.phantom.series import ClipSeries
from echopulse.training.phantom_data import PhantomDataset
from echopulse.training.tokenizer import AdversarialTokenizerTask, TokenizerBatch, TokenizerLosses


def main(kind: str, output: str) -> None:
    """Writes terms and gradients; of all processes' shares together, so that they can be compared with one's."""
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if world > 1:
        dist.init_process_group("gloo")
    levels = (5,) * 3 if kind == "fsq" else (20,) if kind == "vq" else (2,) * 6
    quantizer = QuantizerConfig(kind=kind, levels=levels, group=1, entropy_group=1 if kind == "bsq" else 3)  # type: ignore
    losses = TokenizerLosses(
        adversarial="video", continuous_steps=0, discriminator=DiscriminatorConfig(width=8), perceptual_weight=0.5
    )
    config = replace(tokenizer_config("tiny"), quantizer=quantizer)
    phantom = PhantomDataset(ClipSeries(seconds=0.2, masks=False, size=32), 1)
    task = AdversarialTokenizerTask(config, phantom, losses=losses, batch=1, frames=3, size=32)
    video = torch.rand(4, 3, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    share = slice(rank * 4 // world, (rank + 1) * 4 // world)
    batch = TokenizerBatch(video[share], torch.tensor([0, 1, 1, 0])[share])
    model: nn.Module = DistributedDataParallel(task.model) if world > 1 else task.model
    judge: nn.Module = DistributedDataParallel(task.discriminator) if world > 1 else task.discriminator
    loss, terms = task.losses(model, batch, 0)
    loss.backward()
    judged, judgement = task.discriminator_losses(judge, batch)
    judged.backward()
    tensors: dict[str, Tensor] = {}
    for name, value in (terms | judgement).items():
        if name not in ("codes_in_batch", "code_perplexity", "psnr_db"):  # of one process by their meaning
            tensors[f"term.{name}"] = value.detach().clone().view(1)
            if world > 1:
                dist.all_reduce(tensors[f"term.{name}"])
                tensors[f"term.{name}"] /= world
    for network in (task.model, task.discriminator):
        for name, p in network.named_parameters():
            if p.grad is not None:
                tensors[f"gradient.{type(network).__name__}.{name}"] = p.grad
    if rank == 0:
        save_file(tensors, Path(output))
    if world > 1:
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*sys.argv[1:])
    assert not communication_threads()
