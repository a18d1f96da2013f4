"""The shipped network on patients it never saw, every rule of quality control, the other backends."""

from pathlib import Path

import numpy as np
import pytest

from echopulse.axes import MASK_CLASSES
from echopulse.errors import InputError
from echopulse.evaluation.segmentation import SHIPPED_SEGMENTER, quality, segment_clip
from echopulse.phantom import sample_patient, simulate_clip
from echopulse.signals import PairedClip
from echopulse.signals.ventricle import find_beats, lv_curve

LV, MYOCARDIUM = MASK_CLASSES.index("lv_cavity"), MASK_CLASSES.index("lv_myocardium")


@pytest.fixture(scope="module")
def patients() -> list[PairedClip]:
    return [
        simulate_clip(sample_patient(1_000_200 + i, view=view, rhythm="sinus"), seconds=1.6)
        for i, view in enumerate(("a4c", "a2c"))
    ]


def dice(found: np.ndarray, truth: np.ndarray, label: int) -> float:
    a, b = found == label, truth == label
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def test_the_shipped_network_is_small() -> None:
    assert (SHIPPED_SEGMENTER / "model.safetensors").stat().st_size <= 3_000_000


def test_shipped_network_on_patients_it_never_saw(patients: list[PairedClip]) -> None:
    for paired in patients:
        assert paired.masks is not None
        found = segment_clip(paired.clip.frames)
        assert found.dtype == np.uint8 and found.shape == paired.masks.shape
        assert dice(found, paired.masks, LV) > 0.93 and dice(found, paired.masks, MYOCARDIUM) > 0.85
        assert quality(found).accepted, quality(found).reasons
        beats = find_beats(lv_curve(found), paired.clip.frame_times_s)
        assert beats.ef_percent == pytest.approx(paired.truth["ef_percent"], abs=5)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (112, 112), (96, 144), (200, 160)])
def test_any_size_and_aspect(patients: list[PairedClip], height: int, width: int) -> None:
    frames, masks = patients[0].clip.frames[:4], patients[0].masks
    assert masks is not None
    side = min(height, width)
    rows, columns = (np.arange(side) * 128) // side, (np.arange(side) * 128) // side
    top, left = (height - side) // 2, (width - side) // 2
    small, truth = np.zeros((4, height, width), np.uint8), np.zeros((4, height, width), np.uint8)
    small[:, top : top + side, left : left + side] = frames[:, rows][:, :, columns]
    truth[:, top : top + side, left : left + side] = masks[:4, rows][:, :, columns]
    found = segment_clip(small)
    assert found.shape == small.shape and dice(found, truth, LV) > 0.9


def test_frames_do_not_depend_on_their_neighbours(patients: list[PairedClip]) -> None:
    frames = patients[0].clip.frames[:7]
    assert (segment_clip(frames)[3:6] == segment_clip(frames[3:6])).mean() > 0.999


def test_black_pictures_have_no_heart_or_are_rejected() -> None:
    assert not quality(segment_clip(np.zeros((3, 64, 64), np.uint8))).accepted


# quality control


def disk(radius: float, row: float = 64, column: float = 64) -> np.ndarray:
    y, x = np.mgrid[:128, :128]
    return np.where((y - row) ** 2 + (x - column) ** 2 <= radius**2, LV, 0).astype(np.uint8)


def test_a_steady_cavity_is_accepted() -> None:
    verdict = quality(np.stack([disk(20), disk(19), disk(18)]))
    assert verdict.accepted and verdict.reasons == ()
    assert verdict.present == verdict.one_component == 1 and verdict.border_share == 0
    assert verdict.area_share[1] == pytest.approx(np.pi * 400 / 128**2, rel=0.01)
    assert verdict.overlap == pytest.approx((18 / 19) ** 2, abs=0.02)


@pytest.mark.parametrize(
    ("masks", "reason"),
    [
        ([disk(20), disk(0, -9), disk(20)], "no cavity in 33%"),
        ([disk(20), np.maximum(disk(12, 40), disk(12, 90))], "falls apart: 50%"),
        ([disk(4), disk(4)], "fills 0.3% to 0.3%"),
        ([disk(50), disk(50)], "fills 47.9% to 47.9%"),
        ([disk(20, 10), disk(20, 10)], "touches the picture's border in 100%"),
        ([disk(20, 40), disk(20, 70)], "jumps"),
    ],
)
def test_each_rule_rejects(masks: list[np.ndarray], reason: str) -> None:
    verdict = quality(np.stack(masks))
    assert not verdict.accepted and any(reason in said for said in verdict.reasons), verdict.reasons


def test_no_cavity_at_all_is_one_reason() -> None:
    verdict = quality(np.zeros((3, 32, 32), np.uint8))
    assert not verdict.accepted and "no cavity in 100% of the frames" in verdict.reasons


# backends and bad input


def test_masks_of_the_set_are_handed_through(patients: list[PairedClip]) -> None:
    paired = patients[0]
    assert paired.masks is not None
    assert (segment_clip(paired.clip.frames, "masks", masks=paired.masks) == paired.masks).all()
    for masks in (None, paired.masks[:2], paired.masks.astype(np.int64), np.full_like(paired.masks, 9)):
        with pytest.raises(InputError, match="masks"):
            segment_clip(paired.clip.frames, "masks", masks=masks)


@pytest.mark.parametrize("frames", [np.zeros((2, 8, 8)), np.zeros((8, 8), np.uint8), np.zeros((0, 8, 8), np.uint8)])
def test_frames_of_another_kind_are_refused(frames: np.ndarray) -> None:
    with pytest.raises(InputError, match="expected uint8"):
        segment_clip(frames)


def test_missing_weights_are_refused(tmp_path: Path) -> None:
    frames = np.zeros((1, 32, 32), np.uint8)
    with pytest.raises(InputError, match=r"config\.json: no such file"):
        segment_clip(frames, weights=tmp_path)
    with pytest.raises(InputError, match="needs weights"):
        segment_clip(frames, "sam2")


def test_sam2_tracks_from_the_prompts_of_the_shipped_network(tmp_path: Path, patients: list[PairedClip]) -> None:
    """A tiny random SAM 2 runs the real code path; on the frame of the mask prompt it must answer with the prompt."""
    transformers = pytest.importorskip("transformers", reason="the sam2 backend needs transformers")
    transformers.utils.logging.disable_progress_bar()
    width = 128
    backbone = {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": 8,
        "image_size": [128, 128],
        "blocks_per_stage": [1, 1, 2, 1],
        "embed_dim_per_stage": [8, 16, 32, 64],
        "num_attention_heads_per_stage": [1, 1, 2, 2],
        "window_size_per_stage": [8, 4, 4, 2],
        "global_attention_blocks": [3],
        "window_positional_embedding_background_size": [4, 4],
    }
    vision = {
        "model_type": "sam2_vision_model",
        "backbone_config": backbone,
        "backbone_channel_list": [64, 32, 16, 8],
        "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
        "fpn_hidden_size": width,
    }
    config = transformers.Sam2VideoConfig(
        image_size=128,
        vision_config=vision,
        prompt_encoder_config={"hidden_size": width, "image_size": 128, "mask_input_channels": 8},
        mask_decoder_config={"hidden_size": width, "mlp_dim": 32, "num_attention_heads": 2},
        memory_attention_hidden_size=width,
        memory_attention_num_layers=1,
        memory_attention_feed_forward_hidden_size=32,
        memory_attention_rope_feat_sizes=[8, 8],
        memory_encoder_hidden_size=width,
        memory_encoder_output_channels=64,
        mask_downsampler_embed_dim=width,
        memory_fuser_embed_dim=width,
        memory_fuser_intermediate_dim=32,
    )
    transformers.Sam2VideoModel(config).save_pretrained(tmp_path / "sam2")
    frames = patients[0].clip.frames[:10:2]
    prompts, found = segment_clip(frames), segment_clip(frames, "sam2", weights=tmp_path / "sam2")
    assert found.shape == frames.shape and found.max() < len(MASK_CLASSES)
    largest = int((prompts == LV).sum((1, 2)).argmax())
    assert dice(found[largest], prompts[largest], LV) > 0.9
    others = (found != LV) & (prompts != LV)
    assert (found[others] == prompts[others]).all()
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no SAM 2 video model"):
        segment_clip(frames, "sam2", weights=tmp_path / "empty")
