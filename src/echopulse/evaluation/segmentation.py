"""Heart chambers in every frame: one interface, three backends, and quality control of what they give."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from echopulse.axes import MASK_CLASSES
from echopulse.errors import InputError
from echopulse.signals.ventricle import pieces_of

Backend = Literal["echopulse", "sam2", "masks"]

SHIPPED_SEGMENTER = Path(__file__).parent.parent / "weights" / "segmenter"
"""Folder of the network that comes with the package."""

MIN_PRESENT = 0.98
"""Least share of frames in which the cavity must be found."""

MIN_LARGEST_COMPONENT = 0.9
"""Least share of the cavity that must lie in one piece, in every frame."""

AREA_RANGE = (0.01, 0.4)
"""Smallest and largest believable area of the cavity, as a share of the picture."""

MAX_BORDER_SHARE = 0.1
"""Largest share of frames in which the cavity may run out of the picture."""

MIN_OVERLAP = 0.5
"""Least intersection over union of the cavity in neighbouring frames; a good ejection at 8 frames/s comes near it."""

_BACKGROUND, _LV = MASK_CLASSES.index("background"), MASK_CLASSES.index("lv_cavity")
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class ClipQuality:
    """Can the masks of a clip be measured?

    Attributes:
        accepted: no rule was broken.
        reasons: one short sentence per broken rule; empty when accepted.
        present: share of frames with an LV cavity.
        one_component: smallest share over the frames of the cavity that lies in its largest component.
        area_share: (smallest, largest) cavity area over the frames, as a share of the picture.
        border_share: share of frames whose cavity touches the picture's border.
        overlap: smallest intersection over union of the cavity between neighbouring frames.
    """

    accepted: bool
    reasons: tuple[str, ...]
    present: float
    one_component: float
    area_share: tuple[float, float]
    border_share: float
    overlap: float


def segment_clip(
    frames: np.ndarray,
    backend: Backend = "echopulse",
    *,
    weights: str | Path | None = None,
    masks: np.ndarray | None = None,
) -> np.ndarray:
    """Classes of every pixel of a clip.

    Args:
        frames: uint8 (frames, height, width).
        backend: `echopulse` (the shipped network), `sam2` (through transformers, prompted by the shipped
            network), or `masks` (the truth that a set carries, handed through after a check).
        weights: network folder for `echopulse` (None: the shipped one); local folder or hub id for `sam2`.
        masks: the set's own masks; needed by, and only by, `masks`.

    Returns:
        uint8 (frames, height, width) of `axes.MASK_CLASSES`.

    Raises:
        InputError: frames of another type, missing weights or masks.
    """
    if frames.dtype != np.uint8 or frames.ndim != 3 or 0 in frames.shape:
        raise InputError(
            f"frames to segment are {frames.dtype} of shape {frames.shape}; expected uint8 (frames, height, width)"
        )
    if backend == "masks":
        return _given_masks(frames, masks)
    if backend == "sam2":
        if weights is None:
            raise InputError("the sam2 segmenter needs weights: a local folder or a hub id, facebook/sam2.1-hiera-tiny")
        return _segment_by_sam2(frames, str(weights))
    return _load_network(Path(weights or SHIPPED_SEGMENTER)).label(frames)


def quality(masks: np.ndarray) -> ClipQuality:
    """Quality control of one clip's masks: is the cavity there, in one piece, of a believable size, inside, steady?

    Args:
        masks: uint8 (frames, height, width) of `axes.MASK_CLASSES`.

    Returns:
        The verdict; limits are the constants of this module.
    """
    cavity = masks == _LV
    areas = cavity.sum((1, 2))
    present = float(np.mean(areas > 0))
    shares = [float(pieces_of(frame)[1].max() / area) for frame, area in zip(cavity, areas, strict=True) if area]
    one_component = min(shares, default=0.0)
    edges = cavity[:, [0, -1], :].any((1, 2)) | cavity[:, :, [0, -1]].any((1, 2))
    both, either = (cavity[1:] & cavity[:-1]).sum((1, 2)), (cavity[1:] | cavity[:-1]).sum((1, 2))
    overlap = float(np.min(both / np.maximum(either, 1), initial=1.0))
    low, high = float(areas.min() / cavity[0].size), float(areas.max() / cavity[0].size)
    reasons = []
    if present < MIN_PRESENT:
        reasons.append(f"no cavity in {1 - present:.0%} of the frames")
    if one_component < MIN_LARGEST_COMPONENT:
        reasons.append(f"the cavity falls apart: {one_component:.0%} in its largest piece")
    if present >= MIN_PRESENT and not (AREA_RANGE[0] <= low and high <= AREA_RANGE[1]):
        reasons.append(f"the cavity fills {low:.1%} to {high:.1%} of the picture")
    if edges.mean() > MAX_BORDER_SHARE:
        reasons.append(f"the cavity touches the picture's border in {edges.mean():.0%} of the frames")
    if overlap < MIN_OVERLAP:
        reasons.append(f"the cavity jumps: neighbouring frames overlap by {overlap:.0%}")
    return ClipQuality(not reasons, tuple(reasons), present, one_component, (low, high), float(edges.mean()), overlap)


def _given_masks(frames: np.ndarray, masks: np.ndarray | None) -> np.ndarray:
    if masks is None:
        raise InputError("this clip has no masks; choose another segmenter, or a set with masks")
    if masks.dtype != np.uint8 or masks.shape != frames.shape or masks.max() >= len(MASK_CLASSES):
        raise InputError(
            f"masks are {masks.dtype} of shape {masks.shape}; expected uint8 classes below {len(MASK_CLASSES)} "
            f"of shape {frames.shape}"
        )
    return masks


# the shipped network -------------------------------------------------------------------------------


@lru_cache(maxsize=2)
def _load_network(folder: Path) -> Any:
    from echopulse.models.checkpoints import load_network
    from echopulse.models.segmenter import ChamberSegmenter, SegmenterConfig
    from echopulse.nn.precision import fast_dtype

    return load_network(ChamberSegmenter, SegmenterConfig, folder).to(fast_dtype())


# SAM 2 ------------------------------------------------------------------------------------------------


def _segment_by_sam2(frames: np.ndarray, weights: str) -> np.ndarray:
    """SAM 2 tracks the cavity (Ravi 2024); the other classes stay those of the shipped network.

    Prompts from the shipped network, the same for every set: its mask on the frame of the largest cavity, the box
    around its cavity on the frame of the smallest.
    """
    import torch
    from torch.nn import functional as F

    masks = _load_network(SHIPPED_SEGMENTER).label(frames)
    cavity = masks == _LV
    areas = cavity.sum((1, 2))
    if not areas.any():
        return masks
    largest, smallest = int(np.argmax(areas)), int(np.argmin(np.where(areas > 0, areas, areas.max() + 1)))
    model, new_session = _load_sam2(weights)
    side, (height, width) = model.config.image_size, frames.shape[1:]
    pictures = torch.from_numpy(np.array(frames))[:, None].float() / 255
    pictures = F.interpolate(pictures, size=(side, side), mode="bilinear", antialias=True)
    pictures = (pictures - torch.tensor(_IMAGENET_MEAN).view(3, 1, 1)) / torch.tensor(_IMAGENET_STD).view(3, 1, 1)
    session = new_session(video=pictures, video_height=height, video_width=width, dtype=torch.float32)
    lv = session.obj_id_to_idx(1)
    prompt = torch.from_numpy(cavity[largest])[None, None].float()
    prompt = F.interpolate(prompt, size=(side, side), mode="bilinear", antialias=True)
    rows, columns = np.flatnonzero(cavity[smallest].any(1)), np.flatnonzero(cavity[smallest].any(0))
    corners = torch.tensor([[columns[0], rows[0]], [columns[-1] + 1, rows[-1] + 1]]) * side
    corners = corners / torch.tensor([width, height])
    with torch.inference_mode():
        session.add_mask_inputs(lv, largest, (prompt >= 0.5).float())
        session.obj_with_new_inputs = [1]
        model(inference_session=session, frame_idx=largest)
        if smallest != largest:
            labels = torch.tensor([[[2, 3]]], dtype=torch.int32)  # SAM's marks of a box's two corners
            session.add_point_inputs(lv, smallest, {"point_coords": corners[None, None], "point_labels": labels})
            session.obj_with_new_inputs = [1]
            model(inference_session=session, frame_idx=smallest)
        for reverse in (False, True):
            for output in model.propagate_in_video_iterator(session, start_frame_idx=largest, reverse=reverse):
                score = F.interpolate(output.pred_masks.float(), size=(height, width), mode="bilinear")
                frame, found = masks[output.frame_idx], score[0, 0].numpy() > 0
                frame[(frame == _LV) & ~found] = _BACKGROUND
                frame[found] = _LV
    return masks


@lru_cache(maxsize=1)
def _load_sam2(weights: str) -> tuple[Any, Any]:
    try:
        from transformers import Sam2VideoModel
        from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession
    except ImportError as error:
        raise InputError('the sam2 segmenter needs transformers: pip install "echopulse[eval]"') from error
    try:
        model = Sam2VideoModel.from_pretrained(weights, local_files_only=Path(weights).exists(), use_safetensors=True)
    except (OSError, ValueError) as error:
        raise InputError(f"{weights}: no SAM 2 video model there or on the hub ({error})") from error
    return model.eval(), Sam2VideoInferenceSession
