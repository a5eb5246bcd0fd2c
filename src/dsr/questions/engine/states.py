"""Three-way states of signals: how they are decided, and the conditions that this comes down to.

A state is -1, 0 or 1: beyond a limit on one side, within it, or beyond it on the other. Every tolerance and floor is
relative (to the first value of a run, to the scene's median depth), so that an answer does not change when all lengths
are multiplied. A rule decides many questions at once and names the conditions of the first one, on all its versions:
they hold exactly where a version gives the states of the first version.

Letters: K questions, P points of a signal (moments, or the steps between them), S versions of the cues.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, pairwise
from math import exp, log1p
from typing import TYPE_CHECKING

import numpy as np

from dsr.questions.engine.conditions import DEPTHS, Condition, Side

if TYPE_CHECKING:
    from dsr.params import QA

AXES = ("forward", "left", "up")


_FLOORS = {"dis": "min_distance", "dir": "min_direction", "ori": None}
_TOLERANCES = {"dis": "ratio_tolerance", "spd": "speed_tolerance", "spd_comp": "speed_tolerance"}


def floor_of(signal: str, qa: "QA") -> tuple[float, str]:
    """Least length that a template's signal is read from, and its parameter; none for a facing direction."""
    name = _FLOORS.get(signal, "min_displacement")
    return (getattr(qa, name), f"qa.{name}") if name else (0.0, "")


def tolerance_of(signal: str, qa: "QA") -> tuple[float, str]:
    """Tolerance of a ratio, or dead zone of a direction, of a template's signal, and its parameter."""
    name = _TOLERANCES.get(signal, "dead_zone")
    return getattr(qa, name), f"qa.{name}"


def signs(values: np.ndarray, limit: float) -> np.ndarray:
    """1 above the limit, -1 below its negative, else 0: int8."""
    return (values > limit).view(np.int8) - (values < -limit).view(np.int8)


@dataclass(frozen=True, eq=False)
class Signs:
    """States of values on A axes: `signs` with a limit."""

    names: Sequence[Sequence[str]]
    """[P][A] of the first question's values."""
    values: np.ndarray
    """[K, P, A, S]."""
    limit: float
    key: str
    ratios: bool = False
    """True where values are logarithms of ratios, and are shown as these."""

    @cached_property
    def states(self) -> np.ndarray:
        """[K, P, A, S] int8."""
        return signs(self.values, self.limit)

    @property
    def band(self) -> tuple[float, float]:
        """Ends of the values, as they are shown, whose state is 0."""
        return (exp(-self.limit), exp(self.limit)) if self.ratios else (-self.limit, self.limit)

    def conditions(self) -> list[Condition]:
        states = self.states[0, ..., 0]
        return [self.condition(point, axis, int(state)) for (point, axis), state in np.ndenumerate(states)]

    def condition(self, point: int, axis: int, state: int, where: str = "") -> Condition:
        """Condition that a value of the first question has a state."""
        what, values = self.names[point][axis] + where, self.values[0, point, axis]
        side: Side = "above" if state else "below"
        values = state * values if state else np.abs(values)
        if self.ratios:
            what = (f"{what}, either way", what, f"1 / ({what})")[state]
            return Condition(what, np.exp(values), side, exp(self.limit), self.key)
        return Condition((f"|{what}|", f"+{what}", f"-{what}")[state], values, side, self.limit, self.key)


@dataclass(frozen=True, eq=False)
class Steady:
    """Constant runs of a changing signal do not drift: all values of a run lie within the tolerance of each other.

    Where they do not, there is no telling where the signal stays and where it changes.
    """

    what: str
    points: Sequence[str]
    logs: np.ndarray
    """[K, P, S] logarithms of the signal."""
    changes: Signs
    """Its changes from point to point."""

    @property
    def holds(self) -> np.ndarray:
        logs, states = np.moveaxis(self.logs, 1, 0), np.moveaxis(self.changes.states[:, :, 0], 1, 0)
        return clear_changes(list(logs), list(states), self.changes.limit)

    def conditions(self) -> list[Condition]:
        found = []
        for state, run in runs(self.changes.states[0, :, 0, 0]):
            if state == 0 and len(run) > 1:
                own = self.logs[0, run[0] : run[-1] + 2]
                what = f"largest over least {self.what} from {self.points[run[0]]} to {self.points[run[-1] + 1]}"
                spread = np.exp(own.max(axis=0) - own.min(axis=0))
                found.append(Condition(what, spread, "below", exp(self.changes.limit), self.changes.key))
        return found


@dataclass(frozen=True, eq=False)
class Floor:
    """Lengths below which nothing is told."""

    names: Sequence[str]
    """[P] of the first question's lengths."""
    lengths: np.ndarray
    """[K, P, S]."""
    limit: float
    key: str

    @property
    def holds(self) -> np.ndarray:
        """[K, S] bool."""
        return np.logical_and.reduce(self.lengths >= self.limit, axis=1)

    def conditions(self) -> list[Condition]:
        own = zip(self.names, self.lengths[0], strict=True)
        return [Condition(name, values, "above", self.limit, self.key, DEPTHS) for name, values in own if self.limit]


def changes(what: str, points: Sequence[str], values: np.ndarray, tolerance: float, key: str) -> tuple[Signs, Steady]:
    """Changes of a positive signal [K, P, S]: a step grows (1) or shrinks (-1) where the ratio of its ends exceeds 1 +
    tolerance, either way, else it is constant (0).

    A distance that grows and then stays, and one that drifts by 10 % and again by 10 %:

    >>> distances = np.array([[1.0, 2.0, 2.1], [1.0, 1.1, 1.21]])[..., None]
    >>> signs, steady = changes("distance", ["0 s", "1 s", "2 s"], distances, 0.15, "qa.ratio_tolerance")
    >>> signs.states[..., 0, 0].tolist(), steady.holds[:, 0].tolist()
    ([[1, 0], [0, 0]], [True, False])
    """
    logs = np.log(values)
    names = [[f"{what} at {after} over that at {before}"] for before, after in pairwise(points)]
    signs = Signs(names, np.diff(logs, axis=1)[:, :, None], log1p(tolerance), key, ratios=True)
    return signs, Steady(what, points, logs, signs)


def comparison(names: Sequence[str], first: np.ndarray, second: np.ndarray, tolerance: float, key: str) -> Signs:
    """The first of two positive signals [K, P, S] is larger (1), smaller (-1) or about the same (0).

    >>> speeds = np.array([[[3.0]]]), np.array([[[2.0]]])
    >>> comparison(["ratio"], *speeds, 0.2, "qa.speed_tolerance").states.ravel().tolist()
    [1]
    """
    logs = np.log(first) - np.log(second)
    return Signs([[name] for name in names], logs[:, :, None], log1p(tolerance), key, ratios=True)


def sides_of_axes(points: Sequence[str], vectors: np.ndarray, lengths: np.ndarray, dead_zone: float, key: str) -> Signs:
    """Sides of vectors [K, P, 3, S] on (forward, left, up): signs of their unit vectors' components.

    Ahead and to the right, a little above:

    >>> vectors = np.array([4.0, -3.0, 0.5]).reshape(1, 1, 3, 1)
    >>> sides_of_axes(["0 s"], vectors, np.full((1, 1, 1), 5.02), 0.2, "qa.dead_zone").states.ravel().tolist()
    [1, -1, 0]
    """
    names = [[f"{axis}, {point}" for axis in AXES] for point in points]
    return Signs(names, vectors / lengths[:, :, None], dead_zone, key)


def clear_changes(logs: Sequence[np.ndarray], changes: Sequence[np.ndarray], limit: float) -> np.ndarray:
    """True where all values of each constant run lie within the limit of each other.

    Args:
        logs: logarithms at each moment, arrays of one shape.
        changes: states from each moment to the next, arrays that broadcast to that shape; a constant one stays within
            the limit.
    """
    clear = np.ones(logs[0].shape, bool)
    constant = [change == 0 for change in changes]
    runs = constant
    for apart in range(2, len(logs)):
        runs = [run & more for run, more in zip(runs, constant[apart - 1 :], strict=False)]
        for run, first, last in zip(runs, logs, logs[apart:], strict=False):
            clear &= (np.abs(last - first) <= limit) | ~run
    return clear


def comparable(slow: np.ndarray, other_slow: np.ndarray, states: np.ndarray) -> np.ndarray:
    """True where `way_to_compare` is not slow, in fewer operations.

    Args:
        slow, other_slow: bool, arrays of one shape: each of the two ways is below the floor.
        states: how the two compare, likewise.
    """
    return ~((slow & other_slow) | ((slow | other_slow) & (states == 0)))


def way_to_compare(way: np.ndarray, other: np.ndarray, states: np.ndarray) -> np.ndarray:
    """The way, of two, that must not be slow: two slow ones are not compared, and no slow one is about as fast.

    Args:
        states: how the two compare.
    """
    return np.where(states == 0, np.minimum(way, other), np.maximum(way, other))


def runs(states: np.ndarray) -> list[tuple[int, list[int]]]:
    """States [P] in runs: each with the places that it lasts."""
    return [(int(state), list(run)) for state, run in groupby(range(len(states)), key=lambda i: states[i])]
