"""How good are generated clips? EF, timing, pixels, controls, the EF knob and long videos on held-out phantom patients.

    python benchmarks/generation_quality.py DIR [--checkpoint compact] [--patients 200] [--knob 50] [--long 50]
                                            [--real ECG_FOLDER] [--part main controls knob long distances real]
                                            [--arms ecg+image ecg] [--views a4c a2c]
                                            [--montage PICTURE.png]

Patients have seeds from 1,000,000 on (A4C) and from 2,000,000 on (A2C), never trained on; the views are measured apart.
Sets are written to DIR and kept: a run that was cut off goes on, and a second one only measures. Every value is that
of `echopulse evaluate`; intervals are in `metrics-*.json` beside the sets. The last line is JSON.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from phantom_realism import radial_spectrum, tissue
from PIL import Image

from echopulse.cli.measure import measure
from echopulse.cli.reconstruct import round_trip
from echopulse.cli.simulate import simulate_set
from echopulse.cli.synthesize import SynthesisSettings, synthesize_set
from echopulse.config import from_dict, load_json
from echopulse.errors import InputError
from echopulse.evaluation.evaluate import Evaluation, EvaluationSettings, evaluate, write_metrics
from echopulse.evaluation.features import load_extractors
from echopulse.evaluation.frechet import frechet_distance, frechet_infinite, half_sample_error
from echopulse.evaluation.pixel import ssim_map
from echopulse.evaluation.sections import synchrony_of
from echopulse.evaluation.synchrony import clip_synchrony, summarize_synchrony
from echopulse.io.ecg import read_ecg
from echopulse.io.sets import PreparedSet, write_clip_files, write_manifest
from echopulse.models.checkpoints import locate_checkpoint
from echopulse.phantom import sample_patient, simulate_clip
from echopulse.phantom.series import ClipSeries
from echopulse.sampling.decode import DecodeSettings, asked_for
from echopulse.sampling.detail import DetailStream
from echopulse.sampling.pipeline import Pipeline
from echopulse.sampling.request import GenerationRequest
from echopulse.signals import EchoClip
from echopulse.signals.processing import detect_r_peaks
from echopulse.signals.ventricle import find_beats, lv_curve

FIRST_SEED = {"a4c": 1_000_000, "a2c": 2_000_000}
OTHERS = 5000
"""Seeds between the patients that are compared and true ones who have nothing to do with them."""
ARMS = ("ecg+image", "ecg")
CONTROLS = ("shuffled-ecg", "null-ecg", "image")
KNOB = (20.0, 35.0, 50.0, 65.0)
SHIFTS_S = (-0.2, 0.2)
LONG_S = 60.0
PARTS = ("main", "controls", "knob", "long", "distances", "real")
FIRST_S = 0.6
"""Length of the clips of which distances alone are measured: as much as the generator makes at once."""
BEATS = 10
"""Beats that are compared at both ends of a long video."""


class Run:
    """Where sets are and how clips are made."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.folder, self.workers = options.folder, options.workers
        self.checkpoint = locate_checkpoint(options.checkpoint)
        self.decoding = load_json(self.checkpoint / "index.json").get("decoding", {})
        self.decoding |= asked_for(options.steps, options.guidance, options.rehearsals)

    def true(self, view: str, num: int, name: str = "true", skip: int = 0) -> Path:
        """Phantom patients with truth, from the view's first seed on after `skip` others."""
        folder = self.folder / f"{view}-{name}-{num}"
        simulate_set(folder, ClipSeries(view=view), num=num, seed=FIRST_SEED[view] + skip, workers=self.workers)
        return folder

    def made(
        self, true: Path, condition: str, ef: float | None = None, shift_s: float = 0.0, masks: bool = True
    ) -> Path:
        """The generated counterpart of a set."""
        extras = ("" if ef is None else f"-ef{ef:g}") + (f"-shift{shift_s:g}" if shift_s else "")
        folder = self.folder / f"{true.name.replace('true', condition)}{extras}"
        settings = SynthesisSettings(condition, 0, str(self.checkpoint), self.decoding, None, ef, shift_s, masks)
        synthesize_set(true, folder, settings, workers=self.workers)
        return folder

    def evaluated(self, name: str, true: Path, made: Path, *controls: Path) -> Evaluation:
        """What `echopulse evaluate` says, kept in `metrics-NAME.json`."""
        settings = EvaluationSettings(networks=("echo", "transnetv2"), workers=self.workers)
        result = evaluate(true, [made], settings, self.folder / "cache", controls=controls)
        write_metrics(result.metrics, self.folder / f"metrics-{name}.json")
        return result


# held-out patients ------------------------------------------------------------------------------------------


def main_part(run: Run, view: str, num: int, arms: Sequence[str]) -> dict[str, Any]:
    """ECG and image, ECG alone, the tokenizer's own reconstruction, and other true patients, as they are and coded.

    Others are for the Fréchet distances: coded, they are what a perfect generator would draw from the ECG alone.
    """
    true = run.true(view, num)
    made = {arm: run.made(true, arm) for arm in arms}
    found = {arm: run.evaluated(f"{view}-{arm}", true, folder) for arm, folder in made.items()}
    own = run.evaluated(f"{view}-reconstruction", true, _reconstructed(run, true))
    others, truth = run.true(view, num, "others", OTHERS), _features(PreparedSet(true))
    strangers = {"others": others, "others_coded": _reconstructed(run, others)}
    features = {name: _features(PreparedSet(folder)) for name, folder in strangers.items()}
    m = found[arms[0]].metrics
    result: dict[str, Any] = {arm: headline(one.metrics) for arm, one in found.items()}
    result |= {"floor": _timing(m["synchrony_reference"]), "frozen_ssim": m["pixel"]["frozen"]["ssim"]}
    result["irreducible_mae"] = PreparedSet(true).line(0)["provenance"]["irreducible_ef_mae_points"]
    result["segmenter_ef_mae"] = m["segmenter"]["ef_on_true_clips"]["mae"]
    for kind in ("frechet_image", "frechet_video"):
        compared = found | {"reconstruction": own}
        result[kind] = {name: (value := one.metrics[kind]) and value["value"] for name, one in compared.items()}
        result[kind] |= {name: frechet_distance(x[kind], truth[kind]) for name, x in features.items()}
        result[kind]["floor"] = m[kind] and m[kind]["floor"]
    patch = load_json(run.checkpoint / "tokenizer" / "config.json")["patch"]
    for arm, folder in made.items():
        result[arm] |= _looks(PreparedSet(true), PreparedSet(folder), patch)
    return result


def control_part(run: Run, view: str, num: int) -> dict[str, Any]:
    """What must not work: another patient's ECG, a flat one, none; and ECGs that come later or earlier."""
    true = run.true(view, num)
    both = run.made(true, "ecg+image")
    arms = {name: run.made(true, name) for name in CONTROLS}
    shifted = [run.made(true, "ecg+image", shift_s=shift) for shift in SHIFTS_S]
    shift = run.evaluated(f"{view}-shift", true, both, *shifted).metrics["shift"]
    return {
        "own_ecg": {name: _own_ecg(run.evaluated(f"{view}-{name}", true, folder)) for name, folder in arms.items()},
        "shift_slope": shift and shift["slope"],
        "swapped_ecg_ssim": _anatomy(PreparedSet(both), PreparedSet(arms["shuffled-ecg"])),
    }


def headline(metrics: dict[str, Any]) -> dict[str, Any]:
    """EF, SSIM and timing."""
    ef, pixel = metrics["ef"] or {}, metrics["pixel"] or {}
    kept = {f"ef_{name}": ef.get(name) for name in ("mae", "rmse", "r2", "bias", "spread", "n")}
    rejected = metrics["segmenter"]["rejected_generated"]["share"]
    return kept | {"ssim": pixel.get("ssim"), "rejected": rejected} | _timing(metrics["synchrony"])


def _timing(synchrony: dict[str, Any] | None) -> dict[str, Any]:
    if synchrony is None:
        return {"ed_ms": None, "es_ms": None, "matched": None}
    seen, missed = synchrony["matched_beats"], synchrony["missed_beats"]
    medians = {name: synchrony[name] and synchrony[name]["median_abs"] for name in ("ed_ms", "es_ms")}
    return medians | {"matched": seen / (seen + missed) if seen + missed else None, "extra": synchrony["extra_beats"]}


def _own_ecg(result: Evaluation) -> dict[str, Any]:
    """Timing of control clips against the ECG of the patient in the picture, which did not drive them."""
    timed = [timing for r, g in result.pairs if (timing := synchrony_of(g, r)) is not None]
    return _timing(summarize_synchrony(timed) if timed else None)


def coded(pipeline: Pipeline, frames: np.ndarray, seed: int) -> np.ndarray:
    """Frames through the tokenizer and back, uint8, with speckle drawn where the checkpoint can."""
    detail = None if pipeline.detail is None else DetailStream(pipeline.detail, [seed])
    return round_trip(pipeline.tokenizer, frames, detail)[0].round().astype(np.uint8)


def _reconstructed(run: Run, true: Path) -> Path:
    """The true clips through the tokenizer and back, with speckle drawn where the checkpoint can."""

    def clips() -> Iterator[tuple[dict[str, Any], EchoClip]]:
        pipeline, originals = Pipeline.load(run.checkpoint), PreparedSet(true)
        for i in range(len(originals)):
            line = originals.line(i)
            frames = coded(pipeline, np.array(originals.frames(i)), i)
            clip = EchoClip(frames, line["fps"], view=line["view"], ecg=originals.ecg(i))
            yield {"name": line["id"], "subject": line["subject"], "source": "reconstruction"}, clip

    return _kept(run.folder / f"{true.name}-reconstruction", clips())


def _kept(folder: Path, clips: Iterator[tuple[dict[str, Any], EchoClip]]) -> Path:
    """The folder of a set of clips, each with what `write_clip_files` wants to know; made where there is none yet."""
    if not (folder / "manifest.jsonl").is_file():
        write_manifest(folder, [write_clip_files(folder, clip, **about, split="") for about, clip in clips])
    return folder


def _features(clips: PreparedSet) -> dict[str, np.ndarray]:
    """Our own features of all clips, as `echopulse evaluate` has them, by the names of its metrics."""
    return {
        f"frechet_{network.kind}": np.concatenate(
            [network(np.array(clips.frames(i)), clips.line(i)["fps"]) for i in range(len(clips))]
        )
        for network in load_extractors(("echo",))[0]
    }


def _anatomy(one: PreparedSet, other: PreparedSet) -> float | None:
    """Mean SSIM of the last end-diastolic frames of the same picture under two ECGs."""
    scores = []
    for i in range(len(one)):
        frames = []
        for clips in (one, other):
            times = clips.line(i)["provenance"]["measured"]["ed_times_s"]
            last = clips.line(i)["num_frames"] - 1
            frames += [clips.frames(i)[min(round(times[-1] * clips.line(i)["fps"]), last)]] if times else []
        if len(frames) == 2:
            x, y = (torch.from_numpy(np.array(frame))[None].float() / 255 for frame in frames)
            scores.append(float(ssim_map(x, y).mean()))
    return float(np.mean(scores)) if scores else None


def _looks(true: PreparedSet, made: PreparedSet, patch: int) -> dict[str, Any]:
    """Ratios of generated to true.

    Power in four bands of radial frequency; change of the muscle between frames; how much larger steps are across the
    borders of tokens than elsewhere.
    """
    spectra, flicker, seams = [], [], []
    for i in range(len(made)):
        pair = [np.array(made.frames(i)), np.array(true.frames(true.ids.index(made.ids[i])))]
        spectra.append(np.subtract(*(radial_spectrum(frames) for frames in pair)))
        change = [np.abs(np.diff(frames.astype(np.float32), axis=0))[:, tissue(frames)].mean() for frames in pair]
        flicker.append(change[0] / change[1])
        seams.append(np.divide(*(_border_steps(frames, patch) for frames in pair)))
    difference = np.mean(spectra, axis=0)
    bands = np.array_split(difference[len(difference) // 4 :], 4)
    return {
        "spectrum": [float(10 ** (band.mean() / 10)) for band in bands],
        "flicker": float(np.median(flicker)),
        "seams": float(np.mean(seams)),
    }


def _border_steps(frames: np.ndarray, patch: int) -> float:
    """Mean difference of neighbours across the borders of tokens, over that of all other neighbours."""
    values = []
    for axis in (1, 2):
        step = np.abs(np.diff(frames.astype(np.float32), axis=axis)).mean(axis=(0, 3 - axis))
        border = np.arange(1, len(step) + 1) % patch == 0
        values.append(step[border].mean() / step[~border].mean())
    return float(np.mean(values))


def montage(run: Run, views: Sequence[str], num: int, path: Path) -> None:
    """Sixteen clips, the first ones of each view: at an R peak, and beside it at the end of that beat's T wave."""
    tiles = []
    for view in views:
        made = PreparedSet(run.made(run.true(view, num), "ecg+image"))
        for i in range(min(16 // len(views), len(made))):
            line, frames = made.line(i), np.array(made.frames(i))
            r = (line["truth"]["r_times_s"] or [0.0])[0]
            t = next((t for t in line["truth"]["t_end_times_s"] if t > r), r)
            chosen = [min(round(time * line["fps"]), len(frames) - 1) for time in (r, t)]
            tiles.append(np.concatenate(list(frames[chosen]), axis=1))
    rows = [np.concatenate(tiles[i : i + 4], axis=1) for i in range(0, len(tiles) - len(tiles) % 4, 4)]
    Image.fromarray(np.concatenate(rows)).save(path)


# the EF knob ------------------------------------------------------------------------------------------------


def knob_part(run: Run, view: str, num: int) -> dict[str, Any]:
    """Asks the same patients for several ejection fractions; the ECG alone besides."""
    true = run.true(view, num)
    sets = [PreparedSet(run.made(true, "ecg", ef)) for ef in KNOB]
    seen = [{c.ids[i]: c.line(i)["provenance"]["measured"]["ef_percent"] for i in range(len(c))} for c in sets]
    rows = np.array([[values[name] for values in seen] for name in seen[0] if all(v[name] is not None for v in seen)])
    if not len(rows):
        return {"patients": 0, "mae": None, "monotone": None, "means": None}
    return {
        "patients": len(rows),
        "mae": float(np.abs(rows - KNOB).mean()),
        "monotone": float((np.diff(rows, axis=1) > 0).all(axis=1).mean()),
        "means": rows.mean(axis=0).round(2).tolist(),
    }


# long videos ------------------------------------------------------------------------------------------------


def long_part(run: Run, view: str, num: int) -> dict[str, Any]:
    """A minute from the first picture and the ECG: the last ten beats against the first ten."""
    made = PreparedSet(run.made(_held(run, view, num), "ecg+image"))
    rows = [row for i in range(len(made)) if (row := _drift(made, i)) is not None]
    table = {name: float(np.median([row[name] for row in rows])) for name in rows[0]} if rows else {}
    return {"videos": len(made), "measured": len(rows)} | table


def _held(run: Run, view: str, num: int) -> Path:
    """Patients with a minute of ECG, whose video is the first frame held: all that generation looks at."""
    folder, fps = run.folder / f"{view}-long-true-{num}", 25.0
    if not (folder / "manifest.jsonl").is_file():
        lines = []
        for seed in range(FIRST_SEED[view], FIRST_SEED[view] + num):
            paired = simulate_clip(sample_patient(seed, view=view), fps=1.0, seconds=LONG_S, with_masks=False)
            frames = np.broadcast_to(paired.clip.frames[:1], (round(LONG_S * fps), *paired.clip.frames.shape[1:]))
            clip = EchoClip(frames, fps, view=view, ecg=paired.clip.ecg)
            truth = {key: paired.truth[key] for key in ("ef_percent", "r_times_s", "t_end_times_s", "rhythm")}
            about = {"name": paired.id, "subject": paired.subject, "split": "", "source": "phantom"}
            lines.append(write_clip_files(folder, clip, **about, truth=truth))
        write_manifest(folder, lines)
    return folder


def _drift(made: PreparedSet, i: int) -> dict[str, float] | None:
    """Timing, EF, sharpness and brightness at both ends (ratios last to first), and Dice of the outer ED cavities."""
    line, masks, frames = made.line(i), made.masks(i), made.frames(i)
    assert masks is not None
    times = np.arange(len(frames)) / line["fps"]
    beats = find_beats(lv_curve(masks), times)
    if len(beats.ed_s) < 2 * BEATS:
        return None
    marks = (np.array(line["truth"][name], float) for name in ("r_times_s", "t_end_times_s"))
    timing = clip_synchrony(beats, *marks, start_s=0.0, end_s=LONG_S, fps=line["fps"])
    if min(len(timing.ed_ms), len(timing.es_ms)) < 2 * BEATS:
        return None
    ef = 100 * (1 - beats.esv / beats.edv)
    ends = (slice(0, BEATS), slice(-BEATS, None))
    parts = [slice(0, round(beats.ed_s[BEATS] * line["fps"])), slice(round(beats.ed_s[-BEATS] * line["fps"]), None)]
    sharp = [np.abs(np.diff(frames[part].astype(np.float32), axis=2)).mean() for part in parts]
    bright = [frames[part].mean() for part in parts]
    cavity = [masks[round(t * line["fps"])] == 1 for t in (beats.ed_s[0], beats.ed_s[-1])]
    values: dict[str, float] = {}
    for name, samples in (("ed_ms", np.abs(timing.ed_ms)), ("es_ms", np.abs(timing.es_ms)), ("ef", ef)):
        values[f"{name}_first"], values[f"{name}_last"] = (float(np.median(samples[end])) for end in ends)
    return values | {
        "sharpness": float(sharp[1] / sharp[0]),
        "brightness": float(bright[1] / bright[0]),
        "dice": float(2 * (cavity[0] & cavity[1]).sum() / (cavity[0].sum() + cavity[1].sum())),
    }


# Fréchet distances of many patients -----------------------------------------------------------------------------


def distance_part(run: Run, view: str, num: int) -> dict[str, Any]:
    """Fréchet distances alone, of the first 0.6 seconds: of more patients than whole clips can be made for.

    What an ECG alone does not tell is drawn anew, so those distances hold how much two groups of so many patients
    differ by chance; those of coded clips, which show the very patients, do not.
    """
    true = _beginnings(run, view, num)
    made = {"ecg": run.made(true, "ecg", masks=False), "reconstruction": _reconstructed(run, true)}
    truth = _features(PreparedSet(true))
    found = {name: _features(PreparedSet(folder)) for name, folder in made.items()}
    result: dict[str, Any] = {}
    for kind, reference in truth.items():
        result[kind] = {name: frechet_distance(x[kind], reference) for name, x in found.items()}
        error = half_sample_error(reference, found["ecg"][kind], frechet_distance, seed=0)
        result[kind] |= {"infinite": frechet_infinite(found["ecg"][kind], reference)}
        result[kind] |= {"standard_error": error, "clips": num}
    return result


def _beginnings(run: Run, view: str, num: int) -> Path:
    """Patients with three seconds of ECG, and the first 0.6 seconds of video."""

    def clips() -> Iterator[tuple[dict[str, Any], EchoClip]]:
        for seed in range(FIRST_SEED[view], FIRST_SEED[view] + num):
            patient = sample_patient(seed, view=view)
            video = simulate_clip(patient, seconds=FIRST_S, with_masks=False)
            ecg = simulate_clip(patient, fps=1.0, with_masks=False).clip.ecg  # a clip's length changes nothing else
            clip = EchoClip(video.clip.frames, video.clip.fps, view=view, ecg=ecg)
            yield {"name": video.id, "subject": video.subject, "source": "phantom"}, clip

    return _kept(run.folder / f"{view}-begin-true-{num}", clips())


# real ECGs ----------------------------------------------------------------------------------------------------


def real_part(run: Run, folder: Path, seconds: float = 12.0) -> list[dict[str, Any]]:
    """Every readable recording: heart rate of the video against the ECG's, and its beat-to-beat intervals."""
    pipeline, rows = Pipeline.load(run.checkpoint), []
    settings = from_dict(DecodeSettings, run.decoding)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            ecg = read_ecg(path, max_duration_s=seconds)
        except InputError:
            continue
        for leads in dict.fromkeys((ecg.leads, ecg.leads[:1])):
            one = ecg.select(leads)
            clip, _ = pipeline(one, GenerationRequest(seconds=min(seconds, ecg.duration_s)), settings=settings)
            r = detect_r_peaks(one)
            seen = measure(clip.frames, clip.frame_times_s)
            rows.append({"file": str(path.relative_to(folder)), "leads": len(leads)} | _rates(seen.ed_times_s, r, clip))
    return rows


def _rates(ed_times_s: tuple[float, ...] | None, r_times_s: np.ndarray, clip: EchoClip) -> dict[str, Any]:
    r = r_times_s[(r_times_s > clip.start_s + 0.1) & (r_times_s < clip.start_s + clip.duration_s - 0.4)]
    nothing = {"rate_error": None, "rr_spread": None, "interval_correlation": None, "found": None}
    if len(r) < 3 or not ed_times_s:
        return nothing
    ed = np.array(ed_times_s)
    near = np.array([ed[np.argmin(np.abs(ed - t))] for t in r])
    found = np.abs(near - r) < 0.25
    if found.sum() < 3 or len(ed) < 2:
        return nothing | {"found": float(found.mean())}
    intervals, rr = np.diff(near)[found[1:] & found[:-1]], np.diff(r)[found[1:] & found[:-1]]
    varied = len(rr) > 3 and rr.std() > 0.02 and intervals.std() > 0
    return {
        "rate_error": float(np.diff(r).mean() / np.diff(ed).mean() - 1),
        "rr_spread": float(np.diff(r).std() / np.diff(r).mean()),
        "interval_correlation": float(np.corrcoef(intervals, rr)[0, 1]) if varied else None,
        "found": float(found.mean()),
    }


# the table --------------------------------------------------------------------------------------------------


def targets(view: str, main: dict[str, Any]) -> list[tuple[str, Any, str, Any]]:
    """Rows of name, value, target in words, and whether it is met (None: cannot be told)."""
    rows: list[tuple[str, Any, str, Any]] = []

    def row(name: str, value: Any, limit: Any, at_least: bool = False) -> None:
        met = None if value is None or limit is None else bool(value >= limit if at_least else value <= limit)
        rows.append((f"{view} {name}", value, "" if limit is None else f"{'≥' if at_least else '≤'} {limit:.4g}", met))

    if "ecg+image" in main:
        both = main["ecg+image"]
        for name, limit in (("ef_mae", 2.51), ("ef_rmse", 2.86)):
            row(f"ecg+image {name}", both[name], limit)
        row("ecg+image ef_r2", both["ef_r2"], 0.93, at_least=True)
        row("ecg+image ssim", both["ssim"], 0.67, at_least=True)
        row("ecg+image ssim, against the frozen frame", both["ssim"], main["frozen_ssim"], at_least=True)
    if "ecg" in main:
        row("ecg ef_mae", main["ecg"]["ef_mae"], main["irreducible_mae"] + 1.5)
        row("ecg ef_rmse", main["ecg"]["ef_rmse"], None)
    for arm in (arm for arm in ARMS if arm in main):
        values = main[arm]
        row(f"{arm} EF spread", values["ef_spread"], None)
        row(f"{arm} ED - R, ms", values["ed_ms"], 40)
        row(f"{arm} ES - T end, ms", values["es_ms"], 60)
        row(f"{arm} beats matched", values["matched"], 0.97, at_least=True)
        row(f"{arm} clips rejected by the segmenter", values["rejected"], None)
        row(f"{arm} spectrum, lowest band ratio", min(values["spectrum"]), 0.7, at_least=True)
        row(f"{arm} spectrum, highest band ratio", max(values["spectrum"]), 1.4)
        row(f"{arm} flicker of the muscle, generated / true", values["flicker"], 1.0)
        row(f"{arm} steps at token borders, generated / true", values["seams"], None)
        for kind in ("frechet_image", "frechet_video"):
            coded = main[kind]["reconstruction"]
            row(f"{arm} {kind}", main[kind][arm], None if coded is None else 2 * coded)
    for kind in ("frechet_image", "frechet_video"):
        row(f"other true patients, {kind}", main[kind]["others"], None)
        row(f"other true patients, coded, {kind}", main[kind]["others_coded"], None)
    return rows


def more_targets(
    view: str, control: dict[str, Any], knob: dict[str, Any], long: dict[str, Any], distances: dict[str, Any]
) -> list[tuple[str, Any, str, Any]]:
    """The same for controls, the EF knob, long videos and distances of many patients."""
    rows: list[tuple[str, Any, str, Any]] = []
    if control:
        for name, values in control["own_ecg"].items():
            rows.append((f"{view} {name}: ED - the picture's own R, ms", values["ed_ms"], "", None))
        rows.append((f"{view} slope of shift", control["shift_slope"], "", None))
        rows.append((f"{view} SSIM at ED under a swapped ECG", control["swapped_ecg_ssim"], "", None))
    if knob.get("patients"):
        rows.append((f"{view} EF knob, mean absolute error", knob["mae"], "≤ 4", knob["mae"] <= 4))
        rows.append((f"{view} EF knob, monotone", knob["monotone"], "≥ 0.95", knob["monotone"] >= 0.95))
    if long.get("measured"):
        for name in ("ed_ms", "es_ms", "ef"):
            ratio = long[f"{name}_last"] / max(long[f"{name}_first"], 1e-9)
            rows.append((f"{view} 60 s, {name}, last / first", ratio, "0.9 to 1.1", 0.9 <= ratio <= 1.1))
        for name in ("sharpness", "brightness"):
            rows.append((f"{view} 60 s, {name}, last / first", long[name], "0.9 to 1.1", 0.9 <= long[name] <= 1.1))
        rows.append((f"{view} 60 s, Dice of the outer ED cavities", long["dice"], "≥ 0.9", long["dice"] >= 0.9))
    for kind, found in distances.items():
        value, limit = found["ecg"], 2 * found["reconstruction"]
        rows.append((f"{view} {FIRST_S:g} s, ecg {kind}", value, f"≤ {limit:.4g}", value <= limit))
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the parts asked for and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--checkpoint", default="compact")
    parser.add_argument("--patients", type=int, default=200)
    parser.add_argument("--knob", type=int, default=50)
    parser.add_argument("--long", type=int, default=50)
    parser.add_argument("--real", type=Path)
    parser.add_argument("--montage", type=Path)
    parser.add_argument("--part", nargs="+", choices=PARTS, default=["main", "controls", "knob", "long"])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), help="of the main part")
    parser.add_argument("--views", nargs="+", choices=tuple(FIRST_SEED), default=list(FIRST_SEED))
    parser.add_argument("--steps", type=int)
    parser.add_argument("--guidance", type=float)
    parser.add_argument("--rehearsals", type=int)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    run, report, rows = Run(options), {}, []
    for view in options.views:
        report[view] = {}
        if "main" in options.part:
            report[view]["main"] = main_part(run, view, options.patients, options.arms)
            rows += targets(view, report[view]["main"])
        report[view]["controls"] = control_part(run, view, options.patients) if "controls" in options.part else {}
        report[view]["knob"] = knob_part(run, view, options.knob) if "knob" in options.part else {}
        report[view]["long"] = long_part(run, view, options.long) if "long" in options.part else {}
        wanted = "distances" in options.part
        report[view]["distances"] = distance_part(run, view, options.patients) if wanted else {}
        rows += more_targets(view, *(report[view][part] for part in ("controls", "knob", "long", "distances")))
    if options.montage is not None:
        montage(run, options.views, options.patients, options.montage)
    if options.real is not None and "real" in options.part:
        report["real"] = real_part(run, options.real)
    for name, value, limit, met in rows:
        shown = "unknown" if value is None else f"{value:.4g}"
        print(f"{name:<56} {shown:>9}  {limit:<12} {'' if met is None else 'met' if met else 'MISSED'}")
    for row in report.get("real", []):
        print("  ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()))
    print(json.dumps(report | {"decoding": run.decoding, "checkpoint": run.checkpoint.name}))


if __name__ == "__main__":
    main()
