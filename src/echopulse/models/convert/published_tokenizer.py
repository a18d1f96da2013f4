"""The authors' released tokenizer (`CVIVIT_pytorch_model_finetune.bin`) as a `VideoTokenizer`."""

from collections.abc import Callable

import torch
from einops import rearrange
from torch import Tensor

from echopulse.errors import InputError
from echopulse.models.checkpoints import load_strictly
from echopulse.models.quantizer import QuantizerConfig
from echopulse.models.tokenizer import TokenizerConfig, VideoTokenizer

_STACKS = {
    "enc_spatial_transformer": ("spatial_encoder", "between_in"),
    "enc_temporal_transformer": ("temporal_encoder", "norm_in"),
    "dec_temporal_transformer": ("temporal_decoder", "between_out"),
    "dec_spatial_transformer": ("spatial_decoder", "norm_out"),
}
_LAYER = {
    "0.dsconv.": "positions.{i}.conv.",
    "1.norm.gamma": "blocks.{i}.attention.norm.weight",
    "1.norm.beta": "blocks.{i}.attention.norm.bias",
    "1.": "blocks.{i}.attention.",
    "3.0.": "blocks.{i}.feed_forward.norm.",
    "3.1.": "blocks.{i}.feed_forward.to_gate.",
    "3.4.": "blocks.{i}.feed_forward.to_out.",
}
_TOP = {
    "to_patch_emb_first_frame.1.": "first_in.0.",
    "to_patch_emb_first_frame.2.": "first_in.1.",
    "to_patch_emb_first_frame.3.": "first_in.2.",
    "to_patch_emb.1.": "pair_in.0.",
    "to_patch_emb.2.": "pair_in.1.",
    "to_patch_emb.3.": "pair_in.2.",
    "to_pixels_first_frame.0.": "first_out.",
    "to_pixels.0.": "pair_out.",
    "vq.project_in.": "quantizer.project_in.",
    "vq.project_out.": "quantizer.project_out.",
}
_BIAS = {"net.0.0.": "net.0.", "net.1.0.": "net.2.", "net.2.": "net.4."}
_OWN = ("spatial_rel_pos_bias", "to_patch_emb", "to_pixels", "vq.", *_STACKS)
_UNUSED = ("vq._codebook.initted", "vq._codebook.cluster_size", "vq._codebook.embed_avg")
"""State of the codebook's moving average; inference needs none of it."""


def convert_tokenizer(tensors: dict[str, Tensor]) -> tuple[VideoTokenizer, list[str]]:
    """A tokenizer of any size with the layout of the released one.

    The position bias, shared there by encoder and decoder, is copied to both. Norms of a context that is never given
    are left out, as is the codebook's moving average.

    Args:
        tensors: by their released names.

    Returns:
        The tokenizer, ready for inference, and the names of other networks' tensors in the file (loss networks).

    Raises:
        InputError: a tensor is missing, unknown or of another shape.
    """
    config = _read_config(tensors)
    renamed: dict[str, Tensor] = {}
    others: list[str] = []
    for name, tensor in tensors.items():
        if not name.startswith(_OWN):
            others.append(name)
        elif name not in _UNUSED and ".context_norm." not in name:
            for target in _targets(name):
                renamed[target] = _reordered(target, tensor, config)
    return load_strictly(VideoTokenizer(config), renamed, "not the released tokenizer"), sorted(others)


def _read_config(tensors: dict[str, Tensor]) -> TokenizerConfig:
    """The sizes that the shapes tell."""
    try:
        dim, pixels = tensors["to_pixels_first_frame.0.weight"].T.shape
        codebook, code_dim = tensors["vq._codebook.embed"].shape[-2:]
        heads = tensors["spatial_rel_pos_bias.net.2.weight"].shape[0]
        head_dim = tensors["enc_spatial_transformer.layers.0.1.q_scale"].shape[0]
    except (KeyError, ValueError) as error:
        raise InputError(f"not the released tokenizer: {error} is missing or has another shape") from error
    patch = round((pixels / 3) ** 0.5)
    depth = {
        stack: len({name.split(".")[2] for name in tensors if name.startswith(f"{stack}.layers.")}) for stack in _STACKS
    }
    if 3 * patch**2 != pixels or len(set(depth.values()) | {0}) > 3:
        raise InputError(f"not the released tokenizer: {pixels} values a patch, layers {depth}")
    return TokenizerConfig(
        channels=3,
        patch=patch,
        width=dim,
        spatial_depth=depth["enc_spatial_transformer"],
        temporal_depth=depth["enc_temporal_transformer"],
        heads=heads,
        head_dim=head_dim,
        mult=4.0,
        causal=False,
        spatial_positions=True,
        published=True,
        quantizer=QuantizerConfig(kind="vq", levels=(codebook,), group=1, code_dim=code_dim),
    )


def _targets(name: str) -> list[str]:
    """What a released tensor is called here; an unknown name stays as it is, to be reported."""
    if name == "vq._codebook.embed":
        return ["quantizer.codebook"]
    top, _, rest = name.partition(".")
    if top == "spatial_rel_pos_bias":
        return [f"{side}.bias.{_replaced(rest, _BIAS)}" for side in ("spatial_encoder", "spatial_decoder")]
    if top not in _STACKS:
        return [_replaced(name, _TOP)]
    stack, norm = _STACKS[top]
    if rest.startswith("norm_out."):
        return [f"{norm}.{'weight' if rest.endswith('gamma') else 'bias'}"]
    _, i, layer = rest.split(".", 2)
    return [f"{stack}.{_replaced(layer, _LAYER).format(i=i)}"]


def _replaced(name: str, table: dict[str, str]) -> str:
    start = next((start for start in table if name.startswith(start)), "")
    return table.get(start, "") + name.removeprefix(start)


def _reordered(name: str, tensor: Tensor, config: TokenizerConfig) -> Tensor:
    """Pixels of a pair: there channel, frame, row, column; here frame, channel, row, column."""
    order: dict[str, Callable[[Tensor], Tensor]] = {
        "pair_in.0": lambda x: rearrange(x, "(c t p) -> (t c p)", c=config.channels, t=2),
        "pair_in.1.weight": lambda x: rearrange(x, "d (c t p) -> d (t c p)", c=config.channels, t=2),
        "pair_out": lambda x: rearrange(x, "(c t p) ... -> (t c p) ...", c=config.channels, t=2),
        "quantizer.codebook": lambda x: torch.squeeze(x, 0),
    }
    change = next((change for start, change in order.items() if name.startswith(start)), None)
    return tensor if change is None else change(tensor)
