"""The networks of a checkpoint folder."""

from pathlib import Path
from typing import Any

from echopulse.errors import InputError
from echopulse.models.checkpoints import load_network
from echopulse.models.critic import TokenCritic
from echopulse.models.detail import DetailConfig, DetailNetwork
from echopulse.models.ef_reader import EfReader, EfReaderConfig
from echopulse.models.segmenter import ChamberSegmenter, SegmenterConfig
from echopulse.models.tokenizer import TokenizerConfig, VideoTokenizer
from echopulse.models.video_transformer import CodePredictor, GeneratorConfig, VideoTransformer

_OPTIONAL: dict[str, tuple[str, type, type]] = {
    "critic": ("critic", TokenCritic, GeneratorConfig),
    "ef_reader": ("ef_reader", EfReader, EfReaderConfig),
    "detail": ("detail", DetailNetwork, DetailConfig),
    "segmenter": ("segmenter", ChamberSegmenter, SegmenterConfig),
    "picture_network": ("picture", CodePredictor, GeneratorConfig),
}
"""By the names of `Pipeline`'s arguments: folder, network and config."""


def load_networks(folder: Path) -> dict[str, Any]:
    """The networks of a checkpoint by the names of `Pipeline`'s arguments; those that it lacks are left out.

    Raises:
        InputError: it has no generator, or a network is damaged.
    """
    if not (folder / "generator").is_dir():
        raise InputError(f"checkpoint {folder.name} has no generator; to generate, choose one that has, as compact")
    networks: dict[str, Any] = {
        "tokenizer": load_network(VideoTokenizer, TokenizerConfig, folder / "tokenizer"),
        "generator": load_network(VideoTransformer, GeneratorConfig, folder / "generator"),
    }
    for name, (place, network, config) in _OPTIONAL.items():
        if (folder / place).is_dir():
            networks[name] = load_network(network, config, folder / place)
    return networks
