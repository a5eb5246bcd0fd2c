"""Colours that keep apart for colour-blind readers too (Okabe and Ito), and what each stands for."""

import numpy as np

BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY = "#E69F00", "#56B4E9"
INK, GREY, PALE, FAINT = "#222222", "#666666", "#BDBDBD", "#EEEEEE"

ROLES = {"viewer": BLUE, "a": VERMILION, "b": GREEN, "c": PURPLE}
"""Viewer, and the targets in the order of the question."""
PAIRS = {"ab": ORANGE, "ac": SKY, "bc": INK}
"""Two targets together."""
TRACKS = (VERMILION, BLUE, GREEN, PURPLE, ORANGE, SKY, "#8C564B", "#117733")
"""Tracks of a clip; beyond these they repeat, and the labels tell them apart."""
AXES = {"forward": BLUE, "left": VERMILION, "up": GREEN}
SIGNS = {1: SKY, 0: "#D9D9D9", -1: ORANGE, 2: FAINT}
"""A state's sign; 2 is a state without an opposite."""
EXACT = INK


def track_colour(track: int | np.integer) -> str:
    return TRACKS[track % len(TRACKS)]


def line_colour(role: str) -> str:
    return (ROLES | PAIRS | AXES).get(role, INK)


def rgb(colour: str) -> tuple[int, int, int]:
    """Red, green and blue, 0 to 255, of "#rrggbb"."""
    red, green, blue = bytes.fromhex(colour.removeprefix("#"))
    return red, green, blue
