"""Masked generative video transformer: predicts hidden codes from visible ones, an ECG, and what else is known."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from echopulse.axes import VIEWS
from echopulse.errors import InputError
from echopulse.models.ecg_encoder import EcgEncoder, EcgEncoderConfig, EcgFeatures, sample_contraction, sample_fine
from echopulse.models.quantizer import split_factors
from echopulse.nn.attention import KeptKeys, put_rows, rows_at
from echopulse.nn.code_head import CodeHead, FactorLogits
from echopulse.nn.positions import ContinuousPositionBias, time_waves
from echopulse.nn.transformer import Block


@dataclass(frozen=True)
class GeneratorConfig:
    """Shape of the generator.

    Attributes:
        factors: sizes of the softmaxes that name a code; the tokenizer's.
        rows, columns: token grid of a frame.
        slots: token frames of one window; slot 0 is the clip's first frame, the others are consecutive.
        width, depth, heads, head_dim, mult: of the transformer.
        cross_every: every how many layers attend to the ECG sequence.
        position_bias: 3-D continuous position bias (the paper) beside learned positions.
        ecg: the ECG encoder.
        text_width: width of the text encoder's embeddings (512 for T5 small); 0 without text.
        joint_width: of the network that lets a code's factors depend on each other (`CodeHead`); 0: they do not.
        pooled_ecg: the whole ECG window as one vector, as in the released code, to compare with.
    """

    factors: tuple[int, ...] = (8192,)
    rows: int = 16
    columns: int = 16
    slots: int = 6
    width: int = 512
    depth: int = 6
    heads: int = 8
    head_dim: int = 64
    mult: float = 4.0
    cross_every: int = 1
    position_bias: bool = True
    ecg: EcgEncoderConfig = field(default_factory=EcgEncoderConfig)
    text_width: int = 0
    joint_width: int = 0
    pooled_ecg: bool = False

    def __post_init__(self) -> None:
        if self.slots < 4:
            raise InputError(f"generator slots = {self.slots}; expected 4 or more: memory, overlap and something new")
        if self.cross_every < 1 or self.depth < self.cross_every:
            raise InputError(f"generator cross_every = {self.cross_every}; expected 1 to the depth, {self.depth}")
        if self.text_width < 0:
            raise InputError(f"generator text_width = {self.text_width}; expected 0, no text, or the encoder's width")
        if self.pooled_ecg and self.ecg.reads_motion:
            raise InputError("generator pooled_ecg leaves no time in the ECG; set ecg.reads_motion to false")


class EcgWindow(NamedTuple):
    """One batch of ECG windows, ready for the encoder; see `EcgEncoder.forward`."""

    ecg: Float[Tensor, "b l s"]
    marks: Float[Tensor, "b s"]
    lead_ids: Int[Tensor, "b l"]
    present: Bool[Tensor, "b l"]


class TextFeatures(NamedTuple):
    """A text as embeddings of a text encoder; `visible` is False where a row is only padded."""

    tokens: Float[Tensor, "b m d"]
    visible: Bool[Tensor, "b m"]


class Conditions(NamedTuple):
    """What is known beside the codes; everything may be unknown.

    Attributes:
        ecg: the ECG, encoded beforehand (`VideoTransformer.encode_ecg`) or as the window that the forward pass encodes.
        has_ecg: False hides the ECG (guidance's null branch).
        frame_times_s: times of the two frames of each slot relative to the ECG window's middle; slot 0 holds the same
            frame twice.
        first_gap_s: time from the clip's first frame to the first frame of slot 1.
        view: index in `axes.VIEWS`, or −1.
        ef: ejection fraction between 0 and 1, or NaN.
        text: a description, or None.
        first_contraction: how far the left ventricle has contracted in the clip's first frame, for windows whose ECG
            does not reach back to it; NaN or None where unknown.
    """

    ecg: EcgFeatures | EcgWindow
    has_ecg: Bool[Tensor, " b"]
    frame_times_s: Float[Tensor, "b t 2"]
    first_gap_s: Float[Tensor, " b"]
    view: Int[Tensor, " b"]
    ef: Float[Tensor, " b"]
    text: TextFeatures | None = None
    first_contraction: Float[Tensor, " b"] | None = None

    def without_ecg(self) -> "Conditions":
        """The null branch of guidance: same anatomy and view, unknown ECG, EF and text."""
        text = None if self.text is None else self.text._replace(visible=torch.zeros_like(self.text.visible))
        ef = torch.full_like(self.ef, float("nan"))
        return self._replace(has_ecg=torch.zeros_like(self.has_ecg), ef=ef, text=text)

    @classmethod
    def joined(cls, parts: Sequence["Conditions"]) -> "Conditions":
        """One batch of several; those with fewer leads or words get hidden ones."""
        return _by_tensor(_joined, *parts)

    def to(self, device: torch.device) -> "Conditions":
        """The same on a device."""
        return _by_tensor(lambda x: x.to(device), self)


LogitsAt = Callable[[Bool[Tensor, "b t gh gw"]], FactorLogits]
"""Logits of the codes at some places, in rows, as they were predicted in one pass."""

Passes = Callable[[Int[Tensor, "b t gh gw"], Bool[Tensor, "b t gh gw"]], LogitsAt]
"""One pass over a window after the other: codes, and which of them are known."""

_ROWS = 32  # numbers of rows are rounded up to a multiple, as a CPU keeps a program for each that it has multiplied
_MOTION = 6  # numbers that tell a slot's motion


class WindowTransformer(nn.Module):
    """What generator, critic and picture network share: full attention over a window's codes, attention to the ECG.

    A window holds the clip's first token frame (slot 0, the memory of the anatomy) and `slots − 1` consecutive token
    frames from anywhere in the clip; or slot 0 alone, as long as there is nothing else. Differs from the paper, which
    primes each segment with the last frames of the one before and so forgets: here slot 0 stays for the whole video.
    Every slot gets the fine ECG features at its frames' timestamps; frames and ECG patches share one clock through
    `time_waves`. Where the encoder reads motion, every slot also gets the ventricle's volume at its frames,
    `1 − EF · contraction` of the end-diastolic one, with the EF that is asked for or else the one read.

    Args:
        config: shape.
        ecg: the ECG encoder, where it belongs to this network.
    """

    def __init__(self, config: GeneratorConfig, ecg: EcgEncoder | None = None) -> None:
        super().__init__()
        self.config = config
        c = config
        self.ecg = ecg
        self.tables = nn.ModuleList(nn.Embedding(size, c.width) for size in c.factors)
        # Positions start as loud as the codes: with codes at unit variance and positions at 0.02, as is usual in
        # image transformers, keys told nothing of where they are and attention did not find the same place in
        # other frames within 700 steps.
        for table in self.tables:
            nn.init.normal_(table.weight, std=0.7 / len(c.factors) ** 0.5)  # type: ignore[arg-type]
        self.hidden = nn.Parameter(torch.randn(c.width) * 0.5)
        self.slot = nn.Parameter(torch.randn(c.slots, 1, 1, c.width) * 0.5)
        self.row = nn.Parameter(torch.randn(1, c.rows, 1, c.width) * 0.5)
        self.column = nn.Parameter(torch.randn(1, 1, c.columns, c.width) * 0.5)
        self.view = nn.Embedding(len(VIEWS) + 1, c.width)
        self.ef = nn.Sequential(nn.Linear(2, 64), nn.GELU(), nn.Linear(64, c.width))
        self.timing = nn.Sequential(nn.Linear(3, 64), nn.GELU(), nn.Linear(64, c.width))
        self.text = None
        if c.text_width:
            self.text = nn.Sequential(nn.LayerNorm(c.text_width), nn.Linear(c.text_width, c.ecg.width))
        self.no_beat = nn.Parameter(torch.zeros(2 * c.ecg.fine_width))
        self.beat = nn.Sequential(nn.Linear(2 * c.ecg.fine_width, c.width), nn.GELU(), nn.Linear(c.width, c.width))
        self.motion = None
        if c.ecg.reads_motion:
            self.motion = nn.Sequential(nn.Linear(_MOTION, 64), nn.GELU(), nn.Linear(64, c.width))
        self.frame_time = nn.Linear(64, c.width)
        self.patch_time = nn.Linear(64, c.ecg.width)
        self.bias = ContinuousPositionBias(c.heads, axes=3) if c.position_bias else None
        self.blocks = nn.ModuleList(
            Block(c.width, c.heads, c.head_dim, c.mult, c.ecg.width if (i + 1) % c.cross_every == 0 else None)
            for i in range(c.depth)
        )
        self.norm = nn.LayerNorm(c.width)

    def features(
        self, codes: Int[Tensor, "b t gh gw"], known: Bool[Tensor, "b t gh gw"] | None, conditions: Conditions
    ) -> Float[Tensor, "b t gh gw d"]:
        """One feature vector per code; arguments as in `VideoTransformer.forward`, the ECG encoded.

        Where `known` is None all codes are seen.
        """
        return WindowPasses(self, conditions)(codes, known).unflatten(1, codes.shape[1:])

    def embed(self, codes: Int[Tensor, "*n"], known: Bool[Tensor, "*n"] | None) -> Float[Tensor, "*n d"]:
        """Codes as vectors, one vector for all that are hidden; without their places."""
        parts = split_factors(codes, self.config.factors)
        seen = sum(table(parts[..., i]) for i, table in enumerate(self.tables))
        if known is None:
            return seen  # type: ignore[return-value]
        return torch.where(known.unsqueeze(-1), seen, self.hidden.to(seen.dtype))  # type: ignore[arg-type]

    def slot_conditions(self, c: Conditions) -> Tensor:
        """Per slot: the ECG at its two frames, its time, the frame interval and gap, view and EF."""
        assert isinstance(c.ecg, EcgFeatures)
        b, t, _ = c.frame_times_s.shape
        fine = sample_fine(c.ecg.fine, rearrange(c.frame_times_s, "b t two -> b (t two)"), self.config.ecg.window_s)
        fine = rearrange(fine, "b (t two) e -> b t (two e)", two=2)
        fine = torch.where(c.has_ecg[:, None, None], fine, self.no_beat.to(fine.dtype))
        interval = c.first_gap_s.unsqueeze(1)  # of a picture alone: from it to what would follow
        if t > 1:
            interval = (c.frame_times_s[:, 1:, 1] - c.frame_times_s[:, 1:, 0]).mean(1, keepdim=True)
        interval = interval.expand(b, t)
        gap = torch.tanh(c.first_gap_s).unsqueeze(1).expand(b, t)
        follows = (c.first_gap_s.unsqueeze(1) < 1.5 * interval).to(gap.dtype)
        timing = torch.stack([10 * interval, gap, follows], dim=-1).to(fine.dtype)
        known_ef = ~torch.isnan(c.ef)
        ef = torch.stack([torch.nan_to_num(c.ef) * 2 - 1, known_ef.to(c.ef.dtype)], dim=-1) * known_ef.unsqueeze(-1)
        whole = self.view(c.view % (len(VIEWS) + 1)) + self.ef(ef.to(fine.dtype))
        waves = time_waves(c.frame_times_s.mean(-1), 64).to(fine.dtype)
        x = self.beat(fine) + self.timing(timing) + self.frame_time(waves) + whole.unsqueeze(1)
        return x if self.motion is None else x + self._slot_motion(self.motion, c)

    def _slot_motion(self, network: nn.Module, c: Conditions) -> Tensor:
        """Volume and contraction at a slot's two frames; hidden where the ECG is, and unknown outside its window."""
        assert isinstance(c.ecg, EcgFeatures) and c.ecg.ef is not None
        window_s = self.config.ecg.window_s
        contraction = sample_contraction(c.ecg, c.frame_times_s, window_s).detach()
        ef = torch.where(c.ef.isnan(), c.ecg.ef.detach().to(c.ef.dtype), c.ef)[:, None, None].to(contraction.dtype)
        known = (c.frame_times_s.abs() < window_s / 2 - 1e-3).all(-1, keepdim=True)
        if c.first_contraction is not None:
            first = c.first_contraction.to(contraction.dtype)[:, None, None]
            contraction = torch.cat([torch.where(known[:, :1], contraction[:, :1], first), contraction[:, 1:]], dim=1)
            known = torch.cat([known[:, :1] | ~first.isnan(), known[:, 1:]], dim=1)
            contraction = contraction.nan_to_num()
        volume = 1 - ef * contraction
        change = 10 * (volume[..., 1:] - volume[..., :1])
        told = torch.cat([4 * volume - 3, 2 * contraction - 1, change, torch.ones_like(change)], dim=-1)
        return network(told * (known & c.has_ecg[:, None, None]))

    def context(self, c: Conditions) -> tuple[Tensor, Tensor]:
        """What the blocks attend to: ECG patches with their times, then words."""
        assert isinstance(c.ecg, EcgFeatures)
        tokens = c.ecg.tokens
        tokens = tokens + self.patch_time(time_waves(c.ecg.token_times_s, 64).to(tokens.dtype))
        visible = c.ecg.visible & c.has_ecg.unsqueeze(1)
        if self.text is not None and c.text is not None:
            tokens = torch.cat([tokens, self.text(c.text.tokens.to(tokens.dtype))], dim=1)
            visible = torch.cat([visible, c.text.visible], dim=1)
        return tokens, rearrange(visible, "b m -> b 1 1 m")


class WindowPasses:
    """Passes of a network over one window, whose codes become known bit by bit.

    What does not depend on the codes is worked out once. With `keep`, so are keys, values and features of codes that
    stay as they are: a pass after the first works on hidden codes, and on those that changed since their last pass.
    What is kept has seen the window as it was then, so results differ a little from whole passes; diffusion models of
    text lose little by it (Wu 2025, arXiv 2505.22618; Ma 2025, arXiv 2505.15781).

    Args:
        network: whose passes.
        conditions: of the window, with the ECG encoded.
        keep: whether to; without gradients alone.
    """

    def __init__(self, network: WindowTransformer, conditions: Conditions, *, keep: bool = False) -> None:
        self._network, slots = network, conditions.frame_times_s.shape[1]
        places = network.slot[:slots] + network.row + network.column
        places = places + rearrange(network.slot_conditions(conditions), "b t d -> b t 1 1 d")
        self._places = places.flatten(1, 3)
        self._context, self._visible = network.context(conditions)
        self._bias = None if network.bias is None else network.bias(tuple(places.shape[1:4]))
        self._kept = [(KeptKeys() if keep else None, KeptKeys()) for _ in network.blocks]
        self._keep = keep
        self._before: tuple[Tensor, Tensor] | None = None  # codes as they were seen, and their features

    def __call__(
        self, codes: Int[Tensor, "b t gh gw"], known: Bool[Tensor, "b t gh gw"] | None
    ) -> Float[Tensor, "b n d"]:
        """One feature vector per code of the first `b` windows; the first pass takes them all."""
        n, batch = self._places.shape[1], len(codes)
        codes, known = codes.flatten(1), None if known is None else known.flatten(1)
        rows, places, bias = None, self._places[:batch], self._bias
        seen = codes if known is None else codes.where(known, -1)
        if self._before is not None:
            fresh = (seen < 0) | (seen != self._before[0][:batch])
            most = min(-(-int(fresh.sum(1).max()) // _ROWS) * _ROWS, n)
            rows = fresh.byte().argsort(dim=1, descending=True, stable=True)[:, :most]
            codes, known = codes.gather(1, rows), None if known is None else known.gather(1, rows)
            places = rows_at(places, rows)
            bias = None if bias is None else bias[:, rows].transpose(0, 1)
        x = self._network.embed(codes, known) + places
        for block, kept in zip(self._network.blocks, self._kept, strict=True):
            x = block(
                x,
                bias=bias,
                context=self._context[:batch],
                context_mask=self._visible[:batch],
                kept=kept,
                rows=rows,
            )
        x = self._network.norm(x)
        if self._before is not None and rows is not None:
            every = self._before[1].clone()
            put_rows(every[:batch], rows, x, 1)
            seen, x = torch.cat([seen, self._before[0][batch:]]), every
        if self._keep:
            self._before = seen, x
        return x[:batch]


class CodePredictor(WindowTransformer):
    """Predicts hidden codes from features of an ECG that is encoded already.

    By itself it is the picture network: it draws first pictures, windows of slot 0 alone, beside a generator whose
    encoder it relies on.

    Args:
        config: shape.
        ecg: the ECG encoder, where it belongs to this network.
    """

    def __init__(self, config: GeneratorConfig, ecg: EcgEncoder | None = None) -> None:
        super().__init__(config, ecg)
        self.head = CodeHead(config.width, config.factors, config.joint_width)

    def forward(
        self,
        codes: Int[Tensor, "b t gh gw"],
        known: Bool[Tensor, "b t gh gw"],
        conditions: Conditions,
        truth: Int[Tensor, "b t gh gw"] | None = None,
    ) -> Float[Tensor, "b t gh gw k"]:
        """Logits of every code's factors, side by side along the last axis, for training.

        Args:
            codes: values where known; anything elsewhere.
            known: which codes may be seen.
            conditions: the rest of what is known, the ECG encoded.
            truth: all codes; with a joint head, logits of a factor see the true ones before it.
        """
        factors = None if truth is None else split_factors(truth, self.config.factors)
        return self.head(self.features(codes, known, conditions), factors)

    def passes(self, conditions: Conditions, *, keep: bool = False) -> Passes:
        """Several predictions of one window; `keep` as in `WindowPasses`."""
        features_of = WindowPasses(self, conditions, keep=keep)

        def seen(codes: Tensor, known: Tensor) -> LogitsAt:
            features = features_of(codes, known)
            return lambda places: self.head.one_by_one(features[places.flatten(1)])

        return seen


class VideoTransformer(CodePredictor):
    """MVTM: predicts hidden codes of a window; holds the ECG encoder too."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__(config, EcgEncoder(config.ecg))

    def encode_ecg(self, window: EcgWindow) -> EcgFeatures:
        """The ECG's features; they do not change while one window is decoded."""
        assert self.ecg is not None
        features = self.ecg(*window)
        return features.without_time() if self.config.pooled_ecg else features

    def forward(
        self,
        codes: Int[Tensor, "b t gh gw"],
        known: Bool[Tensor, "b t gh gw"],
        conditions: Conditions,
        truth: Int[Tensor, "b t gh gw"] | None = None,
    ) -> Float[Tensor, "b t gh gw k"]:
        """As `CodePredictor.forward`; an ECG window among the conditions is encoded."""
        if isinstance(conditions.ecg, EcgWindow):
            conditions = conditions._replace(ecg=self.encode_ecg(conditions.ecg))
        return super().forward(codes, known, conditions, truth)


def _by_tensor(function: Callable[..., Tensor], *values: Any) -> Any:
    """Applies a function to the tensors that lie at the same place of equal nested tuples; None stays None."""
    first = values[0]
    if first is None or isinstance(first, Tensor):
        return None if first is None else function(*values)
    return type(first)(*(_by_tensor(function, *parts) for parts in zip(*values, strict=True)))


def _joined(*parts: Tensor) -> Tensor:
    if parts[0].ndim > 1:
        longest = max(part.shape[1] for part in parts)
        parts = tuple(F.pad(x, (0, 0) * (x.ndim - 2) + (0, longest - x.shape[1])) for x in parts)
    return torch.cat(parts)
