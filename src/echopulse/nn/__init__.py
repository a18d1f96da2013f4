"""Layers: attention, positions, transformer blocks, patches. They know no config and no files."""
