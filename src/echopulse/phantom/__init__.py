"""The phantom: paired ECG–echo patients whose truth is known exactly.

`population` says how the latents are spread and `link` what the ECG shows of the ejection fraction; `rhythm` places
the beats, `ecg` turns them into 12 leads and `devices` records them; `mechanics` makes a volume curve, `anatomy`
moving tissue and masks, `ultrasound` pictures; `patient` draws the latents and joins all of it. One patient is a
deterministic function of its seed.
"""

from echopulse.phantom.devices import DEVICES, EcgDevice, record_ecg
from echopulse.phantom.link import EcgEfLink, irreducible_error
from echopulse.phantom.patient import PHANTOM_VERSION, RHYTHMS, Patient, sample_patient, simulate_clip, simulate_ecg

__all__ = [
    "DEVICES",
    "EcgDevice",
    "EcgEfLink",
    "PHANTOM_VERSION",
    "Patient",
    "RHYTHMS",
    "irreducible_error",
    "record_ecg",
    "sample_patient",
    "simulate_clip",
    "simulate_ecg",
]
