"""XML of carts: MUSE, CardioSoft, HL7 aECG and Philips Sierra, written here as the carts lay them out."""

import base64
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from echopulse.axes import STANDARD_LEADS
from echopulse.errors import InputError
from echopulse.io.ecg import read_ecg
from echopulse.io.ecg_formats import xml_tree

EIGHT = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
COUNTS = np.random.default_rng(1).integers(-300, 300, (8, 1000)).cumsum(axis=1) // 8
"""Eight leads of 2 s at 500 Hz in steps of the converter."""


def twelve_counts() -> np.ndarray:
    first, second = COUNTS[:2]
    limb = [first, second, second - first, -(first + second) // 2, (2 * first - second) // 2, (2 * second - first) // 2]
    return np.stack([*limb, *COUNTS[2:]])


def muse(folder: Path, encoding: str = "ISO-8859-1") -> Path:
    def strip(kind: str, counts: np.ndarray) -> str:
        leads = "".join(
            f"<LeadData><LeadByteCountTotal>{2 * row.size}</LeadByteCountTotal>"
            f"<LeadSampleCountTotal>{row.size}</LeadSampleCountTotal>"
            "<LeadAmplitudeUnitsPerBit>4.88</LeadAmplitudeUnitsPerBit><LeadAmplitudeUnits>MICROVOLTS</LeadAmplitudeUnits>"
            f"<LeadID>{name}</LeadID><LeadSampleSize>2</LeadSampleSize><LeadOff>FALSE</LeadOff>"
            f"<WaveFormData>\n{base64.encodebytes(row.astype('<i2').tobytes()).decode()}</WaveFormData></LeadData>"
            for name, row in zip(EIGHT, counts, strict=True)
        )
        return (
            f"<Waveform><WaveformType>{kind}</WaveformType><NumberofLeads>8</NumberofLeads>"
            f"<SampleBase>500</SampleBase><SampleExponent>0</SampleExponent>{leads}</Waveform>"
        )

    text = (
        f'<?xml version="1.0" encoding="{encoding}"?>\n<!DOCTYPE RestingECG SYSTEM "restecg.dtd">\n<RestingECG>'
        f"<PatientDemographics><PatientLastName>Müller</PatientLastName></PatientDemographics>"
        f"{strip('Median', COUNTS[:, :600] * 0)}{strip('Rhythm', COUNTS)}</RestingECG>"
    )
    path = folder / "muse.txt"
    path.write_bytes(text.encode(encoding))
    return path


def cardiosoft(folder: Path) -> Path:
    def block(tag: str, counts: np.ndarray) -> str:
        rows = "".join(
            f'<WaveformData lead="{name}">\t\t' + ",\n".join(map(str, row)) + "</WaveformData>"
            for name, row in zip(STANDARD_LEADS, counts, strict=True)
        )
        return (
            f'<{tag}><NumberOfLeads>12</NumberOfLeads><SampleRate units="Hz">500</SampleRate>'
            f"<ChannelSampleCountTotal>{counts.shape[1]}</ChannelSampleCountTotal>"
            f'<Resolution units="uVperLsb">5</Resolution>{rows}</{tag}>'
        )

    path = folder / "cardiosoft.xml"
    counts = twelve_counts()
    path.write_text(
        '<?xml version="1.0" encoding="ISO-8859-1" ?><CardiologyXML><ObservationType>RestECG</ObservationType>'
        f"<RestingECGMeasurements>{block('MedianSamples', counts[:, :600] * 0)}</RestingECGMeasurements>"
        f"{block('StripData', counts)}</CardiologyXML>"
    )
    return path


def aecg(folder: Path, time: str = '<increment value="2" unit="ms"/>') -> Path:
    def sequences(counts: np.ndarray) -> str:
        leads = "".join(
            f'<component><sequence><code code="MDC_ECG_LEAD_{name.upper()}"/><value xsi:type="SLIST_PQ">'
            f'<origin value="0.1" unit="mV"/><scale value="2.5" unit="uV"/><digits> {" ".join(map(str, row))} </digits>'
            "</value></sequence></component>"
            for name, row in zip(STANDARD_LEADS, counts, strict=True)
        )
        return (
            '<component><sequenceSet><component><sequence><code code="TIME_ABSOLUTE"/><value xsi:type="GLIST_TS">'
            f'<head value="20020101"/>{time}</value></sequence></component>{leads}</sequenceSet></component>'
        )

    path = folder / "aecg.xml"
    counts = twelve_counts()
    path.write_text(
        '<?xml version="1.0"?><!-- sample --><h:AnnotatedECG xmlns:h="urn:hl7-org:v3"'
        ' xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><component><series><code code="RHYTHM"/>'
        f'{sequences(counts)}<derivation><derivedSeries><code code="REPRESENTATIVE_BEAT"/>'
        f"{sequences(np.repeat(counts, 2, axis=1) * 0)}</derivedSeries></derivation></series></component>"
        "</h:AnnotatedECG>"
    )
    return path


def compress(samples: np.ndarray) -> bytes:
    """One lead as XLI: second differences, high bytes before low bytes, LZW with codes of 10 bits."""
    bends = 2 * samples[1:-1] - samples[:-2] - samples[2:]
    codes = np.concatenate((samples[:2], 64 + bends[1:], [64])).astype(np.int16).view(np.uint16)
    plain = bytes((codes >> 8).astype(np.uint8)) + bytes((codes & 255).astype(np.uint8))
    table = {bytes([value]): value for value in range(256)}
    word, bits = b"", ""
    for octet in plain:
        longer = word + bytes([octet])
        if longer in table:
            word = longer
            continue
        bits += f"{table[word]:010b}"
        if len(table) <= 1022:
            table[longer] = len(table)
        word = bytes([octet])
    bits += f"{table[word]:010b}" + f"{1023:010b}"
    bits += "0" * (-len(bits) % 8)
    packed = int(bits, 2).to_bytes(len(bits) // 8, "big")
    return len(packed).to_bytes(4, "little") + bytes(2) + int(bends[0]).to_bytes(2, "little", signed=True) + packed


def sierra(folder: Path, compression: str = "XLI", seconds: int = 11, encoding: str = "utf-16") -> Path:
    counts = np.tile(twelve_counts(), 6)[:, : seconds * 500]
    if seconds == 11:
        counts[:, 5300:] = 0
        counts[:, 5350:5450] = 200
    stored = counts.copy()
    first, second, third = counts[:3]
    if compression == "XLI":
        stored[2] = second - first - third
        stored[3] = -((first + second) // 2) - counts[3]
        stored[4] = (first - third) // 2 - counts[4]
        stored[5] = (second + third) // 2 - counts[5]
    packed = b"".join(map(compress, stored)) if compression == "XLI" else stored.astype("<i2").tobytes()
    path = folder / "sierra.XML"
    path.write_bytes(
        (
            f'<?xml version="1.0" encoding="{encoding}"?><restingecgdata xmlns="http://www3.medical.philips.com">'
            "<dataacquisition><signalcharacteristics><samplingrate>500</samplingrate><resolution>5</resolution>"
            "<numberchannelsvalid>12</numberchannelsvalid></signalcharacteristics></dataacquisition><waveforms>"
            f'<parsedwaveforms dataencoding="Base64" compression="{compression}" durationperchannel="{seconds}000">'
            f"{base64.b64encode(packed).decode()}</parsedwaveforms></waveforms></restingecgdata>"
        ).encode(encoding)
    )
    return path


@pytest.mark.parametrize("encoding", ["ISO-8859-1", "utf-8", "gb18030"])
def test_muse_stores_eight_leads_and_twelve_come_out(encoding: str, tmp_path: Path) -> None:
    ecg = read_ecg(muse(tmp_path, encoding))
    assert (ecg.format, ecg.leads, ecg.sampling_rate_hz, ecg.num_samples) == ("muse_xml", STANDARD_LEADS, 500, 1000)
    for name, counts in zip(EIGHT, COUNTS, strict=True):
        np.testing.assert_allclose(ecg.lead(name), counts * 4.88e-3, atol=1e-6)
    first, second = COUNTS[:2] * 4.88e-3
    np.testing.assert_allclose(ecg.lead("III"), second - first, atol=1e-6)
    np.testing.assert_allclose(ecg.lead("aVR"), -(first + second) / 2, atol=1e-6)
    np.testing.assert_allclose(ecg.lead("aVL"), first - second / 2, atol=1e-6)
    np.testing.assert_allclose(ecg.lead("aVF"), second - first / 2, atol=1e-6)
    assert ecg.notes == ("derived: III, aVR, aVL, aVF",)


def test_cardiosoft_strip(tmp_path: Path) -> None:
    ecg = read_ecg(cardiosoft(tmp_path))
    assert (ecg.format, ecg.leads, ecg.sampling_rate_hz) == ("cardiosoft_xml", STANDARD_LEADS, 500)
    np.testing.assert_allclose(ecg.samples_mv, twelve_counts() * 5e-3, atol=1e-6)


@pytest.mark.parametrize("time", ['<increment value="2" unit="ms"/>', '<increment value="0.002" unit="s"/>'])
def test_aecg_takes_the_rhythm_with_origin_and_scale(time: str, tmp_path: Path) -> None:
    ecg = read_ecg(aecg(tmp_path, time))
    assert (ecg.format, ecg.leads, ecg.num_samples) == ("aecg", STANDARD_LEADS, 1000)
    assert ecg.sampling_rate_hz == pytest.approx(500)
    np.testing.assert_allclose(ecg.samples_mv, 0.1 + twelve_counts() * 2.5e-3, atol=1e-6)


@pytest.mark.parametrize("compression", ["XLI", "Uncompressed"])
@pytest.mark.parametrize(("seconds", "samples"), [(11, 5000), (5, 2500)])
def test_sierra_drops_the_calibration_second(compression: str, seconds: int, samples: int, tmp_path: Path) -> None:
    ecg = read_ecg(sierra(tmp_path, compression, seconds))
    assert (ecg.format, ecg.leads, ecg.num_samples) == ("sierra_xml", STANDARD_LEADS, samples)
    np.testing.assert_allclose(ecg.samples_mv, np.tile(twelve_counts(), 6)[:, :samples] * 5e-3, atol=1e-6)
    assert ecg.notes == (("calibration second dropped",) if seconds == 11 else ())


@pytest.mark.parametrize("write", [muse, cardiosoft, aecg, sierra])
def test_reads_the_beginning_only(write: Callable[[Path], Path], tmp_path: Path) -> None:
    path = write(tmp_path)
    np.testing.assert_array_equal(read_ecg(path, max_duration_s=1).samples_mv, read_ecg(path).samples_mv[:, :500])


BOMB = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]>'
BAD: dict[str, tuple[Callable[[Path], Path], bytes, bytes, str]] = {
    "entities": (muse, b'<!DOCTYPE RestingECG SYSTEM "restecg.dtd">', BOMB.encode(), "declares entities"),
    "not closed": (muse, b"</RestingECG>", b"", "damaged XML"),
    "other root": (cardiosoft, b"CardiologyXML>", b"Sapphire>", "root 'Sapphire'"),
    "muse without rhythm": (muse, b"<WaveformType>Rhythm", b"<WaveformType>Median", "no rhythm"),
    "muse cut": (muse, b"Total>1000<", b"Total>9000<", "where 9000 are declared"),
    "muse gain": (muse, b">4.88<", b">x<", "expected a number"),
    "muse unit": (muse, b"MICROVOLTS", b"FURLONGS", "'FURLONGS'"),
    "cardiosoft without strip": (cardiosoft, b"StripData>", b"Data>", "no StripData"),
    "cardiosoft cut": (cardiosoft, b"Total>1000<", b"Total>1001<", "1000 samples a lead where 1001"),
    "aecg without time": (aecg, b"increment", b"decrement", "no time sequence"),
    "aecg scale": (aecg, b'"2.5" unit="uV"', b'"2.5" unit="m"', "scale of MDC_ECG_LEAD_I"),
    "aecg digits": (aecg, b"<digits> ", b"<digits> x ", "lead MDC_ECG_LEAD_I"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_xml_is_refused_in_one_line(case: str, tmp_path: Path) -> None:
    write, old, new, message = BAD[case]
    path = write(tmp_path)
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new))
    with pytest.raises(InputError, match=message) as caught:
        read_ecg(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('channel="11000"', 'channel="99000"', "cut short"),
        ('channel="11000"', 'channel="900000"', "cut short"),
        ("XLI", "ZIP", "compression 'ZIP'"),
        (">5<", ">0<", "the resolution is '0'"),
        ("valid>12", "valid>999", "999"),
    ],
)
def test_bad_sierra_is_refused(old: str, new: str, message: str, tmp_path: Path) -> None:
    path = sierra(tmp_path, encoding="utf-8")
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(InputError, match=message):
        read_ecg(path)


def test_a_crowded_tree_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xml_tree, "_MAX_ELEMENTS", 20)
    with pytest.raises(InputError, match="more than 20 XML elements"):
        read_ecg(muse(tmp_path))
