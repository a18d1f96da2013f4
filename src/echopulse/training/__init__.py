"""Training: one engine, one task per file."""
