"""Videos out and in: each format keeps what it promises, and a failure leaves nothing behind."""

import json
import os
import zipfile
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from echopulse.axes import NOT_FOR_DIAGNOSIS
from echopulse.errors import InputError
from echopulse.io import video
from echopulse.io.overlay import draw_overlay
from echopulse.io.video import check_output, read_video, write_clip
from echopulse.signals import EcgSignal, EchoClip

ENDINGS = (".mp4", ".gif", ".avi", ".npz")
PROVENANCE = {"model": "tiny", "seed": 7, "note": "µ – ok", "r_times_s": [0.3, 1.1]}


def make_ecg(start_s: float = -0.5, duration_s: float = 20.0, leads: tuple[str, ...] = ("I", "II")) -> EcgSignal:
    times_s = start_s + np.arange(int(duration_s * 250)) / 250
    beats = np.exp(-(((times_s - 0.3 + 0.4) % 0.8 - 0.4) ** 2) / 0.0004)
    samples_mv = np.stack([gain * beats for gain in np.linspace(0.5, 1.2, len(leads))])
    return EcgSignal(samples_mv, leads, 250.0, start_s=start_s, source="test")


def make_clip(num_frames: int = 24, height: int = 64, width: int = 80, fps: float = 29.97, **fields) -> EchoClip:
    """Smooth blobs that move."""
    rows, columns = np.mgrid[:height, :width]
    frames = np.stack(
        [
            127 + 120 * np.sin(rows / 9 + 0.3 * i) * np.cos(columns / 11 - 0.2 * i) * np.exp(-(rows**2) / height**2)
            for i in range(num_frames)
        ]
    )
    given = {"start_s": 0.25, "view": "a4c", "ecg": make_ecg(), "provenance": PROVENANCE} | fields
    return EchoClip(frames.round().astype(np.uint8), fps, **given)


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def psnr_db(one: np.ndarray, other: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / max(1e-9, np.mean((one.astype(float) - other.astype(float)) ** 2))))


@pytest.mark.parametrize("ending", [".avi", ".npz", ".gif"])
@pytest.mark.parametrize("size", [(64, 80), (37, 51)])
def test_exact_formats_return_every_pixel(tmp_path: Path, ending: str, size: tuple[int, int]) -> None:
    clip = make_clip(height=size[0], width=size[1])
    back = read_video(clip.save(tmp_path / f"clip{ending}"))
    np.testing.assert_array_equal(back.frames, clip.frames)
    assert back.fps == pytest.approx(29.97, rel=1e-6)


@pytest.mark.parametrize("size", [(64, 80), (63, 80), (37, 51)])
def test_mp4_is_close_and_keeps_its_size(tmp_path: Path, size: tuple[int, int]) -> None:
    clip = make_clip(height=size[0], width=size[1])
    back = read_video(clip.save(tmp_path / "clip.mp4"))
    assert back.frames.shape == clip.frames.shape
    assert psnr_db(back.frames, clip.frames) > 35
    assert abs(back.frames.astype(float).mean() - clip.frames.mean()) < 1  # no change of range


@pytest.mark.parametrize("ending", ENDINGS)
def test_provenance_view_and_clock_come_back(tmp_path: Path, ending: str) -> None:
    back = read_video(make_clip().save(tmp_path / f"clip{ending.upper()}"))
    assert (back.provenance, back.view, back.start_s) == (PROVENANCE, "a4c", 0.25)
    assert leftovers(tmp_path) == [f"clip{ending.upper()}"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_bytes_are_the_same_each_time(tmp_path: Path, ending: str) -> None:
    written = {make_clip().save(tmp_path / f"{i}{ending}").read_bytes() for i in range(12)}
    assert len(written) == 1


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("fps", [30000 / 1001, 1000 / 18.7, 25.0, 7.5])
def test_frame_rates_are_kept(tmp_path: Path, ending: str, fps: float) -> None:
    clip = make_clip(fps=fps, num_frames=12)
    back = read_video(clip.save(tmp_path / f"clip{ending}"))
    assert back.num_frames == 12
    assert back.fps == pytest.approx(fps, rel=1e-5)


@pytest.mark.parametrize("ending", ENDINGS)
def test_one_frame(tmp_path: Path, ending: str) -> None:
    clip = make_clip(num_frames=1)
    back = read_video(clip.save(tmp_path / f"clip{ending}"))
    assert back.frames.shape == clip.frames.shape


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_still_clip_keeps_its_frames(tmp_path: Path, ending: str) -> None:
    frames = np.repeat(make_clip(num_frames=4).frames, [1, 5, 1, 8], axis=0)
    back = read_video(EchoClip(frames, 24.0).save(tmp_path / f"clip{ending}"))
    assert back.num_frames == 15
    assert psnr_db(back.frames, frames) > 35 if ending == ".mp4" else np.array_equal(back.frames, frames)


@pytest.mark.parametrize("fps", [29.97, 24.0, 60.0, 12.5])
def test_gif_lasts_as_long_as_the_clip_and_loops(tmp_path: Path, fps: float) -> None:
    clip = make_clip(fps=fps, num_frames=31)
    with Image.open(clip.save(tmp_path / "clip.gif")) as image:
        delays = []
        for index in range(31):
            image.seek(index)
            delays.append(image.info["duration"])
        assert image.info["loop"] == 0
    assert abs(sum(delays) / 1000 - 31 / fps) <= 0.005
    assert max(delays) - min(delays) <= 10


def test_the_npz_opens_without_pickles(tmp_path: Path) -> None:
    clip = make_clip()
    assert clip.ecg is not None
    path = clip.save(tmp_path / "clip.npz")
    with np.load(path, allow_pickle=False) as arrays:
        np.testing.assert_allclose(arrays["frame_times_s"], clip.frame_times_s)
        assert json.loads(str(arrays["provenance"])) == PROVENANCE
        assert str(arrays["notice"]) == NOT_FOR_DIAGNOSIS
        assert arrays["ecg_leads"].tolist() == ["I", "II"]
    back = read_video(path).ecg
    assert back is not None and back.sha256() == clip.ecg.sha256()
    assert (back.start_s, back.source) == (-0.5, "test")


def test_an_npz_without_ecg(tmp_path: Path) -> None:
    assert read_video(make_clip(ecg=None).save(tmp_path / "clip.npz")).ecg is None


def test_mp4_is_h264_for_every_player(tmp_path: Path) -> None:
    path = make_clip(height=37).save(tmp_path / "clip.mp4")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (stream.height, stream.frames) == (38, 24)
        assert container.metadata["title"] == NOT_FOR_DIAGNOSIS
        assert "not for diagnosis" in container.metadata["comment"]
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")  # plays before it is loaded


@pytest.mark.parametrize("ending", [".mp4", ".gif", ".avi"])
def test_the_overlay_is_written_in_color(tmp_path: Path, ending: str) -> None:
    clip = make_clip(num_frames=8)
    path = clip.save(tmp_path / f"clip{ending}", overlay=True)
    expected = np.stack(list(draw_overlay(clip)))
    if ending == ".gif":
        with Image.open(path) as image:
            image.seek(7)
            last = np.asarray(image.convert("RGB"))
    else:
        with av.open(str(path)) as container:
            last = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)][-1]
    last = last[: expected.shape[1], : expected.shape[2]]
    assert psnr_db(last, expected[-1]) > {".mp4": 28, ".gif": 35, ".avi": 100}[ending]
    assert (last[..., 1].astype(int) - last[..., 0] > 80).any()  # the trace is green
    assert read_video(path).num_frames == 8


def test_the_cursor_follows_the_clock() -> None:
    clip = make_clip(num_frames=20, fps=10.0)
    columns = []
    for picture in draw_overlay(clip):
        assert picture.dtype == np.uint8 and picture.shape[1] == 400 and picture.shape[0] > 64 * 5
        columns.append(int((picture[-3:] > 200).all(axis=2).all(axis=0).argmax()))
    np.testing.assert_allclose(columns, np.arange(20) / 20 * 399, atol=1)


def test_the_cursor_starts_again_on_each_page() -> None:
    columns = [
        int((picture[-3:] > 200).all(axis=2).all(axis=0).argmax())
        for picture in draw_overlay(make_clip(num_frames=26, fps=2.0, width=400))
    ]
    pages = np.flatnonzero(np.diff(columns) < 0) + 1
    assert pages.tolist() == [9, 18]  # 13 s on three pages of 4.33 s


def test_lead_ii_is_drawn_and_its_peaks_dotted() -> None:
    def amber(clip: EchoClip) -> int:
        last = list(draw_overlay(clip))[-1].astype(int)
        return int(((last[..., 0] > 200) & (last[..., 2] < 120)).sum())

    assert amber(make_clip(fps=12.0)) > 20
    assert amber(make_clip(fps=12.0, provenance={})) == 0
    two, one = make_ecg(), make_ecg(leads=("V5",))
    drawn = [next(draw_overlay(make_clip(num_frames=1, ecg=ecg))) for ecg in (two, two.select(("II",)), one)]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])


def test_peaks_that_are_not_numbers_are_refused() -> None:
    for peaks in (["soon"], {"a": 1}, [[0.1], [0.2, 0.3]]):
        with pytest.raises(InputError, match="list of numbers"):
            next(draw_overlay(make_clip(provenance={"r_times_s": peaks})))


@pytest.mark.parametrize("gain", [0.0, 1e-3, 1e5])
def test_flat_and_huge_ecg_can_be_drawn(gain: float) -> None:
    ecg = EcgSignal(make_ecg().samples_mv * gain, ("I", "II"), 250.0)
    assert len(list(draw_overlay(make_clip(num_frames=3, ecg=ecg)))) == 3


def test_an_overlay_needs_an_ecg_of_its_time(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has none"):
        make_clip(ecg=None).save(tmp_path / "clip.mp4", overlay=True)
    with pytest.raises(InputError, match="during the clip"):
        make_clip(ecg=make_ecg(start_s=50.0)).save(tmp_path / "clip.mp4", overlay=True)
    with pytest.raises(InputError, match="takes no overlay"):
        make_clip().save(tmp_path / "clip.npz", overlay=True)
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("name", ["clip", "clip.mov", "clip.MP5", "clip.mp4.txt"])
def test_unknown_endings_name_the_four(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"expected \.mp4, \.gif, \.avi, \.npz"):
        check_output(tmp_path / name)


def test_places_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="no folder"):
        check_output(tmp_path / "none" / "clip.mp4")
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        check_output(tmp_path / "folder.mp4")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(InputError, match="not writable"):
        check_output(tmp_path / "clip.mp4")


@pytest.mark.parametrize(("ending", "fps"), [(".mp4", 1e-9), (".avi", 1e9), (".gif", 200.0)])
def test_rates_that_a_format_cannot_hold(tmp_path: Path, ending: str, fps: float) -> None:
    with pytest.raises(InputError, match="frames/s"):
        make_clip(fps=fps).save(tmp_path / f"clip{ending}")
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_failure_midway_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str, error: type[BaseException]
) -> None:
    path = make_clip(num_frames=2).save(tmp_path / f"clip{ending}")
    before = path.read_bytes()

    def broken_pictures(_clip: EchoClip):
        yield from make_clip(num_frames=80, height=16, width=16).frames  # more than the encoder holds back
        assert any(name.endswith(".part") for name in leftovers(tmp_path))  # it fails midway, not before
        raise error

    def broken_save(file, **_) -> None:
        file.write(b"half")
        raise error

    monkeypatch.setattr("echopulse.io.overlay.draw_overlay", broken_pictures)
    monkeypatch.setattr(np, "savez_compressed", broken_save)
    with pytest.raises(error):
        write_clip(make_clip(num_frames=99, height=16, width=16), path, overlay=ending != ".npz")
    assert leftovers(tmp_path) == [path.name]
    assert path.read_bytes() == before


def test_no_such_video(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_video(tmp_path / "none.mp4")
    with pytest.raises(InputError, match="unknown ending"):
        read_video(tmp_path / "clip.txt")


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("content", ["empty", "noise", "head", "other"])
def test_broken_videos_are_one_clear_line(tmp_path: Path, ending: str, content: str) -> None:
    good = make_clip().save(tmp_path / f"good{ending}").read_bytes()
    other = make_clip(num_frames=2).save(tmp_path / ("other.gif" if ending != ".gif" else "other.avi")).read_bytes()
    noise = np.random.default_rng(0).bytes(4000)
    bad = tmp_path / f"bad{ending}"
    bad.write_bytes({"empty": b"", "noise": noise, "head": good[:60], "other": other}[content])
    with pytest.raises(InputError) as caught:
        read_video(bad)
    assert "bad" in str(caught.value) and "\n" not in str(caught.value)


def test_a_playlist_in_disguise_opens_nothing(tmp_path: Path) -> None:
    make_clip().save(tmp_path / "secret.mp4")
    (tmp_path / "list.mp4").write_text("ffconcat version 1.0\nfile secret.mp4\n")
    with pytest.raises(InputError):
        read_video(tmp_path / "list.mp4")


def test_foreign_comments_are_left_alone(tmp_path: Path) -> None:
    images = [Image.fromarray(frame) for frame in make_clip(num_frames=3).frames]
    for comment in (b"made elsewhere", b'{"provenance": 3}', b"[" * 3000, b"\xff\xfe"):
        images[0].save(
            tmp_path / "a.gif", save_all=True, append_images=images[1:], duration=[40, 40, 40], comment=comment
        )
        back = read_video(tmp_path / "a.gif")
        assert (back.provenance, back.view, back.num_frames) == ({}, "unknown", 3)
        assert back.fps == pytest.approx(25.0)


@pytest.mark.parametrize("ending", ENDINGS)
def test_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str) -> None:
    path = make_clip().save(tmp_path / f"clip{ending}")
    monkeypatch.setattr(video, "MAX_FRAMES", 23)
    with pytest.raises(InputError, match="frames"):
        read_video(path)
    monkeypatch.setattr(video, "MAX_SIDE", 79)
    with pytest.raises(InputError, match="79 a side"):
        read_video(path)


def test_an_npz_cannot_claim_more_than_it_holds(tmp_path: Path) -> None:
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (99999, 8192, 8192), }".ljust(117) + b"\n"
    with zipfile.ZipFile(tmp_path / "clip.npz", "w") as archive:
        archive.writestr("frames.npy", b"\x93NUMPY\x01\x00\x76\x00" + header + bytes(64))
    with pytest.raises(InputError, match="expected complete plain numbers"):
        read_video(tmp_path / "clip.npz")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": np.full((2, 2, 2), {}, dtype=object)}, "plain numbers"),
        ({"frames": np.zeros((2, 2, 2))}, "uint8"),
        ({"frames": np.zeros(3, np.uint8)}, "uint8"),
        ({"fps": np.float64("nan")}, "frame rate"),
        ({"fps": np.zeros(2)}, "not a complete"),
        ({"start_s": np.str_("soon")}, "not a complete"),
        ({"provenance": np.str_("[]")}, "JSON object"),
        ({"provenance": np.str_("{")}, "not a complete"),
        ({"ecg_samples_mv": np.zeros(5)}, "shape"),
        ({"view": None}, "no array 'view'"),
    ],
)
def test_hostile_npz(tmp_path: Path, changes: dict, message: str) -> None:
    with np.load(make_clip().save(tmp_path / "good.npz")) as arrays:
        content = {name: value for name, value in ({**arrays} | changes).items() if value is not None}
    np.savez(tmp_path / "bad.npz", **content)
    with pytest.raises(InputError, match=message):
        read_video(tmp_path / "bad.npz")
