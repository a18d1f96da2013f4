"""Text condition: a tiny random T5 from a folder, through the generator to the codes."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from echopulse.errors import InputError
from echopulse.models.presets import generator_config, tokenizer_config
from echopulse.models.text_encoder import MAX_WORDS, TextEncoder, describe
from echopulse.models.tokenizer import VideoTokenizer
from echopulse.models.video_transformer import Conditions, VideoTransformer
from echopulse.phantom import sample_patient, simulate_clip
from echopulse.sampling.pipeline import Pipeline
from echopulse.sampling.request import GenerationRequest
from echopulse.signals.track import EcgTrack
from echopulse.training.generator import GeneratorTask
from echopulse.training.token_cache import CachedClip

MakeConditions = Callable[..., Conditions]
WORDS = "apical four-chamber two-chamber view, ejection fraction 20 60 percent".split()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A T5 of one layer, 16 wide, whose tokenizer knows a few words."""
    pytest.importorskip("transformers", reason="text conditions need transformers")
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

    place = tmp_path_factory.mktemp("t5")
    vocabulary = {word: i for i, word in enumerate(["<pad>", "</s>", "<unk>", *WORDS])}
    words = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = WhitespaceSplit()
    special = dict(pad_token="<pad>", eos_token="</s>", unk_token="<unk>")
    PreTrainedTokenizerFast(tokenizer_object=words, **special).save_pretrained(place)
    torch.manual_seed(5)
    shape = dict(d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    T5EncoderModel(T5Config(vocab_size=len(vocabulary), **shape)).save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def text_encoder(folder: Path) -> TextEncoder:
    return TextEncoder(folder)


@pytest.fixture(scope="module")
def model() -> VideoTransformer:
    torch.manual_seed(2)
    return VideoTransformer(replace(generator_config("tiny"), text_width=16)).eval()


def test_texts_of_other_lengths_are_padded_and_not_mixed(text_encoder: TextEncoder) -> None:
    both = text_encoder(["ejection fraction 20 percent", "view,"])
    assert text_encoder.width == 16 and both.tokens.shape == (2, 4, 16)
    assert both.visible.tolist() == [[True] * 4, [True, False, False, False]]
    alone = text_encoder(["view,"])
    torch.testing.assert_close(both.tokens[1:, :1], alone.tokens)


def test_the_text_matters_and_none_is_as_good_as_a_hidden_one(
    model: VideoTransformer, text_encoder: TextEncoder, make_conditions: MakeConditions
) -> None:
    codes, known = torch.zeros(1, 4, 8, 8, dtype=torch.long), torch.ones(1, 4, 8, 8, dtype=torch.bool)
    low, high = (make_conditions()._replace(text=text_encoder([f"ejection fraction {ef} percent"])) for ef in (20, 60))
    with torch.inference_mode():
        x, y = (model(codes, known, conditions, codes) for conditions in (low, high))
        assert not torch.allclose(x, y, atol=1e-3)
        null, none = (model(codes, known, c.without_ecg(), codes) for c in (low, make_conditions()))
    torch.testing.assert_close(null, none, rtol=1e-4, atol=1e-5)


def test_conditions_with_other_numbers_of_leads_and_words_make_one_batch(
    model: VideoTransformer, text_encoder: TextEncoder, make_conditions: MakeConditions, make_window: Callable
) -> None:
    parts = []
    for leads, text in ((3, "ejection fraction 20 percent"), (1, "view,")):
        window = model.encode_ecg(make_window(leads=leads))
        parts.append(make_conditions()._replace(ecg=window, text=text_encoder([text])))
    codes = torch.randint(0, 64, (1, 4, 8, 8), generator=torch.Generator().manual_seed(0))
    known = codes % 2 == 0
    with torch.inference_mode():
        both = (x.repeat(2, 1, 1, 1) for x in (codes, known))
        batch = model(*both, Conditions.joined(parts), codes.repeat(2, 1, 1, 1))
        for row, part in zip(batch, parts, strict=True):
            torch.testing.assert_close(row, model(codes, known, part, codes)[0], rtol=1e-4, atol=1e-5)


def test_the_text_reaches_the_clip(model: VideoTransformer, text_encoder: TextEncoder) -> None:
    torch.manual_seed(1)
    tokenizer, model = VideoTokenizer(tokenizer_config("tiny")), deepcopy(model)
    with torch.no_grad():  # a sharper choice, and texts further apart, than random weights make
        model.head.weight.mul_(20)
        model.text[1].weight.mul_(20)
    pipeline = Pipeline(tokenizer, model, {"decoding": {"steps": 2, "guidance": 4.0}}, torch.float32, text_encoder)
    ecg = simulate_clip(sample_patient(1), fps=1.0, seconds=1.0, size=(32, 32), with_masks=False).clip.ecg
    clips = {
        text: pipeline(ecg, GenerationRequest(seconds=0.2, text=text))[0]
        for text in (None, "ejection fraction 20 percent", "ejection fraction 60 percent")
    }
    assert len({clip.frames.tobytes() for clip in clips.values()}) == 3
    told = clips["ejection fraction 20 percent"].provenance
    assert (told["text"], told["condition"]) == ("ejection fraction 20 percent", "ecg+text")
    with pytest.raises(InputError, match="needs its encoder"):
        Pipeline(tokenizer, model, {}, torch.float32)(ecg, GenerationRequest(seconds=0.2, text="view,"))


def test_networks_without_text_refuse_it(text_encoder: TextEncoder, tmp_path: Path) -> None:
    networks = VideoTokenizer(tokenizer_config("tiny")), VideoTransformer(generator_config("tiny"))
    with pytest.raises(InputError, match="16 wide; this checkpoint was trained with no text"):
        Pipeline(*networks, {}, torch.float32, text_encoder)
    with pytest.raises(InputError, match="trained without text"):
        Pipeline(*networks, {}, torch.float32)(None, GenerationRequest(seconds=0.2, text="view,"))
    with pytest.raises(InputError, match="no such folder"):
        TextEncoder(tmp_path / "nothing")
    with pytest.raises(InputError, match="no T5 model"):
        TextEncoder(tmp_path)


@pytest.mark.parametrize(("text", "message"), [(" ", "empty"), ("view, " * (MAX_WORDS + 1), "at most 128")])
def test_impossible_texts_are_refused(text_encoder: TextEncoder, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        text_encoder([text])


def test_descriptions() -> None:
    assert describe("a4c", 55.4) == "apical four-chamber view, ejection fraction 55 percent"
    assert describe("a2c") == "apical two-chamber view" and describe("unknown") == "echocardiogram"


def test_training_gives_half_of_the_windows_their_description(text_encoder: TextEncoder) -> None:
    track = EcgTrack(np.zeros((1, 1500), np.float32), np.array([1]), np.array([0.5, 1.4]), -1.0)
    codes = np.zeros((6, 8, 8), np.int32)
    unknown = np.full(11, np.nan, np.float32)
    conditions = ((0, 0.2), (1, 0.6), (-1, float("nan")))
    clips = [CachedClip(codes, codes[:2], track, 25.0, view, ef, unknown) for view, ef in conditions]
    network = VideoTransformer(replace(generator_config("tiny"), text_width=16))
    task = GeneratorTask(network, clips, VideoTokenizer(tokenizer_config("tiny")), batch=32, text=text_encoder)
    batch = task.batch(0, 0)
    text = batch.conditions.text
    assert text is not None and text.tokens.shape[0] == 32
    assert 6 < int(text.visible.any(1).sum()) < 26
    task.losses(network, batch, 0)[0].backward()
    assert network.text is not None and all(p.grad is not None and p.grad.any() for p in network.text.parameters())
    with pytest.raises(InputError, match="16 wide; the generator expects 0"):
        GeneratorTask(generator_config("tiny"), clips, task._tokenizer, batch=2, text=text_encoder)
