"""One virtual patient: latents drawn from a seed, and everything that follows from them."""

from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from echopulse.axes import VIEWS
from echopulse.errors import InputError
from echopulse.phantom.anatomy import Anatomy, HeartPlane, HeartState
from echopulse.phantom.devices import HOSPITAL, EcgDevice, find_device, record_ecg
from echopulse.phantom.ecg import EcgShape, render_ecg
from echopulse.phantom.link import EcgEfLink, draw_condition
from echopulse.phantom.mechanics import VolumeCurve, simulate_volume
from echopulse.phantom.population import EDV_RANGE_ML, draw_shape
from echopulse.phantom.rhythm import MARGIN_S, Beats, Rhythm, simulate_beats
from echopulse.phantom.ultrasound import Imaging, Scanner
from echopulse.signals import EcgSignal, EchoClip, PairedClip

RHYTHMS: tuple[str, ...] = get_args(Rhythm)
PHANTOM_VERSION = 2
"""Goes up whenever the same seed gives another patient; every clip's provenance carries it."""

_RECORD_S = 120.0
_SETTLING_S = 1.0  # rendered on both sides of every ECG and cut off, so that the filters have settled


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
    link: EcgEfLink
    ecg_shape: EcgShape
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
    link: EcgEfLink = EcgEfLink(),  # noqa: B008 - immutable
) -> Patient:
    """Draws a patient.

    Args:
        seed: non-negative; the same seed gives the same patient.
        view: `a4c` or `a2c`; drawn if None.
        rhythm: one of `RHYTHMS`; drawn if None.
        heart_rate_bpm: 30–200; drawn if None.
        ef_percent: 10–80; drawn if None.
        link: how the ECG depends on the EF.

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
    chosen_view = view or drawn_view
    condition = np.random.default_rng((seed, 4))  # its own stream: it draws more often when a rhythm is asked for
    ef, chosen_rhythm, visible = draw_condition(condition, link, rhythm, ef_percent)  # type: ignore[arg-type]
    low, high = (60, 95) if chosen_rhythm == "paced" else (55, 130) if chosen_rhythm == "af" else (45, 150)
    drawn_rate = float(np.clip(np.exp(rng.normal(np.log(73 - 0.25 * visible), 0.24)), low, high))
    edv = float(np.clip(rng.normal(112 + 130 * max((60 - ef) / 100, -0.05), 22), *EDV_RANGE_ML))
    shape = draw_shape(rng, visible)
    return Patient(
        seed=seed,
        view=chosen_view,
        rhythm=chosen_rhythm,
        heart_rate_bpm=drawn_rate if heart_rate_bpm is None else heart_rate_bpm,
        qtc_s=float(np.clip(rng.normal(0.412, 0.02), 0.37, 0.465)),  # 350–480 ms as measured (Rautaharju 2009)
        pr_s=float(np.clip(rng.normal(0.16, 0.016), 0.135, 0.2)),  # 120–200 ms (Surawicz 2009)
        respiration_hz=float(rng.uniform(0.18, 0.33)),
        ef_percent=float(ef),
        edv_ml=edv,
        link=link,
        ecg_shape=shape,
        anatomy=_anatomy(rng, chosen_view, edv, chosen_rhythm),
        imaging=_imaging(rng),
        breathing_cm=float(rng.uniform(0.0, 0.25)),
        swing_cm=float(rng.uniform(0.0, 0.25)),
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
        sector_rad=float(np.deg2rad(rng.uniform(84, 104))),
        dynamic_range_db=float(rng.uniform(40, 54)),
        gain_db=float(rng.uniform(7, 15.5)),
        axial_cm=float(rng.uniform(0.03, 0.05)),
        lateral_rad=float(rng.uniform(0.007, 0.014)),
        focus_cm=float(rng.uniform(5.5, 9.0)),
        noise_db=float(rng.uniform(24, 54)),
        haze_db=float(rng.uniform(-10, 5)),
        dropout_center_rad=float(rng.uniform(0.15, 0.55)),
        dropout_width_rad=float(rng.uniform(0.05, 0.16)),
        dropout_db=float(rng.uniform(0, 26)),
        edge_loss_db=float(rng.uniform(3, 18)),
        attenuation_db=float(rng.uniform(0, 10)),
        compounding=float(rng.uniform(0.15, 0.5)),
        near_loss_db=float(rng.uniform(4, 20)),
        gamma=float(rng.uniform(1.6, 2.3)),
        top=float(rng.uniform(0.02, 0.07)),
        tissue_db=float(rng.uniform(-16, -2)),
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


def patient_beats(patient: Patient) -> Beats:
    """The beats of the patient's record of two minutes, on the record's clock."""
    return simulate_beats(
        np.random.default_rng((patient.seed, 1)),
        patient.rhythm,
        heart_rate_bpm=patient.heart_rate_bpm,
        duration_s=_RECORD_S + MARGIN_S,
        qtc_s=patient.qtc_s,
        pr_s=patient.pr_s,
        respiration_hz=patient.respiration_hz,
        qrs_width=patient.ecg_shape.qrs_width,
    )


def patient_volume(patient: Patient, beats: Beats) -> VolumeCurve:
    """The left ventricle's volume over the patient's beats, those of `patient_beats`, on the record's clock."""
    return simulate_volume(beats, edv_ml=patient.edv_ml, ef=patient.ef_percent / 100)


def simulate_ecg(
    patient: Patient, *, start_s: float = 0.0, duration_s: float = 10.0, device: EcgDevice | str = HOSPITAL
) -> EcgSignal:
    """A patient's ECG alone, on the record's clock.

    Args:
        patient: from `sample_patient`.
        start_s: time of the first sample, −3 s or later.
        duration_s: length, at least 1 s; the record ends at 123 s.
        device: the recorder or its name, one of `devices.DEVICES`.

    Raises:
        InputError: unknown device, or a time outside the record.
    """
    reach_s = MARGIN_S - _SETTLING_S
    if not (start_s >= -reach_s and start_s + duration_s <= _RECORD_S + reach_s and duration_s >= 1):
        raise InputError(
            f"ECG of {duration_s} s from {start_s} s; expected at least 1 s between {-reach_s:g} "
            f"and {_RECORD_S + reach_s:g} s"
        )
    device = find_device(device)
    skin = render_ecg(
        patient_beats(patient),
        patient.ecg_shape,
        start_s=start_s - _SETTLING_S,
        duration_s=duration_s + 2 * _SETTLING_S,
    )
    recorded = record_ecg(skin, device, np.random.default_rng((patient.seed, 2)))
    return recorded.crop(start_s, start_s + duration_s)


def simulate_clip(
    patient: Patient,
    *,
    fps: float = 25.0,
    seconds: float = 3.0,
    size: tuple[int, int] = (128, 128),
    start_s: float = 0.0,
    ecg_margin_s: float = 2.0,
    with_masks: bool = True,
    device: EcgDevice | str = HOSPITAL,
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
        device: the ECG recorder or its name, one of `devices.DEVICES`.

    Raises:
        InputError: an argument outside its range.
    """
    check_rendering(fps=fps, seconds=seconds, size=size)
    if not 0 <= start_s <= 60:
        raise InputError(f"start is {start_s} s; expected 0 to 60")
    if not 0 <= ecg_margin_s <= MARGIN_S - 1:
        raise InputError(f"ECG margin is {ecg_margin_s} s; expected 0 to {MARGIN_S - 1:g}")
    device = find_device(device)
    beats = patient_beats(patient)
    curve = patient_volume(patient, beats)
    ecg_start_s, ecg_duration_s = start_s - ecg_margin_s, seconds + 2 * ecg_margin_s
    ecg = simulate_ecg(patient, start_s=ecg_start_s, duration_s=ecg_duration_s, device=device).shifted(-ecg_margin_s)
    scanner = Scanner(HeartPlane(patient.anatomy), patient.imaging, np.random.default_rng((patient.seed, 3)), size)
    times = start_s + np.arange(round(seconds * fps)) / fps
    states = [_state(patient, curve, float(time)) for time in times]
    frames = np.stack([scanner.frame(state, round(t * 1000)) for state, t in zip(states, times, strict=True)])
    masks = np.stack([scanner.masks(state) for state in states]) if with_masks else None
    truth = _truth(patient, beats, curve, start_s, start_s + len(times) / fps)
    truth["lv_volume_ml"] = [round(state.volume_ml, 3) for state in states]
    name = f"phantom-{patient.seed:07d}"
    provenance = {
        "source": "phantom",
        "phantom_version": PHANTOM_VERSION,
        "seed": patient.seed,
        "ecg_device": device.name,
        "ecg_ef_link": str(patient.link),
    }
    clip = EchoClip(frames, fps=fps, view=patient.view, ecg=ecg, provenance=provenance)
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
