"""HL7 annotated ECG (`AnnotatedECG`): the rhythm series, not the beats derived from it.

Reference: HL7 aECG Implementation Guide, 2005.
"""

from collections.abc import Callable
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from echopulse.errors import InputError
from echopulse.io.ecg_formats.channels import millivolts_per, stack_leads, wanted_samples
from echopulse.io.ecg_formats.xml_tree import read_tree
from echopulse.signals.ecg import EcgSignal
from echopulse.signals.leads import unique_leads

_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}


def read(path: Path, max_duration_s: float | None) -> EcgSignal:
    """Reads the longest set of sequences of the rhythm series, in millivolts.

    Args:
        path: the XML file.
        max_duration_s: keep only the beginning.

    Raises:
        InputError: no rhythm, or a damaged one.
    """
    root = read_tree(path)
    series = root.findall("component/series")
    rhythm = [each for each in series if _code(each) in ("RHYTHM", "RHYTHM_WAVEFORMS", "")] or series
    sets = [each for one in rhythm for each in one.findall("component/sequenceSet")]
    if not sets:
        raise InputError(f"{path}: no rhythm series in this HL7 aECG")
    chosen = max(sets, key=lambda each: sum(len(digits.text or "") for digits in each.iter("digits")))
    sequences = chosen.findall("component/sequence")
    leads = [each for each in sequences if each.find("value/digits") is not None]
    times = [each for each in sequences if each.find("value/increment") is not None]
    if not times:
        raise InputError(f"{path}: the rhythm has no time sequence, so its sampling rate is unknown")
    rate = 1 / _quantity(path, times[0], "increment", _SECONDS.get)
    rows = [_samples(path, lead) for lead in leads]
    names, values, notes = stack_leads(path, [_code(lead) for lead in leads], rows)
    values = values[:, : wanted_samples(values.shape[1], rate, max_duration_s)]
    return EcgSignal(values, unique_leads(names), rate, source=path.name, format="aecg", notes=notes)


def _code(element: Element) -> str:
    code = element.find("code")
    return "" if code is None else code.get("code", "").strip()


def _samples(path: Path, lead: Element) -> np.ndarray:
    digits = lead.findtext("value/digits") or ""
    try:
        values = np.array(digits.split(), dtype=np.float64)
    except ValueError as error:
        raise InputError(f"{path}: lead {_code(lead)}: {' '.join(str(error).split())}") from error
    return _quantity(path, lead, "origin", millivolts_per) + values * _quantity(path, lead, "scale", millivolts_per)


def _quantity(path: Path, sequence: Element, name: str, unit_factor: Callable[[str], float | None]) -> float:
    """A value with its unit below a sequence, in millivolts or seconds."""
    element = sequence.find(f"value/{name}")
    value, unit = ("", "") if element is None else (element.get("value", ""), element.get("unit", "").strip())
    factor = unit_factor(unit)
    try:
        number = float(value)
    except ValueError:
        number = None
    if number is None or factor is None or (name != "origin" and number <= 0):
        raise InputError(f"{path}: {name} of {_code(sequence)} is {value[:40]!r} {unit[:20]!r}; expected a quantity")
    return number * factor
