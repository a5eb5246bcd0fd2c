"""Simulated clips with exact truth: a NumPy world of moving bodies and a moving camera, rendered with PyBullet."""
