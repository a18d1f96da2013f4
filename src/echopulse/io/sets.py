"""Prepared sets: clips with their ECG in a folder, as training and evaluation read them.

```
SET/manifest.jsonl           one JSON object a line, one line a clip, sorted by id
SET/clips/<id>.npy           uint8 (frames, height, width)
SET/clips/<id>.masks.npy     uint8 of the same shape, classes of `axes.MASK_CLASSES` (optional)
SET/ecg/<id>.hea, <id>.dat   WFDB record, 16 bit, millivolts
```

The clock of a set starts at frame 0 of each clip. A set may come from anywhere, so every name,
size and type in it is checked before it is used.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from echopulse.axes import MASK_CLASSES
from echopulse.errors import InputError
from echopulse.io.video import read_npy_header, whole_file
from echopulse.signals import EcgSignal, EchoClip, PairedClip

MANIFEST = "manifest.jsonl"
ADC_UNITS_PER_MV = 1000
"""Gain of the written ECG: steps of 1 uV, up to 32.7 mV; less only for a signal that would not fit."""
ADC_LIMIT = 32767
MAX_LEADS = 64
MAX_ECG_VALUES = 100_000_000

_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,199}")
_FIELDS: dict[str, tuple[type, ...]] = {
    "id": (str,),
    "subject": (str,),
    "split": (str,),
    "source": (str,),
    "view": (str,),
    "video": (str,),
    "ecg": (str,),
    "num_frames": (int,),
    "fps": (int, float),
    "ecg_start_s": (int, float),
}
_OPTIONAL: dict[str, tuple[tuple[type, ...], Any]] = {
    "exam": ((str,), ""),
    "masks": ((str, type(None)), None),
    "frame_times_s": ((list, type(None)), None),
    "truth": ((dict,), {}),
    "provenance": ((dict,), {}),
}


def write_set_clip(folder: str | Path, paired: PairedClip, source: str, exam: str = "") -> dict[str, Any]:
    """Writes one clip of a set: video, masks and ECG, each complete or not at all.

    Times are moved to the set's clock, where frame 0 is at 0 s: `ecg_start_s` and every truth
    field that ends in `_times_s`.

    Args:
        folder: the set; made if missing.
        paired: clip with its ECG; `paired.id` names the files.
        source: the data set or simulator that it comes from.
        exam: name of the examination, where one is known.

    Returns:
        The line for `write_manifest`.

    Raises:
        InputError: an id that cannot name a WFDB record, or an ECG that does not fit 16 bits.
    """
    folder, clip, ecg, name = Path(folder), paired.clip, paired.clip.ecg, paired.id
    assert ecg is not None  # PairedClip promises it
    if not _ID.fullmatch(name) or "." in name:
        raise InputError(f"clip id {name!r}: expected letters, digits, _ and - only, as WFDB record names; rename it")
    (folder / "clips").mkdir(parents=True, exist_ok=True)
    (folder / "ecg").mkdir(exist_ok=True)
    _write_array(folder / f"clips/{name}.npy", clip.frames)
    if paired.masks is not None:
        _write_array(folder / f"clips/{name}.masks.npy", _checked_masks(paired.masks, name))
    write_wfdb(folder / "ecg", name, ecg)
    return {
        "id": name,
        "subject": paired.subject,
        "exam": exam,
        "split": paired.split,
        "source": source,
        "view": clip.view,
        "video": f"clips/{name}.npy",
        "masks": None if paired.masks is None else f"clips/{name}.masks.npy",
        "ecg": f"ecg/{name}",
        "num_frames": clip.num_frames,
        "fps": clip.fps,
        "ecg_start_s": ecg.start_s - clip.start_s,
        "truth": {
            key: [time_s - clip.start_s for time_s in value] if key.endswith("_times_s") and value else value
            for key, value in paired.truth.items()
        },
        "provenance": dict(clip.provenance),
    }


def write_manifest(folder: str | Path, lines: Sequence[Mapping[str, Any]]) -> Path:
    """Writes `manifest.jsonl`, sorted by id, under a temporary name and renamed.

    Raises:
        InputError: a line that `read_manifest` would refuse.
    """
    path = Path(folder) / MANIFEST
    ordered = sorted(lines, key=lambda line: str(line.get("id")))
    _check_lines([(f"manifest line of {line.get('id')!r}", dict(line)) for line in ordered])
    try:
        text = "".join(json.dumps(dict(line), allow_nan=False) + "\n" for line in ordered)
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: truth and provenance hold plain finite JSON values only ({error})") from error
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def read_manifest(folder: str | Path) -> list[dict[str, Any]]:
    """Reads and checks the manifest of a set; optional fields are filled in.

    Raises:
        InputError: no such set, a line that is not JSON, a missing or wrong field, a path that
            leaves the set, an id twice, or a subject in two splits.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; expected a prepared set (make one with simulate or prepare)")
    path = folder / MANIFEST
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise InputError(f"{folder}: no {MANIFEST} in it; expected a prepared set (simulate or prepare)") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as UTF-8 text ({error})") from error
    numbered = []
    for number, row in enumerate(text.split("\n"), start=1):
        if not row.strip():
            continue
        try:
            value = json.loads(row, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path} line {number}: not valid JSON ({error}); expected one object a line") from error
        if not isinstance(value, dict):
            raise InputError(f"{path} line {number}: got {type(value).__name__}, expected a JSON object")
        numbered.append((f"{path} line {number}", value))
    if not numbered:
        raise InputError(f"{path}: no clips in it; expected at least one line")
    return _check_lines(numbered)


class PreparedSet:
    """A prepared set, read lazily: the manifest at once, pictures and ECG when asked for.

    Args:
        folder: the set.

    Raises:
        InputError: the manifest is missing or wrong.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._lines = read_manifest(self.folder)

    def __len__(self) -> int:
        return len(self._lines)

    @property
    def ids(self) -> tuple[str, ...]:
        """Names of the clips, in the order of the manifest."""
        return tuple(line["id"] for line in self._lines)

    def line(self, i: int) -> dict[str, Any]:
        """The manifest line of clip `i`, optional fields filled in."""
        return dict(self._lines[i])

    def frames(self, i: int) -> np.ndarray:
        """Pictures of clip `i`, memory-mapped, uint8 of shape (frames, height, width).

        Raises:
            InputError: missing file, another type or shape than the manifest says.
        """
        line = self._lines[i]
        frames = _map_array(self._file(line["video"]))
        if frames.shape[0] != line["num_frames"]:
            raise InputError(
                f"{self.folder}: clip {line['id']} has {frames.shape[0]} frames, its manifest line says "
                f"{line['num_frames']}; prepare the set again"
            )
        return frames

    def masks(self, i: int) -> np.ndarray | None:
        """Classes of clip `i`, memory-mapped, uint8 of the shape of its frames; None where there are none.

        Raises:
            InputError: missing file, another shape than the frames, or an unknown class.
        """
        line = self._lines[i]
        if line["masks"] is None:
            return None
        masks = _map_array(self._file(line["masks"]))
        shape = self.frames(i).shape
        if masks.shape != shape:
            raise InputError(f"{self.folder}: masks of {line['id']} have shape {masks.shape}, its frames {shape}")
        return _checked_masks(masks, line["id"])

    def ecg(self, i: int) -> EcgSignal:
        """ECG of clip `i` on the clock of its frames.

        Raises:
            InputError: missing or broken record, or units other than millivolts.
        """
        line = self._lines[i]
        for ending in (".hea", ".dat"):
            self._file(line["ecg"] + ending)
        return _read_wfdb(self.folder / line["ecg"], line["ecg_start_s"])

    def clip(self, i: int) -> PairedClip:
        """Clip `i` with ECG, masks and truth, loaded.

        Raises:
            InputError: any of its parts is missing or wrong.
        """
        line = self._lines[i]
        clip = EchoClip(
            frames=self.frames(i),
            fps=line["fps"],
            view=line["view"],
            ecg=self.ecg(i),
            provenance=dict(line["provenance"]),
        )
        return PairedClip(
            clip,
            masks=self.masks(i),
            truth=dict(line["truth"]),
            id=line["id"],
            subject=line["subject"],
            split=line["split"],
        )

    def _file(self, relative: str) -> Path:
        path = (self.folder / relative).resolve()
        if not path.is_relative_to(self.folder.resolve()):
            raise InputError(f"{self.folder}: {relative} is a link that leaves the set; copy the file into it")
        if not path.is_file():
            raise InputError(f"{self.folder}: no file {relative}, which its manifest names; prepare the set again")
        return path


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def _check_lines(numbered: list[tuple[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    lines, seen, split_of = [], set(), {}
    for where, line in numbered:
        line = _checked_line(line, where)
        if line["id"] in seen:
            raise InputError(f"{where}: id {line['id']} comes twice; expected every id once")
        seen.add(line["id"])
        if line["subject"] and split_of.setdefault(line["subject"], line["split"]) != line["split"]:
            raise InputError(
                f"{where}: subject {line['subject']} is in the splits {split_of[line['subject']]!r} and "
                f"{line['split']!r}; expected every subject in one"
            )
        lines.append(line)
    return lines


def _checked_line(line: dict[str, Any], where: str) -> dict[str, Any]:
    missing = [name for name in _FIELDS if name not in line]
    if missing:
        raise InputError(f"{where}: missing field {', '.join(missing)}")
    line = {**{name: default for name, (_, default) in _OPTIONAL.items()}, **line}
    for name, kinds in (_FIELDS | {name: kinds for name, (kinds, _) in _OPTIONAL.items()}).items():
        if type(line[name]) not in kinds:
            expected = " or ".join("null" if kind is type(None) else kind.__name__ for kind in kinds)
            raise InputError(f"{where}: {name} is {str(line[name])[:60]!r}, expected {expected}")
    if not _ID.fullmatch(line["id"]):
        raise InputError(f"{where}: id is {line['id'][:60]!r}, expected letters, digits, _ . - (not first a dot)")
    for name in ("video", "masks", "ecg"):
        path = line[name]
        if path is not None and not _stays_inside(path):
            raise InputError(f"{where}: {name} is {path[:60]!r}, expected a path inside the set, such as clips/a.npy")
    if line["num_frames"] < 1:
        raise InputError(f"{where}: num_frames is {line['num_frames']}, expected 1 or more")
    if not (_is_finite(line["fps"]) and line["fps"] > 0):
        raise InputError(f"{where}: fps is {line['fps']}, expected a positive number")
    if not _is_finite(line["ecg_start_s"]):
        raise InputError(f"{where}: ecg_start_s is {line['ecg_start_s']}, expected seconds")
    if line["frame_times_s"] is not None:
        _check_frame_times(line, where)
    return line


def _check_frame_times(line: dict[str, Any], where: str) -> None:
    times, fps = line["frame_times_s"], float(line["fps"])
    if len(times) != line["num_frames"] or not all(type(t) in (int, float) and _is_finite(t) for t in times):
        raise InputError(f"{where}: frame_times_s is not {line['num_frames']} finite numbers, one a frame")
    if any(abs(t - i / fps) > 0.5 / fps for i, t in enumerate(times)):
        raise InputError(
            f"{where}: frame_times_s leave i / fps by more than half a frame; resample the clip to an even rate"
        )


def _is_finite(number: int | float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:
        return False


def _stays_inside(path: str) -> bool:
    parts = PurePosixPath(path).parts
    return bool(parts) and not path.startswith("/") and ".." not in parts and not re.search(r"[\\:\x00-\x1f]", path)


def _write_array(path: Path, array: np.ndarray) -> None:
    with whole_file(path) as temporary, temporary.open("wb") as file:
        np.save(file, np.ascontiguousarray(array), allow_pickle=False)


def _map_array(path: Path) -> np.ndarray:
    try:
        with path.open("rb") as file:
            shape, fortran, dtype = read_npy_header(file)
            offset = file.tell()
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a complete .npy array; prepare the set again") from error
    if dtype != np.uint8 or len(shape) != 3 or min(shape) < 1:
        raise InputError(f"{path}: {dtype} of shape {shape}; expected uint8 of shape (frames, height, width)")
    if path.stat().st_size < offset + math.prod(shape):
        raise InputError(f"{path}: shorter than its shape {shape} says; expected a complete .npy array")
    return np.memmap(path, np.uint8, "r", offset, shape, "F" if fortran else "C")


def _checked_masks(masks: np.ndarray, name: str) -> np.ndarray:
    if masks.dtype != np.uint8 or masks.max() >= len(MASK_CLASSES):
        raise InputError(
            f"masks of {name}: {masks.dtype} with values up to {masks.max()}; expected uint8 up to "
            f"{len(MASK_CLASSES) - 1} ({', '.join(MASK_CLASSES)})"
        )
    return masks


def write_wfdb(folder: Path, name: str, ecg: EcgSignal) -> None:
    """Writes `<name>.hea` and `<name>.dat`: millivolts in 16 bits, the same bytes for the same signal.

    Raises:
        InputError: a lead name or a voltage that the format cannot hold.
    """
    for lead in ecg.leads:
        if not (lead.strip() and lead.isprintable() and lead.isascii()):
            raise InputError(f"clip {name}: ECG lead name {lead!r} cannot be written; expected printable ASCII")
    peak_mv = float(np.abs(ecg.samples_mv).max())
    gain = min(ADC_UNITS_PER_MV, int(ADC_LIMIT / peak_mv)) if peak_mv else ADC_UNITS_PER_MV
    if gain < 1:
        raise InputError(f"clip {name}: ECG reaches {peak_mv:g} mV; expected millivolts, below {ADC_LIMIT}")
    values = np.rint(ecg.samples_mv.astype(np.float64) * gain).astype("<i2")
    sums = (values.sum(axis=1, dtype=np.int64) + 32768) % 65536 - 32768
    rate = np.format_float_positional(ecg.sampling_rate_hz, trim="-")
    header = [f"{name} {len(ecg.leads)} {rate} {ecg.num_samples}"] + [
        f"{name}.dat 16 {gain}(0)/mV 16 0 {row[0]} {total} 0 {lead}"
        for lead, row, total in zip(ecg.leads, values, sums, strict=True)
    ]
    with whole_file(folder / f"{name}.dat") as temporary:
        temporary.write_bytes(values.T.tobytes())
    with whole_file(folder / f"{name}.hea") as temporary:
        temporary.write_text("\n".join(header) + "\n", encoding="ascii", newline="\n")


def _read_wfdb(record: Path, start_s: float) -> EcgSignal:
    import wfdb

    try:
        header: Any = wfdb.rdheader(str(record.resolve()))
        signals, length = header.n_sig, getattr(header, "sig_len", None)
    except Exception as error:  # the parser meets broken text with any kind of exception
        raise InputError(f"{record}.hea: not a WFDB header ({error})") from error
    if isinstance(header, wfdb.MultiRecord) or not signals or not length or signals > MAX_LEADS:
        raise InputError(f"{record}.hea: {signals} signals of {length} samples; expected one segment of 1-{MAX_LEADS}")
    if set(header.file_name) != {f"{record.name}.dat"} or set(header.fmt) != {"16"}:
        raise InputError(f"{record}.hea: expected all signals in {record.name}.dat, format 16")
    if set(header.units) != {"mV"}:
        raise InputError(f"{record}.hea: units {', '.join(map(str, header.units))}; expected mV")
    values, size = length * sum(header.samps_per_frame), record.with_name(f"{record.name}.dat").stat().st_size
    if values > MAX_ECG_VALUES or size < 2 * values:
        raise InputError(f"{record}.dat: {size} bytes for {values} values of 2 bytes; expected a complete record")
    try:
        read: Any = wfdb.rdrecord(str(record.resolve()))
    except Exception as error:
        raise InputError(f"{record}: broken WFDB record ({error})") from error
    return EcgSignal(read.p_signal.T, tuple(read.sig_name), read.fs, start_s, source=record.name, format="wfdb")
