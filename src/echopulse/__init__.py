"""EchoPulse: an electrocardiogram goes in, an echocardiogram video comes out.

The public names are few; importing the package loads no network library and no model.
"""

from typing import TYPE_CHECKING, Any

from echopulse.signals import EcgSignal, EchoClip

if TYPE_CHECKING:
    from echopulse.api import EchoPulse

__version__ = "0.1.0"
__all__ = ["EcgSignal", "EchoClip", "EchoPulse", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "EchoPulse":
        from echopulse.api import EchoPulse

        return EchoPulse
    raise AttributeError(f"module 'echopulse' has no attribute {name!r}")
