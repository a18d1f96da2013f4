"""Figures and players of the report, as data addresses that need no network."""

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from echopulse.errors import InputError
from echopulse.evaluation.matching import Pair, comparable
from echopulse.evaluation.reading import ClipReading
from echopulse.evaluation.sections import reference_ef, synchrony_of
from echopulse.evaluation.synchrony import ClipSynchrony

BLUE, ORANGE, GREY = "#1f5fa8", "#c8641e", "#8a8f98"


def plotting() -> Any:
    """The figure class of matplotlib; no window system is touched.

    Raises:
        InputError: it is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError('the report needs matplotlib: pip install "echopulse[eval]", or use --no-report') from error
    return Figure


def ef_figure(pairs: Sequence[Pair]) -> str | None:
    """EF of generated clips against the reference, and Bland-Altman; None without values."""
    known = [
        (expected, g.ef_percent)
        for r, g in pairs
        if g.accepted and g.ef_percent is not None and (expected := reference_ef(r)) is not None
    ]
    if not known:
        return None
    expected, measured = np.array(known).T
    figure = plotting()(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot([0, 90], [0, 90], color=GREY, lw=1)
    left.fill_between([0, 90], [-5, 85], [5, 95], color=GREY, alpha=0.15, lw=0)
    left.scatter(expected, measured, s=12, color=BLUE, alpha=0.7)
    left.set(xlim=(0, 90), ylim=(0, 90), xlabel="EF of the reference (%)", ylabel="EF of the generated clip (%)")
    left.set_title("Grey band: within 5 points", fontsize=9)
    mean, difference = (expected + measured) / 2, measured - expected
    right.scatter(mean, difference, s=12, color=BLUE, alpha=0.7)
    bias, spread = difference.mean(), 1.96 * difference.std(ddof=1) if len(difference) > 1 else 0.0
    for level, style in ((bias, "-"), (bias - spread, "--"), (bias + spread, "--")):
        right.axhline(level, color=ORANGE, ls=style, lw=1)
    right.set(xlabel="mean of both (%)", ylabel="generated - reference (points)")
    right.set_title(f"bias {bias:+.1f}, limits {bias - spread:+.1f} to {bias + spread:+.1f}", fontsize=9)
    return _svg(figure)


def curve_figure(chosen: Sequence[tuple[str, Pair]]) -> str | None:
    """LV volume curves of generated and reference clips on the ECG's time axis; None without curves."""
    usable = [(name, r, g) for name, (r, g) in chosen if g.volumes is not None and np.isfinite(g.volumes).any()]
    if not usable:
        return None
    figure = plotting()(figsize=(9, 2.3 * len(usable)), layout="constrained")
    for axes, (name, r, g) in zip(np.atleast_1d(figure.subplots(len(usable), 1)), usable, strict=True):
        for clip, color, label in ((r, GREY, "reference"), (g, BLUE, "generated")):
            if clip.volumes is not None and np.isfinite(clip.volumes).any():
                axes.plot(clip.source.times_s, 100 * clip.volumes / np.nanmax(clip.volumes), color=color, label=label)
        for times, style, label in ((g.source.r_times_s, "-", "R peak"), (g.source.t_end_times_s, ":", "T end")):
            inside = times[(times >= 0) & (times <= g.source.end_s)]
            for i, time in enumerate(inside):
                axes.axvline(time, color=ORANGE, ls=style, lw=1, label=label if i == 0 else None)
        axes.set(
            xlabel="time on the ECG's clock (s)", ylabel="LV volume (% of largest)", title=f"{name}: {g.source.id}"
        )
        axes.legend(loc="upper right", fontsize=7)
    return _svg(figure)


def timing_figure(generated: Sequence[ClipReading], reference: Sequence[ClipReading]) -> str | None:
    """Histograms of ED after R and ES after T end; None without beats."""
    arms = {
        name: [timing for clip in clips if (timing := synchrony_of(clip)) is not None]
        for name, clips in (("generated", generated), ("reference", reference))
    }
    if not any(timing.matched for timing in arms["generated"]):
        return None
    figure = plotting()(figsize=(9, 3), layout="constrained")
    bins = np.arange(-400, 401, 20)
    for axes, event, label in zip(
        figure.subplots(1, 2), ("ed_ms", "es_ms"), ("ED - R peak", "ES - T end"), strict=True
    ):
        for name, color in (("reference", GREY), ("generated", BLUE)):
            beats = np.clip(_pooled(arms[name], event), -400, 400)
            if beats.size:
                weights = np.full(beats.size, 100 / beats.size)
                axes.hist(beats, bins, weights=weights, color=color, alpha=0.6, label=f"{name}, {beats.size} beats")
        axes.axvline(0, color=ORANGE, lw=1)
        axes.set(xlabel=f"{label} (ms)", ylabel="share of beats (%)")
        axes.legend(fontsize=7)
    return _svg(figure)


def player(pair: Pair) -> str:
    """Reference (left) and generated clip (right), looping, as an animated picture in a data address."""
    from PIL import Image

    r, g = pair
    length = min(r.source.shape[0], g.source.shape[0])
    clips = [clip.source.load()[:length] for clip in pair]
    both = np.concatenate(clips, axis=2) if comparable(r, g) else clips[1]
    pages = [Image.fromarray(np.ascontiguousarray(page)) for page in both]
    buffer = io.BytesIO()
    duration = max(round(1000 / g.source.fps), 10)
    pages[0].save(buffer, "WEBP", save_all=True, append_images=pages[1:], duration=duration, loop=0, quality=75)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _pooled(timings: Sequence[ClipSynchrony], event: str) -> np.ndarray:
    beats = np.concatenate([np.empty(0), *(getattr(timing, event) for timing in timings)])
    return beats[np.isfinite(beats)]


def _svg(figure: Any) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(buffer.getvalue()).decode()}"
