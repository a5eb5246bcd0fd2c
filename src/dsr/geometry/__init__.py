"""Frames of reference and signals over time, in pure NumPy.

Letters: E entities (0 the camera, then the tracks), T frames, S ensemble members (innermost, so that one memory
line holds one quantity of every member). Lengths are up to one scale a clip; a missing value is NaN.
"""
