"""Batches and the token cache: a function of (seed, step, rank), made of what the sets hold."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from echopulse.errors import InputError
from echopulse.models.presets import PRESETS, generator_config, tokenizer_config
from echopulse.models.tokenizer import VideoTokenizer
from echopulse.models.video_transformer import EcgWindow
from echopulse.nn.precision import fast_dtype
from echopulse.training import token_cache
from echopulse.training.data import ClipPool, batch_rng, sample_videos
from echopulse.training.generator import GeneratorTask
from echopulse.training.recipes import generator_recipe, tokenizer_recipe
from echopulse.training.token_cache import CachedClip, build_token_cache
from echopulse.training.tokenizer import TokenizerTask


def _flat(batch: Any) -> list[torch.Tensor]:
    if isinstance(batch, torch.Tensor):
        return [batch]
    return [leaf for part in batch if part is not None for leaf in _flat(part)]


@pytest.mark.parametrize("stage", ["tokenizer", "generator"])
def test_batch_follows_from_step_and_rank(make_task: Callable[[str], Any], stage: str) -> None:
    one, two = make_task(stage), make_task(stage)
    two.batch(7, 0)  # what was drawn before has no influence
    base = _flat(one.batch(3, 0))
    for again in (_flat(two.batch(3, 0)), _flat(one.batch(3, 0))):
        assert all(torch.equal(x.nan_to_num(9), y.nan_to_num(9)) for x, y in zip(base, again, strict=True))
    for step, rank in ((4, 0), (3, 1)):
        other = _flat(one.batch(step, rank))
        assert not all(torch.equal(x.nan_to_num(9), y.nan_to_num(9)) for x, y in zip(base, other, strict=True))


def test_videos_are_pieces_of_the_set(prepared: Path) -> None:
    videos = sample_videos(ClipPool([prepared], 11), batch_rng(0, 0, 0), 6, 11, 128)
    assert videos.shape == (6, 11, 1, 128, 128) and videos.dtype == torch.float32
    assert 0 <= videos.min() < videos.max() <= 1 and videos.std() > 0.05
    assert not torch.equal(videos[:, 0], videos[:, 1])


def test_clips_that_are_too_short_are_left_out(prepared: Path) -> None:
    assert len(ClipPool([prepared], 23)) == 4
    with pytest.raises(InputError, match=r"no clip of 24 frames or more in .*echopulse simulate"):
        ClipPool([prepared], 24)


def test_frames_of_another_size_are_refused(prepared: Path) -> None:
    task = TokenizerTask(tokenizer_config("tiny"), [prepared], batch=1, frames=3, size=64)
    with pytest.raises(InputError, match="frames of 128x128; expected 64x64"):
        task.batch(0, 0)


@pytest.mark.parametrize("change", [dict(frames=4), dict(size=100)])
def test_tokenizer_task_refuses_unfit_shapes(prepared: Path, change: dict[str, int]) -> None:
    with pytest.raises(InputError):
        TokenizerTask(tokenizer_config("tiny"), [prepared], batch=1, **change)


def test_cache_holds_the_codes_of_the_clips(
    prepared: Path, clips: list[CachedClip], frozen_tokenizer: VideoTokenizer
) -> None:
    pool, tokenizer = ClipPool([prepared], 7), copy.deepcopy(frozen_tokenizer).to(fast_dtype())
    assert len(clips) == 4
    for clip, (part, i) in zip(clips, pool.entries, strict=True):
        video = torch.from_numpy(np.array(part.frames(i)))[None, :, None].to(fast_dtype()) / 255
        with torch.inference_mode():
            assert np.mean(clip.codes == tokenizer.encode(video)[0].numpy()) > 0.999
            alone = tokenizer.encode(video[0, ::6, None])[:, 0].numpy()
        assert clip.pictures.shape == alone.shape and np.mean(clip.pictures == alone) > 0.999
        line = part.line(i)
        assert clip.ef == pytest.approx(line["truth"]["ef_percent"] / 100) and clip.fps == 25
        assert ("a4c", "a2c")[clip.view] == line["view"]
        assert clip.track.start_s == pytest.approx(-2) and clip.track.lead_ids.tolist() == list(range(12))
        beats = np.array(line["truth"]["r_times_s"])
        if beats.size:
            # a pacing spike comes 60 ms before its R peak, and the detector may take it
            allowed = 0.07 if line["truth"]["rhythm"] == "paced" else 0.05
            assert np.abs(beats[:, None] - clip.track.r_times_s).min(axis=1).max() < allowed


def test_cache_is_made_once_and_again_for_another_tokenizer(
    prepared: Path, frozen_tokenizer: VideoTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, write = [], token_cache._write

    def count(*args: Any) -> None:
        made.append(1)
        write(*args)

    monkeypatch.setattr(token_cache, "_write", count)
    first = build_token_cache(tmp_path, [prepared], frozen_tokenizer, 7)
    again = build_token_cache(tmp_path, [prepared], frozen_tokenizer, 7)
    assert len(made) == 1
    assert all(np.array_equal(x.codes, y.codes) for x, y in zip(first, again, strict=True))
    torch.manual_seed(99)
    build_token_cache(tmp_path, [prepared], VideoTokenizer(tokenizer_config("tiny")).eval(), 7)
    assert len(made) == 2


def test_generator_batches_hide_and_give_what_they_say(make_task: Callable[[str], Any]) -> None:
    task, uses = make_task("generator"), set()
    for step in range(0, 60, 2):
        batch = task.batch(step, 0)
        assert torch.equal(batch.known, ~batch.hidden)
        assert batch.hidden.flatten(1).any(1).all(), "every window has something to predict"
        for row in range(2):
            given = [bool((~batch.hidden[row, slot]).all()) for slot in range(4)]
            uses.add(tuple(given))
            if all(given[:3]):
                same = (batch.seen[row, :3] == batch.codes[row, :3]).float().mean()
                assert same > 0.75, "what is given is corrupted a little"
        window = batch.conditions.ecg
        assert window.present.any(1).all()
        assert not window.ecg[~window.present].any()
        assert torch.isfinite(window.ecg).all() and batch.conditions.frame_times_s.abs().max() <= 1.5
        ef = batch.conditions.ef
        assert (ef.isnan() | ((ef > 0.1) & (ef < 0.8))).all()
    assert (True, True, True, False) in uses and any(not use[0] for use in uses)


def test_every_other_batch_is_of_pictures_as_clips_that_begin_there_have_them(make_task: Callable[[str], Any]) -> None:
    task, found = make_task("generator"), set()
    for step in range(1, 21, 2):
        batch = task.batch(step, 0)
        assert batch.codes.shape == (4, 1, 8, 8), "twice as many, without the other slots"
        assert torch.equal(batch.seen, batch.codes) and torch.equal(batch.known, ~batch.hidden)
        assert batch.hidden.flatten(1).any(1).all()
        torch.testing.assert_close(batch.conditions.first_gap_s, torch.full((4,), 0.04))
        torch.testing.assert_close(batch.conditions.frame_times_s, torch.full((4, 1, 2), -0.14))
        for codes, contraction in zip(batch.codes, batch.contraction, strict=True):
            places = [(c, i) for c in task.clips for i, x in enumerate(c.pictures) if np.array_equal(x, codes[0])]
            assert places
            found.update(i for _, i in places)
            assert any(contraction[0, 0] == c.contraction[6 * i] for c, i in places)
    assert len(found) > 1


def test_generator_loss_falls_on_its_own_batch(make_task: Callable[[str], Any]) -> None:
    task = make_task("generator")
    batch = task.batch(0, 0)
    optimizer = torch.optim.Adam(task.model.parameters(), lr=3e-3)
    losses = []
    for step in range(25):
        loss, _ = task.losses(task.model, batch, step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[0] == pytest.approx(np.log(64), abs=1.0), "an untrained model knows nothing"
    assert losses[-1] < 0.85 * losses[0]


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_has_both_recipes(preset: str) -> None:
    assert tokenizer_recipe(preset).steps > 0 and generator_recipe(preset).steps > 0


def test_paper_recipe_is_the_papers() -> None:
    recipe = generator_recipe("paper")
    assert (recipe.steps, recipe.batch, recipe.learning_rate) == (4_000_000, 128, 1e-4)
    assert (recipe.beta1, recipe.beta2, recipe.ema_every, recipe.ema_decay) == (0.9, 0.99, 10, 0.995)


@pytest.mark.parametrize("recipe", [tokenizer_recipe, generator_recipe])
def test_unknown_recipe_is_refused(recipe: Callable[[str], Any]) -> None:
    with pytest.raises(InputError, match="no recipe for preset 'huge'"):
        recipe("huge")


def test_windows_need_long_enough_clips(clips: list[CachedClip], frozen_tokenizer: VideoTokenizer) -> None:
    task = GeneratorTask(replace(generator_config("tiny"), slots=12), clips, frozen_tokenizer, batch=2)
    assert len(task.clips) == 4 and task.batch(0, 0).codes.shape == (2, 12, 8, 8)


def test_ecg_mask_hides_leads_and_spans(clips: list[CachedClip], frozen_tokenizer: VideoTokenizer) -> None:
    full, gaps = {}, {}
    for mask in (True, False):
        task = GeneratorTask(generator_config("tiny"), clips, frozen_tokenizer, batch=32, ecg_mask=mask)
        ecg = task.batch(0, 0).conditions.ecg
        assert isinstance(ecg, EcgWindow)
        full[mask] = ecg.present.all(1).float().mean()
        silent = (ecg.ecg == 0).all(1).float().mean(1)  # share of the samples where no lead holds anything
        gaps[mask] = (silent > 0.02).float().mean()
    assert full[False] == 1 and full[True] < 0.8
    assert gaps[True] > gaps[False] + 0.1
