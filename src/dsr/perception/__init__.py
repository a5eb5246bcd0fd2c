"""Grounding, segmentation, reconstruction and orientation with published models: one model a file."""
