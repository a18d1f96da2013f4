"""What generated clips are worth: distances, ejection fraction, timing, copying; every number with its protocol."""
