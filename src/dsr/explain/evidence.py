"""What an answer was read from: the signal over time, its states, and every condition that had to hold.

Letters: P points of a signal, S versions of the cues (the first is the cues as they are). A version gives the same
states exactly if it meets all conditions, so the smallest margin of a condition says how close a question came to
another answer, or to none. What a question leaves untold between its moments is a condition on the cues as they are
alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

AXIS_ROLES = ("forward", "left", "up")
DEPTHS = "median depths"


@dataclass(frozen=True, eq=False)
class Condition:
    """A number that had to be above, below or equal to a limit."""

    what: str
    values: np.ndarray
    """[S] float; NaN where a version does not know it. [1] where `alone`."""
    side: Literal["above", "below", "equal"]
    limit: float
    key: str = ""
    """The parameter behind the limit; empty where it is fixed in the code."""
    unit: str = ""
    alone: bool = False
    """Had to hold on the cues as they are alone, not in every version."""

    @property
    def margins(self) -> np.ndarray:
        """As `values`: how far from the limit, as a share of it; positive where the condition holds."""
        if self.side == "equal":
            return np.where(self.values == self.limit, np.inf, -np.inf)
        above = (self.values - self.limit) / abs(self.limit)
        return above if self.side == "above" else -above

    def text(self) -> str:
        """Such as "distance at 1.2 s: 1.31 (1.25 to 1.38) above 0.08 (qa.min_distance)"."""
        sign = {"above": "above", "below": "below", "equal": "equal to"}[self.side]
        low, high = np.nanmin(self.values), np.nanmax(self.values)
        spread = f" ({low:.3g} to {high:.3g})" if high > low else ""
        unit = f" {self.unit}" if self.unit else ""
        key = f" ({self.key})" if self.key else ""
        key += ", on the cues as they are alone" if self.alone else ""
        return f"{self.what}: {self.values[0]:.3g}{spread}{unit}, {sign} {self.limit:.3g}{key}"


@dataclass(frozen=True, eq=False)
class Series:
    """A line of a plot."""

    label: str
    role: str
    """Whose it is: `a`, `b`, `c`, two of them as in `ab`, `viewer`, one of AXIS_ROLES, or "": decides the colour."""
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
    """What the cues as they are show between the key moments."""
    bands: Sequence[Band] = ()
    band_means: str = "about the same"
    limits: Sequence[tuple[float, str]] = ()
    """Horizontal lines and what they are."""
    logarithmic: bool = False
    """Where ratios are compared, equal ratios are equal heights."""


@dataclass(frozen=True)
class State:
    """One qualitative value and the time that it stands for (a moment has no length)."""

    start: float
    end: float
    signs: tuple[int, ...]
    """One a row of the strip: -1, 0 or 1; 2 where there is no opposite."""
    words: tuple[str, ...]
    """What each row says."""
    text: str


@dataclass(frozen=True, eq=False)
class Reading:
    """How one question's answer comes about."""

    signal: str
    """What is measured, in words."""
    panels: Sequence[Panel]
    states: Sequence[State]
    conditions: Sequence[Condition]
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = field(default=())
    """The signal at each moment or step, as text."""
