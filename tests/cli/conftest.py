import json
from pathlib import Path

import pytest
import torch

from echopulse.io.sets import write_wfdb
from echopulse.models.checkpoints import save_network
from echopulse.models.presets import generator_config, tokenizer_config
from echopulse.models.tokenizer import VideoTokenizer
from echopulse.models.video_transformer import VideoTransformer
from echopulse.phantom import sample_patient, simulate_clip


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole checkpoint of the tiny preset with random weights."""
    folder = tmp_path_factory.mktemp("checkpoint")
    torch.manual_seed(0)
    save_network(VideoTokenizer(config := tokenizer_config("tiny")), config, folder / "tokenizer")
    save_network(VideoTransformer(shape := generator_config("tiny")), shape, folder / "generator")
    (folder / "index.json").write_text(json.dumps({"name": "tiny-random", "decoding": {"steps": 2}}))
    return folder


@pytest.fixture(scope="session")
def record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A WFDB record of five seconds, 12 leads."""
    folder = tmp_path_factory.mktemp("record")
    paired = simulate_clip(sample_patient(5, rhythm="sinus", heart_rate_bpm=70), seconds=1.0, with_masks=False)
    assert paired.clip.ecg is not None
    write_wfdb(folder, "record", paired.clip.ecg.shifted(0.0))
    return folder / "record.hea"
