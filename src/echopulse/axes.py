"""Axis legend, array type aliases and units shared by every module.

Axes, in the order in which they appear:

| letter | axis |
|---|---|
| `b` | batch |
| `f` | frames of a clip |
| `c` | picture channels |
| `h`, `w` | picture rows and columns, pixels |
| `t` | token frames: the first holds frame 0 alone, each later one holds two frames |
| `gh`, `gw` | rows and columns of the token grid |
| `n` | sequence positions, whatever they are |
| `d` | width of a network |
| `l` | ECG leads |
| `s` | ECG samples |
| `p` | ECG patches in time |

Units: time in seconds, rates in hertz or frames per second, ECG in millivolts, lengths in
centimetres, volumes in millilitres, ejection fraction in percent. Names carry them:
`duration_s`, `sampling_rate_hz`, `samples_mv`, `depth_cm`, `edv_ml`, `ef_percent`.
Pixels are `uint8` at rest and floats in [0, 1] inside networks.
"""

VIEWS: tuple[str, ...] = ("a4c", "a2c")
"""Apical views that the generator knows; the order is the index of their embedding."""

STANDARD_LEADS: tuple[str, ...] = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
"""The 12 standard leads; the order is the index of their embedding."""

MASK_CLASSES: tuple[str, ...] = (
    "background",
    "lv_cavity",
    "lv_myocardium",
    "left_atrium",
    "right_ventricle",
    "right_atrium",
)
"""Segmentation classes; the position is the pixel value."""

NOT_FOR_DIAGNOSIS = "Synthetic echocardiogram for research and teaching; not for diagnosis."
"""The sentence that every output carries."""
