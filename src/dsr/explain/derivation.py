"""Derivation of an answer: the signal over time, its states, and every condition that had to hold.

Letters: P points of a signal, S versions of the cues (the first is the cues as they are). A version gives the same
states exactly if it meets all conditions, so the smallest margin of a condition says how close a question came to
another answer, or to none. What a question leaves untold between its moments is a condition on the cues as they are
alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from dsr.questions.engine.conditions import Condition


@dataclass(frozen=True, eq=False)
class Series:
    """A line of a plot."""

    label: str
    role: str
    """Whose it is: `a`, `b`, `c`, two of them as in `ab`, `viewer`, an axis, or "": decides the colour."""
    times: np.ndarray
    """[P] seconds."""
    values: np.ndarray
    """[P, S]."""


@dataclass(frozen=True)
class Band:
    """Between two values, from one time to another: what counts as about the same, or as neither side."""

    start: float
    end: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Panel:
    title: str
    unit: str
    series: Sequence[Series]
    between: Sequence[Series] = ()
    """Values that the cues as they are show between the key moments."""
    bands: Sequence[Band] = ()
    band_means: str = "about the same"
    limits: Sequence[tuple[float, str]] = ()
    """Horizontal lines and what they are."""
    logarithmic: bool = False
    """True where ratios are compared: equal ratios are equal heights."""


@dataclass(frozen=True)
class State:
    """One qualitative value and the time that it stands for (a moment has no length)."""

    start: float
    end: float
    signs: tuple[int, ...]
    """One a row of the strip: -1, 0 or 1; 2 where there is no opposite."""
    words: tuple[str, ...]
    """Meaning of each row."""
    text: str


@dataclass(frozen=True, eq=False)
class Derivation:
    """Steps from cues to one question's answer."""

    signal: str
    """Name of the measured quantity, in words."""
    panels: Sequence[Panel]
    states: Sequence[State]
    conditions: Sequence[Condition]
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = field(default=())
    """The signal at each moment or step, as text."""
