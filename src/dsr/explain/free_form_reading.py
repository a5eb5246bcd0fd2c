"""What the answer of a free-form question was read from, family by family; see `reading` for the letters.

The families' limits are those of questions/engine/free_form.py; that each reading's conditions hold exactly where the
family gives its answer is tested.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from dsr.explain.evidence import Band, Panel, Reading, Series, State
from dsr.geometry.frames import express
from dsr.geometry.signals import length
from dsr.params import QA
from dsr.questions.engine.conditions import DEPTHS, Condition
from dsr.questions.engine.free_form import Moments
from dsr.questions.language.families import ORDERS, PAIRS, Family

ROLES = ("a", "b", "c")
_RATIO, _SPEED = "qa.ratio_tolerance", "qa.speed_tolerance"
_TURNS = {90.0: "a quarter turn to the left", -90.0: "a quarter turn to the right", 180.0: "half a turn"}
_MIN_BEARING, _MIN_SWING = 3.0, 2.0
"""Degrees beyond which a side, and a change of bearing, count."""


@dataclass(frozen=True, eq=False)
class Case:
    """A question of a family as its reading sees it."""

    moments: Moments
    code: int
    """The answer, an index into the family's answers."""
    times: np.ndarray
    """[M] seconds."""
    names: Sequence[str]
    """Of the targets."""
    viewer: str
    qa: QA

    @property
    def ratio(self) -> float:
        return 1 + self.qa.ratio_tolerance

    def lines(self, values: np.ndarray) -> list[Series]:
        """A line a target of [n, M, S]."""
        return [Series(n, r, self.times, v) for n, r, v in zip(self.names, ROLES, values, strict=False)]

    def distance_panel(self) -> Panel:
        title = f"distance from {self.viewer}"
        return Panel(title, DEPTHS, self.lines(self.moments.distances()[:, 0]), logarithmic=True)


Found = tuple[str, list[Panel], list[Condition]]


def read_family(
    form: Family, moments: Moments, code: int, times: np.ndarray, names: Sequence[str], viewer: str, qa: QA
) -> Reading:
    """The reading of a question of a free-form family.

    Args:
        moments: of one question, K = 1.
        code: its answer, an index into the family's answers.
        times: [M] seconds.
        names: of the targets, in the order of the question.
        viewer: whose eyes; "" without a viewpoint.
    """
    family = form.signal
    read = next((reader for name, reader in READERS.items() if family.startswith(name)), _positions_alone)
    signal, panels, conditions = read(Case(moments, code, times, names, viewer, qa), family)
    text = form.answers[code]
    state = State(float(times[0]), float(times[-1]), (2,), (text,), text)
    columns, rows = _table(panels)
    return Reading(signal, panels, [state], conditions, columns, rows)


def _table(panels: Sequence[Panel]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The signals that are known at the times of the first one, as text."""
    lines = [(panel, line) for panel in panels for line in panel.series]
    if not lines:
        return (), []
    times = lines[0][1].times
    shared = [(panel, line) for panel, line in lines if np.array_equal(line.times, times)]
    rows = [(line.label, *(f"{v:.2f}" for v in line.values[:, 0]), panel.unit) for panel, line in shared]
    return ("", *(f"{t:.1f} s" for t in times), ""), rows


def _nearest_at_end(case: Case, family: str) -> Found:
    last = case.moments.distances()[:, 0, -1]
    order = ORDERS[case.code]
    conditions = [
        Condition(
            f"distance of {case.names[far]} over that of {case.names[near]} at {case.times[-1]:.1f} s",
            last[far] / last[near],
            "above",
            case.ratio,
            _RATIO,
        )
        for near, far in pairwise(order)
    ]
    return f"distances from {case.viewer} at {case.times[-1]:.1f} s", [case.distance_panel()], conditions


def _order_of_speed(case: Case, family: str) -> Found:
    floor = case.qa.min_displacement
    steps = np.stack([length(np.diff(t[:, ::2], axis=1))[0] for t in case.moments.targets])
    paths = steps.sum(axis=1)
    counted = np.maximum(paths, floor)
    order = ORDERS[case.code]
    conditions = [
        Condition(
            f"way of {case.names[more]} over that of {case.names[less]}",
            counted[more] / counted[less],
            "above",
            1 + case.qa.speed_tolerance,
            _SPEED,
        )
        for more, less in pairwise(order)
    ]
    second = np.sort(paths, axis=0)[1]
    conditions.append(Condition("second shortest way", second, "above", floor, "qa.min_displacement", DEPTHS))
    times = case.times[::2]
    series = [
        Series(name, role, times, np.concatenate([np.zeros((1, s.shape[1])), s.cumsum(axis=0)]))
        for name, role, s in zip(case.names, ROLES, steps, strict=False)
    ]
    panel = Panel("ground covered so far", DEPTHS, series, limits=[(floor, "qa.min_displacement")])
    return "ground covered by each", [panel], conditions


def _order_of_approach(case: Case, family: str) -> Found:
    distances = case.moments.distances()[:, 0]
    nearest = distances.argmin(axis=1)
    order = ORDERS[case.code]
    conditions = [
        Condition(
            f"farthest over nearest distance of {name}", d.max(axis=0) / d.min(axis=0), "above", case.ratio, _RATIO
        )
        for name, d in zip(case.names, distances, strict=True)
    ]
    conditions += [
        Condition(
            f"moments from the nearest point of {case.names[first]} to that of {case.names[then]}",
            (nearest[then] - nearest[first]).astype(float),
            "above",
            1.0,
        )
        for first, then in pairwise(order)
    ]
    return f"when each is nearest to {case.viewer}", [case.distance_panel()], conditions


def _pairs_that_approach(case: Case, family: str) -> Found:
    conditions, series = [], []
    for bit, (i, j) in enumerate(PAIRS):
        gap = length(case.moments.targets[i] - case.moments.targets[j])[0]
        pair = f"{case.names[i]} and {case.names[j]}"
        conditions.append(_approach(f"gap of {pair}", gap, bool(case.code >> bit & 1), case))
        floor = case.qa.min_distance
        conditions.append(Condition(f"least gap of {pair}", gap.min(axis=0), "above", floor, "qa.min_distance", DEPTHS))
        series.append(Series(pair, ROLES[i] + ROLES[j], case.times, gap))
    return "gaps between the three", [Panel("gap", DEPTHS, series, logarithmic=True)], conditions


def _count_approaching(case: Case, family: str) -> Found:
    distances = case.moments.distances()[:, 0]
    closer = distances[:, -1, 0] * case.ratio < distances[:, 0, 0]
    conditions = [
        _approach(f"distance of {name}", d, bool(c), case)
        for name, d, c in zip(case.names, distances, closer, strict=True)
    ]
    return f"distances from {case.viewer} at both ends", [case.distance_panel()], conditions


def _approach(what: str, values: np.ndarray, closer: bool, case: Case) -> Condition:
    """That values [M, S] shrink clearly from the first to the last moment, or clearly do not."""
    shrunk = values[0] / values[-1]
    title = f"{what} at {case.times[0]:.1f} s over that at {case.times[-1]:.1f} s"
    if closer:
        return Condition(title, shrunk, "above", case.ratio, _RATIO)
    return Condition(title, shrunk, "below", case.ratio**0.5, f"half of {_RATIO}")


def _passing(case: Case, family: str) -> Found:
    gap, conditions, panels = _side_of_each_other(case, {0: 0, 1: 1, 2: 1, 3: 2}[case.code])
    if case.code in (1, 2):
        at = _crossing(gap)
        first, second = (np.take_along_axis(d[0], at, axis=0)[0] for d in case.moments.distances())
        ratio, where = (first / second, "farther") if case.code == 1 else (second / first, "nearer")
        what = f"how many times {where} {case.names[0]} is than {case.names[1]} where they pass"
        conditions.append(Condition(f"{what} ({case.times[at[0, 0]]:.1f} s)", ratio, "above", case.ratio, _RATIO))
    return (
        f"bearing of {case.names[0]} minus that of {case.names[1]} from {case.viewer}",
        [*panels, case.distance_panel()],
        conditions,
    )


def _crossing(gap: np.ndarray) -> np.ndarray:
    """[1, S] moment before or after the first change of sign of [M, S], whichever has the smaller value."""
    after = np.maximum((gap * gap[:1] < 0).argmax(axis=0), 1)[None]
    sizes = [np.abs(np.take_along_axis(gap, at, axis=0)) for at in (after - 1, after)]
    return np.where(sizes[0] < sizes[1], after - 1, after)


def _count_swaps(case: Case, family: str) -> Found:
    _, conditions, panels = _side_of_each_other(case, case.code)
    return f"bearing of {case.names[0]} minus that of {case.names[1]} from {case.viewer}", panels, conditions


def _side_of_each_other(case: Case, swaps: int) -> tuple[np.ndarray, list[Condition], list[Panel]]:
    """[M, S] difference of the two bearings in degrees, what must hold of it, and its panel."""
    bearings, in_front = case.moments.bearings()
    gap = np.rad2deg(bearings[0] - bearings[1])[0]
    conditions = [
        Condition(
            "moments at which one of the two is not in front", (~in_front[:, 0]).sum(axis=(0, 1)) * 1.0, "equal", 0.0
        ),
        *_swing_conditions(gap, _MIN_BEARING, "difference of bearings", "changes of sides", swaps),
    ]
    series = [Series("to the left of the other", "a", case.times, gap)]
    band = Band(case.times[0], case.times[-1], -_MIN_BEARING, _MIN_BEARING)
    title = f"how far {case.names[0]} is to the left of {case.names[1]}, from {case.viewer}"
    return gap, conditions, [Panel(title, "degrees", series, bands=[band], band_means="neither side")]


def _count_reversals(case: Case, family: str) -> Found:
    bearings, in_front = case.moments.bearings()
    bearing = np.rad2deg(np.unwrap(bearings[0], axis=1))[0]
    swings = np.diff(bearing, axis=0)
    conditions = [
        Condition("moments at which it is not in front", (~in_front[0, 0]).sum(axis=0) * 1.0, "equal", 0.0),
        *_swing_conditions(swings, _MIN_SWING, "change of bearing", "reversals", case.code),
    ]
    name = case.names[0]
    middle = (case.times[1:] + case.times[:-1]) / 2
    band = Band(case.times[0], case.times[-1], -_MIN_SWING, _MIN_SWING)
    panels = [
        Panel(
            f"bearing of {name} to the left, from {case.viewer}", "degrees", [Series(name, "a", case.times, bearing)]
        ),
        Panel(
            "change of bearing in a step",
            "degrees",
            [Series(name, "a", middle, swings)],
            bands=[band],
            band_means="too little to count",
        ),
    ]
    return f"bearing of {name} from {case.viewer}", panels, conditions


def _swing_conditions(values: np.ndarray, limit: float, what: str, counted: str, count: int) -> list[Condition]:
    """That values [M, S] change sign so many times, each time from beyond the limit to beyond it."""
    ends = [(np.abs(values[0]), "first"), (np.abs(values[-1]), "last")]
    held, changes = values[0], np.zeros(values.shape[1])
    # How far each run of one sign reaches, and the least of them.
    reach, least = np.abs(values[0]), np.full(values.shape[1], np.inf)
    for value in values[1:]:
        turned = value * held < 0
        least = np.where(turned, np.minimum(least, reach), least)
        reach = np.where(turned, np.abs(value), np.maximum(reach, np.abs(value)))
        changes += turned
        held = np.where(value == 0, held, value)
    least = np.minimum(least, reach)
    return [
        Condition(counted, changes, "equal", float(count)),
        *(Condition(f"{what}, {which}, either way", v, "above", limit, unit="degrees") for v, which in ends),
        Condition(f"least reach of the {what} to a side", least, "above", limit, unit="degrees"),
    ]


def _when_nearest(case: Case, family: str) -> Found:
    distance = case.moments.distances()[0, 0]
    last = len(distance) - 1
    at = distance.argmin(axis=0)
    least, limit, key = distance.min(axis=0), 1 + case.qa.ratio_tolerance / 2, f"half of {_RATIO}"
    part = np.select([at == 0, at == last, at < last / 2], [0, 3, 1], 2)
    conditions = [
        Condition("part of the interval with the least distance", part.astype(float), "equal", float(case.code)),
        Condition("farthest over nearest distance", distance.max(axis=0) / least, "above", limit, key),
        Condition("moments from the middle to the nearest", np.abs(at - last / 2), "above", 0.5),
    ]
    if case.code in (1, 2):
        conditions += [
            Condition(f"distance at the {which} over the least", distance[i] / least, "above", limit, key)
            for i, which in ((0, "start"), (-1, "end"))
        ]
    return f"distance between {case.viewer} and {case.names[0]}", [case.distance_panel()], conditions


def _when_fastest(case: Case, family: str) -> Found:
    place, seconds = case.moments.targets[0], case.times
    stride = (place.shape[1] - 1) // 4
    covered = length(np.diff(place[:, ::stride], axis=1))[0]
    speed = covered / np.diff(seconds[::stride])[:, None]
    ranked = np.sort(speed, axis=0)
    floor = case.qa.min_displacement
    conditions = [
        Condition("fastest quarter", speed.argmax(axis=0) + 1.0, "equal", case.code + 1.0),
        Condition(
            "fastest quarter over the next",
            ranked[-1] / ranked[-2],
            "above",
            1 + case.qa.speed_tolerance / 2,
            f"half of {_SPEED}",
        ),
        Condition("longest way in a quarter", covered.max(axis=0), "above", floor, "qa.min_displacement", DEPTHS),
    ]
    middle = (seconds[::stride][1:] + seconds[::stride][:-1]) / 2
    title = f"speed of {case.names[0]} over the ground, by quarters"
    series = [Series(case.names[0], "a", middle, speed)]
    return title, [Panel(title, f"{DEPTHS} a second", series)], conditions


def _path_shape(case: Case, family: str) -> Found:
    up = case.moments.up
    steps = np.diff(case.moments.targets[0][:, ::2], axis=1)
    flat = steps - (steps * up).sum(axis=2, keepdims=True) * up
    covered = length(flat)[0]
    straightness = length(flat.sum(axis=1)[:, None])[0, 0] / covered.sum(axis=0)
    bends = np.rad2deg(_signed_angles(flat[:, :-1], flat[:, 1:], up))[0]
    turn = bends.sum(axis=0)
    conditions = [
        Condition(
            "shortest step on the ground",
            covered.min(axis=0),
            "above",
            0.5 * case.qa.min_displacement,
            "half of qa.min_displacement",
            DEPTHS,
        )
    ]
    what = "straight-line distance over the way"
    if case.code == 3:
        conditions.append(Condition(what, straightness, "below", 0.4))
    elif case.code == 0:
        conditions.append(Condition(what, straightness, "above", 0.97))
        conditions.append(Condition("turn on the whole, either way", np.abs(turn), "below", 15.0, unit="degrees"))
    else:
        sign, way = (1, "left") if case.code == 1 else (-1, "right")
        conditions.append(Condition(what, straightness, "above", 0.5))
        conditions.append(Condition(f"turn to the {way} on the whole", sign * turn, "above", 40.0, unit="degrees"))
    total = np.concatenate([np.zeros((1, bends.shape[1])), bends.cumsum(axis=0)])
    at = (case.times[::2][1:] + case.times[::2][:-1]) / 2
    title = f"turn of the path of {case.names[0]} to the left, so far"
    panel = Panel(title, "degrees", [Series(case.names[0], "a", at, total)])
    return f"path of {case.names[0]} on the ground", [panel], conditions


def _turn_of_heading(case: Case, family: str) -> Found:
    facing = case.moments.facing
    turns = np.rad2deg(_signed_angles(facing[:, :-1], facing[:, 1:], case.moments.own_up))[0]
    total = turns.sum(axis=0)
    conditions = {
        0: [Condition("turn, either way", np.abs(total), "below", 20.0, unit="degrees")],
        1: _within("turn to the left", total, 60.0, 120.0),
        2: _within("turn to the right", -total, 60.0, 120.0),
        3: _within("turn, either way", np.abs(total), 150.0, 210.0),
    }[case.code]
    so_far = np.concatenate([np.zeros((1, turns.shape[1])), turns.cumsum(axis=0)])
    title = f"turn of {case.names[0]} to the left, so far"
    return title, [Panel(title, "degrees", [Series(case.names[0], "a", case.times, so_far)])], conditions


def _side_after_turn(case: Case, family: str) -> Found:
    degrees = {"left": 90.0, "right": -90.0, "round": 180.0}[family.removeprefix("side_after_turn_")]
    bearings = np.rad2deg(case.moments.bearings()[0][0, 0])
    after = bearings[-1] - degrees
    quarter = np.round(after / 90)
    away = length(case.moments.targets[0][:, -1:] - case.moments.viewer[:, -1:])[0, 0]
    name, end = case.names[0], case.times[-1]
    conditions = [
        Condition("quarter: front 0, left 1, behind 2, right 3", quarter % 4, "equal", float(case.code)),
        Condition(
            "off the middle of that side after the turn", np.abs(after - 90 * quarter), "below", 30.0, unit="degrees"
        ),
        Condition(f"distance at {end:.1f} s", away, "above", case.qa.min_direction, "qa.min_direction", DEPTHS),
    ]
    turned = np.rad2deg(np.unwrap(np.deg2rad(bearings), axis=0))
    turned -= 360 * np.round(turned[-1] / 360)
    middle = (degrees + 90 * case.code + 180) % 360 - 180
    # At plus and minus 180 degrees it is the same direction.
    middle += 360 * np.round((turned[-1, 0] - middle) / 360)
    band = Band(case.times[-2], case.times[-1], middle - 30, middle + 30)
    title = f"bearing of {name} to the left, from {case.viewer}, before {_TURNS[degrees]}"
    panel = Panel(
        title, "degrees", [Series(name, "a", case.times, turned)], bands=[band], band_means="of this answer at the end"
    )
    return f"bearing of {name} from {case.viewer} at {end:.1f} s", [panel], conditions


def _faced_target(case: Case, family: str) -> Found:
    moments = case.moments
    seen = np.stack([express(t - moments.viewer, moments.axes)[0] for t in moments.targets])
    angle = np.rad2deg(np.arccos(np.clip(seen[:, :, 0] / length(seen), -1, 1)))
    last = angle[:, -1]
    ranked = np.sort(last, axis=0)
    conditions = [Condition("smallest angle off its forward", ranked[0], "above", 50.0, unit="degrees")]
    if case.code < 3:
        conditions = [
            Condition("which of them it faces", last.argmin(axis=0) + 1.0, "equal", case.code + 1.0),
            Condition("smallest angle off its forward", ranked[0], "below", 20.0, unit="degrees"),
            Condition("next angle off its forward", ranked[1], "above", 35.0, unit="degrees"),
        ]
    limits = [(20.0, "faces"), (50.0, "faces none of them")]
    panel = Panel(f"angle off the forward of {case.viewer}", "degrees", case.lines(angle), limits=limits)
    return f"angles off the forward of {case.viewer} at {case.times[-1]:.1f} s", [panel], conditions


def _positions_alone(case: Case, family: str) -> Found:
    """A family that has no reading of its own yet: its answer without what it was read from."""
    panels = [case.distance_panel()] if case.viewer else []
    return family.replace("_", " "), panels, []


READERS: dict[str, Callable[[Case, str], Found]] = {
    "nearest_at_end": _nearest_at_end,
    "order_of_speed": _order_of_speed,
    "order_of_approach": _order_of_approach,
    "pairs_that_approach": _pairs_that_approach,
    "count_approaching": _count_approaching,
    "passing": _passing,
    "count_swaps": _count_swaps,
    "count_reversals": _count_reversals,
    "when_nearest": _when_nearest,
    "when_fastest": _when_fastest,
    "path_shape": _path_shape,
    "turn_of_heading": _turn_of_heading,
    "side_after_turn": _side_after_turn,
    "faced_target": _faced_target,
}


def _within(what: str, values: np.ndarray, low: float, high: float) -> list[Condition]:
    return [
        Condition(what, values, "above", low, unit="degrees"),
        Condition(what, values, "below", high, unit="degrees"),
    ]


def _signed_angles(before: np.ndarray, after: np.ndarray, up: np.ndarray) -> np.ndarray:
    """Angles [..., S] from vectors to vectors [..., 3, S] about `up`, counter-clockwise, in radians."""
    sine = (np.cross(before, after, axis=-2) * up).sum(axis=-2)
    before, after = (v - (v * up).sum(axis=-2, keepdims=True) * up for v in (before, after))
    return np.arctan2(sine, (before * after).sum(axis=-2))
