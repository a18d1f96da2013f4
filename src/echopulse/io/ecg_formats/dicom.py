"""DICOM waveforms: 12-lead, general and ambulatory ECG.

Reference: DICOM PS3.3 section C.10.9; lead codes of SCP-ECG (EN 1064) and ISO/IEEE 11073-10102.
"""

from pathlib import Path
from typing import Any

import numpy as np

from echopulse.errors import InputError
from echopulse.io.ecg_formats.channels import LEAD_NUMBERS, check_size, millivolts_per, wanted_samples
from echopulse.io.mapped import mapped
from echopulse.signals.ecg import EcgSignal
from echopulse.signals.leads import unique_leads

_MAX_BYTES = 1 << 28
_MAX_DEFLATED_BYTES = 1 << 19  # deflate packs at most 1032 bytes into one
_DEFLATED = b"1.2.840.10008.1.2.1.99"


def is_dicom(head: bytes) -> bool:
    """Whether a file begins like DICOM."""
    return head[128:132] == b"DICM"


def read(path: Path, max_duration_s: float | None) -> EcgSignal:
    """Reads the rhythm strip: the longest waveform group that is no median beat, in millivolts.

    Args:
        path: the DICOM file.
        max_duration_s: keep only the beginning.

    Raises:
        InputError: no waveform, or a damaged one.
    """
    from pydicom.waveforms.numpy_handler import multiplex_array

    dataset = _dataset(path)
    groups = list(dataset.get("WaveformSequence") or [])
    if not groups:
        raise InputError(f"{path}: this DICOM file holds no waveform; expected an ECG object")
    lengths = {index: _duration_s(group) for index, group in enumerate(groups)}
    rhythm = [index for index in lengths if not _is_derived(groups[index])] or list(lengths)
    index = max(rhythm, key=lambda candidate: lengths[candidate])
    group = groups[index]
    channels, samples = int(group.NumberOfWaveformChannels), int(group.NumberOfWaveformSamples)
    check_size(path, channels, samples)
    needed = channels * samples * (int(group.WaveformBitsAllocated) // 8)
    if channels < 1 or needed < 1 or len(group.WaveformData) < needed:
        raise InputError(
            f"{path}: cut short: {len(group.WaveformData)} bytes of waveform where {needed} are declared; "
            "copy the file again"
        )
    definitions = list(group.ChannelDefinitionSequence)
    if len(definitions) != channels:
        raise InputError(f"{path}: {len(definitions)} channel definitions for {channels} channels")
    scales = [_scale(path, channel) for channel in definitions]
    chosen = [number for number, scale in enumerate(scales) if scale is not None]
    if not chosen:
        raise InputError(f"{path}: no channel of the waveform is in volts")
    rate = float(group.SamplingFrequency)
    values = multiplex_array(dataset, index, as_raw=False)[: wanted_samples(samples, rate, max_duration_s)].T
    factors = np.array([scales[number] for number in chosen], dtype=np.float64)
    return EcgSignal(
        values[chosen] * factors[:, None],
        unique_leads([_lead_name(definitions[number]) for number in chosen]),
        rate,
        source=path.name,
        format="dicom",
    )


def _dataset(path: Path) -> Any:
    """Everything before the pixels, read from memory: lengths that a damaged file invents then cost nothing."""
    import pydicom

    if path.stat().st_size > _MAX_BYTES:
        raise InputError(f"{path}: {path.stat().st_size} bytes; expected at most {_MAX_BYTES} of a waveform object")
    with mapped(path) as content:
        if _DEFLATED in content[:1024] and len(content) > _MAX_DEFLATED_BYTES:
            raise InputError(f"{path}: deflated to {len(content)} bytes; expected at most {_MAX_DEFLATED_BYTES}")
        return pydicom.dcmread(content, stop_before_pixels=True)


def _duration_s(group: Any) -> float:
    return int(group.NumberOfWaveformSamples) / float(group.SamplingFrequency)


def _is_derived(group: Any) -> bool:
    label = str(group.get("MultiplexGroupLabel", "")).upper()
    return "MEDIAN" in label or str(group.get("WaveformOriginality", "")).upper() == "DERIVED"


def _scale(path: Path, channel: Any) -> float | None:
    units = channel.get("ChannelSensitivityUnitsSequence")
    if not units:
        raise InputError(f"{path}: a waveform channel has no sensitivity units; cannot tell its millivolts")
    return millivolts_per(str(units[0].CodeValue))


def _lead_name(channel: Any) -> str:
    source = channel.get("ChannelSourceSequence")
    if not source:
        return str(channel.get("ChannelLabel", ""))
    code = str(source[0].get("CodeValue", ""))
    number = code.replace("5.6.3-9-", "").replace("2:", "")
    if number.isdigit():
        value = int(number)
        lead = LEAD_NUMBERS.get(value - (2 << 16) if value > 2 << 16 else value)
        if lead:
            return lead
    return str(source[0].get("CodeMeaning", "")) or str(channel.get("ChannelLabel", ""))
