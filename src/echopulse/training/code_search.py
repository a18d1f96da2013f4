"""Codes by search: those of the encoder, moved until what the decoder makes of them is nearest to the clip.

An encoder guesses the codes of any clip in one pass. What it misses is not what codes cannot hold: gradients through
the decoder find better ones for the clip at hand (Campos 2019, arXiv 1906.01223; Yang 2020, arXiv 2006.04240), as a
video encoder tries what it writes. No network changes, so searched codes are decoded like any others.
"""

from collections.abc import Iterable, Iterator
from itertools import tee

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from echopulse.errors import InputError
from echopulse.models.quantizer import Quantizer
from echopulse.models.segmenter import ChamberSegmenter
from echopulse.models.tokenizer import VideoTokenizer
from echopulse.objectives.walls import VENTRICLE, overlap_errors

_WALLS = 1 / 6
"""Weight of the walls' error beside the mean squared one of pixels in [0, 1]: it falls to a third or so, and pixels
lose a tenth of a decibel."""
_RATE = 0.1
"""Levels that a digit moves in a step, about. Digits begin where the encoder had them before it rounded, so that those
turn first that were nearly another; from the middle of a level all would turn in the same step."""
MAX_STEPS = 1000


class CodeSearch:
    """Searches the codes of clips.

    Args:
        tokenizer: causal, with a quantizer of digits (`lfq`, `fsq`, `bsq`).
        steps: passes through the decoder and back.
        segmenter: sees where the ventricle's walls are, of which pixels say little; without it, pixels alone count.
            It should not be the one that judges the clips later.

    Raises:
        InputError: a tokenizer whose codes have no neighbours (`vq`) or that is not causal, or steps out of range.
    """

    def __init__(self, tokenizer: VideoTokenizer, steps: int, segmenter: ChamberSegmenter | None = None) -> None:
        if not isinstance(tokenizer.quantizer, Quantizer):
            raise InputError("codes of a vq tokenizer have no neighbours to search among; expected lfq, fsq or bsq")
        if not 0 <= steps <= MAX_STEPS:
            raise InputError(f"{steps} steps of search; expected 0 (the encoder's codes) to {MAX_STEPS}")
        self._tokenizer, self._quantizer, self._segmenter = tokenizer, tokenizer.quantizer, segmenter
        self._steps, self._reach = steps, tokenizer.reach

    def stream(self, chunks: Iterable[Tensor]) -> Iterator[Int[Tensor, "b t gh gw"]]:
        """Codes of a clip that comes in pieces, like `VideoTokenizer.encode_stream`, in bounded memory.

        A piece is searched given what was found for those before it.

        Args:
            chunks: the clip's frames in order, (b, f, c, h, w), any number at a time; `1 + 2k` in all.
        """
        encoded, shown = tee(chunks)
        past: Tensor | None = None
        whole = True  # `past` begins with the clip's first token frame
        frames: Tensor | None = None  # whose codes have not come yet
        for features in self._tokenizer.feature_stream(encoded):
            count = 2 * features.shape[1] - (past is None)
            while frames is None or frames.shape[1] < count:
                piece = next(shown)
                frames = piece if frames is None else torch.cat([frames, piece], dim=1)
            found = self(features, frames[:, :count], past, continuation=past is not None and not whole)
            frames = frames[:, count:]
            yield found
            past = found if past is None else torch.cat([past, found], dim=1)
            if past.shape[1] > self._reach:
                past, whole = past[:, past.shape[1] - self._reach :], False

    def __call__(
        self,
        features: Float[Tensor, "b t gh gw d"],
        video: Float[Tensor, "b f c h w"],
        past: Int[Tensor, "b p gh gw"] | None = None,
        continuation: bool = False,
    ) -> Int[Tensor, "b t gh gw"]:
        """Codes of frames, by the loss no worse than the encoder's.

        Args:
            features: what the encoder made of the frames, before quantization.
            video: the frames, pixels in [0, 1].
            past: codes of the token frames before, which stay.
            continuation: the clip's first token frame is not among them all.
        """
        quantizer = self._quantizer
        with torch.inference_mode(False), torch.enable_grad():
            video, start = video.clone(), quantizer.unrounded_digits(features.detach().clone()).detach()
            before = start.new_zeros(len(start), 0, *start.shape[2:4]).long() if past is None else past.clone()
            known, target = quantizer.embed(before).detach(), self._walls_of(video)
            digits, highest = start.requires_grad_(), quantizer.highest_digits
            optimizer = torch.optim.Adam([digits], lr=_RATE, betas=(0.8, 0.95))
            best, least = quantizer.join_digits(digits.detach().round().long()), torch.inf
            for step in range(self._steps + 1):
                whole = digits.detach().round()
                embedded = quantizer.embed_digits(digits + (whole - digits.detach()))  # straight through
                made = self._tokenizer.pixels(torch.cat([known, embedded], dim=1), continuation)
                losses = self._losses(video, made[:, -video.shape[1] :].float(), target)
                better = losses.detach() < least
                least = torch.where(better, losses.detach(), least)
                best = torch.where(better[:, None, None, None], quantizer.join_digits(whole.long()), best)
                if step == self._steps:
                    break
                (digits.grad,) = torch.autograd.grad(losses.sum(), digits)
                optimizer.step()
                with torch.no_grad():
                    digits.copy_(digits.clamp(min=0).minimum(highest))
        return best

    def _losses(self, video: Tensor, made: Tensor, target: Tensor | None) -> Float[Tensor, " b"]:
        """How far each clip is from what it should be."""
        errors = (made - video.float()).square().mean((1, 2, 3, 4))
        if target is None:
            return errors
        assert self._segmenter is not None
        seen = self._scores(made).softmax(2)[:, :, VENTRICLE]
        walls = [overlap_errors(one, other) for one, other in zip(target, seen, strict=True)]
        return errors + _WALLS * torch.stack(walls)

    def _walls_of(self, video: Tensor) -> Tensor | None:
        """Where a segmenter sees the structures of the ventricle, bool (b, f, k, h, w)."""
        if self._segmenter is None:
            return None
        with torch.no_grad():
            classes = self._scores(video.float()).argmax(2, keepdim=True)
        return classes == torch.tensor(VENTRICLE, device=video.device)[:, None, None]

    def _scores(self, video: Float[Tensor, "b f c h w"]) -> Float[Tensor, "b f k s s"]:
        """A segmenter's scores, at the size s that it was trained on, to which pictures are stretched."""
        assert self._segmenter is not None
        side, dtype = self._segmenter.config.size, next(self._segmenter.parameters()).dtype
        grey = video.flatten(0, 1).mean(1, keepdim=True)
        if grey.shape[-2:] != (side, side):
            grey = F.interpolate(grey, (side, side), mode="bilinear", antialias=True)
        return self._segmenter(grey.to(dtype)).float().unflatten(0, video.shape[:2])
