"""Any source of echo clips to a prepared set: found, read in parallel, de-identified, checked and reported."""

from echopulse.io.prepare.run import PrepareSettings, prepare_set

__all__ = ["PrepareSettings", "prepare_set"]
