"""The published ST-MEM encoder (Na 2024) as an `EcgEncoder`. Its weights are CC BY-NC: users load their own copy."""

import re

import torch
from torch import Tensor

from echopulse.errors import InputError
from echopulse.models.checkpoints import load_strictly
from echopulse.models.convert.state_file import strip_prefix
from echopulse.models.ecg_encoder import ECG_RATE_HZ, EcgEncoder, EcgEncoderConfig

_TOP = {
    "to_patch_embedding.1.": "embed.0.",
    "to_patch_embedding.2.": "embed.1.",
    "to_patch_embedding.3.": "embed.2.",
    "norm.": "norm.",
}
_BLOCK = {
    "attn.norm.": "attention_norm.",
    "attn.fn.to_qkv.": "to_qkv.",
    "attn.fn.to_out.0.": "to_out.",
    "ff.norm.": "mlp_norm.",
    "ff.fn.net.0.": "mlp.0.",
    "ff.fn.net.3.": "mlp.2.",
}
_OWN = re.compile(r"(pos|sep)_embedding$|(lead_embeddings|to_patch_embedding|block\d+|norm)\.")
_WHAT = "published ST-MEM encoder"


def convert_st_mem(tensors: dict[str, Tensor], *, head_dim: int = 64) -> tuple[EcgEncoder, list[str]]:
    """An encoder of any size with the layout of the published one.

    The convolutional branch, which the published encoder does not have, starts untrained.

    Args:
        tensors: by their published names, behind any prefix.
        head_dim: width of an attention head, which no shape tells; 64 in all published sizes.

    Returns:
        The encoder, ready for inference, and the names of other tensors in the file (its decoder).

    Raises:
        InputError: a tensor is missing, unknown or of another shape.
    """
    own, others = strip_prefix(tensors, "sep_embedding", _is_own, _WHAT)
    config = _read_config(own, head_dim)
    torch.manual_seed(0)  # of the branch that is new here
    network = EcgEncoder(config)
    renamed = {name: x for name, x in network.state_dict().items() if name.startswith(("fine_", "marks_in"))}
    for name, tensor in own.items():
        if not name.startswith("lead_embeddings."):
            renamed[_target(name)] = tensor.squeeze(0) if name == "pos_embedding" else tensor
    leads = [own.get(f"lead_embeddings.{i}") for i in range(network.lead.num_embeddings)]
    if any(x is None or x.shape != leads[0].shape for x in leads):  # type: ignore[union-attr]
        raise InputError(f"not the {_WHAT}: expected {len(leads)} lead embeddings of one length")
    renamed["lead.weight"] = torch.stack([x for x in leads if x is not None])
    return load_strictly(network, renamed, f"not the {_WHAT}"), others


def _is_own(name: str) -> bool:
    return _OWN.match(name) is not None


def _read_config(own: dict[str, Tensor], head_dim: int) -> EcgEncoderConfig:
    """The sizes that the shapes tell."""
    try:
        width, patch = own["to_patch_embedding.2.weight"].shape
        patches = own["pos_embedding"].shape[1] - 2
        hidden = own["block0.ff.fn.net.0.weight"].shape[0]
    except (KeyError, ValueError, IndexError) as error:
        raise InputError(f"not the {_WHAT}: {error} is missing or has another shape") from error
    if head_dim < 1 or width % head_dim:
        raise InputError(f"heads of {head_dim} do not make up the encoder's width, {width}; give --head-dim")
    return EcgEncoderConfig(
        window_s=patches * patch / ECG_RATE_HZ,
        patch=patch,
        width=width,
        depth=len({name.split(".")[0] for name in own if name.startswith("block")}),
        heads=width // head_dim,
        mult=hidden / width,
        published=True,
    )


def _target(name: str) -> str:
    """What a published tensor is called here; an unknown name stays as it is, to be reported."""
    if name == "pos_embedding":
        return "position"
    if name == "sep_embedding":
        return "separator"
    if found := re.match(r"block(\d+)\.(.+)", name):
        start = next((start for start in _BLOCK if found[2].startswith(start)), None)
        return name if start is None else f"blocks.{found[1]}.{_BLOCK[start]}{found[2].removeprefix(start)}"
    start = next((start for start in _TOP if name.startswith(start)), "")
    return _TOP.get(start, "") + name.removeprefix(start)
