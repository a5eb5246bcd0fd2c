"""Conditions that an answer follows from: a rule states them once, to decide by and to explain by.

Letters: K questions, S versions of the cues (ensemble members; the first is the cues as they are). A rule measures its
questions and returns conditions whose values are [..., S]; an answer exists where all hold (`all_hold`), and an
explanation of one question shows the same conditions with their values, limits and margins.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Side = Literal["above", "below", "equal"]
DEPTHS = "median depths"
"""Unit of lengths: the clip's median depth."""


@dataclass(frozen=True, eq=False)
class Condition:
    """A number that has to be above, below or equal to a limit."""

    what: str
    """The number in words, such as "distance at 1.2 s"."""
    values: np.ndarray
    """[..., S] float; NaN where a version does not know it. One version where `alone`."""
    side: Side
    limit: float
    key: str = ""
    """The parameter behind the limit; empty where it is fixed in the code."""
    unit: str = ""
    alone: bool = False
    """Has to hold on the cues as they are alone, not in every version."""

    @property
    def holds(self) -> np.ndarray:
        """Bool, shaped as `values`; false where a value is not known."""
        compare = {"above": np.greater, "below": np.less, "equal": np.equal}[self.side]
        return compare(self.values, self.limit)

    @property
    def margins(self) -> np.ndarray:
        """Distance of `values` from the limit as a share of it; positive where the condition holds."""
        if self.side == "equal":
            return np.where(self.holds, np.inf, -np.inf)
        above = (self.values - self.limit) / abs(self.limit)
        return above if self.side == "above" else -above

    def text(self) -> str:
        """Text for one question, such as "distance at 1.2 s: 1.31 (1.25 to 1.38) above 0.08 (qa.min_distance)"."""
        sign = {"above": "above", "below": "below", "equal": "equal to"}[self.side]
        low, high = np.nanmin(self.values), np.nanmax(self.values)
        spread = f" ({low:.3g} to {high:.3g})" if high > low else ""
        unit = f" {self.unit}" if self.unit else ""
        key = f" ({self.key})" if self.key else ""
        key += ", on the cues as they are alone" if self.alone else ""
        return f"{self.what}: {self.values[0]:.3g}{spread}{unit}, {sign} {self.limit:.3g}{key}"


def all_hold(conditions: Sequence[Condition]) -> np.ndarray:
    """[..., S] bool: every condition holds."""
    return np.logical_and.reduce([condition.holds for condition in conditions])
