"""Is the phantom's ECG an ECG? R peaks for other people's detectors, intervals, the spread of EF, the ECG-EF link.

Detectors: NeuroKit2 with its defaults, wfdb's XQRS with learning as it is and moved to the largest deflection within
50 ms, wfdb's GQRS moved likewise within 80 ms (it marks beats 33 ms before R, on MIT-BIH record 100 too), and
`detect_r_peaks`. A beat is found when a mark lies within 20 ms of the true R peak; `extra` marks are no beat.
Records last 30 s; beats within 0.3 s of an end are left out.

Intervals: measured on the median beat of the clean 12 leads by thresholds and tangents, never from the truth:
QRS where the spatial velocity exceeds 6 % of its peak; P onset and T end by the tangent through the steepest point of
the outer flank, T in the lead where it is largest, P in II and under 110 /min (above, P stands on T); QTc by Fridericia
with the median RR.

Link (`--link`): ridge regression of EF on the measured shape of the median beat, clean 12 leads, on patients that the
fit has not seen, beside the error that no reader can avoid (`irreducible_error`) for the same patients.

    python benchmarks/phantom_ecg.py [--patients 100] [--link 2000]

prints tables and, last, one line of JSON.
"""

import argparse
import json
import warnings

import numpy as np

from echopulse.phantom import RHYTHMS, EcgEfLink, Patient, irreducible_error, sample_patient, simulate_ecg
from echopulse.phantom.ecg import DOWER
from echopulse.phantom.patient import patient_beats
from echopulse.signals import EcgSignal
from echopulse.signals.processing import detect_r_peaks

RECORDINGS = (("clean", "II"), ("clean", "I"), ("hospital", "II"), ("watch", "I"), ("holter", "II"))
FIRST_SEED = 2_000_000


def to_largest(samples: np.ndarray, marks: np.ndarray, reach: int) -> np.ndarray:
    """Moves every mark to the largest deflection from the median around it."""
    size = np.abs(samples - np.median(samples))
    starts = np.maximum(np.asarray(marks, dtype=int) - reach, 0)
    return np.array([start + size[start : start + 2 * reach + 1].argmax() for start in starts])


def find_peaks(ecg: EcgSignal, lead: str) -> dict[str, np.ndarray]:
    """Samples of the R peaks in one lead, by detector."""
    import neurokit2
    from wfdb import processing

    x, rate = ecg.lead(lead).astype(np.float64), int(ecg.sampling_rate_hz)
    detector = processing.XQRS(sig=x, fs=rate)
    detector.detect(verbose=False)
    xqrs, gqrs = np.asarray(detector.qrs_inds, int), np.asarray(processing.gqrs_detect(sig=x, fs=rate), int)
    _, found = neurokit2.ecg_peaks(neurokit2.ecg_clean(x, sampling_rate=rate), sampling_rate=rate)
    return {
        "neurokit2": np.asarray(found["ECG_R_Peaks"]),
        "xqrs": xqrs,
        "xqrs_moved": to_largest(x, xqrs, round(0.05 * rate)),
        "gqrs_moved": to_largest(x, gqrs, round(0.08 * rate)),
        "echopulse": (detect_r_peaks(ecg.select((lead,))) - ecg.start_s) * rate,
    }


def score_detectors(rhythm: str, device: str, lead: str, patients: int) -> dict[str, tuple[float, float]]:
    """Share of the beats found within 20 ms, and extra marks over beats, by detector."""
    hits: dict[str, list[bool]] = {}
    extra: dict[str, int] = {}
    for seed in range(FIRST_SEED, FIRST_SEED + patients):
        patient = sample_patient(seed, rhythm=rhythm)
        ecg = simulate_ecg(patient, duration_s=30.0, device=device)
        r_s = patient_beats(patient).r_s
        r_s = r_s[(r_s > ecg.start_s + 0.3) & (r_s < ecg.end_s - 0.3)]
        for name, marks in find_peaks(ecg, lead).items():
            times = ecg.start_s + np.append(marks, -1e9) / ecg.sampling_rate_hz
            away = np.abs(r_s[:, None] - times)
            hits.setdefault(name, []).extend(away.min(1) <= 0.02)
            inside = (times > r_s[0] - 0.1) & (times < r_s[-1] + 0.1)
            extra[name] = extra.get(name, 0) + int(np.sum(inside & (away.min(0) > 0.1)))
    return {name: (float(np.mean(found)), extra[name] / len(found)) for name, found in hits.items()}


def median_beat(ecg: EcgSignal, r_s: np.ndarray, before_s: float = 0.32, after_s: float = 0.5) -> np.ndarray:
    """Median over the beats around the R peaks, shape (leads, samples), at the ECG's rate."""
    first = np.rint((r_s - before_s - ecg.start_s) * ecg.sampling_rate_hz).astype(int)
    length = round((before_s + after_s) * ecg.sampling_rate_hz)
    first = first[(first >= 0) & (first + length <= ecg.num_samples)]
    return np.median(ecg.samples_mv[:, first[:, None] + np.arange(length)], axis=1)


def tangent_end(wave: np.ndarray, top: int, reach: int) -> float:
    """Where the tangent at the steepest fall within `reach` samples after `top` meets 0, in samples."""
    fall = np.diff(wave[top : top + reach])
    steepest = top + int(fall.argmin())
    return steepest + 0.5 + (wave[steepest] + wave[steepest + 1]) / 2 / -fall.min()


def measure_intervals(patient: Patient) -> dict[str, float]:
    """PR, QRS and QTc in milliseconds, from the clean signal; NaN where there is nothing to measure.

    The QRS complex of a patient with premature beats is that of those beats.
    """
    ecg = simulate_ecg(patient, duration_s=30.0, device="clean")
    r_s = detect_r_peaks(ecg)
    rr = float(np.median(np.diff(r_s)))
    if patient.rhythm == "pvc":
        r_s = r_s[1:][np.diff(r_s) < 0.8 * rr]
        r_s = r_s[(r_s > 0.4) & (r_s < ecg.end_s - 0.6)]
        if not len(r_s):
            return dict.fromkeys(("qrs", "qtc", "pr"), np.nan)
    beat, rate, at = median_beat(ecg, r_s), ecg.sampling_rate_hz, 160
    speed = np.convolve(np.linalg.norm(np.diff(beat, axis=1), axis=0), np.ones(3) / 3, "same")
    fast = speed > 0.06 * speed[at - 50 : at + 60].max()
    quiet = np.convolve(~fast, np.ones(5), "same") == 5  # 10 ms without change: not the notch of a wide complex
    start = np.flatnonzero(quiet[: at - 8])[-1] + 3
    end = at + 8 + np.flatnonzero(quiet[at + 8 :])[0] - 2
    first, last = end + 20, at + round(min(0.42, 0.6 * rr) * rate)  # T lies before the next P
    lead, top = np.unravel_index(np.abs(beat[:, first:last]).argmax(), (len(beat), last - first))
    t_end = tangent_end(beat[lead] * np.sign(beat[lead, first + top]), first + int(top), 50)
    result = {"qrs": 1000 * (end - start) / rate, "qtc": np.nan, "pr": np.nan}
    if patient.rhythm != "pvc":
        result["qtc"] = 1000 * (t_end - start) / rate / rr ** (1 / 3)
    if patient.rhythm in ("sinus", "lbbb") and rr > 0.55:
        back = beat[1, :start][::-1]
        result["pr"] = 1000 * tangent_end(back, 15 + int(back[15:85].argmax()), 25) / rate
    return result


def measure_shape(patient: Patient) -> np.ndarray:
    """What the median beat of the clean 12 leads looks like, whatever way the heart lies: about 40 numbers.

    The leads give back the dipole (the inverse of Dower's matrix); sizes, widths and angles of its QRS and T loops.
    """
    ecg = simulate_ecg(patient, duration_s=10.0, device="clean").select(tuple(DOWER))
    beat = np.linalg.pinv(np.array(list(DOWER.values()))) @ median_beat(ecg, detect_r_peaks(ecg), 0.1)
    at, size = 50, np.linalg.norm(beat, axis=0)
    qrs, qrs_size = beat[:, at - 40 : at + 50], size[at - 40 : at + 50]
    along = beat[:, at] / size[at]
    widths = []
    for share in (0.1, 0.2, 0.4):
        level = share * qrs_size.max()
        up = int(np.argmax(qrs_size > level))
        down = len(qrs_size) - 1 - int(np.argmax(qrs_size[::-1] > level))
        if up == 0 or down == len(qrs_size) - 1:
            widths.append(float(down - up))
            continue
        rise = (qrs_size[up] - level) / (qrs_size[up] - qrs_size[up - 1])
        fall = (qrs_size[down] - level) / (qrs_size[down] - qrs_size[down + 1])
        widths.append(down + fall - up + rise)
    t_wave = beat[:, at + 65 + int(size[at + 65 : at + 230].argmax())]
    across = np.linalg.norm(qrs - np.outer(along, along @ qrs), axis=0)
    loops = np.log(np.linalg.svd(qrs, compute_uv=False))
    t_along = along @ t_wave
    t_across = np.linalg.norm(t_wave - along * t_along)
    return np.array([np.log(size[at]), *widths, *loops, t_along, t_across, *across[::8], *(along @ qrs)[::8]])


def read_ef(patients: list[Patient]) -> tuple[float, float]:
    """Root mean square and mean absolute error of the EF in points, on the last quarter of the patients.

    Kernel ridge regression (Gaussian, on 25 whitened principal components) on the first half of them; width and
    penalty are chosen on the third quarter.
    """
    features = np.stack([measure_shape(patient) for patient in patients])
    ef = np.array([patient.ef_percent for patient in patients])
    half, quarter = len(ef) // 2, 3 * len(ef) // 4
    features = (features - features[:half].mean(0)) / (features[:half].std(0) + 1e-9)
    _, values, axes = np.linalg.svd(features[:half], full_matrices=False)
    parts = features @ axes[:25].T / values[:25] * np.sqrt(half)
    distance = np.sum((parts[:, None] - parts[:half]) ** 2, axis=2) / 25
    best, errors = np.inf, np.empty(0)
    for width in (0.1, 0.03, 0.01, 0.003):
        kernel = np.exp(-width * distance)
        for penalty in (1e-1, 1e-2, 1e-3, 1e-4):
            weights = np.linalg.solve(kernel[:half] + penalty * np.eye(half), ef[:half] - ef[:half].mean())
            error = kernel @ weights + ef[:half].mean() - ef
            if np.std(error[half:quarter]) < best:
                best, errors = float(np.std(error[half:quarter])), error[quarter:]
    return float(np.sqrt(np.mean(errors**2))), float(np.abs(errors).mean())


def print_detectors(patients: int) -> dict[str, dict[str, float]]:
    """Table and figures of the detectors; sinus rhythm in every recording, the others in lead II of a clean ECG."""
    cases = [("sinus", *recording) for recording in RECORDINGS]
    cases += [(rhythm, "clean", "II") for rhythm in RHYTHMS if rhythm != "sinus"]
    result = {}
    print("rhythm  device    lead  detector      found %  extra %")
    for rhythm, device, lead in cases:
        scores = score_detectors(rhythm, device, lead, patients if rhythm == "sinus" else max(patients // 5, 2))
        for name, (found, extra) in scores.items():
            print(f"{rhythm:6s}  {device:8s}  {lead:4s}  {name:12s}  {100 * found:6.2f}  {100 * extra:7.2f}")
        result[f"{rhythm}_{device}_{lead}"] = {name: round(found, 4) for name, (found, _) in scores.items()}
    return result


def print_intervals(patients: int) -> dict[str, list[float]]:
    """Table and figures of the intervals: smallest, median and largest, milliseconds."""
    result = {}
    print("rhythm  interval  min  median  max, ms")
    for rhythm in RHYTHMS:
        measured = [measure_intervals(sample_patient(FIRST_SEED + i, rhythm=rhythm)) for i in range(patients)]
        for name in measured[0]:
            values = np.array([interval[name] for interval in measured])
            if np.isfinite(values).any():
                low, middle, high = (float(round(x)) for x in np.nanquantile(values, [0, 0.5, 1]))
                print(f"{rhythm:6s}  {name:8s} {low:4.0f}  {middle:6.0f} {high:4.0f}")
                result[f"{rhythm}_{name}_ms"] = [low, middle, high]
    return result


def measure_spread() -> dict[str, float]:
    """How EF is spread over 1000 default patients."""
    patients = [sample_patient(seed) for seed in range(FIRST_SEED, FIRST_SEED + 1000)]
    ef = np.array([patient.ef_percent for patient in patients])
    sinus = ef[[patient.rhythm == "sinus" for patient in patients]]
    spread = {"below_35": np.mean(ef < 35), "above_65": np.mean(ef > 65), "mean": ef.mean(), "mean_sinus": sinus.mean()}
    spread |= {"min": ef.min(), "max": ef.max(), "sd": ef.std()}
    return {name: round(float(value), 3) for name, value in spread.items()}


def measure_link(patients: int) -> dict[str, float]:
    """The bound, and what a regression reaches for narrow beats (sinus, AF, with PVC) and for LBBB."""
    everyone = [sample_patient(FIRST_SEED + i) for i in range(patients)]
    narrow = [patient for patient in everyone if patient.rhythm in ("sinus", "af", "pvc")]
    block = [sample_patient(FIRST_SEED + i, rhythm="lbbb") for i in range(patients // 2)]
    result = {f"bound_{name}": value for name, value in irreducible_error(EcgEfLink()).items()}
    for name, group in (("narrow", narrow), ("lbbb", block)):
        rmse, mae = read_ef(group)
        result |= {f"read_rmse_points_{name}": round(rmse, 3), f"read_mae_points_{name}": round(mae, 3)}
    return result


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patients", type=int, default=100)
    parser.add_argument("--link", type=int, default=0, metavar="PATIENTS", help="also read the EF from the ECG")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # detectors warn about records that they find short
    result = {"patients": arguments.patients, "ef": measure_spread()}
    result["intervals"] = print_intervals(arguments.patients)
    result["found_within_20_ms"] = print_detectors(arguments.patients)
    if arguments.link:
        result["link"] = measure_link(arguments.link)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
