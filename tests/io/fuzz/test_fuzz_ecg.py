"""A few damaged copies of a file of every ECG format through `benchmarks/fuzz_readers.py`."""

import importlib.util
import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "fuzz_readers.py"
COUNTS = np.random.default_rng(0).integers(-500, 500, (2, 600)).astype("<i2")


def write_samples(folder: Path) -> None:
    """Small files of formats that share no code."""
    import pydicom
    import scipy.io
    from pydicom.dataset import Dataset, FileMetaDataset

    (folder / "record.hea").write_text(
        "record 2 250 600\n" + "".join(f"record.dat 16 1000(0)/mV 16 0 0 0 0 {lead}\n" for lead in ("I", "II"))
    )
    (folder / "record.dat").write_bytes(COUNTS.T.tobytes())
    scipy.io.savemat(folder / "matrix.mat", {"val": COUNTS / 1000.0, "fs": 250.0})
    np.save(folder / "array.npy", COUNTS / 1000.0)
    rows = "\n".join(f"{value:.3f}" for value in COUNTS[0])
    (folder / "watch.csv").write_text(f"Name,A\nSample Rate,250 hertz\nLead,Lead I\nUnit,µV\n\n{rows}\n", "utf-8")
    digits = " ".join(map(str, COUNTS[0]))
    (folder / "cart.xml").write_text(
        '<AnnotatedECG><component><series><code code="RHYTHM"/><component><sequenceSet><component><sequence>'
        '<value><increment value="0.004" unit="s"/></value></sequence></component><component><sequence>'
        '<code code="MDC_ECG_LEAD_I"/><value><origin value="0" unit="uV"/><scale value="1" unit="uV"/>'
        f"<digits>{digits}</digits></value></sequence></component></sequenceSet></component></series></component>"
        "</AnnotatedECG>"
    )
    dataset, group, channel, unit = Dataset(), Dataset(), Dataset(), Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = pydicom.uid.TwelveLeadECGWaveformStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = "1.2.3"
    unit.CodeValue, channel.ChannelSensitivity, channel.ChannelLabel = "uV", "1", "I"
    channel.ChannelSensitivityUnitsSequence = [unit]
    group.ChannelDefinitionSequence, group.WaveformOriginality = [channel], "ORIGINAL"
    group.NumberOfWaveformChannels, group.NumberOfWaveformSamples, group.SamplingFrequency = 1, 600, "250"
    group.WaveformBitsAllocated, group.WaveformSampleInterpretation = 16, "SS"
    group.WaveformData = COUNTS[0].tobytes()
    dataset.WaveformSequence = [group]
    dataset.save_as(folder / "object.dcm", enforce_file_format=True)


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(SCRIPT), str(folder), "--kind", "ecg", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_damaged_copies_are_refused_or_read(tmp_path: Path) -> None:
    write_samples(tmp_path)
    done = run(tmp_path, "--copies", "80")
    counts = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == 0, done.stdout
    assert counts["read"] + counts["refused"] == 80
    assert min(counts["read"], counts["refused"]) >= 10


def test_mutations_are_reproducible_and_change_the_file() -> None:
    spec = importlib.util.spec_from_file_location("fuzz_readers", SCRIPT)
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    content = bytes(range(256)) * 40
    copies = [script.mutate(content, random.Random(seed)) for seed in range(60)]
    assert copies == [script.mutate(content, random.Random(seed)) for seed in range(60)]
    assert sum(copy != content for copy in copies) >= 55
