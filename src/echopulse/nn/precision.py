"""The number format to compute in."""

import os
from typing import Literal

import torch

from echopulse.errors import InputError


def fast_dtype() -> torch.dtype:
    """bfloat16 where the processor multiplies it in hardware, else float32; `ECHOPULSE_DTYPE` overrides."""
    wanted = os.environ.get("ECHOPULSE_DTYPE", "")
    if wanted:
        if wanted not in ("bfloat16", "float32"):
            raise InputError(f"ECHOPULSE_DTYPE is {wanted!r}; expected bfloat16 or float32")
        return getattr(torch, wanted)
    supported = (
        getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
        or getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()
    )
    return torch.bfloat16 if supported else torch.float32


def mixed_precision() -> Literal["bf16", "no"]:
    """How to train: in bfloat16 where the accelerator, or else the processor (`fast_dtype`), multiplies it in hardware.

    Elsewhere bfloat16 is emulated, and slower than float32.
    """
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no"
    return "bf16" if fast_dtype() == torch.bfloat16 else "no"
