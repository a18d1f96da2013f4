"""Tiny stand-ins of the public datasets, with their true layouts."""

import gzip
import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from echopulse.io.sets import write_wfdb
from echopulse.signals import EcgSignal

FRAMES = 12


def moving_fan(frames: int = FRAMES, height: int = 96, width: int = 112, seed: int = 0) -> np.ndarray:
    """A bright sector on black whose cavity beats, uint8 (frames, height, width)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    radius, angle = np.hypot(x - width / 2, y - 4), np.abs(np.arctan2(x - width / 2, y - 4))
    inside = (radius < height - 10) & (angle < 0.7)
    speckle = rng.integers(60, 200, (height, width))
    clip = np.zeros((frames, height, width), np.uint8)
    for i in range(frames):
        cavity = np.hypot(x - width / 2, y - height / 2) < 12 + 5 * np.cos(2 * np.pi * i / 8)
        clip[i] = np.where(inside, np.where(cavity, 20, speckle), 0)
    return clip


def tiny_ecg(seconds: float = 4.0, rate: float = 250.0, heart_rate: float = 75.0) -> EcgSignal:
    """Narrow R waves and broad T waves in lead II."""
    times = np.arange(round(seconds * rate)) / rate
    beats = np.arange(0.3, seconds, 60 / heart_rate)
    wave = sum(np.exp(-(((times - b) / 0.012) ** 2)) + 0.25 * np.exp(-(((times - b - 0.3) / 0.05) ** 2)) for b in beats)
    noise = np.random.default_rng(1).normal(0, 0.005, times.size)
    return EcgSignal((wave + noise)[None], ("II",), rate)


def write_avi(path: Path, frames: np.ndarray, fps: float, codec: str = "mjpeg") -> None:
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1000))
        stream.height, stream.width = frames.shape[1:]
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.repeat(frame[..., None], 3, 2), format="rgb24")))
        container.mux(stream.encode(None))


def camus_nifti(root: Path) -> Path:
    """Two patients; the second one's 4CH sequence runs from end-systole to end-diastole."""
    import nibabel

    for number, reversed_order in ((1, False), (7, True)):
        folder = root / "database_nifti" / f"patient{number:04d}"
        folder.mkdir(parents=True)
        for chambers in ("2CH", "4CH"):
            frames = moving_fan(seed=number)
            masks = np.zeros_like(frames)
            for i in range(FRAMES):
                masks[i, 30 : 60 - i, 40:70] = 1
                masks[i, 60:64, 40:70] = 2
                masks[i, 70:80, 45:65] = 3
            flip = reversed_order and chambers == "4CH"
            for name, volume in (("half_sequence", frames), ("half_sequence_gt", masks)):
                volume = volume[::-1] if flip else volume
                image = nibabel.Nifti1Image(np.ascontiguousarray(volume.T), np.diag([0.4, 0.3, 1, 1]))
                nibabel.save(image, folder / f"patient{number:04d}_{chambers}_{name}.nii.gz")
            ed, es = (FRAMES, 1) if flip else (1, FRAMES)
            (folder / f"Info_{chambers}.cfg").write_text(
                f"ED: {ed}\nES: {es}\nNbFrame: {FRAMES}\nSex: F\nAge: 56\n"
                "ImageQuality: Good\nEF: 61.5\nFrameRate: 48.2\n"
            )
    splits = root / "database_split"
    splits.mkdir()
    (splits / "subgroup_training.txt").write_text("patient0001\n")
    (splits / "subgroup_testing.txt").write_text("patient0007\n")
    return root


def camus_mhd(root: Path) -> Path:
    """One patient in the layout of the challenge: masks of the two ends only, no frame rate."""
    folder = root / "training" / "patient0003"
    folder.mkdir(parents=True)
    frames = moving_fan()

    def write(name: str, volume: np.ndarray) -> None:
        count, height, width = volume.shape
        (folder / f"{name}.raw").write_bytes(volume.tobytes())
        (folder / f"{name}.mhd").write_text(
            f"ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
            "CompressedData = False\n"
            f"ElementSpacing = 0.308 0.154 1.54\nDimSize = {width} {height} {count}\nElementType = MET_UCHAR\n"
            f"ElementDataFile = {name}.raw\n"
        )

    write("patient0003_4CH_sequence", frames)
    for name, frame in (("ED", 0), ("ES", FRAMES - 1)):
        mask = np.zeros((1, *frames.shape[1:]), np.uint8)
        mask[0, 30 : 60 - frame, 40:70] = 1
        write(f"patient0003_4CH_{name}", frames[frame : frame + 1])
        write(f"patient0003_4CH_{name}_gt", mask)
    (folder / "Info_4CH.cfg").write_text(
        f"ED: 1\nES: {FRAMES}\nNbFrame: {FRAMES}\nSex: M\nAge: 60\nImageQuality: Medium\n"
        "LVedv: 94.2\nLVesv: 40.1\nLVef: 57.4\n"
    )
    return root


def echonet_dynamic(root: Path) -> Path:
    names = ("0X1A2B3C", "0X4D5E6F", "0X7A8B9C")
    rows = ["FileName,EF,ESV,EDV,FrameHeight,FrameWidth,FPS,NumberOfFrames,Split"]
    traced = ["FileName,X1,Y1,X2,Y2,Frame"]
    for name, split in zip(names, ("TRAIN", "VAL", "TEST"), strict=True):
        write_avi(root / "Videos" / f"{name}.avi", moving_fan(height=112), 50)
        rows.append(f"{name},55.5,40.25,90.5,112,112,50,{FRAMES},{split}")
        for frame, half in ((2, 20), (7, 10)):
            traced.append(f"{name}.avi,56,30,56,80,{frame}")  # the long axis
            traced += [f"{name}.avi,{56 - half},{y},{56 + half},{y},{frame}" for y in range(32, 80, 4)]
    rows.append("0XMISSING,55,40,90,112,112,50,12,TRAIN")
    (root / "FileList.csv").write_text("\n".join(rows))
    (root / "VolumeTracings.csv").write_text("\n".join(traced))
    return root


def echonet_pediatric(root: Path) -> Path:
    for part in ("A4C", "PSAX"):
        write_avi(root / part / "Videos" / f"CR32-{part}-01.avi", moving_fan(height=112), 30)
        (root / part / "FileList.csv").write_text(
            f"FileName,EF,Sex,Age,Weight,Height,Split\nCR32-{part}-01.avi,63.2,F,7,25,120,9\n"
        )
        points = [(40, 30), (70, 30), (70, 80), (40, 80)]
        traced = [f"CR32-{part}-01.avi,{x},{y},3" for x, y in points] + [f"CR32-{part}-01.avi,,,No Systolic"]
        (root / part / "VolumeTracings.csv").write_text("\n".join(["FileName,X,Y,Frame", *traced]))
    return root


def echonet_lvh(root: Path) -> Path:
    write_avi(root / "Batch1" / "0XAAAA.avi", moving_fan(), 50)
    write_avi(root / "Batch3" / "0XBBBB.avi", moving_fan(seed=3), 50)
    head = "HashedFileName,Calc,CalcValue,Frame,X1,X2,Y1,Y2,Frames,FPS,Width,Height,split"
    rows = ["0XAAAA,LVIDd,4.5,2,1,2,3,4,12,50,112,96,train", "0XAAAA,LVIDs,3.1,9,1,2,3,4,12,50,112,96,train"]
    rows += ["0XBBBB,IVSd,1.0,4,1,2,3,4,12,50,112,96,val"]
    (root / "MeasurementsList.csv").write_text("\n".join([head, *rows]))
    return root


SECTOR = {"depth_start_m": 0.0, "depth_end_m": 0.15, "angle_start_rad": -0.6, "angle_end_rad": 0.6}


def beams(frames: int = FRAMES) -> np.ndarray:
    """Polar pictures of 60 depths and 40 beams with one bright spot at two thirds of the depth, straight down."""
    clip = np.random.default_rng(0).integers(20, 90, (frames, 60, 40), dtype=np.uint8)
    clip[:, 38:42, 18:22] = 250
    return clip


def zarr_recording(path: Path, *, start_s: float = 3.0, ecg: bool = True, geometry: dict | None = None) -> None:
    """A store of Zarr format 2 with Blosc chunks; frames at 50/s, the ECG at 200 Hz begins 1 s before them."""
    import numcodecs
    import zarr

    group = zarr.open_group(path, mode="w", zarr_format=2)
    arrays = {"data/2d_brightness_mode": beams(), "timestamps/2d_brightness_mode": start_s + np.arange(FRAMES) / 50}
    if ecg:
        signal = tiny_ecg(3.0, 200.0).samples_mv[0] * 1000 + 5000
        arrays |= {"data/ecg": signal, "timestamps/ecg": start_s - 1 + np.arange(signal.size) / 200}
    for name, array in arrays.items():
        group.create_array(name, data=array, compressors=numcodecs.Blosc(), chunks=array.shape)
    group.attrs["recording_manifest"] = {
        "manifest_type": "2d",
        "metadata": {"qrs_trigger_times": [start_s + 0.1]},
        "sectors": [
            {
                "semantic_id": "bmode",
                "frames": {"array_path": "data/2d_brightness_mode"},
                "timestamps": {"array_path": "timestamps/2d_brightness_mode"},
                "geometry": SECTOR if geometry is None else geometry,
            }
        ],
    }


def echoxflow_zarr(root: Path) -> Path:
    first, second = root / "exams" / f"exam_{1:016x}", root / "exams" / f"exam_{2:016x}"
    first.mkdir(parents=True)
    second.mkdir()
    zarr_recording(first / f"recording_{1:016x}.zarr")
    other = {"DepthStart": 0.0, "DepthEnd": 0.15, "Tilt": 0.0, "Width": 1.2}
    zarr_recording(first / f"recording_{2:016x}.zarr", ecg=False, geometry=other)
    folder = root / "packed"
    zarr_recording(folder)
    with zipfile.ZipFile(second / f"recording_{3:016x}.zarr", "w") as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(folder).as_posix())
    exam, recording = f"exam_{3:016x}", f"recording_{4:016x}.zarr"
    with tarfile.open(root / "exams" / f"{exam}.tar", "w") as archive:
        archive.add(folder, f"{exam}/{recording}")
    import shutil

    shutil.rmtree(folder)
    rows = [{"recording_links/linked_recording_id": f"recording_{1:016x}", "recording_links/panel_role_id": "4ch"}]
    (root / "croissant.json").write_text(json.dumps({"recordSet": [{"@id": "recording_links", "data": rows}]}))
    folds = "".join(f"exam_{i:016x},{fold}\n" for i, fold in ((1, 0), (2, 1), (3, 2)))
    (root / "splits.csv").write_text("exam_id,five_fold_split\n" + folds)
    return root


def echoxflow_hdf5(root: Path) -> Path:
    import h5py

    rows, columns = np.mgrid[:60, :40]
    depth, angle = rows / 59 * 0.15, -0.6 + columns / 39 * 1.2
    grid = np.stack([depth * np.sin(angle), 0 * depth, depth * np.cos(angle)], -1).astype(np.float32)
    signal = tiny_ecg(3.0, 200.0).samples_mv[0]
    for number in range(3):
        folder = root / f"exam_{number:016x}"
        folder.mkdir(parents=True)
        with h5py.File(folder / f"recording_{number:016x}.hdf5", "w") as file:
            file["data/image/values"] = beams()
            file["data/image/timestamps"] = (np.arange(FRAMES) / 50).astype(np.float32)
            file["data/image/start_time_offset"] = np.float32(3.0)
            file["metadata/subject/id"] = folder.name
            file["metadata/ecg/samples"] = signal
            file["metadata/ecg/start_time_offset"] = np.float32(2.0)
            if number == 0:
                file["metadata/ecg/sampling_frequency"] = np.float32(200)
            else:
                file["metadata/ecg/timestamps"] = (np.arange(signal.size) / 200).astype(np.float32)
            if number < 2:  # the third one has no geometry
                file["data/image/coordinates"] = grid
    return root


def folder_of_pairs(root: Path) -> Path:
    """Three patients with a video and an ECG each, one more video without, and a file of another kind."""
    for number in range(3):
        place = root / f"case{number}"
        write_avi(place / "rest_a4c.avi", moving_fan(40, seed=number), 40)
        write_wfdb(place, "rest_a4c", tiny_ecg())
    np.save(root / "case0" / "lonely.npy", moving_fan(10))
    (root / "notes.txt").write_text("to do")
    return root


def webdataset(root: Path) -> Path:
    """Two shards of others: videos with captions, one with an ECG and fields."""
    root.mkdir()
    write_avi(root / "clip.mp4", moving_fan(40), 40, codec="mpeg4")
    write_wfdb(root, "b", tiny_ecg())
    video = (root / "clip.mp4").read_bytes()
    fields = {"subject": "p7", "view": "A4C", "ecg_start_s": -0.5, "ef_percent": 48, "split": "val"}
    shards = {
        "00000.tar": {"a.mp4": video, "a.txt": b"a heart", "a.json": b'{"caption": "a heart"}', "z.txt": b"alone"},
        "00001.tar": {
            "b.mp4": video,
            "b.hea": (root / "b.hea").read_bytes(),
            "b.dat": (root / "b.dat").read_bytes(),
            "b.json": json.dumps(fields).encode(),
        },
    }
    for name, members in shards.items():
        with tarfile.open(root / name, "w") as archive:
            for member, content in members.items():
                info = tarfile.TarInfo(member)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    for path in [*root.glob("clip.*"), *root.glob("b.*")]:
        path.unlink()
    return root


STANDINS: dict[str, Callable[[Path], Path]] = {
    function.__name__: function
    for function in (
        *(camus_nifti, camus_mhd, echonet_dynamic, echonet_pediatric, echonet_lvh),
        *(echoxflow_zarr, echoxflow_hdf5, folder_of_pairs, webdataset),
    )
}


@pytest.fixture(scope="session")
def standin(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Gives the root of a stand-in, made once."""
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            made[name] = STANDINS[name](tmp_path_factory.mktemp("source") / name)
        return made[name]

    return make


@pytest.fixture(scope="session")
def gzipped() -> Callable[[bytes], bytes]:
    return gzip.compress
