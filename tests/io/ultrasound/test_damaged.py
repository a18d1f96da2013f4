"""A decoder that dies on a damaged file must not take the program with it."""

import os
import signal

import pydicom
import pytest

from echopulse.errors import InputError
from echopulse.io.mapped import mapped
from echopulse.io.ultrasound.apart import decode_apart


def test_a_crash_of_the_decoder_is_an_error_of_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr("echopulse.io.ultrasound.apart.sys.executable", "/bin/false")
    with pytest.raises(RuntimeError):
        list(decode_apart(tmp_path / "x.dcm", "gdcm"))
    killer = tmp_path / "python"
    killer.write_text(f"#!/bin/sh\nkill -{signal.SIGABRT} $$\n")
    os.chmod(killer, 0o700)
    monkeypatch.setattr("echopulse.io.ultrasound.apart.sys.executable", str(killer))
    with pytest.raises(RuntimeError, match="crashed with signal 6"):
        list(decode_apart(tmp_path / "x.dcm", "gdcm"))


def test_an_invented_length_reads_what_is_there(tmp_path):
    path = tmp_path / "short.dcm"
    path.write_bytes(b"\0" * 128 + b"DICM" + b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 100")
    with mapped(path) as file:
        assert len(file.read(1 << 40)) == path.stat().st_size
        file.seek(0)
        pydicom.dcmread(file)
    path.write_bytes(b"")
    with pytest.raises(InputError, match="is empty"), mapped(path):
        pass
