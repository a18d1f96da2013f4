"""Text condition: a T5 encoder of the user's (Raffel 2020), read from a local folder and never trained here."""

from collections.abc import Sequence
from pathlib import Path

import torch

from echopulse.errors import InputError
from echopulse.models.video_transformer import TextFeatures

MAX_WORDS = 128
"""Longest text in tokens of the encoder."""

_VIEWS = {"a4c": "apical four-chamber view", "a2c": "apical two-chamber view"}


class TextEncoder:
    """Texts to the embeddings of their tokens.

    Args:
        folder: of a T5 model as `transformers` saves it, with its tokenizer; weights as safetensors.

    Raises:
        InputError: no such model, or `transformers` is not installed.
    """

    def __init__(self, folder: str | Path) -> None:
        try:
            from transformers import AutoTokenizer, T5EncoderModel
        except ImportError as error:
            raise InputError('text conditions need transformers: pip install "transformers>=4.46"') from error
        if not Path(folder).is_dir():
            raise InputError(f"{folder}: no such folder; expected a T5 model with its tokenizer")
        try:
            self._words = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            network = T5EncoderModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
        except (OSError, ValueError, ImportError) as error:
            raise InputError(f"{folder}: no T5 model with its tokenizer ({error})") from error
        self._network = network.eval().requires_grad_(False)

    @property
    def width(self) -> int:
        """Width of the embeddings; the generator's `text_width`."""
        return int(self._network.config.d_model)

    def __call__(self, texts: Sequence[str]) -> TextFeatures:
        """Embeds texts.

        Raises:
            InputError: an empty text, or one of more than `MAX_WORDS` tokens.
        """
        for text in texts:
            if not text.strip():
                raise InputError("the text is empty; expected a description, or no text at all")
        batch = self._words(list(texts), padding=True, return_tensors="pt")
        count = batch["input_ids"].shape[1]
        if count > MAX_WORDS:
            raise InputError(f"the text has {count} tokens; expected at most {MAX_WORDS}")
        with torch.no_grad():
            tokens = self._network(batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
        return TextFeatures(tokens.float(), batch["attention_mask"].bool())


def describe(view: str, ef_percent: float | None = None) -> str:
    """The sentence that training gives with a clip, such as "apical two-chamber view, ejection fraction 55 percent"."""
    ef = "" if ef_percent is None else f", ejection fraction {ef_percent:.0f} percent"
    return _VIEWS.get(view, "echocardiogram") + ef
