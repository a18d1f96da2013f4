"""Training: one engine, one task per file."""

# Before any process group starts: this module keeps the one that there is at its import, with its threads.
import torch.distributed.nn.functional  # noqa: F401
