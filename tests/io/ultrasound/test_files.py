"""Containers: DICOM in its pixel formats, video, GIF and arrays; what is refused; what is left behind."""

import io
import json

import numpy as np
import pytest

from echopulse.errors import InputError
from echopulse.io.ultrasound import is_ultrasound, read_echo

SECRETS = ("DOE^JANE", "1.2.826.0.1.999.77", "19610417", "Hospital of Nowhere", "PID-4711")


def dicom(path, frames, *, syntax="1.2.840.10008.1.2.1", color="RGB", **tags):
    """Writes a multi-frame ultrasound DICOM with planted identifiers."""
    import pydicom
    from pydicom.dataset import FileMetaDataset

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.3.1"
    meta.MediaStorageSOPInstanceUID = SECRETS[1] + ".1"
    meta.TransferSyntaxUID = syntax
    data = pydicom.Dataset()
    data.file_meta = meta
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.PatientName, data.PatientID, data.PatientBirthDate = SECRETS[0], SECRETS[4], SECRETS[2]
    data.StudyInstanceUID, data.InstitutionName, data.StudyDate = SECRETS[1], SECRETS[3], SECRETS[2]
    data.Modality = "US"
    data.add_new(0x00091001, "LO", SECRETS[0])
    data.NumberOfFrames, data.Rows, data.Columns = frames.shape[:3]
    data.SamplesPerPixel = 3 if frames.ndim == 4 else 1
    data.PhotometricInterpretation = color
    if frames.ndim == 4:
        data.PlanarConfiguration = 0
    bits = 8 * frames.dtype.itemsize
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = bits, bits, bits - 1, 0
    data.FrameTime = "25"
    data.PixelData = frames.tobytes()
    for name, value in tags.items():
        setattr(data, name, value)
    data.save_as(path, enforce_file_format=True)
    return path


@pytest.fixture(scope="module")
def frames():
    """A small moving sector, RGB."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:96, :128]
    sector = (np.hypot(y - 5, x - 64) < 75) & (np.abs(np.arctan2(x - 64, y - 5)) < 0.7)
    grey = (rng.integers(20, 220, (6, 96, 128)) * sector).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=3)


def test_the_sector_is_kept_and_black_around(frames, tmp_path):
    frames = frames.copy()
    frames[:, 2:8, 4:40] = 250
    reading = read_echo(dicom(tmp_path / "a.dcm", frames))
    top, left, height, width = reading.crop
    assert reading.clip.frames.shape == (6, height, width)
    assert reading.clip.fps == pytest.approx(40)
    assert reading.frame_times_s == pytest.approx(np.arange(6) * 0.025)
    assert abs(top - 5) <= 3 and abs(left + width / 2 - 64) <= 3 and abs(top + height - 80) <= 3
    assert reading.clip.frames[:, 0, 0].max() == 0
    inside = frames[:, top + height // 2, left + width // 2, 0]
    assert (reading.clip.frames[:, height // 2, width // 2] == inside).all()
    assert not reading.color_doppler


def test_pixel_formats_agree(frames, tmp_path):
    import pydicom
    from pydicom.pixels import convert_color_space
    from pydicom.uid import RLELossless

    grey = np.ascontiguousarray(frames[..., 0])
    ramp = np.arange(256, dtype=np.uint16) * 257
    palette = {}
    for name in ("Red", "Green", "Blue"):
        palette[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        palette[f"{name}PaletteColorLookupTableData"] = ramp.tobytes()
    expected = read_echo(dicom(tmp_path / "rgb.dcm", frames)).clip.frames
    ybr = np.stack([convert_color_space(frame, "RGB", "YBR_FULL") for frame in frames])
    files = [
        dicom(tmp_path / "grey.dcm", grey, color="MONOCHROME2"),
        dicom(tmp_path / "inverse.dcm", 255 - grey, color="MONOCHROME1"),
        dicom(tmp_path / "deep.dcm", grey.astype(np.uint16) << 8, color="MONOCHROME2"),
        dicom(tmp_path / "palette.dcm", grey, color="PALETTE COLOR", **palette),
        dicom(tmp_path / "ybr.dcm", ybr, color="YBR_FULL"),
    ]
    packed = pydicom.dcmread(files[3])
    packed.compress(RLELossless)
    packed.save_as(tmp_path / "rle.dcm")
    for path in [*files, tmp_path / "rle.dcm"]:
        clip = read_echo(path).clip.frames
        assert clip.shape == expected.shape, path.name
        assert np.abs(clip.astype(int) - expected).max() <= 1, path.name


@pytest.mark.parametrize(
    ("module", "syntax"),
    [("openjpeg", "1.2.840.10008.1.2.4.90"), ("jpeg_ls", "1.2.840.10008.1.2.4.80"), ("PIL", "1.2.840.10008.1.2.4.50")],
)
def test_compressed_pictures_are_decoded(module, syntax, frames, tmp_path):
    from PIL import Image
    from pydicom.encaps import encapsulate

    pytest.importorskip(module)
    grey = np.ascontiguousarray(frames[..., 0])
    path = tmp_path / "packed.dcm"
    if module == "PIL":
        pages = []
        for picture in grey:
            file = io.BytesIO()
            Image.fromarray(picture).save(file, "jpeg", quality=95)
            pages.append(file.getvalue())
        dicom(path, grey, color="MONOCHROME2", syntax=syntax, PixelData=encapsulate(pages))
    else:
        import pydicom

        data = pydicom.dcmread(dicom(path, grey, color="MONOCHROME2"))
        data.compress(syntax)
        data.save_as(path)
    expected = read_echo(dicom(tmp_path / "plain.dcm", grey, color="MONOCHROME2")).clip.frames
    clip = read_echo(path).clip.frames
    assert clip.shape[0] == 6
    assert clip.mean() == pytest.approx(expected.mean(), rel=0.1)


def test_video_in_dicom(frames, tmp_path):
    import av
    from pydicom.encaps import encapsulate

    file = io.BytesIO()
    with av.open(file, "w", format="mpegts") as container:
        stream = container.add_stream("mpeg2video", rate=25)
        stream.height, stream.width, stream.pix_fmt = 96, 128, "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    path = dicom(
        tmp_path / "video.dcm",
        frames,
        syntax="1.2.840.10008.1.2.4.100",
        color="YBR_FULL_422",
        PixelData=encapsulate([file.getvalue()]),
    )
    assert read_echo(path).clip.num_frames == 6


def test_gif_npy_and_their_times(frames, tmp_path):
    from PIL import Image

    pages = [Image.fromarray(frame) for frame in frames]
    pages[0].save(tmp_path / "a.gif", save_all=True, append_images=pages[1:], duration=50)
    reading = read_echo(tmp_path / "a.gif", size=(32, 48))
    assert reading.clip.frames.shape == (6, 32, 48) and reading.clip.fps == pytest.approx(20)
    np.save(tmp_path / "a.npy", frames[..., 0])
    reading = read_echo(tmp_path / "a.npy", with_ecg=False)
    assert reading.clip.fps == pytest.approx(30) and any("assumed" in line for line in reading.warnings)
    for name in ("a.gif", "a.npy"):
        assert is_ultrasound(tmp_path / name)


def test_the_size_keeps_the_shape_between_black_borders(frames, tmp_path):
    path = dicom(tmp_path / "a.dcm", frames)
    wide = read_echo(path, size=(40, 80)).clip.frames
    assert wide.shape == (6, 40, 80)
    assert wide[:, :, :10].max() == 0 and wide[:, 20, 40].max() > 0


def test_color_flow_is_flagged(frames, tmp_path):
    flow = frames.copy()
    flow[:, 40:55, 55:75] = (220, 30, 20)
    assert read_echo(dicom(tmp_path / "a.dcm", flow)).color_doppler


def test_text_inside_the_sector_is_told(Screen, tmp_path):
    from PIL import Image, ImageDraw

    frames = Screen(ecg=False, frames=4, height=300, width=400).render()
    image = Image.new("RGB", (400, 300))
    ImageDraw.Draw(image).text((180, 120), "Jane Doe", fill=(255, 255, 255))
    np.save(tmp_path / "plain.npy", frames)
    np.save(tmp_path / "text.npy", np.maximum(frames, np.asarray(image)))
    assert not any("remain" in line for line in read_echo(tmp_path / "plain.npy").warnings)
    assert any("remain" in line for line in read_echo(tmp_path / "text.npy").warnings)


def test_no_identifier_survives_in_tags_or_pixels(Screen, tmp_path):
    screen = Screen(frames=12, height=300, width=400, trace_width=220, swing=24, secrets=("JANE DOE", "17.04.1961"))
    blank = Screen(**{**screen.__dict__, "secrets": ()})
    private = {"HeartRate": "70"}
    with_names = read_echo(dicom(tmp_path / "names.dcm", screen.render(), **private))
    without = read_echo(dicom(tmp_path / "blank.dcm", blank.render(), **private))
    assert (with_names.clip.frames == without.clip.frames).all()
    assert (with_names.ecg_picture == without.ecg_picture).all()
    clip = with_names.clip
    told = json.dumps([clip.provenance, with_names.removed, with_names.warnings, clip.ecg.source, clip.view])
    for secret in (*SECRETS, "JANE", "names.dcm", str(tmp_path)):
        assert secret not in told
    assert {"PatientName", "PatientID", "StudyDate", "StudyInstanceUID"} <= set(with_names.removed)
    assert any("private" in name for name in with_names.removed)


def test_regions_bound_the_search_and_hostile_ones_do_no_harm(frames, tmp_path):
    import pydicom

    item = pydicom.Dataset()
    item.RegionSpatialFormat, item.RegionDataType = 1, 1
    item.RegionLocationMinX0, item.RegionLocationMinY0 = 30, 0
    item.RegionLocationMaxX1, item.RegionLocationMaxY1 = 4_000_000_000, 60
    reading = read_echo(dicom(tmp_path / "a.dcm", frames, SequenceOfUltrasoundRegions=[item, pydicom.Dataset()]))
    assert reading.crop[0] + reading.crop[2] <= 61


@pytest.mark.parametrize(
    ("tags", "match"),
    [
        ({"Rows": 65535, "Columns": 65535}, "pixels in all"),
        ({"NumberOfFrames": "2000000000"}, "frames"),
        ({"NumberOfFrames": "600"}, "not complete"),
        ({"SamplesPerPixel": 7}, "pixels; expected"),
        ({"PhotometricInterpretation": "HSV"}, "pixels; expected"),
    ],
)
def test_absurd_headers_are_refused(tags, match, frames, tmp_path):
    with pytest.raises(InputError, match=match) as caught:
        read_echo(dicom(tmp_path / "a.dcm", frames, **tags))
    assert "\n" not in str(caught.value)


def test_broken_files_give_one_clear_line(frames, tmp_path):
    good = dicom(tmp_path / "a.dcm", frames).read_bytes()
    (tmp_path / "cut.dcm").write_bytes(good[: len(good) // 2])
    (tmp_path / "text.dcm").write_text("no picture at all")
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "cut.gif").write_bytes(b"GIF89a" + bytes(20))
    for name in ("cut.dcm", "text.dcm", "empty.mp4", "cut.gif", "missing.dcm"):
        with pytest.raises(InputError) as caught:
            read_echo(tmp_path / name)
        assert name in str(caught.value) and "\n" not in str(caught.value)
    assert not is_ultrasound(tmp_path / "text.dcm") and not is_ultrasound(tmp_path / "missing.dcm")


def test_an_ecg_dicom_is_no_ultrasound(tmp_path):
    import pydicom
    from pydicom.dataset import FileMetaDataset

    data = pydicom.Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = "1.2.840.10008.5.1.4.1.1.9.1.1"
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = "1.2.3"
    data.save_as(tmp_path / "ecg.dcm", enforce_file_format=True)
    assert not is_ultrasound(tmp_path / "ecg.dcm")
    with pytest.raises(InputError, match="without pictures"):
        read_echo(tmp_path / "ecg.dcm")
