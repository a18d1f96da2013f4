"""The generator as its authors released it: a MaskGIT over codes with one pooled ECG vector as its context."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from echopulse.errors import InputError
from echopulse.models.ecg_encoder import EcgFeatures
from echopulse.nn.code_head import FactorLogits
from echopulse.nn.positions import ContinuousPositionBias, PositionConvolution
from echopulse.nn.transformer import Block

if TYPE_CHECKING:
    from echopulse.models.video_transformer import Conditions, LogitsAt, Passes


@dataclass(frozen=True)
class PublishedGeneratorConfig:
    """Shape of the released generator; the defaults are its full size.

    Attributes:
        num_codes: codes of the tokenizer.
        max_codes: longest sequence that has a learned position.
        width, depth, heads, head_dim, mult: of the transformer.
        context_dim: length of the ECG vector.
        bias_width: hidden width of the position bias.
    """

    num_codes: int = 8192
    max_codes: int = 2048
    width: int = 512
    depth: int = 6
    heads: int = 8
    head_dim: int = 64
    mult: float = 4.0
    context_dim: int = 768
    bias_width: int = 64

    @property
    def factors(self) -> tuple[int, ...]:
        """Sizes of the softmaxes that name a code: one over all codes."""
        return (self.num_codes,)


class PublishedGenerator(nn.Module):
    """Predicts hidden codes from visible ones and from context vectors; it knows nothing of time.

    Differs from the released network: a multiplier of the gradient in training is left out, since only inference is
    meant. Everything else is its arithmetic.
    """

    def __init__(self, config: PublishedGeneratorConfig) -> None:
        super().__init__()
        self.config = config
        c = config
        self.codes = nn.Embedding(c.num_codes + 1, c.width)  # the last one is "hidden"
        self.places = nn.Embedding(c.max_codes, c.width)
        self.bias = ContinuousPositionBias(c.heads, axes=3, width=c.bias_width, leak=0.1)
        self.positions = nn.ModuleList(PositionConvolution(c.width, causal=False) for _ in range(c.depth))
        self.blocks = nn.ModuleList(
            Block(c.width, c.heads, c.head_dim, c.mult, c.context_dim, published=True) for _ in range(c.depth)
        )
        self.norm = nn.LayerNorm(c.width)
        self.head = nn.Linear(c.width, c.num_codes)

    def passes(self, conditions: "Conditions", *, keep: bool = False) -> "Passes":
        """Predictions, asked for as `VideoTransformer`'s are; of the conditions they take `ecg.tokens` alone.

        All is worked out in each pass: position convolutions spread what changes over the window, so nothing is kept.
        """
        assert isinstance(conditions.ecg, EcgFeatures)
        tokens = conditions.ecg.tokens

        def seen(codes: Tensor, known: Tensor) -> "LogitsAt":
            hidden = torch.where(known, codes, self.config.num_codes)

            def at(places: Tensor) -> FactorLogits:
                logits = self.logits(hidden, tokens[: len(codes)], places)
                return lambda i, before: logits

            return at

        return seen

    def logits(
        self,
        codes: Int[Tensor, "b t gh gw"],
        context: Float[Tensor, "b m c"] | None,
        places: Bool[Tensor, "b t gh gw"] | None = None,
    ) -> Float[Tensor, "*n k"]:
        """Logits of every code.

        Args:
            codes: codes, `num_codes` where hidden.
            context: ECG vectors; None runs the network without cross-attention.
            places: which codes to predict, in one row; all if None.

        Raises:
            InputError: more codes than learned positions.
        """
        grid = codes.shape[1:]
        count = grid.numel()
        if count > self.config.max_codes:
            raise InputError(f"{count} codes in one window; the released generator takes {self.config.max_codes}")
        x = self.codes(codes) + self.places.weight[:count].view(*grid, -1)
        bias = self.bias(tuple(grid))
        for position, block in zip(self.positions, self.blocks, strict=True):
            x = rearrange(x + position(x), "b t gh gw d -> b (t gh gw) d")
            x = block(x, bias=bias, context=context).view(*codes.shape, -1)
        return self.head(self.norm(x if places is None else x[places]))
