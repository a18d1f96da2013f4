"""One virtual patient: latents drawn from a seed, and everything that follows from them."""

from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from echopulse.axes import VIEWS
from echopulse.errors import InputError
from echopulse.phantom.anatomy import Anatomy, HeartPlane, HeartState
from echopulse.phantom.ecg import EcgNoise, EcgShape, render_ecg
from echopulse.phantom.mechanics import VolumeCurve, simulate_volume
from echopulse.phantom.rhythm import MARGIN_S, Beats, Rhythm, simulate_beats
from echopulse.phantom.ultrasound import Imaging, Scanner
from echopulse.signals import EchoClip, PairedClip

RHYTHMS: tuple[str, ...] = get_args(Rhythm)
_RHYTHM_SHARES = {"sinus": 0.7, "af": 0.09, "pvc": 0.07, "lbbb": 0.09, "paced": 0.05}
EF_RESIDUAL_POINTS = 2.0
"""How well a clean 12-lead ECG can tell the EF at best: standard deviation in points."""


@dataclass(frozen=True)
class Patient:
    """The latents of one patient; every picture and sample follows from them and the seed."""

    seed: int
    view: str
    rhythm: Rhythm
    heart_rate_bpm: float
    qtc_s: float
    pr_s: float
    respiration_hz: float
    ef_percent: float
    edv_ml: float
    ecg_shape: EcgShape
    ecg_noise: EcgNoise
    anatomy: Anatomy
    imaging: Imaging
    breathing_cm: float
    swing_cm: float


def sample_patient(
    seed: int,
    *,
    view: str | None = None,
    rhythm: str | None = None,
    heart_rate_bpm: float | None = None,
    ef_percent: float | None = None,
) -> Patient:
    """Draws a patient.

    Args:
        seed: non-negative; the same seed gives the same patient.
        view: `a4c` or `a2c`; drawn if None.
        rhythm: one of `RHYTHMS`; drawn if None.
        heart_rate_bpm: 30–200; drawn if None.
        ef_percent: 10–80; drawn if None.

    Raises:
        InputError: a value outside its range.
    """
    if seed < 0:
        raise InputError(f"seed is {seed}; expected 0 or more")
    if view is not None and view not in VIEWS:
        raise InputError(f"unknown view {view!r}; expected one of {', '.join(VIEWS)}")
    if rhythm is not None and rhythm not in RHYTHMS:
        raise InputError(f"unknown rhythm {rhythm!r}; expected one of {', '.join(RHYTHMS)}")
    if heart_rate_bpm is not None and not 30 <= heart_rate_bpm <= 200:
        raise InputError(f"heart rate is {heart_rate_bpm} beats a minute; expected 30 to 200")
    if ef_percent is not None and not 10 <= ef_percent <= 80:
        raise InputError(f"ejection fraction is {ef_percent} %; expected 10 to 80")
    rng = np.random.default_rng((seed, 0))
    drawn_view = str(rng.choice(VIEWS))
    drawn_rhythm = str(rng.choice(list(_RHYTHM_SHARES), p=list(_RHYTHM_SHARES.values())))
    chosen_rhythm: Rhythm = rhythm or drawn_rhythm  # type: ignore[assignment]
    chosen_view = view or drawn_view
    drawn_ef = _draw_ef(rng, chosen_rhythm)
    ef = drawn_ef if ef_percent is None else ef_percent
    tendency = (60 - ef) / 100
    low, high = (60, 95) if chosen_rhythm == "paced" else (55, 130) if chosen_rhythm == "af" else (45, 150)
    drawn_rate = float(np.clip(np.exp(rng.normal(np.log(72 + 25 * tendency), 0.24)), low, high))
    edv = float(np.clip(rng.normal(112 + 130 * max(tendency, -0.05), 22), 60, 220))
    shape = _ecg_shape(rng, ef)
    return Patient(
        seed=seed,
        view=chosen_view,
        rhythm=chosen_rhythm,
        heart_rate_bpm=drawn_rate if heart_rate_bpm is None else heart_rate_bpm,
        qtc_s=float(np.clip(rng.normal(0.408, 0.022), 0.35, 0.48)),
        pr_s=float(np.clip(rng.normal(0.16, 0.02), 0.12, 0.21)),
        respiration_hz=float(rng.uniform(0.18, 0.33)),
        ef_percent=float(ef),
        edv_ml=edv,
        ecg_shape=shape,
        ecg_noise=EcgNoise(
            baseline_mv=float(rng.uniform(0.0, 0.06)),
            muscle_mv=float(np.exp(rng.uniform(np.log(0.003), np.log(0.03)))),
            mains_mv=float(rng.choice([0.0, 0.0, 0.01, 0.03])),
            mains_hz=float(rng.choice([50.0, 60.0])),
        ),
        anatomy=_anatomy(rng, chosen_view, edv, chosen_rhythm),
        imaging=_imaging(rng),
        breathing_cm=float(rng.uniform(0.0, 0.25)),
        swing_cm=float(rng.uniform(0.0, 0.25)),
    )


def _draw_ef(rng: np.random.Generator, rhythm: Rhythm) -> float:
    """EF in percent: mostly normal, a tail of failing hearts, heavier with wide QRS."""
    low_share = {"lbbb": 0.55, "paced": 0.45, "af": 0.35}.get(rhythm, 0.18)
    value = rng.normal(36, 9) if rng.uniform() < low_share else rng.normal(60.5, 6.5)
    return float(np.clip(value, 15, 75))


def _ecg_shape(rng: np.random.Generator, ef: float) -> EcgShape:
    """Low EF goes with wide QRS, low voltage, flat or inverted T and poor R progression (Attia 2019).

    The ECG sees the EF only through `ef + residual`, so no reader can know it better than the residual.
    """
    seen = (ef + rng.normal(0, EF_RESIDUAL_POINTS) - 55) / 20
    return EcgShape(
        voltage=float(np.exp(0.16 * seen + rng.normal(0, 0.10))),
        qrs_width=float(np.clip(1.02 - 0.12 * seen + rng.normal(0, 0.03), 0.8, 1.5)),
        t_amplitude=float(0.85 + 0.6 * seen + rng.normal(0, 0.06)),
        r_progression=float(np.clip(0.95 + 0.18 * seen + rng.normal(0, 0.04), 0.3, 1.3)),
        p_amplitude=float(np.clip(rng.normal(1, 0.2), 0.4, 1.6)),
        axis_rad=float(rng.normal(-0.05, 0.3)),
        transverse_rad=float(rng.normal(0, 0.15)),
    )


def _anatomy(rng: np.random.Generator, view: str, edv: float, rhythm: Rhythm) -> Anatomy:
    four = view == "a4c"
    length = float(np.clip(8.4 * (edv / 115) ** 0.33 * rng.normal(1, 0.05), 6.8, 10.5))
    return Anatomy(
        view=view,
        edv_ml=edv,
        length_cm=length,
        wall_cm=float(np.clip(rng.normal(0.95, 0.13), 0.7, 1.35)),
        shortening=float(rng.uniform(0.2, 0.3)),
        apex_x_cm=float(rng.normal(0.4 if four else 0.0, 0.3)),
        apex_z_cm=float(np.clip(rng.normal(2.0, 0.3), 1.4, 2.8)),
        tilt_rad=float(rng.normal(0.04 if four else 0.0, 0.08)),
        peak=float(rng.uniform(0.5, 0.68)),
        base_narrowing=float(rng.uniform(0.12, 0.32)),
        asymmetry=float(rng.normal(0, 0.04)),
        rv_width_cm=float(np.clip(rng.normal(3.0, 0.45), 2.0, 4.2)),
        la_half_width_cm=float(np.clip(rng.normal(1.9, 0.25), 1.3, 2.7)),
        la_height_cm=float(np.clip(rng.normal(4.3, 0.5), 3.0, 5.6)),
        ra_half_width_cm=float(np.clip(rng.normal(1.85, 0.25), 1.2, 2.6)),
        lateral_delay_s=0.06 if rhythm == "lbbb" else 0.04 if rhythm == "paced" else 0.0,
    )


def _imaging(rng: np.random.Generator) -> Imaging:
    return Imaging(
        depth_cm=float(np.clip(rng.normal(14.8, 0.9), 12.8, 17.5)),
        sector_rad=float(np.deg2rad(rng.uniform(68, 90))),
        dynamic_range_db=float(rng.uniform(44, 56)),
        gain_db=float(rng.uniform(10, 17)),
        axial_cm=float(rng.uniform(0.055, 0.09)),
        lateral_rad=float(rng.uniform(0.013, 0.022)),
        focus_cm=float(rng.uniform(5.5, 9.0)),
        noise_db=float(rng.uniform(27, 42)),
        haze_db=float(rng.uniform(-8, 6)),
        dropout_center_rad=float(rng.uniform(0.15, 0.55)),
        dropout_width_rad=float(rng.uniform(0.05, 0.14)),
        dropout_db=float(rng.uniform(0, 14)),
        edge_loss_db=float(rng.uniform(3, 14)),
        attenuation_db=float(rng.uniform(0, 12)),
        tissue_db=float(rng.uniform(-17, -7)),
    )


def check_rendering(*, fps: float, seconds: float, size: tuple[int, int]) -> None:
    """Refuses frame rates, lengths and sizes that cannot be rendered.

    Raises:
        InputError: a value outside its range.
    """
    if not 1 <= fps <= 200:
        raise InputError(f"frame rate is {fps}; expected 1 to 200 frames/s")
    if not 1 / fps <= seconds <= 60:
        raise InputError(f"length is {seconds} s; expected at least one frame and at most 60 s")
    if not all(32 <= side <= 1024 for side in size):
        raise InputError(f"size is {size[0]}x{size[1]}; expected 32 to 1024 pixels a side")


def simulate_clip(
    patient: Patient,
    *,
    fps: float = 25.0,
    seconds: float = 3.0,
    size: tuple[int, int] = (128, 128),
    start_s: float = 0.0,
    ecg_margin_s: float = 2.0,
    with_masks: bool = True,
) -> PairedClip:
    """Renders a patient: pictures, ECG on the same clock, masks and truth.

    Args:
        patient: from `sample_patient`.
        fps: frames per second, up to 200.
        seconds: length of the clip, up to 60.
        size: (height, width) in pixels, 32 to 1024 each.
        start_s: when in the patient's record the clip starts; the clip's clock is 0 there.
        ecg_margin_s: ECG before and after the clip.
        with_masks: also make the masks.

    Raises:
        InputError: an argument outside its range.
    """
    check_rendering(fps=fps, seconds=seconds, size=size)
    if not 0 <= start_s <= 60:
        raise InputError(f"start is {start_s} s; expected 0 to 60")
    if not 0 <= ecg_margin_s <= MARGIN_S - 1:
        raise InputError(f"ECG margin is {ecg_margin_s} s; expected 0 to {MARGIN_S - 1:g}")
    beats = simulate_beats(
        np.random.default_rng((patient.seed, 1)),
        patient.rhythm,
        heart_rate_bpm=patient.heart_rate_bpm,
        duration_s=120.0 + MARGIN_S,
        qtc_s=patient.qtc_s,
        pr_s=patient.pr_s,
        respiration_hz=patient.respiration_hz,
    )
    curve = simulate_volume(beats, edv_ml=patient.edv_ml, ef=patient.ef_percent / 100)
    ecg = render_ecg(
        np.random.default_rng((patient.seed, 2)),
        beats,
        patient.ecg_shape,
        patient.ecg_noise,
        start_s=start_s - ecg_margin_s,
        duration_s=seconds + 2 * ecg_margin_s,
    ).shifted(-ecg_margin_s)
    scanner = Scanner(HeartPlane(patient.anatomy), patient.imaging, np.random.default_rng((patient.seed, 3)), size)
    times = start_s + np.arange(round(seconds * fps)) / fps
    states = [_state(patient, curve, float(time)) for time in times]
    frames = np.stack([scanner.frame(state, round(t * 1000)) for state, t in zip(states, times, strict=True)])
    masks = np.stack([scanner.masks(state) for state in states]) if with_masks else None
    truth = _truth(patient, beats, curve, start_s, start_s + len(times) / fps)
    truth["lv_volume_ml"] = [round(state.volume_ml, 3) for state in states]
    name = f"phantom-{patient.seed:07d}"
    clip = EchoClip(frames, fps=fps, view=patient.view, ecg=ecg, provenance={"source": "phantom", "seed": patient.seed})
    return PairedClip(clip=clip, masks=masks, truth=truth, id=name, subject=name)


def _state(patient: Patient, curve: VolumeCurve, time_s: float) -> HeartState:
    now = np.array([time_s, time_s - patient.anatomy.lateral_delay_s])
    volume, delayed = curve.volume_ml(now)
    stroke = max(patient.edv_ml * patient.ef_percent / 100, 1.0)
    contraction = float(np.clip((patient.edv_ml - volume) / stroke, -0.1, 1.2))
    filling = float(curve.filling_ml_per_s(now[:1])[0])
    breath = patient.breathing_cm * np.sin(2 * np.pi * patient.respiration_hz * time_s)
    swing = patient.swing_cm * contraction
    return HeartState(
        volume_ml=float(volume),
        delayed_volume_ml=float(delayed),
        contraction=contraction,
        mitral_opening=float(np.clip(filling / (2.2 * stroke), 0, 1) ** 0.6),
        shift_cm=(0.4 * swing + 0.3 * breath, breath),
    )


def _truth(patient: Patient, beats: Beats, curve: VolumeCurve, start_s: float, end_s: float) -> dict[str, Any]:
    """What is known of the clip, times on its clock; EF is the mean over the beats that lie inside."""
    inside = (curve.ed_s >= start_s) & (curve.es_s < end_s)
    if not inside.any():
        inside = np.arange(curve.ed_s.size) == np.argmin(np.abs(curve.ed_s - start_s))
    edv, esv = curve.edv_ml[inside], curve.esv_ml[inside]

    def within(times: np.ndarray) -> list[float]:
        return [round(float(t - start_s), 4) for t in times if start_s <= t < end_s]

    return {
        "ef_percent": round(float(np.mean(100 * (1 - esv / edv))), 3),
        "edv_ml": round(float(edv.mean()), 3),
        "esv_ml": round(float(esv.mean()), 3),
        "ed_times_s": within(curve.ed_s),
        "es_times_s": within(curve.es_s),
        "r_times_s": within(beats.r_s),
        "t_end_times_s": within(beats.t_end_s),
        "rhythm": patient.rhythm,
        "heart_rate_bpm": round(patient.heart_rate_bpm, 2),
    }
