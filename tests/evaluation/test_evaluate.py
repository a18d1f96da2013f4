"""The whole way on small phantom sets: true masks stand for the segmenter, so no network decides the result."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from echopulse.cli.main import main
from echopulse.errors import InputError
from echopulse.evaluation.evaluate import EvaluationSettings, evaluate
from echopulse.evaluation.features import Extractor, evenly_spaced, resize
from echopulse.evaluation.report import write_report
from echopulse.io.sets import PreparedSet, write_manifest, write_set_clip
from echopulse.phantom import sample_patient, simulate_clip
from echopulse.signals import PairedClip

SETTINGS = EvaluationSettings(networks=("echo",), segmenter="masks", draws=100, workers=1)


def _cheap_extractors(names: tuple[str, ...], places: tuple[str, ...] = ()) -> tuple[list[Extractor], dict[str, str]]:
    """Small grey pictures as features: fast, and no network decides what these tests find."""
    assert names == ("echo",)

    def small(frames: np.ndarray) -> np.ndarray:
        return resize(frames[evenly_spaced(len(frames))], 6, 6).flatten(1).numpy()

    def moving(frames: np.ndarray) -> np.ndarray:
        pictures = resize(frames, 6, 6).flatten(1).numpy()
        return np.concatenate([pictures.mean(0), pictures.std(0)])[None]

    return [
        Extractor("echo_image", "FD-small (frames)", "image", "0" * 64, "6x6 pixels", 1, False, small),
        Extractor("echo_video", "FD-small (video)", "video", "0" * 64, "6x6 pixels", 3, False, moving),
    ], {}


@pytest.fixture(scope="module", autouse=True)
def _cheap() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("echopulse.evaluation.evaluate.load_extractors", _cheap_extractors)
        yield


@pytest.fixture(scope="module")
def phantoms() -> list[PairedClip]:
    patients = [sample_patient(500_000 + i, view="a4c", rhythm="sinus", heart_rate_bpm=60 + 7 * i) for i in range(6)]
    return [simulate_clip(patient, fps=20, seconds=2.0, size=(64, 64)) for patient in patients]


def _write(folder: Path, clips: list[PairedClip], **changes: Any) -> Path:
    write_manifest(folder, [{**write_set_clip(folder, clip, source="phantom"), **changes} for clip in clips])
    return folder


def _with_frames(clip: PairedClip, change: Callable[[np.ndarray], np.ndarray], masks: bool = True) -> PairedClip:
    frames = replace(clip.clip, frames=change(np.array(clip.clip.frames)))
    return replace(clip, clip=frames, masks=change(np.array(clip.masks)) if masks else clip.masks)


def _noisy(frames: np.ndarray) -> np.ndarray:
    return np.clip(frames + np.random.default_rng(0).normal(0, 8, frames.shape), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def sets(phantoms: list[PairedClip], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("sets")
    return {
        "reference": _write(root / "reference", phantoms),
        "oracle": _write(root / "oracle", [_with_frames(clip, _noisy, masks=False) for clip in phantoms]),
        "frozen": _write(
            root / "frozen", [_with_frames(clip, lambda f: np.repeat(f[:1], len(f), axis=0)) for clip in phantoms]
        ),
    }


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def oracle(sets: dict[str, Path], cache: Path):
    settings = replace(SETTINGS, paper_scripts=True)
    return evaluate(sets["reference"], [sets["oracle"]], settings, cache, train=sets["reference"])


def test_layout_of_the_metrics(oracle):
    metrics = oracle.metrics
    assert {"value", "floor", "ci95", "protocol"} <= set(metrics["frechet_image"]) & set(metrics["frechet_video"])
    assert {"mse", "mae", "psnr", "ssim", "lpips"} <= set(metrics["pixel"])
    assert {"mae", "rmse", "r2", "bias", "n", "segmenter_mae", "irreducible_mae"} <= set(metrics["ef"])
    assert {"median_abs", "bias", "p90_abs"} <= set(metrics["synchrony"]["ed_ms"])
    assert {"matched_beats", "missed_beats", "extra_beats"} <= set(metrics["synchrony"])
    assert metrics["counts"] == {"reference": 6, "generated": 6, "matched": 6}
    json.dumps(metrics, allow_nan=False)


def test_the_oracle_follows_its_ecg_and_another_ecg_does_not_fit(oracle):
    metrics = oracle.metrics
    other = metrics["controls"]["another ECG"]["synchrony"]
    assert metrics["synchrony"]["ed_ms"]["median_abs"] < 50 < other["ed_ms"]["median_abs"]
    assert metrics["synchrony"]["matched_beats"] > 3 * metrics["synchrony"]["missed_beats"]
    assert metrics["ef"]["mae"] < 4
    assert metrics["ef"]["irreducible_mae"] > 0


def test_a_frozen_set_is_worse_where_it_counts(oracle, sets, cache):
    frozen = evaluate(sets["reference"], [sets["frozen"]], SETTINGS, cache).metrics
    assert frozen["pixel"]["ssim"] > 0.3  # pixels alone do not condemn it
    assert frozen["ef"]["mae"] > 10 * oracle.metrics["ef"]["mae"]
    assert frozen["synchrony"]["matched_beats"] == 0
    assert frozen["frechet_video"]["value"] > oracle.metrics["frechet_video"]["value"]
    assert frozen["pixel"]["mse"] == pytest.approx(frozen["pixel"]["frozen"]["mse"])


def test_weights_that_are_absent_give_null_with_a_reason(oracle):
    assert oracle.metrics["pixel"]["lpips"] is None
    assert "vgg16" in oracle.metrics["reasons"]["pixel.lpips"]


def test_copies_are_found(oracle, sets, cache):
    metrics = evaluate(sets["reference"], [sets["reference"]], SETTINGS, cache).metrics
    assert metrics["frechet_video"]["value"] == pytest.approx(0, abs=1e-6)
    assert metrics["privacy"]["identical_clips"] == 6
    assert any("compared with itself" in warning for warning in metrics["warnings"])
    assert oracle.metrics["privacy"]["training"]["clips"] == 6


def test_seeds_are_pooled_and_never_chosen(oracle, sets, cache):
    both = evaluate(sets["reference"], [sets["oracle"], sets["frozen"]], SETTINGS, cache).metrics
    assert both["counts"]["generated"] == 12
    assert both["frechet_video"]["protocol"]["seeds"] == 2
    assert both["ef"]["mae"] > oracle.metrics["ef"]["mae"]


def test_a_second_run_reads_what_was_kept(oracle, sets, cache, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr("echopulse.evaluation.reading.segment_clip", refuse)
    monkeypatch.setattr("echopulse.evaluation.reading.thumbnail", refuse)
    again = evaluate(
        sets["reference"], [sets["oracle"]], replace(SETTINGS, paper_scripts=True), cache, train=sets["reference"]
    )
    assert again.metrics == oracle.metrics


def test_a_damaged_cache_file_is_made_again(sets, oracle, tmp_path):
    first = evaluate(sets["reference"], [sets["oracle"]], SETTINGS, tmp_path).metrics
    for file in tmp_path.rglob("*.npz"):
        file.write_bytes(b"broken")
    assert evaluate(sets["reference"], [sets["oracle"]], SETTINGS, tmp_path).metrics == first


def test_shifted_ecg_sets_give_a_slope(phantoms, sets, cache, tmp_path):
    shifted = []
    for shift in (-2, 2, 4):
        lines = []
        for clip in phantoms:
            moved = _with_frames(clip, lambda f, s=shift: np.roll(f, s, axis=0))
            line = write_set_clip(tmp_path / f"shift{shift}", moved, source="phantom")
            lines.append({**line, "provenance": {"ecg_shift_s": shift / 20}})
        write_manifest(tmp_path / f"shift{shift}", lines)
        shifted.append(tmp_path / f"shift{shift}")
    found = evaluate(sets["reference"], [sets["oracle"]], SETTINGS, cache, controls=shifted).metrics["shift"]
    assert found["n"] == 18
    assert found["slope"] == pytest.approx(1, abs=0.2)


def test_sets_that_do_not_match(phantoms, sets, cache, tmp_path):
    strangers = _write(
        tmp_path / "strangers", [replace(clip, id=f"x{i}", subject=f"x{i}") for i, clip in enumerate(phantoms[:3])]
    )
    metrics = evaluate(sets["reference"], [strangers], SETTINGS, cache).metrics
    assert metrics["pixel"] is None and metrics["ef"] is None
    assert "id" in metrics["reasons"]["ef"]
    assert metrics["synchrony"] is not None and metrics["frechet_image"] is not None


def test_other_sizes_and_rates_leave_the_rest(phantoms, sets, cache, tmp_path):
    slow = [
        replace(clip, clip=replace(clip.clip, frames=clip.clip.frames[:, :48, :48], fps=10), masks=None)
        for clip in phantoms
    ]
    metrics = evaluate(sets["reference"], [_write(tmp_path / "slow", slow)], SETTINGS, cache).metrics
    assert "64x64" in metrics["reasons"]["pixel"] and "48x48" in metrics["reasons"]["pixel"]
    assert metrics["frechet_video"] is None and "frame rates differ" in metrics["reasons"]["frechet_video"]
    assert metrics["frechet_image"] is not None
    assert "masks" in metrics["reasons"]["ef"]


def test_one_clip_has_no_distance(phantoms, cache, tmp_path):
    one = _write(tmp_path / "one", phantoms[:1])
    metrics = evaluate(one, [one], SETTINGS, cache).metrics
    assert metrics["frechet_image"] is None and metrics["privacy"] is None
    assert metrics["pixel"]["ssim"] == pytest.approx(1)


def test_an_unreadable_clip_is_named_and_left_out(phantoms, sets, cache, tmp_path):
    broken = _write(tmp_path / "broken", phantoms)
    next((broken / "clips").glob("*[0-9].npy")).write_bytes(b"no array")
    metrics = evaluate(sets["reference"], [broken], SETTINGS, cache).metrics
    assert metrics["counts"]["generated"] == 5
    assert len(metrics["unreadable"]) == 1 and "phantom-" in metrics["unreadable"][0]


def test_nothing_readable_is_one_clear_line(phantoms, sets, cache, tmp_path):
    broken = _write(tmp_path / "broken", phantoms[:2])
    for file in (broken / "clips").glob("*.npy"):
        file.write_bytes(b"no array")
    with pytest.raises(InputError, match="no clip of the generated set can be read"):
        evaluate(sets["reference"], [broken], SETTINGS, cache)


def test_report_is_whole_and_needs_no_network(oracle, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    write_report(oracle, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/webp;base64,") == 3
    assert page.count("data:image/svg+xml;base64,") == 3
    assert "http://" not in page and "https://" not in page and "<script" not in page
    for text in ("End-systole from T end", "frozen frame", "another ECG", "segmenter&#x27;s own EF error", "$"):
        assert (text in page) == (text != "$")


def test_report_of_nothing_still_opens(phantoms, cache, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    bare = [replace(phantoms[0], masks=None)]
    evaluation = evaluate(
        _write(tmp_path / "a", bare), [_write(tmp_path / "b", [replace(bare[0], id="x", subject="x")])], SETTINGS, cache
    )
    write_report(evaluation, tmp_path / "report.html")
    assert "No values to draw" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_command_line(sets, cache, tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    arguments = ["--reference", str(sets["reference"]), "--generated", str(sets["oracle"]), "-o", str(tmp_path / "out")]
    options = ["--segmenter", "masks", "--networks", "echo", "--draws", "100", "--cache", str(cache), "--workers", "1"]
    main(["evaluate", *arguments, *options])
    assert "6 reference clips, 6 generated, 6 matched" in capsys.readouterr().out
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["counts"]["matched"] == len(PreparedSet(sets["reference"]))
    assert (tmp_path / "out" / "report.html").is_file()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (["--reference", "nowhere"], "no such folder"),
        (["--draws", "3"], "--draws"),
        (["-o", "no/such/out"], "no such folder"),
    ],
)
def test_mistakes_are_one_line(change, says, sets, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = {"--reference": str(sets["reference"]), "--generated": str(sets["oracle"]), "-o": "out"}
    arguments |= dict([change])
    with pytest.raises(SystemExit) as exit_:
        main(["evaluate", *(part for pair in arguments.items() for part in pair), "--segmenter", "masks"])
    assert exit_.value.code == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1
    assert not (tmp_path / "out" / "metrics.json").exists()
