"""MATLAB files: bare matrices and structs, with a rate and without."""

import zlib
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from echopulse.axes import STANDARD_LEADS
from echopulse.errors import InputError
from echopulse.io.ecg import read_ecg
from echopulse.io.ecg_formats import mat

SIGNAL = np.random.default_rng(5).normal(size=(12, 900))


def save(folder: Path, **variables: object) -> Path:
    path = folder / "ecg.bin"
    scipy.io.savemat(path, variables, appendmat=False, do_compression=True)
    return path


@pytest.mark.parametrize(
    "variables", [{"val": SIGNAL}, {"x": SIGNAL.T}, {"ECG": {"sex": "Male", "age": 52, "data": SIGNAL}, "n": 3}]
)
def test_a_matrix_needs_a_rate(variables: dict, tmp_path: Path) -> None:
    path = save(tmp_path, **variables)
    with pytest.raises(InputError, match="give it with --rate"):
        read_ecg(path)
    ecg = read_ecg(path, sampling_rate_hz=500, max_duration_s=1)
    assert (ecg.format, ecg.leads, ecg.sampling_rate_hz, ecg.num_samples) == ("mat", STANDARD_LEADS, 500, 500)
    np.testing.assert_allclose(ecg.samples_mv, SIGNAL[:, :500], rtol=1e-6)


@pytest.mark.parametrize("name", ["fs", "Fs", "sampling_rate", "SampleRateHz"])
def test_a_rate_beside_the_matrix_is_taken(name: str, tmp_path: Path) -> None:
    path = save(tmp_path, record={"ecg": SIGNAL[0], name: 300.0})
    ecg = read_ecg(path)
    assert (ecg.leads, ecg.sampling_rate_hz, ecg.num_samples) == (("lead_1",), 300, 900)
    assert read_ecg(path, leads=("MLII",), sampling_rate_hz=360).leads == ("MLII",)


def test_bad_matrices(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no matrix of numbers"):
        read_ecg(save(tmp_path, name="text"))
    with pytest.raises(InputError, match="at most 64 leads"):
        read_ecg(save(tmp_path, x=np.ones((70, 80))), sampling_rate_hz=500)
    path = save(tmp_path, x=SIGNAL)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(InputError, match="damaged"):
        read_ecg(path, sampling_rate_hz=500)
    path.write_bytes(b"MATLAB 7.3 MAT-file" + bytes(600))
    with pytest.raises(InputError, match="'-v7'"):
        read_ecg(path, sampling_rate_hz=500)


def test_a_bomb_is_not_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mat, "_MAX_BYTES", 1 << 22)
    packer = zlib.compressobj()
    zeros = bytes(1 << 20)
    packed = b"".join(packer.compress(zeros) for _ in range(6)) + packer.flush()
    header = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
    path = tmp_path / "bomb.mat"
    path.write_bytes(header + (15).to_bytes(4, "little") + len(packed).to_bytes(4, "little") + packed)
    with pytest.raises(InputError, match="holds more than"):
        read_ecg(path, sampling_rate_hz=500)
