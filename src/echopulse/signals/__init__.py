"""What travels between the modules: signals and clips with their clock."""

from echopulse.signals.clip import EchoClip, PairedClip
from echopulse.signals.ecg import EcgSignal

__all__ = ["EcgSignal", "EchoClip", "PairedClip"]
