"""Tiny networks and inputs for them."""

from collections.abc import Callable

import pytest
import torch

from echopulse.models.ecg_encoder import EcgEncoder
from echopulse.models.presets import generator_config, tokenizer_config
from echopulse.models.tokenizer import VideoTokenizer
from echopulse.models.video_transformer import Conditions, EcgWindow, VideoTransformer

MakeConditions = Callable[..., Conditions]


@pytest.fixture(scope="module")
def tokenizer() -> VideoTokenizer:
    torch.manual_seed(1)
    return VideoTokenizer(tokenizer_config("tiny")).eval()


@pytest.fixture(scope="module")
def generator() -> VideoTransformer:
    torch.manual_seed(2)
    return VideoTransformer(generator_config("tiny")).eval()


@pytest.fixture(scope="module")
def encoder() -> EcgEncoder:
    torch.manual_seed(3)
    return EcgEncoder(generator_config("tiny").ecg).eval()


@pytest.fixture
def make_window() -> Callable[..., EcgWindow]:
    def make(batch: int = 1, leads: int = 3, seed: int = 0) -> EcgWindow:
        random = torch.Generator().manual_seed(seed)
        samples = generator_config("tiny").ecg.num_samples
        ecg = torch.randn(1, leads, samples, generator=random).repeat(batch, 1, 1)
        marks = torch.zeros(batch, samples)
        marks[:, 100 + 10 * seed :: 200] = 1.0
        return EcgWindow(ecg, marks, torch.arange(leads).repeat(batch, 1), torch.ones(batch, leads, dtype=torch.bool))

    return make


@pytest.fixture
def make_conditions(make_window: Callable[..., EcgWindow]) -> MakeConditions:
    def make(batch: int = 1, seed: int = 0, slots: int = 4) -> Conditions:
        frames = torch.arange(2 * slots).view(slots, 2) / 25 - 0.15
        return Conditions(
            ecg=make_window(batch, seed=seed),
            has_ecg=torch.ones(batch, dtype=torch.bool),
            frame_times_s=frames.repeat(batch, 1, 1),
            first_gap_s=torch.full((batch,), 0.04),
            view=torch.zeros(batch, dtype=torch.long),
            ef=torch.full((batch,), 0.6),
        )

    return make
