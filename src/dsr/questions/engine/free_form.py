"""Rules of the free-form families: under which conditions each answer holds, and the curves that show it.

A rule states its conditions once. An answer is given where all of its conditions hold (`decide`); an explanation shows
the same conditions and the curves. Whatever is near a limit meets the conditions of no answer, and the ensemble sorts
out what the cues' noise could turn. How to add a family: language/families.py.

Letters: K questions, M moments, n targets, S ensemble members.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise, permutations, product
from typing import TYPE_CHECKING, Literal

import numpy as np

from dsr.geometry.frames import cross, dot, express
from dsr.geometry.signals import length
from dsr.questions.engine.conditions import DEPTHS, Condition, all_hold
from dsr.questions.language.families import ORDERS, PAIRS

if TYPE_CHECKING:
    from dsr.params import QA

NO_ANSWER = -1
_RATIO, _SPEED, _MOVES = "qa.ratio_tolerance", "qa.speed_tolerance", "qa.min_displacement"
_angle = partial(Condition, unit="degrees")


@dataclass(frozen=True)
class Names:
    """Words for what a question is about."""

    targets: tuple[str, ...] = ("the first", "the second", "the third")
    viewer: str = "the viewer"
    start: str = "the start"
    end: str = "the end"


@dataclass(frozen=True, eq=False)
class Curves:
    """Quantities over time that conditions are read from."""

    what: str
    unit: str
    seconds: np.ndarray
    """[K, P] of their points."""
    lines: dict[str, np.ndarray]
    """[K, P, S] by whose it is: `a`, `b`, `c`, or two of them as in `ab`."""
    label: str = ""
    """Words for a line that is not simply a target's."""
    logarithmic: bool = False
    """True where ratios are compared: equal ratios are equal heights."""
    limits: Sequence[tuple[float, str]] = ()
    """Values that conditions compare with, and the words for them."""
    bands: Sequence[tuple[float, float]] = ()
    """Ranges of values that mean `band_means`."""
    band_means: str = ""


@dataclass(frozen=True, eq=False)
class Case:
    """An answer (an index into the family's) and the conditions under which it holds."""

    answer: int
    conditions: Sequence[Condition]
    """With values [K, S]."""


@dataclass(frozen=True, eq=False)
class Ruling:
    """All cases of a family on its questions; an answer may have several, and no two answers hold at once."""

    cases: Sequence[Case]
    curves: Callable[[], Sequence[Curves]]
    """Made for explanations alone."""

    def nearest_case(self) -> Case:
        """The case that holds on the first version of the first question, or comes nearest to doing so."""
        margins = [np.nan_to_num([c.margins[0, 0] for c in case.conditions], nan=-np.inf).min() for case in self.cases]
        return self.cases[int(np.argmax(margins))]


@dataclass(frozen=True, eq=False)
class Moments:
    """K questions of a family at their M moments."""

    targets: list[np.ndarray]
    """n arrays [K, M, 3, S], positions in median depths."""
    facing: np.ndarray
    """[K, M, 3, S] unit vectors, the way the first target faces; NaN for an object."""
    viewer: np.ndarray
    """[K, M, 3, S] positions; NaN without a viewer."""
    axes: np.ndarray
    """[K, M, 3, 3, S] world-from-viewpoint rotations of the viewer; NaN without one."""
    own_up: np.ndarray
    """[K, 1, 3, S] up for the first target at the first moment; NaN for an object."""
    up: np.ndarray
    """[K, 1, 3, S] up for the clip's agents on the whole; NaN without any."""
    seconds: np.ndarray
    """[K, M]."""
    names: Names = Names()

    def distances(self) -> np.ndarray:
        """[n, K, M, S] from the viewer."""
        return np.stack([length(target - self.viewer) for target in self.targets])

    def distance_curves(self) -> list[Curves]:
        lines = dict(zip("abc", self.distances(), strict=False))
        return [Curves(f"distance from {self.names.viewer}", DEPTHS, self.seconds, lines, logarithmic=True)]

    def seen(self) -> np.ndarray:
        """[n, K, M, 3, S] from the viewer, in its axes: forward, left, up."""
        return np.stack([express(target - self.viewer, self.axes) for target in self.targets])

    def bearings(self) -> tuple[np.ndarray, Condition]:
        """[n, K, M, S] radians to the left of the viewer's forward, and the condition that all are in front of it."""
        seen = self.seen()
        behind = np.count_nonzero(seen[..., 0, :] <= 0, axis=(0, 2))
        in_front = Condition("times that one is not in front", behind, "equal", 0)
        return np.arctan2(seen[..., 1, :], seen[..., 0, :]), in_front


Rule = Callable[[Moments, "QA"], Ruling]


def apply_rule(family: str, moments: Moments, qa: "QA") -> Ruling:
    """The ruling of a family on its questions; what is not known meets no condition."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return RULES[family](moments, qa)


def decide(family: str, moments: Moments, qa: "QA") -> np.ndarray:
    """[K, S] int answers of a family's questions, NO_ANSWER where no case holds."""
    cases = apply_rule(family, moments, qa).cases
    return np.select([all_hold(case.conditions) for case in cases], [case.answer for case in cases], NO_ANSWER)


# --- Distances ---


def nearest_at_end(m: Moments, qa: "QA") -> Ruling:
    """Order of three targets by distance from the viewer at the last moment."""
    last = m.distances()[:, :, -1]

    def next_is_farther(near: int, far: int) -> Condition:
        what = f"distance of {m.names.targets[far]} over that of {m.names.targets[near]} at {m.names.end}"
        return Condition(what, last[far] / last[near], "above", 1 + qa.ratio_tolerance, _RATIO)

    return Ruling(_orders(next_is_farther), m.distance_curves)


def order_of_approach(m: Moments, qa: "QA") -> Ruling:
    """Order in which three targets come nearest to the viewer; each approach is a real one."""
    distances = m.distances()
    nearest = distances.argmin(axis=2)

    def next_is_later(first: int, then: int) -> Condition:
        what = f"moments from the nearest point of {m.names.targets[first]} to that of {m.names.targets[then]}"
        return Condition(what, nearest[then] - nearest[first], "above", 1)

    ratios = distances.max(axis=2) / distances.min(axis=2)
    approaches = [
        Condition(f"farthest over nearest distance of {name}", ratio, "above", 1 + qa.ratio_tolerance, _RATIO)
        for name, ratio in zip(m.names.targets, ratios, strict=True)
    ]
    return Ruling(_orders(next_is_later, approaches), m.distance_curves)


def pairs_that_approach(m: Moments, qa: "QA") -> Ruling:
    """Pairs of three targets that come closer, a bit a pair."""
    gaps = [
        (f"gap of {m.names.targets[i]} and {m.names.targets[j]}", length(m.targets[i] - m.targets[j])) for i, j in PAIRS
    ]
    apart = [
        Condition(f"least {what}", gap.min(axis=1), "above", qa.min_distance, "qa.min_distance", DEPTHS)
        for what, gap in gaps
    ]
    lines = {pair: gap for pair, (_, gap) in zip(("ab", "ac", "bc"), gaps, strict=True)}
    return Ruling(
        _come_closer(m, qa, gaps, lambda closer: sum(came << bit for bit, came in enumerate(closer)), apart),
        lambda: [Curves("gaps of the three, two by two", DEPTHS, m.seconds, lines, logarithmic=True)],
    )


def count_approaching(m: Moments, qa: "QA") -> Ruling:
    """Number of targets, of three, that are nearer to the viewer at the end than at the start."""
    distances = [(f"distance of {name}", d) for name, d in zip(m.names.targets, m.distances(), strict=True)]
    return Ruling(_come_closer(m, qa, distances, sum), m.distance_curves)


def when_nearest(m: Moments, qa: "QA") -> Ruling:
    """Part of the interval in which a target is nearest to the viewer: its start, first half, second half or end."""
    distance = m.distances()[0]
    at, least = distance.argmin(axis=1), distance.min(axis=1)
    last = distance.shape[1] - 1

    def above_least(what: str, other: np.ndarray) -> Condition:
        limit, key = 1 + qa.ratio_tolerance / 2, f"half of {_RATIO}"
        return Condition(f"{what} distance over the least", other / least, "above", limit, key)

    def moment_is(number: int) -> Condition:
        return Condition(f"number of the nearest of {last + 1} moments", at + 1, "equal", number)

    approach = above_least("largest", distance.max(axis=1))
    inside = [above_least("first", distance[:, 0]), above_least("last", distance[:, -1])]
    early = Condition("moments from the nearest to the middle", last / 2 - at, "above", 0.5)
    late = Condition("moments from the middle to the nearest", at - last / 2, "above", 0.5)
    cases = [
        Case(0, [moment_is(1), approach]),
        Case(1, [early, *inside]),
        Case(2, [late, *inside]),
        Case(3, [moment_is(last + 1), approach]),
    ]
    return Ruling(cases, m.distance_curves)


# --- Sides ---


def passing(m: Moments, qa: "QA") -> Ruling:
    """Passing of the first target by the second as the viewer sees it: none, behind, in front of, there and back."""
    gap, changes, clear, curves = _side_of_the_other(m)
    # The nearer moment on either side of the (first) crossing.
    after = np.maximum((gap * gap[:, :1] < 0).argmax(axis=1), 1)[:, None]
    beside = np.abs(np.take_along_axis(gap, after - 1, axis=1)) < np.abs(np.take_along_axis(gap, after, axis=1))
    at = np.where(beside, after - 1, after)
    first, second = (np.take_along_axis(d, at, axis=1)[:, 0] for d in m.distances())

    def by_far(where: str, ratio: np.ndarray) -> Condition:
        what = f"how many times {where} {m.names.targets[0]} is than {m.names.targets[1]} where they pass"
        return Condition(what, ratio, "above", 1 + qa.ratio_tolerance, _RATIO)

    cases = [
        Case(0, [changes(0), *clear]),
        Case(1, [changes(1), *clear, by_far("farther", first / second)]),
        Case(2, [changes(1), *clear, by_far("nearer", second / first)]),
        Case(3, [changes(2), *clear]),
    ]
    return Ruling(cases, lambda: [curves, *m.distance_curves()])


def count_swaps(m: Moments, qa: "QA") -> Ruling:
    """Number of times that two targets exchange left and right as the viewer sees them: 0 to 3."""
    _, changes, clear, curves = _side_of_the_other(m)
    return Ruling([Case(count, [changes(count), *clear]) for count in range(4)], lambda: [curves])


def count_reversals(m: Moments, qa: "QA") -> Ruling:
    """Number of times that a target turns back between left and right as the viewer sees it: 0 to 3."""
    bearings, in_front = m.bearings()
    limit = 2
    bearing = np.rad2deg(np.unwrap(bearings[0], axis=1))
    steps = np.diff(bearing, axis=1)
    changes, clear = _sign_changes(steps, limit, "change of bearing", "reversals")
    cases = [Case(count, [changes(count), in_front, *clear]) for count in range(4)]
    what, small = f"bearing of {m.names.targets[0]} to the left, from {m.names.viewer}", [(-limit, limit)]
    bearing_curve = Curves(what, "degrees", m.seconds, {"a": bearing})
    what = "change of bearing in a step"
    step_curve = Curves(what, "degrees", _middles(m.seconds), {"a": steps}, bands=small, band_means="hardly any")
    return Ruling(cases, lambda: [bearing_curve, step_curve])


def side_after_turn(m: Moments, qa: "QA", degrees: float) -> Ruling:
    """Side on which a target would be if the viewer turned at the last moment: front, left, back, right."""
    limit, end = 30, m.names.end
    bearing = np.rad2deg(m.bearings()[0][0])
    away = length(m.targets[0][:, -1] - m.viewer[:, -1])
    far = Condition(f"distance at {end}", away, "above", qa.min_direction, "qa.min_direction", DEPTHS)
    cases = []
    for quarter, side in enumerate(("front", "left", "back", "right")):
        off = np.abs(_within_half_turn(bearing[:, -1] - degrees - 90 * quarter))
        cases.append(Case(quarter, [far, _angle(f"angle off the {side} after the turn at {end}", off, "below", limit)]))

    def curves() -> list[Curves]:
        first = _within_half_turn(bearing[..., :1] - degrees)
        # Versions on the two sides of the back are near one another.
        turned = first + _within_half_turn(bearing - degrees - first)
        what = f"bearing of {m.names.targets[0]} to the left if it had turned, from {m.names.viewer}"
        sides = [(90 * quarter - limit, 90 * quarter + limit) for quarter in range(-2, 3)]
        means = "clearly on a side: front 0, left 90, back 180, right -90"
        return [Curves(what, "degrees", m.seconds, {"a": turned}, bands=sides, band_means=means)]

    return Ruling(cases, curves)


def faced_target(m: Moments, qa: "QA") -> Ruling:
    """Target, of three, that the viewer faces at the last moment, or none of them."""
    faced, not_faced, none_faced = 20, 35, 50
    seen = m.seen()
    off = np.rad2deg(np.arccos(np.clip(seen[..., 0, :] / length(seen), -1, 1)))
    what, at_end = f"off the forward of {m.names.viewer}", f"at {m.names.end}"
    cases = [Case(3, [_angle(f"least angle {what} {at_end}", off[:, :, -1].min(axis=0), "above", none_faced)])]
    for target, name in enumerate(m.names.targets):
        others = np.delete(off[:, :, -1], target, axis=0).min(axis=0)
        nearest = _angle(f"angle of {name} {what} {at_end}", off[target, :, -1], "below", faced)
        cases.append(Case(target, [nearest, _angle(f"least angle of the others {at_end}", others, "above", not_faced)]))
    lines, limits = dict(zip("abc", off, strict=True)), [(faced, "faces"), (none_faced, "faces none of them")]
    return Ruling(cases, lambda: [Curves(f"angle {what}", "degrees", m.seconds, lines, limits=limits)])


# --- Motion ---


def order_of_speed(m: Moments, qa: "QA") -> Ruling:
    """Order of three targets by the ground that they cover between the first and the last moment, most first.

    What covers less than can be told counts as covering just that, so that at most one of them stands.
    """
    steps = np.stack([length(np.diff(target[:, ::2], axis=1)) for target in m.targets])
    covered = np.maximum(steps.sum(axis=2), qa.min_displacement)

    def next_is_slower(fast: int, slow: int) -> Condition:
        what = f"ground covered by {m.names.targets[fast]} over that by {m.names.targets[slow]}"
        return Condition(what, covered[fast] / covered[slow], "above", 1 + qa.speed_tolerance, _SPEED)

    def curves() -> list[Curves]:
        lines = dict(zip("abc", _so_far(steps), strict=True))
        limits = [(qa.min_displacement, "qa.min_displacement")]
        return [Curves("ground covered so far", DEPTHS, m.seconds[:, ::2], lines, limits=limits)]

    return Ruling(_orders(next_is_slower), curves)


def when_fastest(m: Moments, qa: "QA") -> Ruling:
    """Quarter of the interval in which a target covers most ground."""
    stride = (m.seconds.shape[1] - 1) // 4
    covered = length(np.diff(m.targets[0][:, ::stride], axis=1))
    speed = covered / np.diff(m.seconds[:, ::stride])[..., None]
    moves = Condition("most ground in a quarter", covered.max(axis=1), "above", qa.min_displacement, _MOVES, DEPTHS)
    cases = []
    for quarter, ordinal in enumerate(("first", "second", "third", "last")):
        ratio = speed[:, quarter] / np.delete(speed, quarter, axis=1).max(axis=1)
        what = f"speed in the {ordinal} quarter over the highest in another"
        faster = Condition(what, ratio, "above", 1 + qa.speed_tolerance / 2, f"half of {_SPEED}")
        cases.append(Case(quarter, [moves, faster]))
    what = f"speed of {m.names.targets[0]} over the ground, by quarters"
    seconds = _middles(m.seconds[:, ::stride])
    return Ruling(cases, lambda: [Curves(what, f"{DEPTHS} a second", seconds, {"a": speed})])


def path_shape(m: Moments, qa: "QA") -> Ruling:
    """Shape of a target's path seen from above: straight, bends left, bends right, comes back.

    What is above is told by the agents, who mostly stand upright; a camera may look steeply down.
    """
    steps = np.diff(m.targets[0][:, ::2], axis=1)
    flat = steps - dot(steps, m.up)[:, :, None] * m.up
    covered = length(flat)
    straightness = length(flat.sum(axis=1)) / covered.sum(axis=1)
    turns = _signed_angles(flat[:, :-1], flat[:, 1:], m.up)
    turn, least = turns.sum(axis=1), covered.min(axis=1)
    moves = Condition("shortest step", least, "above", qa.min_displacement / 2, f"half of {_MOVES}", DEPTHS)

    def direct(side: Literal["above", "below"], limit: float) -> Condition:
        return Condition("straight-line distance over the length of the path", straightness, side, limit)

    cases = [
        Case(0, [moves, direct("above", 0.97), _angle("turn on the whole, either way", np.abs(turn), "below", 15)]),
        Case(1, [moves, direct("above", 0.5), _angle("turn to the left on the whole", turn, "above", 40)]),
        Case(2, [moves, direct("above", 0.5), _angle("turn to the right on the whole", -turn, "above", 40)]),
        Case(3, [moves, direct("below", 0.4)]),
    ]
    what = f"turn of the path of {m.names.targets[0]} to the left, so far"
    seconds = _middles(m.seconds[:, ::2])
    return Ruling(cases, lambda: [Curves(what, "degrees", seconds, {"a": _so_far(turns)})])


def turn_of_heading(m: Moments, qa: "QA") -> Ruling:
    """Turn of an agent on the whole: hardly any, a quarter left, a quarter right, half round."""
    turns = _signed_angles(m.facing[:, :-1], m.facing[:, 1:], m.own_up)
    turn = turns.sum(axis=1)

    def between(what: str, values: np.ndarray, low: float, high: float) -> list[Condition]:
        return [_angle(what, values, "above", low), _angle(what, values, "below", high)]

    cases = [
        Case(0, [_angle("turn, either way", np.abs(turn), "below", 20)]),
        Case(1, between("turn to the left", turn, 60, 120)),
        Case(2, between("turn to the right", -turn, 60, 120)),
        Case(3, between("turn, either way", np.abs(turn), 150, 210)),
    ]
    what = f"turn of {m.names.targets[0]} to the left, so far"
    return Ruling(cases, lambda: [Curves(what, "degrees", m.seconds, {"a": _so_far(turns)})])


# --- What rules share ---


def _orders(next_after: Callable[[int, int], Condition], shared: Sequence[Condition] = ()) -> list[Case]:
    """A case for each order of three targets, in which every two neighbours meet a condition."""
    steps = {pair: next_after(*pair) for pair in permutations(range(3), 2)}
    return [Case(code, [*shared, *(steps[pair] for pair in pairwise(order))]) for code, order in enumerate(ORDERS)]


def _come_closer(
    m: Moments,
    qa: "QA",
    distances: Sequence[tuple[str, np.ndarray]],
    answer: Callable[[tuple[bool, ...]], int],
    shared: Sequence[Condition] = (),
) -> list[Case]:
    """A case for each set of named distances [K, M, S] that shrink clearly while the others clearly do not.

    Args:
        answer: by whether each shrinks.
    """
    limit = 1 + qa.ratio_tolerance
    either = []
    for name, distance in distances:
        what, ratio = f"{name} at {m.names.start} over that at {m.names.end}", distance[:, 0] / distance[:, -1]
        stays = Condition(what, ratio, "below", limit**0.5, f"half of {_RATIO}")
        either.append((stays, Condition(what, ratio, "above", limit, _RATIO)))
    closer = product((False, True), repeat=len(distances))
    return [Case(answer(c), [*(pair[came] for pair, came in zip(either, c, strict=True)), *shared]) for c in closer]


def _side_of_the_other(m: Moments) -> tuple[np.ndarray, Callable[[int], Condition], list[Condition], Curves]:
    """Side of the first of two targets as the viewer sees them: [K, M, S] degrees to the left of the second, the
    condition of a number of changes, those that make it clear, and the curve."""
    bearings, in_front = m.bearings()
    limit, names = 3, m.names
    gap = np.rad2deg(bearings[0] - bearings[1])
    label = "difference of bearings"
    changes, clear = _sign_changes(gap, limit, label, "changes of sides")
    what = f"how far {names.targets[0]} is to the left of {names.targets[1]}, from {names.viewer}"
    band = [(-limit, limit)]
    curves = Curves(what, "degrees", m.seconds, {"a": gap}, label, bands=band, band_means="neither side")
    return gap, changes, [in_front, *clear], curves


def _sign_changes(
    values: np.ndarray, limit: float, what: str, counted: str
) -> tuple[Callable[[int], Condition], list[Condition]]:
    """Changes of sign of values [K, M, S] in degrees: the condition of a number of them, and those that make it clear.

    It is where both ends and each run of one sign reach beyond the limit: a slight change would be counted by some and
    not by others.
    """
    held, reach = values[:, 0], np.abs(values[:, 0])
    changes, least = np.zeros(held.shape, int), np.full(held.shape, np.inf, values.dtype)
    for value in np.moveaxis(values[:, 1:], 1, 0):
        turned = value * held < 0
        least = np.where(turned, np.minimum(least, reach), least)
        reach = np.where(turned, np.abs(value), np.maximum(reach, np.abs(value)))
        changes += turned
        held = np.where(value == 0, held, value)
    sizes = {
        f"first {what}, either way": np.abs(values[:, 0]),
        f"last {what}, either way": np.abs(values[:, -1]),
        f"least reach of the {what} to a side": np.minimum(least, reach),
    }
    clear = [_angle(name, size, "above", limit) for name, size in sizes.items()]
    return lambda count: Condition(counted, changes, "equal", count), clear


def _signed_angles(before: np.ndarray, after: np.ndarray, up: np.ndarray) -> np.ndarray:
    """Angles [..., S] in degrees from vectors to vectors [..., 3, S], counter-clockwise about `up`."""
    sine = dot(cross(before, after), up)
    before, after = (v - dot(v, up)[..., None, :] * up for v in (before, after))
    return np.rad2deg(np.arctan2(sine, dot(before, after)))


def _within_half_turn(degrees: np.ndarray) -> np.ndarray:
    """The same angles from -180 to 180."""
    return (degrees + 180) % 360 - 180


def _middles(seconds: np.ndarray) -> np.ndarray:
    """[K, P - 1] halfway between times [K, P]."""
    return (seconds[:, 1:] + seconds[:, :-1]) / 2


def _so_far(steps: np.ndarray) -> np.ndarray:
    """Running sums [..., P + 1, S] of steps [..., P, S], from 0 on."""
    return np.concatenate([np.zeros_like(steps[..., :1, :]), steps.cumsum(axis=-2)], axis=-2)


RULES: dict[str, Rule] = {
    "nearest_at_end": nearest_at_end,
    "order_of_approach": order_of_approach,
    "pairs_that_approach": pairs_that_approach,
    "count_approaching": count_approaching,
    "when_nearest": when_nearest,
    "passing": passing,
    "count_swaps": count_swaps,
    "count_reversals": count_reversals,
    "side_after_turn_left": partial(side_after_turn, degrees=90),
    "side_after_turn_right": partial(side_after_turn, degrees=-90),
    "side_after_turn_round": partial(side_after_turn, degrees=180),
    "faced_target": faced_target,
    "order_of_speed": order_of_speed,
    "when_fastest": when_fastest,
    "path_shape": path_shape,
    "turn_of_heading": turn_of_heading,
}
"""By family."""
