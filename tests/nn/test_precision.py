"""The number format: chosen by hand, and the same for training."""

import pytest
import torch

from echopulse.errors import InputError
from echopulse.nn.precision import fast_dtype, mixed_precision


@pytest.mark.parametrize(
    ("wanted", "dtype", "training"), [("float32", torch.float32, "no"), ("bfloat16", torch.bfloat16, "bf16")]
)
def test_it_can_be_chosen(monkeypatch: pytest.MonkeyPatch, wanted: str, dtype: torch.dtype, training: str) -> None:
    monkeypatch.setenv("ECHOPULSE_DTYPE", wanted)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert fast_dtype() == dtype and mixed_precision() == training


@pytest.mark.parametrize(("in_hardware", "training"), [(True, "bf16"), (False, "no")])
def test_training_on_an_accelerator_asks_the_accelerator(
    monkeypatch: pytest.MonkeyPatch, in_hardware: bool, training: str
) -> None:
    monkeypatch.setenv("ECHOPULSE_DTYPE", "float32")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: in_hardware)
    assert mixed_precision() == training


def test_unknown_format_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ECHOPULSE_DTYPE", "int4")
    with pytest.raises(InputError, match="ECHOPULSE_DTYPE is 'int4'"):
        fast_dtype()
