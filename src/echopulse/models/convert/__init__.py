"""Weights that others published, brought into this project's networks; the only place that opens pickles."""
