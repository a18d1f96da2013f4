"""The authors' released generator (`model-5.pt`, `model-14.pt`) as a `PublishedGenerator`."""

import torch
from torch import Tensor

from echopulse.errors import InputError
from echopulse.models.checkpoints import load_strictly
from echopulse.models.convert.state_file import strip_prefix
from echopulse.models.published_generator import PublishedGenerator, PublishedGeneratorConfig

_NORM = {"gamma": "weight", "beta": "bias"}
_BIAS = {"net.0.0": "net.0", "net.1.0": "net.2", "net.2": "net.4"}
_FEED_FORWARD = {"0": "norm", "1": "to_gate", "4": "to_out"}
_TOP = {"token_emb": "codes", "pos_emb": "places", "to_logits": "head"}
_WHAT = "released generator"


def convert_generator(tensors: dict[str, Tensor]) -> tuple[PublishedGenerator, list[str]]:
    """A generator of any size with the layout of the released one.

    Norms of a context that is never given (those of self-attention) are left out.

    Args:
        tensors: by their released names, behind any prefix.

    Returns:
        The network, ready for inference, and the names of other tensors in the file.

    Raises:
        InputError: a tensor is missing, unknown or of another shape.
    """
    own, others = strip_prefix(tensors, "continuous_pos_bias.net.0.0.weight", _is_own, _WHAT)
    network = PublishedGenerator(_read_config(own))
    renamed = {_target(name): _reordered(name, x) for name, x in own.items() if ".1.context_norm." not in name}
    return load_strictly(network, renamed, f"not the {_WHAT}"), others


def _is_own(name: str) -> bool:
    return name.startswith(("continuous_pos_bias.", "transformer.", *(f"{top}." for top in _TOP)))


def _read_config(own: dict[str, Tensor]) -> PublishedGeneratorConfig:
    """The sizes that the shapes tell."""
    try:
        num_codes, width = own["to_logits.weight"].shape
        hidden = own["transformer.layers.0.3.1.weight"].shape[0] // 2
        return PublishedGeneratorConfig(
            num_codes=num_codes,
            max_codes=own["pos_emb.weight"].shape[0],
            width=width,
            depth=len({name.split(".")[2] for name in own if name.startswith("transformer.layers.")}),
            heads=own["continuous_pos_bias.net.2.weight"].shape[0],
            head_dim=own["transformer.layers.0.1.q_scale"].shape[0],
            mult=float(round(hidden * 3 / 2 / width)),
            context_dim=own["transformer.layers.0.2.to_kv.weight"].shape[1],
            bias_width=own["continuous_pos_bias.net.0.0.weight"].shape[0],
        )
    except (KeyError, ValueError, IndexError, ZeroDivisionError) as error:
        raise InputError(f"not the {_WHAT}: {error} is missing or has another shape") from error


def _target(name: str) -> str:
    """What a released tensor is called here; an unknown name stays as it is, to be reported."""
    top, _, rest = name.partition(".")
    if top in _TOP:
        return f"{_TOP[top]}.{rest}"
    stem, _, leaf = rest.rpartition(".")
    if top == "continuous_pos_bias":
        return f"bias.{_BIAS.get(stem, stem)}.{leaf}"
    if stem == "norm_out":
        return f"norm.{_NORM.get(leaf, leaf)}"
    match rest.split("."):
        case ["layers", i, "0", "dsconv", leaf]:
            return f"positions.{i}.conv.{leaf}"
        case ["layers", i, "1" | "2" as part, *path]:
            attention = "attention" if part == "1" else "cross"
            return f"blocks.{i}.{attention}.{'.'.join(_NORM.get(step, step) for step in path)}"
        case ["layers", i, "3", part, leaf] if part in _FEED_FORWARD:
            return f"blocks.{i}.feed_forward.{_FEED_FORWARD[part]}.{leaf}"
    return name


def _reordered(name: str, tensor: Tensor) -> Tensor:
    """Null keys and values lie interleaved there, (heads, key value key value, dim)."""
    if not name.endswith(".null_kv"):
        return tensor
    return torch.stack([tensor[:, 0::2], tensor[:, 1::2]])
