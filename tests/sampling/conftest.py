"""Tiny random networks, phantom ECGs, and a stand-in generator whose answers are known."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from echopulse.models.presets import generator_config, tokenizer_config
from echopulse.models.tokenizer import VideoTokenizer
from echopulse.models.video_transformer import Conditions, GeneratorConfig, LogitsAt, Passes, VideoTransformer
from echopulse.nn.code_head import FactorLogits
from echopulse.phantom import sample_patient, simulate_clip
from echopulse.sampling.pipeline import Pipeline
from echopulse.signals import EcgSignal


class KnownAnswer(VideoTransformer):
    """Gives the logits that it is told to, and remembers how it was asked."""

    def __init__(self, config: GeneratorConfig, logits: Tensor | Callable[[Conditions], Tensor]) -> None:
        super().__init__(config)
        self.logits = logits
        self.calls: list[tuple[Tensor, Tensor, Conditions]] = []

    def passes(self, conditions: Conditions, *, keep: bool = False) -> Passes:
        def seen(codes: Tensor, known: Tensor) -> LogitsAt:
            asked = conditions._replace(**{k: getattr(conditions, k)[: len(codes)] for k in ("has_ecg", "ef", "view")})
            self.calls.append((codes.clone(), known.clone(), asked))
            logits = self.logits if isinstance(self.logits, Tensor) else self.logits(asked)
            every = logits.expand(*codes.shape, sum(self.config.factors))

            def at(places: Tensor) -> FactorLogits:
                parts = every[places].split(self.config.factors, dim=-1)
                return lambda i, before: parts[i]

            return at

        return seen


@pytest.fixture(scope="session")
def known_answer() -> Callable[..., KnownAnswer]:
    def make(logits: Tensor | Callable[[Conditions], Tensor], **change: int) -> KnownAnswer:
        return KnownAnswer(replace(generator_config("tiny"), **change), logits).eval()

    return make


@pytest.fixture(scope="session")
def same_but_for_rounding() -> Callable[[np.ndarray, np.ndarray], bool]:
    """Whether pictures of the same draws are equal where a batch's sums round otherwise than a single clip's."""

    def same(one: np.ndarray, other: np.ndarray) -> bool:
        off = np.abs(one.astype(int) - other)
        return off.max() <= 1 and off.mean() < 1e-4

    return same


@pytest.fixture(scope="session")
def pipeline() -> Pipeline:
    torch.manual_seed(3)
    tokenizer, generator = VideoTokenizer(tokenizer_config("tiny")), VideoTransformer(generator_config("tiny"))
    with torch.no_grad():  # a sharper choice than random weights make, so that conditions reach the codes
        generator.head.weight.mul_(8)
    return Pipeline(tokenizer, generator, {"name": "tiny-random", "decoding": {"steps": 2}}, torch.float32)


@pytest.fixture(scope="session")
def ecgs() -> tuple[EcgSignal, EcgSignal]:
    """Two patients, 4 s each from -1.5 s on."""
    pair = []
    for seed, rate in ((1, 60.0), (2, 95.0)):
        patient = sample_patient(seed, rhythm="sinus", heart_rate_bpm=rate)
        clip = simulate_clip(patient, fps=1.0, seconds=1.0, size=(32, 32), ecg_margin_s=1.5, with_masks=False).clip
        assert clip.ecg is not None
        pair.append(clip.ecg)
    return pair[0], pair[1]


@pytest.fixture
def long_ecg() -> Callable[..., EcgSignal]:
    def make(kind: str = "sinus", seed: int = 4, heart_rate_bpm: float = 75.0) -> EcgSignal:
        patient = sample_patient(seed, rhythm=kind, heart_rate_bpm=heart_rate_bpm)
        clip = simulate_clip(patient, fps=1.0, seconds=8.0, size=(32, 32), ecg_margin_s=1.0, with_masks=False).clip
        assert clip.ecg is not None
        return clip.ecg

    return make


@pytest.fixture
def flat_ecg() -> EcgSignal:
    return EcgSignal(np.zeros((2, 2000)), ("I", "II"), 500.0)
