"""Ultrasound recordings in: DICOM and video, cropped to the sector, on their true clock, with the ECG they show."""

from echopulse.io.ultrasound.clip import EchoReading
from echopulse.io.ultrasound.reading import is_ultrasound, read_echo

__all__ = ["EchoReading", "is_ultrasound", "read_echo"]
