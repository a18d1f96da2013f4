"""XML of GE Healthcare: MUSE (`RestingECG`) and CardioSoft (`CardiologyXML`).

MUSE stores eight leads; `read_ecg` derives the other four. Both files hold median beats beside the
rhythm; the rhythm is read.
"""

import base64
import binascii
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from echopulse.errors import InputError
from echopulse.io.ecg_formats.channels import stack_leads, wanted_samples
from echopulse.io.ecg_formats.xml_tree import number_of, read_tree, text_of
from echopulse.signals.ecg import EcgSignal
from echopulse.signals.leads import unique_leads

_MILLIVOLTS = {"MICROVOLTS": 1e-3, "MILLIVOLTS": 1.0}


def read_muse(path: Path, max_duration_s: float | None) -> EcgSignal:
    """Reads the rhythm strip of a MUSE file, in millivolts.

    Args:
        path: the XML file.
        max_duration_s: keep only the beginning.

    Raises:
        InputError: no rhythm, or a damaged one.
    """
    root = read_tree(path)
    strips = [strip for strip in root.iter("Waveform") if text_of(strip, "WaveformType").upper() != "MEDIAN"]
    if not strips:
        raise InputError(f"{path}: no rhythm waveform in this MUSE file")
    strip = max(strips, key=lambda candidate: sum(len(text_of(lead, "WaveFormData")) for lead in candidate))
    rate = number_of(path, strip, "SampleBase") * 10.0 ** number_of(path, strip, "SampleExponent")
    leads = strip.findall("LeadData")
    rows = [_muse_lead(path, lead) for lead in leads]
    names, values, notes = stack_leads(path, [text_of(lead, "LeadID") for lead in leads], rows)
    off = [text_of(lead, "LeadID") for lead in leads if text_of(lead, "LeadOff").upper() == "TRUE"]
    notes += (f"electrodes were off: {', '.join(off)}",) if off else ()
    values = values[:, : wanted_samples(values.shape[1], rate, max_duration_s)]
    return EcgSignal(values, unique_leads(names), rate, source=path.name, format="muse_xml", notes=notes)


def read_cardiosoft(path: Path, max_duration_s: float | None) -> EcgSignal:
    """Reads the strip of a CardioSoft file (`StripData`), in millivolts.

    Args:
        path: the XML file.
        max_duration_s: keep only the beginning.

    Raises:
        InputError: no strip, or a damaged one.
    """
    strip = read_tree(path).find(".//StripData")
    if strip is None:
        raise InputError(f"{path}: no StripData in this CardioSoft file; export the resting ECG with its rhythm strip")
    rate = number_of(path, strip, "SampleRate")
    millivolts = number_of(path, strip, "Resolution") / 1000
    leads = strip.findall("WaveformData")
    rows = [_numbers(path, lead) * millivolts for lead in leads]
    names, values, notes = stack_leads(path, [lead.get("lead", "") for lead in leads], rows)
    declared = text_of(strip, "ChannelSampleCountTotal")
    if declared.isdigit() and values.shape[1] < int(declared):
        raise InputError(f"{path}: cut short: {values.shape[1]} samples a lead where {declared} are declared")
    values = values[:, : wanted_samples(values.shape[1], rate, max_duration_s)]
    return EcgSignal(values, unique_leads(names), rate, source=path.name, format="cardiosoft_xml", notes=notes)


def _muse_lead(path: Path, lead: Element) -> np.ndarray:
    name = text_of(lead, "LeadID")
    unit = text_of(lead, "LeadAmplitudeUnits").upper() or "MICROVOLTS"
    if unit not in _MILLIVOLTS:
        raise InputError(f"{path}: lead {name} is in {unit[:40]!r}; expected {' or '.join(_MILLIVOLTS)}")
    if text_of(lead, "LeadSampleSize") not in ("", "2"):
        raise InputError(f"{path}: lead {name} has samples of {text_of(lead, 'LeadSampleSize')[:9]} bytes; expected 2")
    try:
        content = base64.b64decode(text_of(lead, "WaveFormData"))
    except binascii.Error as error:
        raise InputError(f"{path}: the samples of lead {name} are damaged: {error}") from error
    declared = text_of(lead, "LeadSampleCountTotal")
    if declared.isdigit() and len(content) < 2 * int(declared):
        raise InputError(
            f"{path}: cut short: lead {name} has {len(content) // 2} samples where {declared} are declared"
        )
    samples = np.frombuffer(content[: len(content) // 2 * 2], dtype="<i2")
    return samples * (number_of(path, lead, "LeadAmplitudeUnitsPerBit") * _MILLIVOLTS[unit])


def _numbers(path: Path, element: Element) -> np.ndarray:
    try:
        return np.array((element.text or "").replace(",", " ").split(), dtype=np.float64)
    except ValueError as error:
        raise InputError(f"{path}: lead {element.get('lead')}: {' '.join(str(error).split())}") from error
