"""Where the ultrasound picture is: the sector among text, scales and traces, and what else is inside it."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from echopulse.io.ultrasound.source import Region

_MOVES = 10
_LIT = 10
_TISSUE = (1, 2)


@dataclass(frozen=True, eq=False)
class Sector:
    """The part of the picture that shows the heart.

    Attributes:
        mask: bool of shape (height, width): inside the convex outline of the sector.
        crop: top, left, height and width of the box around it.
        color_doppler: whether it holds colors of flow.
        graphics: number of pixels in it that look like text or drawings.
        found: False where no sector stood out and the whole picture was taken.
    """

    mask: np.ndarray
    crop: tuple[int, int, int, int]
    color_doppler: bool
    graphics: int
    found: bool


def find_sector(pictures: np.ndarray, regions: list[Region]) -> Sector:
    """Finds the sector: the largest area that moves, or that has texture in a still.

    Boxes of tissue in the sequence of ultrasound regions bound the search; they are never the answer,
    since scanners put text and traces inside them.

    Args:
        pictures: uint8 RGB of shape (pictures, height, width, 3), spread over the recording.
        regions: what the file says.

    Returns:
        The sector.
    """
    luma = pictures.max(axis=3)
    high, low = luma.max(axis=0), luma.min(axis=0)
    motion = high - low
    allowed = np.zeros(high.shape, dtype=bool)
    boxes = [region for region in regions if region.spatial_format == 1 and region.data_type in _TISSUE]
    for box in boxes:
        allowed[box.top : box.bottom, box.left : box.right] = True
    if not boxes:
        allowed[:] = True
    mask = _outline((motion > _MOVES) & allowed)
    if mask is None:
        mask = _outline(_textured(high) & allowed)
    found = mask is not None
    if mask is None:
        mask = allowed
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, left = int(rows[0]), int(columns[0])
    crop = (top, left, int(rows[-1]) + 1 - top, int(columns[-1]) + 1 - left)
    flow = any(region.data_type == 2 for region in boxes) or _has_flow(pictures, mask)
    return Sector(mask, crop, flow, _count_graphics(high, motion, mask, len(pictures)), found)


def _textured(picture: np.ndarray) -> np.ndarray:
    """Lit pixels that differ from a neighbor: speckle, but neither plain boxes nor black ground."""
    steps = np.abs(np.diff(picture.astype(np.int16), axis=1, append=0)) > 1
    return (picture > _LIT) & steps


def _outline(active: np.ndarray) -> np.ndarray | None:
    """Convex outline of the largest dense area; None under 2 % of the picture."""
    side = max(5, active.shape[1] // 50) | 1
    dense = ndimage.uniform_filter(active.astype(np.float32), side, mode="constant") > 0.4
    labels = np.empty(dense.shape, dtype=np.int32)
    if ndimage.label(dense, output=labels) == 0:
        return None
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    if sizes.max() < 0.02 * active.size:
        return None
    return _convex_hull(active & (labels == sizes.argmax()))


def _convex_hull(points: np.ndarray) -> np.ndarray:
    from PIL import Image, ImageDraw
    from scipy.spatial import ConvexHull

    rows, columns = np.nonzero(points)
    corners = np.column_stack([columns, rows])
    corners = corners[ConvexHull(corners).vertices]
    image = Image.new("1", (points.shape[1], points.shape[0]))
    ImageDraw.Draw(image).polygon([(int(x), int(y)) for x, y in corners], fill=1, outline=1)
    return np.array(image)


def _has_flow(pictures: np.ndarray, mask: np.ndarray) -> bool:
    """Saturated colors in a picture that is otherwise grey; a tinted map colors everything."""
    inside = pictures[:, mask].astype(np.int16)
    bright = inside.max(axis=2)
    saturation = bright - inside.min(axis=2)
    lit = max(1, int((bright > 30).sum()))
    vivid = int((saturation > 70).sum()) / lit
    return bool(vivid > 0.01 and (saturation[bright > 30] < 30).mean() > 0.3)


def _count_graphics(high: np.ndarray, motion: np.ndarray, mask: np.ndarray, count: int) -> int:
    """Pixels with the hard edges of text and lines which, in a clip, do not move."""
    inner = np.asarray(ndimage.binary_erosion(mask, iterations=4), dtype=bool)
    hard = high.astype(np.int16) - ndimage.minimum_filter(high, 5) > 130
    drawn = hard & inner & (high > (170 if count > 2 else 235))
    return int((drawn & (motion <= 12)).sum() if count > 2 else drawn.sum())
