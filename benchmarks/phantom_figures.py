"""Draws the figures of docs/phantom.md: one patient on one time axis, unpicked first frames, the spread of EF.

    python benchmarks/phantom_figures.py [--output docs/images]

Needs matplotlib. Run it again whenever the phantom's pictures change.
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from echopulse.phantom import sample_patient, simulate_clip

PATIENT = 4
SHOWN_S = 2.4
NUM_PICTURES = 8
EXCERPT_SEEDS = range(1000, 1016)
NUM_PATIENTS = 1000


def one_patient(path: Path) -> None:
    """ECG, volume and pictures of one sinus patient, one above the other on one time axis."""
    patient = sample_patient(PATIENT, view="a4c", rhythm="sinus", heart_rate_bpm=65, ef_percent=60)
    paired = simulate_clip(patient, fps=50.0, seconds=SHOWN_S)
    truth, ecg = paired.truth, paired.clip.ecg
    assert ecg is not None
    ecg_times = ecg.start_s + np.arange(ecg.num_samples) / ecg.sampling_rate_hz
    shown = (ecg_times >= 0) & (ecg_times < SHOWN_S)
    figure, axes = plt.subplots(
        3, 1, figsize=(10, 5.2), sharex=True, height_ratios=(1, 1.1, 1.15), layout="constrained"
    )
    axes[0].plot(ecg_times[shown], ecg.lead("II")[shown], "k", linewidth=0.9)
    axes[0].set_ylabel("lead II, mV")
    axes[1].plot(paired.clip.frame_times_s, truth["lv_volume_ml"], color="tab:red")
    axes[1].set_ylabel("LV volume, ml")
    for r in truth["r_times_s"]:
        axes[0].axvline(r, color="tab:blue", linewidth=0.8)
        axes[1].axvline(
            r, color="tab:blue", linewidth=0.8, label="R: end-diastole" if r == truth["r_times_s"][0] else None
        )
    for end in truth["t_end_times_s"]:
        first = end == truth["t_end_times_s"][0]
        axes[0].axvline(end, color="tab:green", linewidth=0.8, linestyle="--")
        axes[1].axvline(
            end, color="tab:green", linewidth=0.8, linestyle="--", label="T end: end-systole" if first else None
        )
    axes[1].legend(loc="lower right", fontsize=8)
    width = SHOWN_S / NUM_PICTURES
    for i in range(NUM_PICTURES):
        middle = (i + 0.5) * width
        picture = paired.clip.frames[round(middle * 50)]
        axes[2].imshow(picture, cmap="gray", vmin=0, vmax=255, aspect="auto", extent=(i * width, (i + 1) * width, 0, 1))
        axes[2].plot(middle, 1.03, "v", color="black", markersize=4, clip_on=False)
    axes[2].set(xlim=(0, SHOWN_S), ylim=(0, 1.06), yticks=[], xlabel="time, s")
    figure.savefig(path, dpi=90)
    plt.close(figure)


def excerpt(path: Path) -> None:
    """First frames of the patients of 16 successive seeds, none left out."""
    clips = [simulate_clip(sample_patient(seed), seconds=0.04, with_masks=False).clip for seed in EXCERPT_SEEDS]
    rows = [np.hstack([clip.frames[0] for clip in clips[i : i + 8]]) for i in (0, 8)]
    Image.fromarray(np.vstack(rows)).save(path, optimize=True)


def ejection_fractions(path: Path) -> None:
    """EF of 1000 default patients, sinus rhythm and all others."""
    patients = [sample_patient(seed) for seed in range(NUM_PATIENTS)]
    parts = [[p.ef_percent for p in patients if (p.rhythm == "sinus") == sinus] for sinus in (True, False)]
    figure, axes = plt.subplots(figsize=(6, 2.6), layout="constrained")
    labels = ("sinus rhythm", "other rhythms")
    axes.hist(
        parts, bins=np.arange(15, 77.5, 2.5).tolist(), stacked=True, label=labels, color=("tab:blue", "tab:orange")
    )
    axes.set(xlabel="ejection fraction, %", ylabel="patients of 1000")
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=90)
    plt.close(figure)
    every = np.concatenate(parts)
    print(
        f"EF of {NUM_PATIENTS} patients: {np.mean(every < 35):.1%} below 35, {np.mean(every > 65):.1%} above 65, "
        f"mean {every.mean():.1f}, in sinus rhythm {np.mean(parts[0]):.1f}"
    )


def main() -> None:
    """Draws all figures."""
    parser = argparse.ArgumentParser(description="Draws the figures of docs/phantom.md.")
    parser.add_argument("--output", type=Path, default=Path(__file__).parents[1] / "docs" / "images")
    folder = parser.parse_args().output
    folder.mkdir(parents=True, exist_ok=True)
    one_patient(folder / "phantom-one-patient.png")
    excerpt(folder / "phantom-montage.png")
    ejection_fractions(folder / "phantom-ef.png")


if __name__ == "__main__":
    main()
