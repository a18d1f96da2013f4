"""`echopulse evaluate`: a generated set against a reference set, in numbers and as a report."""

from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from echopulse.errors import InputError


def evaluate(
    reference: Path,
    generated: tuple[Path, ...],
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="DIR")],
    train: Path | None = None,
    control: tuple[Path, ...] = (),
    segmenter: Literal["echopulse", "sam2", "masks"] = "echopulse",
    segmenter_weights: str | None = None,
    networks: tuple[Literal["echo", "transnetv2", "inception", "i3d", "vgg16"], ...] = (
        "echo",
        "transnetv2",
        "inception",
        "i3d",
        "vgg16",
    ),
    weights: tuple[str, ...] = (),
    paper_scripts: bool = False,
    report: bool = True,
    seed: int = 0,
    draws: int = 2000,
    workers: int = 0,
    cache: Path | None = None,
) -> None:
    """Measure generated clips against true ones: metrics.json and report.html.

    Args:
        reference: prepared set of true clips.
        generated: prepared set of generated clips; several sets are seeds of one model and are averaged.
        output: folder for the results; a run that was cut off goes on where it stopped.
        train: the set that the generator was trained on, for the copying test.
        control: more generated sets, each scored by itself (shuffled, null or shifted ECG).
        segmenter: who outlines the ventricle; `masks` takes the masks of the sets.
        segmenter_weights: folder or hub repository of the segmenter; needed by `sam2`.
        networks: feature networks; those whose weights are not there are left out with a reason.
        weights: folders or hub repositories (owner/name) with weights of public networks.
        paper_scripts: also the numbers of the authors' scripts, under names of their own.
        report: write report.html (needs matplotlib).
        seed: of every random choice.
        draws: bootstrap resamples.
        workers: clips read at the same moment; 0 means one per core.
        cache: folder that keeps what was measured; DIR/cache if left out.
    """
    from echopulse.evaluation.evaluate import EvaluationSettings, write_metrics
    from echopulse.evaluation.evaluate import evaluate as measure

    settings = EvaluationSettings(networks, weights, segmenter, segmenter_weights, paper_scripts, draws, seed, workers)
    if output.exists() and not output.is_dir():
        raise InputError(f"{output}: is a file; expected the name of a folder")
    if not output.resolve().parent.is_dir():
        raise InputError(f"{output.parent}: no such folder; create it first")
    if report:
        from echopulse.evaluation.figures import plotting

        plotting()
    result = measure(reference, generated, settings, cache or output / "cache", train=train, controls=control)
    output.mkdir(exist_ok=True)
    write_metrics(result.metrics, output / "metrics.json")
    if report:
        from echopulse.evaluation.report import write_report

        write_report(result, output / "report.html")
    print(summary(result.metrics))


def summary(metrics: dict[str, Any]) -> str:
    """The headline as a few lines of text, warnings last."""
    lines = ["{reference} reference clips, {generated} generated, {matched} matched".format(**metrics["counts"])]
    for name in ("frechet_image", "frechet_video"):
        if metrics[name]:
            lines.append(f"{metrics[name]['protocol']['metric']}: {_pair(metrics[name], 'value', 'floor')}")
    if metrics["ef"]:
        ef = metrics["ef"]
        lines.append(f"EF: mean absolute error {_pair(ef, 'mae', 'segmenter_mae')} points, n = {ef['n']}")
    if metrics["synchrony"]:
        for event, label in (("ed_ms", "ED - R"), ("es_ms", "ES - T end")):
            timing, floor = metrics["synchrony"][event], (metrics["synchrony_reference"] or {}).get(event)
            if timing:
                values = {"value": timing["median_abs"], "floor": floor and floor["median_abs"]}
                lines.append(f"{label}: median {_pair(values, 'value', 'floor')} ms")
    if metrics["pixel"]:
        pixel = metrics["pixel"]
        for name in ("ssim", "mse"):
            values = {"value": pixel[name], "frozen": pixel["frozen"][name]}
            lines.append(f"{name}: {_pair(values, 'value', 'frozen', 'frozen first frame')}")
    lines += [f"{name} is null: {metrics['reasons'].get(name)}" for name in _PARTS if metrics[name] is None]
    return "\n".join(lines + [f"note: {warning}" for warning in metrics["warnings"]])


_PARTS = ("frechet_image", "frechet_video", "pixel", "ef", "synchrony", "privacy")


def _pair(values: dict[str, Any], value: str, beside: str, name: str = "floor") -> str:
    shown = ["unknown" if values[key] is None else f"{values[key]:.4g}" for key in (value, beside)]
    return f"{shown[0]} ({name} {shown[1]})"
