"""Detail for decoded frames as they come: from a given first picture, or from the first frame with speckle added."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d

from echopulse.models.detail import DetailNetwork

_AT_ONCE = 64
"""Frames in one pass, which bounds the memory."""

_HOLD = 2.0
"""Weight of a frame's own motion beside that of each neighbour."""

_FRESH = 0.25
"""Share of the noise of a frame alone that is used beside a known picture: frames from drawn codes change enough by
themselves. With all, still tissue of clips from a picture changed 1.18 times as much as real tissue; the spectrum
hardly needs it."""

_WINDOW = 5
_BLACK, _LIT = 2 / 255, 6 / 255
"""A pixel is black where the mean of the `_WINDOW` × `_WINDOW` around it is below the first, and untouched from the
second on. Around the sector, where nothing echoes, decoder and speckle leave a grey level or two; walls in shadow are
brighter."""


class DetailStream:
    """Adds detail to several clips of one length, piece by piece; memory does not grow with their length.

    Args:
        network: carries detail and draws speckle.
        seeds: of the speckle, one a clip.
        known: a picture of each clip whose detail is known, and the same as decoded, (b, 1, h, w) each; else the first
            frame gets speckle and is the known picture of those that follow.
        share: of the detail; 0 leaves frames as decoded, but for the ground around the sector.
    """

    def __init__(
        self,
        network: DetailNetwork,
        seeds: Sequence[int],
        known: tuple[Tensor, Tensor] | None = None,
        share: float = 1.0,
    ) -> None:
        self._network, self._share = network, share
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._known = None if known is None else (known[0].float(), known[1].float())
        self._material: Tensor | None = None
        self._before: Tensor | None = None  # motion in the last frame so far

    def __call__(self, pixels: Float[Tensor, "b f c h w"]) -> Float[Tensor, "b f 1 h w"]:
        """The next decoded frames with their detail; grey levels from 0, a little beyond 1 where speckle is bright.

        Raises:
            InputError: sides that the network cannot take.
        """
        self._network.config.check_size(*pixels.shape[-2:])
        grey = pixels.float().mean(2, keepdim=True)
        if self._known is None:
            first = self._drawn(grey[:, :1])
            self._known = (first[:, 0].clamp(0, 1), grey[:, 0])
            made = torch.cat([first, self._carried(grey[:, 1:], self._known)], dim=1)
        else:
            made = self._carried(grey, self._known)
        return _with_black_ground(grey + self._share * (made - grey))

    def _drawn(self, grey: Float[Tensor, "b 1 1 h w"]) -> Float[Tensor, "b 1 1 h w"]:
        """A picture of each clip with speckle, of which nothing is known, `_AT_ONCE` in each pass."""
        made = []
        for decoded, fixed, free in _parts(grey, self._noise(grey), self._noise(grey)):
            there = torch.zeros(len(decoded), dtype=torch.bool)
            made.append(self._network(decoded, decoded, decoded, there, fixed[None], free[None])[1][0])
        return torch.cat(made)[:, None]

    def _carried(self, grey: Float[Tensor, "b f 1 h w"], known: tuple[Tensor, Tensor]) -> Float[Tensor, "b f 1 h w"]:
        """All frames from the known picture, `_AT_ONCE` in each pass.

        Their speckle has noise of its own: with that of a drawn known picture, what is new in a pixel would add up with
        what is carried there, where the network takes them to be independent.
        """
        b, f = grey.shape[:2]
        if f == 0:
            return grey
        if self._material is None:
            self._material = self._noise(grey[:, :1])[:, 0]
        picture, coded, material = (x[:, None].expand(-1, f, -1, -1, -1) for x in (*known, self._material))
        motion = torch.cat([self._network.estimate(*part) for part in _parts(grey, picture, coded)])
        motion = self._steadied(motion.unflatten(0, (b, f)))
        fresh, made = _FRESH * self._noise(grey), []
        for moves, decoded, known_picture, fixed, free in _parts(motion, grey, picture, material, fresh):
            there = torch.ones(len(decoded), dtype=torch.bool)
            made.append(self._network.compose(moves, decoded, known_picture, there, fixed[None], free[None])[1][0])
        return torch.cat(made).unflatten(0, (b, f))

    def _steadied(self, motion: Float[Tensor, "b f m gh gw"]) -> Float[Tensor, "b f m gh gw"]:
        """The weighted mean with the frames before and after, for codes drawn at random tremble.

        The last frame of a piece stands in for the one after it.
        """
        before = motion[:, :1] if self._before is None else self._before
        self._before = motion[:, -1:]
        padded = torch.cat([before, motion, motion[:, -1:]], dim=1)
        return (padded[:, :-2] + _HOLD * padded[:, 1:-1] + padded[:, 2:]) / (2 + _HOLD)

    def _noise(self, grey: Tensor) -> Tensor:
        """(b, f, k, h, w), of each clip from its own source."""
        f, height, width = grey.shape[1], *grey.shape[-2:]
        return torch.stack([self._network.draw_noise(f, height, width, source) for source in self._generators])


def _with_black_ground(pixels: Float[Tensor, "b f 1 h w"]) -> Float[Tensor, "b f 1 h w"]:
    """Nothing where next to nothing was: true clips are black around the sector."""
    pixels = pixels.clamp(min=0)
    around = avg_pool2d(pixels.flatten(0, 1), _WINDOW, 1, _WINDOW // 2, count_include_pad=False)
    return pixels * ((around.view_as(pixels) - _BLACK) / (_LIT - _BLACK)).clamp(0, 1)


def _parts(*columns: Float[Tensor, "b f ..."]) -> Iterator[tuple[Tensor, ...]]:
    """Clips and frames along one axis, `_AT_ONCE` in each pass."""
    return zip(*(x.flatten(0, 1).split(_AT_ONCE) for x in columns), strict=True)
