"""CAMUS: apical two- and four-chamber half cycles with masks, as NIfTI or in the older MHD files.

Layout (Leclerc et al., 2019): `patientNNNN/patientNNNN_{2CH,4CH}_half_sequence.nii.gz` and `..._gt.nii.gz`, or
`patientNNNN_{2CH,4CH}_sequence.mhd` with the masks of its first and last frame in `..._{ED,ES}_gt.mhd`;
`Info_{2CH,4CH}.cfg` with `ED`, `ES` (frames from 1), `NbFrame`, `FrameRate` and `EF` (or `LVedv`, `LVesv`,
`LVef`). There is no ECG. Some sequences run from end-systole to end-diastole and are turned around here.
"""

import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from echopulse.errors import InputError
from echopulse.io.datasets.item import (
    Found,
    Skipped,
    SourceClip,
    SourceItem,
    SourceOptions,
    check_room,
    known_view,
    need_reader,
    number,
    read_text,
)
from echopulse.signals import EchoClip

_SEQUENCE = re.compile(r"(patient\d+)_([24]CH)_(?:half_)?sequence\.(?:nii(?:\.gz)?|mhd)", re.IGNORECASE)
_SPLITS = {"training": "train", "validation": "val", "testing": "test"}
_MHD_TYPES = {"MET_UCHAR": "u1", "MET_CHAR": "i1", "MET_USHORT": "u2", "MET_SHORT": "i2", "MET_FLOAT": "f4"}


def matches(root: Path) -> bool:
    """Whether the folder holds CAMUS patients."""
    return any(_SEQUENCE.fullmatch(path.name) for path in root.glob("**/patient*/patient*sequence.*"))


def find(root: Path, options: SourceOptions) -> Found:
    """Finds the sequences."""
    split_of = _official_splits(root)
    items = []
    skipped = []
    for folder in sorted(path for path in root.glob("**/patient*") if path.is_dir()):
        sequences = [path for path in sorted(folder.iterdir()) if _SEQUENCE.fullmatch(path.name)]
        if not sequences:
            skipped.append(Skipped(folder, "no sequence of 2CH or 4CH in it"))
        for path in sequences:
            match = _SEQUENCE.fullmatch(path.name)
            assert match is not None
            patient, chambers = match[1].lower(), match[2].upper()
            items.append(
                SourceItem(
                    key=path.relative_to(root).as_posix(),
                    path=path,
                    dataset="camus",
                    subject=patient,
                    split=split_of.get(patient, ""),
                    view=known_view(chambers),
                    details={"info": folder / f"Info_{chambers}.cfg", "fps": options.fps},
                )
            )
    return Found(items, skipped, removed=("patient numbers", "sex", "age", "image quality"))


def read(item: SourceItem) -> SourceClip:
    """Reads a sequence from end-diastole to end-systole, with its masks."""
    info = _info(item.details["info"])
    fps = number(info.get("FrameRate")) or item.details["fps"]
    if not fps:
        raise InputError(f"{item.details['info']}: no FrameRate in it; say it with --fps")
    frames, spacing = _volume(item.path)
    first, last = 0, len(frames) - 1
    ed, es = (number(info.get(name)) for name in ("ED", "ES"))
    if ed is not None and es is not None:
        first, last = int(ed) - 1, int(es) - 1
        if not (0 <= first < len(frames) and 0 <= last < len(frames)):
            raise InputError(f"{item.details['info']}: ED {ed:g} and ES {es:g}; the sequence has {len(frames)} frames")
    masks, known = _masks(item.path, frames.shape, first, last)
    if first > last:
        frames = frames[::-1]
        masks = None if masks is None else masks[::-1]
        first, last = len(frames) - 1 - first, len(frames) - 1 - last
        known = None if known is None else [len(frames) - 1 - i for i in known]
    truth: dict[str, Any] = {"ed_times_s": [first / fps], "es_times_s": [last / fps]}
    if known is not None:
        truth["mask_frames"] = sorted(known)
    for ours, theirs in (("ef_percent", ("EF", "LVef")), ("edv_ml", ("LVedv",)), ("esv_ml", ("LVesv",))):
        value = next((v for v in (number(info.get(name)) for name in theirs) if v is not None), None)
        if value is not None:
            truth[ours] = value
    clip = EchoClip(np.ascontiguousarray(frames), fps, view=item.view)
    return SourceClip(clip, masks=masks, truth=truth, pixel_height=spacing[0] / spacing[1])


def _official_splits(root: Path) -> dict[str, str]:
    """Split of each patient in `database_split/subgroup_*.txt`, where that is there."""
    found = {}
    for path in sorted(root.glob("**/database_split/*.txt")):
        split = next((ours for name, ours in _SPLITS.items() if name in path.stem.lower()), None)
        if split:
            found |= {patient.lower(): split for patient in re.findall(r"patient\d+", read_text(path), re.IGNORECASE)}
    return found


def _info(path: Path) -> dict[str, str]:
    pairs = (line.split(":", 1) for line in read_text(path).splitlines() if ":" in line)
    return {name.strip(): value.strip() for name, value in pairs}


def _masks(path: Path, shape: tuple[int, ...], first: int, last: int) -> tuple[np.ndarray | None, list[int] | None]:
    """Masks of the sequence, and the frames that have one (None: all of them)."""
    ending = "".join(path.suffixes)
    whole = path.with_name(f"{path.name.removesuffix(ending)}_gt{ending}")
    if whole.is_file():
        masks, known = _volume(whole)[0], None
        if masks.shape != shape:
            raise InputError(f"{whole}: masks of shape {masks.shape} for frames of shape {shape}")
    else:
        masks, known = np.zeros(shape, np.uint8), []
        stem = re.sub(r"_(half_)?sequence$", "", path.name.removesuffix(ending))
        for name, frame in (("ED", first), ("ES", last)):
            still = path.with_name(f"{stem}_{name}_gt{ending}")
            if still.is_file():
                mask = _volume(still)[0]
                if mask.shape[1:] != shape[1:]:
                    raise InputError(f"{still}: a mask of {mask.shape[1:]} for frames of {shape[1:]}")
                masks[frame] = mask[0]
                known.append(frame)
        if not known:
            return None, None
    if masks.max() > 3:
        raise InputError(f"{whole}: classes up to {masks.max()}; expected 0 to 3 (cavity, myocardium, atrium)")
    return masks, known


def _volume(path: Path) -> tuple[np.ndarray, tuple[float, float]]:
    """A volume as uint8 (frames, height, width), and the height and width of a pixel in millimetres."""
    values, spacing = _read_mhd(path) if path.suffix.lower() == ".mhd" else _read_nifti(path)
    if not all(np.isfinite(side) and 1e-3 < side < 100 for side in spacing) or not 0.1 < spacing[0] / spacing[1] < 10:
        spacing = (1.0, 1.0)
    if values.dtype != np.uint8:
        values = np.clip(np.rint(np.nan_to_num(values.astype(np.float32))), 0, 255).astype(np.uint8)
    return values, spacing


def _read_nifti(path: Path) -> tuple[np.ndarray, tuple[float, float]]:
    nibabel = need_reader("nibabel")
    try:
        image = nibabel.load(str(path), mmap=False)
        shape = tuple(int(size) for size in image.shape)
        while len(shape) > 3 and shape[-1] == 1:
            shape = shape[:-1]
        if len(shape) == 2:
            shape = (*shape, 1)
        check_room(path, shape[::-1])
        values = np.asarray(image.dataobj).reshape(shape, order="A").transpose(2, 1, 0)
        zooms = [float(zoom) for zoom in image.header.get_zooms()]
    except InputError:
        raise
    except Exception as error:  # whatever the reader makes of a damaged file
        raise InputError(f"{path}: not a complete NIfTI file ({' '.join(str(error).split())[:200]})") from error
    return values, (zooms[1], zooms[0])


def _read_mhd(path: Path) -> tuple[np.ndarray, tuple[float, float]]:
    pairs = (line.split("=", 1) for line in read_text(path, 1 << 16).splitlines() if "=" in line)
    header = {name.strip(): value.strip() for name, value in pairs}
    try:
        width, height, count = [*(int(size) for size in header["DimSize"].split()), 1][:3]
        dtype = np.dtype(_MHD_TYPES[header["ElementType"]])
        data = header["ElementDataFile"]
        spacing = [float(value) for value in header.get("ElementSpacing", "1 1 1").split()]
        column, row = spacing[:2]
    except (KeyError, ValueError) as error:
        raise InputError(f"{path}: not a MetaImage header of CAMUS ({error})") from error
    check_room(path, (count, height, width))
    if Path(data).name != data:
        raise InputError(f"{path}: its data file is {data[:80]!r}; expected a file beside it")
    raw = path.with_name(data)
    if not raw.is_file():
        raise InputError(f"{path}: no file {data} beside it")
    if header.get("ElementByteOrderMSB", header.get("BinaryDataByteOrderMSB", "False")).lower() == "true":
        dtype = dtype.newbyteorder(">")
    size = count * height * width * dtype.itemsize
    content = raw.read_bytes() if raw.stat().st_size <= size + 4096 else b""
    if header.get("CompressedData", "False").lower() == "true":
        try:
            content = zlib.decompressobj().decompress(content, size)
        except zlib.error as error:
            raise InputError(f"{raw}: not complete ({error})") from error
    if len(content) != size:
        raise InputError(f"{raw}: {raw.stat().st_size} bytes; its header says {size}")
    return np.frombuffer(content, dtype).reshape(count, height, width), (row, column)
