"""Lead names, brought to one spelling, and the limb leads that follow from I and II."""

import re

import numpy as np

from echopulse.axes import STANDARD_LEADS

_PREFIX = re.compile(r"^(?:MDC_ECG_LEAD|ECG|EKG|LEAD|ABLEITUNG|D[EÉ]RIVATION)[\s_:.\-]*(?=\S)", re.IGNORECASE)
_CANONICAL = {
    **{name.upper(): name for name in STANDARD_LEADS},
    **{f"MLI{suffix}": f"MLI{suffix}" for suffix in ("", "I", "II")},
    **{f"V{number}R": f"V{number}R" for number in range(1, 7)},
    **{f"V{number}": f"V{number}" for number in range(7, 10)},
    **{"L1": "I", "L2": "II", "L3": "III", "DI": "I", "DII": "II", "DIII": "III"},
    **{"VX": "X", "VY": "Y", "VZ": "Z", "X": "X", "Y": "Y", "Z": "Z"},
}
_STANDARD = {
    **{name: name for name in STANDARD_LEADS},
    **{"MLI": "I", "MLII": "II", "MLIII": "III"},
    **{f"MV{number}": f"V{number}" for number in range(1, 7)},
    **{f"CM{number}": f"V{number}" for number in range(1, 7)},
    **{f"MCL{number}": f"V{number}" for number in range(1, 7)},
}


def normalize_lead(name: str) -> str:
    """The lead's usual spelling: `AVR`, `ECG aVR`, `MDC_ECG_LEAD_AVR`, `Lead aVR` all give `aVR`.

    Names that are no known lead are kept as they are, without surrounding blanks; modified leads
    such as `MLII` keep their own name (see `standard_lead`).
    """
    text = " ".join(name.replace("\x00", " ").split())
    stripped = text
    while match := _PREFIX.match(stripped):
        stripped = stripped[match.end() :]
    key = re.sub(r"\(.*\)|[\s_\-]", "", stripped).upper()
    return _CANONICAL.get(key) or _CANONICAL.get(re.sub(r"(?:REF|LE)$", "", key)) or text


def standard_lead(name: str) -> str | None:
    """The standard lead that this one stands for, or None: `MLII` gives `II`, `MV5` gives `V5`."""
    normal = normalize_lead(name)
    return _STANDARD.get(normal) or _STANDARD.get(normal.upper())


def unique_leads(names: list[str]) -> tuple[str, ...]:
    """Normalized names without repeats: a second `II` becomes `II_2`; an empty name `lead_3`."""
    result: list[str] = []
    for position, name in enumerate(names):
        base = normalize_lead(name) or f"lead_{position + 1}"
        candidate, count = base, 1
        while candidate in result:
            count += 1
            candidate = f"{base}_{count}"
        result.append(candidate)
    return tuple(result)


def derive_limb_leads(leads: tuple[str, ...], samples: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
    """Adds III, aVR, aVL and aVF where only I, II and V1 to V6 are stored, by Einthoven and Goldberger.

    Args:
        leads: normalized names.
        samples: shape (leads, samples).

    Returns:
        The 12 standard leads in their usual order, then all others; or what was given where leads are
        missing that cannot be derived, or none is missing.
    """
    rows = {name: row.astype(np.float64) for name, row in zip(leads, samples, strict=True)}
    missing = [name for name in STANDARD_LEADS if name not in rows]
    if not missing or not set(missing) <= {"III", "aVR", "aVL", "aVF"}:
        return leads, samples
    first, second = rows["I"], rows["II"]
    limb = {
        "III": second - first,
        "aVR": -(first + second) / 2,
        "aVL": first - second / 2,
        "aVF": second - first / 2,
    }
    complete = limb | rows
    names = (*STANDARD_LEADS, *(name for name in leads if name not in STANDARD_LEADS))
    return names, np.stack([complete[name] for name in names])
