"""The phantom: paired ECG–echo patients whose truth is known exactly.

`rhythm` places the beats, `ecg` turns them into 12 leads, `mechanics` into a volume curve,
`anatomy` into moving tissue and masks, `ultrasound` into pictures; `patient` draws the latents
and joins all of it. One patient is a deterministic function of its seed.
"""

from echopulse.phantom.patient import RHYTHMS, Patient, sample_patient, simulate_clip

__all__ = ["RHYTHMS", "Patient", "sample_patient", "simulate_clip"]
