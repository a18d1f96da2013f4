"""Prepared sets: clips with their ECG in a folder, as training and evaluation read them.

```
SET/manifest.jsonl           one JSON object a line, one line a clip, sorted by id
SET/clips/<id>.npy           uint8 (frames, height, width)
SET/clips/<id>.masks.npy     uint8 of the same shape, classes of `axes.MASK_CLASSES` (optional)
SET/ecg/<id>.hea, <id>.dat   WFDB record, 16 bit, millivolts (a clip without ECG has none)
```

Large sets hold the same files in `shard-*.tar` (see `shards.py`) and are read the same way.
The clock of a set starts at frame 0 of each clip. A set may come from anywhere, so every name,
size and type in it is checked before it is used.
"""

import math
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from echopulse.axes import MASK_CLASSES
from echopulse.errors import InputError
from echopulse.io.files import read_npy_header, whole_file
from echopulse.io.manifest import CLIP_ID, MANIFEST, read_manifest, write_manifest
from echopulse.io.shards import Member, index_shards
from echopulse.signals import EcgSignal, EchoClip, PairedClip

__all__ = [
    "MANIFEST",
    "PreparedSet",
    "read_manifest",
    "write_clip_files",
    "write_manifest",
    "write_set_clip",
    "write_wfdb",
]

ADC_UNITS_PER_MV = 1000
"""Gain of the written ECG: steps of 1 uV, up to 32.7 mV; less only for a signal that would not fit."""
ADC_LIMIT = 32767
MAX_LEADS = 64
MAX_ECG_VALUES = 100_000_000


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
    return write_clip_files(
        folder,
        paired.clip,
        name=paired.id,
        subject=paired.subject,
        split=paired.split,
        source=source,
        exam=exam,
        masks=paired.masks,
        truth=paired.truth,
    )


def write_clip_files(
    folder: str | Path,
    clip: EchoClip,
    *,
    name: str,
    subject: str,
    split: str,
    source: str,
    exam: str = "",
    masks: np.ndarray | None = None,
    truth: dict[str, Any] | None = None,
    frame_times_s: Sequence[float] | None = None,
) -> dict[str, Any]:
    """Writes one clip of a set, with or without an ECG; `write_set_clip` is the way for pairs.

    Args:
        folder: the set; made if missing.
        clip: the video; its ECG is left out where it has none.
        name: id of the clip.
        subject: name of the patient.
        split: `train`, `val`, `test` or empty.
        source: the data set or simulator that it comes from.
        exam: name of the examination, where one is known.
        masks: uint8 of the shape of the frames, where known.
        truth: what is known; plain JSON values.
        frame_times_s: seconds from frame 0, where they are not `i / fps`.

    Returns:
        The line for `write_manifest`.

    Raises:
        InputError: an id that cannot name a WFDB record, or an ECG that does not fit 16 bits.
    """
    folder, ecg = Path(folder), clip.ecg
    if not CLIP_ID.fullmatch(name) or "." in name:
        raise InputError(f"clip id {name!r}: expected letters, digits, _ and - only, as WFDB record names; rename it")
    (folder / "clips").mkdir(parents=True, exist_ok=True)
    _write_array(folder / f"clips/{name}.npy", clip.frames)
    if masks is not None:
        _write_array(folder / f"clips/{name}.masks.npy", _checked_masks(masks, name))
    if ecg is not None:
        (folder / "ecg").mkdir(exist_ok=True)
        write_wfdb(folder / "ecg", name, ecg)
    line = {
        "id": name,
        "subject": subject,
        "exam": exam,
        "split": split,
        "source": source,
        "view": clip.view,
        "video": f"clips/{name}.npy",
        "masks": None if masks is None else f"clips/{name}.masks.npy",
        "ecg": None if ecg is None else f"ecg/{name}",
        "num_frames": clip.num_frames,
        "fps": clip.fps,
        "ecg_start_s": 0.0 if ecg is None else ecg.start_s - clip.start_s,
        "truth": {
            key: [time_s - clip.start_s for time_s in value] if key.endswith("_times_s") and value else value
            for key, value in (truth or {}).items()
        },
        "provenance": dict(clip.provenance),
    }
    return line if frame_times_s is None else line | {"frame_times_s": list(frame_times_s)}


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
        self._members = index_shards(self.folder)

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
            InputError: no ECG, a missing or broken record, or units other than millivolts.
        """
        line = self._lines[i]
        if line["ecg"] is None:
            raise InputError(
                f"{self.folder}: clip {line['id']} has no ECG; its set can train a tokenizer, no generator"
            )
        members = [self._file(line["ecg"] + ending) for ending in (".hea", ".dat")]
        name, start_s = PurePosixPath(line["ecg"]).name, line["ecg_start_s"]
        if all(member.offset == 0 for member in members):
            return _read_wfdb(self.folder / line["ecg"], start_s)
        with TemporaryDirectory() as folder:
            for member, ending in zip(members, (".hea", ".dat"), strict=True):
                (Path(folder) / f"{name}{ending}").write_bytes(member.read())
            return _read_wfdb(Path(folder) / name, start_s)

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

    def _file(self, relative: str) -> Member:
        path = (self.folder / relative).resolve()
        if not path.is_relative_to(self.folder.resolve()):
            raise InputError(f"{self.folder}: {relative} is a link that leaves the set; copy the file into it")
        if path.is_file():
            return Member(path, 0, path.stat().st_size)
        member = self._members.get(PurePosixPath(relative).name)
        if member is None:
            raise InputError(f"{self.folder}: no file {relative}, which its manifest names; prepare the set again")
        return member


def _write_array(path: Path, array: np.ndarray) -> None:
    with whole_file(path) as temporary, temporary.open("wb") as file:
        np.save(file, np.ascontiguousarray(array), allow_pickle=False)


def _map_array(member: Member) -> np.ndarray:
    path = member.path
    try:
        with path.open("rb") as file:
            file.seek(member.offset)
            shape, fortran, dtype = read_npy_header(file)
            offset = file.tell()
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a complete .npy array; prepare the set again") from error
    if dtype != np.uint8 or len(shape) != 3 or min(shape) < 1:
        raise InputError(f"{path}: {dtype} of shape {shape}; expected uint8 of shape (frames, height, width)")
    if member.offset + member.size < offset + math.prod(shape):
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
