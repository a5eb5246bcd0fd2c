"""Free-form questions (`non_temp`) whose answers are worked out on the trajectories, family by family.

A family has one set of answers, so that questions of different clips can share their options; a target is
therefore "the first named", not a label. Whatever is near a threshold has no answer (-1), and the ensemble sorts out
what the cues' noise could turn. Letters: K questions, M moments, n targets, S ensemble members.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from dsr.geometry.frames import express
from dsr.geometry.signals import length
from dsr.params import QA
from dsr.questions.language.templates import Form, Viewer

NO_ANSWER = -1
ORDINALS = ("first", "second", "third")
ORDERS = tuple(itertools.permutations(range(3)))
PAIRS = ((0, 1), (0, 2), (1, 2))


@dataclass(frozen=True, eq=False)
class Moments:
    """What a family sees of K questions at their M moments."""

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

    def distances(self) -> np.ndarray:
        """[n, K, M, S] from the viewer."""
        return np.stack([length(target - self.viewer) for target in self.targets])

    def bearings(self) -> tuple[np.ndarray, np.ndarray]:
        """[n, K, M, S] angle to the left of the viewer's forward in radians, and whether the target is in front."""
        seen = np.stack([express(target - self.viewer, self.axes) for target in self.targets])
        return np.arctan2(seen[..., 1, :], seen[..., 0, :]), seen[..., 0, :] > 0


Decide = Callable[[Moments, QA], np.ndarray]
"""Codes [K, S] int, an index into the family's answers or NO_ANSWER."""


def nearest_at_end(moments: Moments, qa: QA) -> np.ndarray:
    """Order of three targets by distance from the viewer at the last moment."""
    return _order(moments.distances()[:, :, -1], qa.ratio_tolerance)


def order_of_speed(moments: Moments, qa: QA) -> np.ndarray:
    """Order of three targets by the ground that they cover between the first and the last moment, most first."""
    paths = np.stack([length(np.diff(t[:, ::2], axis=1)).sum(axis=1) for t in moments.targets])
    floor = qa.min_displacement
    slow = (paths < floor).sum(axis=0) > 1
    return np.where(slow, NO_ANSWER, _order(1 / np.maximum(paths, floor), qa.speed_tolerance))


def order_of_approach(moments: Moments, qa: QA) -> np.ndarray:
    """Order in which three targets come nearest to the viewer; each approach is a real one."""
    distances = moments.distances()
    nearest = distances.argmin(axis=2)
    gain = distances.max(axis=2) > (1 + qa.ratio_tolerance) * distances.min(axis=2)
    apart = np.stack([np.abs(nearest[i] - nearest[j]) >= 2 for i, j in PAIRS]).all(axis=0)
    return np.where(gain.all(axis=0) & apart, _rank_code(nearest), NO_ANSWER)


def pairs_that_approach(moments: Moments, qa: QA) -> np.ndarray:
    """Which of the three pairs of targets come closer: a bit a pair."""
    limit = np.log1p(qa.ratio_tolerance)
    code = np.zeros(moments.targets[0].shape[::3], int)
    unclear = np.zeros(code.shape, bool)
    for bit, (i, j) in enumerate(PAIRS):
        gap = length(moments.targets[i] - moments.targets[j])
        change = np.log(gap[:, -1] / gap[:, 0])
        code += (change < -limit).astype(int) << bit
        unclear |= (change > -limit) & (change < -0.5 * limit) | (gap < qa.min_distance).any(axis=1)
    return np.where(unclear, NO_ANSWER, code)


def count_approaching(moments: Moments, qa: QA) -> np.ndarray:
    """How many of three targets are nearer to the viewer at the end than at the start."""
    limit = np.log1p(qa.ratio_tolerance)
    distances = moments.distances()
    change = np.log(distances[:, :, -1] / distances[:, :, 0])
    unclear = ((change > -limit) & (change < -0.5 * limit)).any(axis=0)
    return np.where(unclear, NO_ANSWER, (change < -limit).sum(axis=0))


def passing(moments: Moments, qa: QA) -> np.ndarray:
    """Whether the first target passes the second as the viewer sees it: not, behind, in front of, there and back."""
    bearings, in_front = moments.bearings()
    gap = bearings[0] - bearings[1]
    swaps, sides = _swaps(gap, _MIN_BEARING)
    distances = moments.distances()
    # The nearer moment on either side of the (first) crossing.
    after = np.maximum((gap * gap[:, :1] < 0).argmax(axis=1), 1)[:, None]
    beside = np.abs(np.take_along_axis(gap, after - 1, axis=1)) < np.abs(np.take_along_axis(gap, after, axis=1))
    at = np.where(beside, after - 1, after)
    first, second = (np.take_along_axis(d, at, axis=1)[:, 0] for d in distances)
    ratio = np.log(first / second)
    limit = np.log1p(qa.ratio_tolerance)
    once = np.where(ratio > limit, 1, np.where(ratio < -limit, 2, NO_ANSWER))
    code = np.select([swaps == 0, swaps == 1, swaps == 2], [0, once, 3], NO_ANSWER)
    return np.where(in_front.all(axis=(0, 2)) & sides, code, NO_ANSWER)


def count_swaps(moments: Moments, qa: QA) -> np.ndarray:
    """How many times two targets exchange left and right as the viewer sees them: 0 to 3."""
    bearings, in_front = moments.bearings()
    swaps, sides = _swaps(bearings[0] - bearings[1], _MIN_BEARING)
    return np.where(in_front.all(axis=(0, 2)) & sides & (swaps <= 3), swaps, NO_ANSWER)


def count_reversals(moments: Moments, qa: QA) -> np.ndarray:
    """How many times a target turns back between left and right as the viewer sees it: 0 to 3."""
    bearings, in_front = moments.bearings()
    swings = np.diff(np.unwrap(bearings[0], axis=1), axis=1)
    reversals, clear = _swaps(swings, _MIN_SWING)
    return np.where(in_front[0].all(axis=1) & clear & (reversals <= 3), reversals, NO_ANSWER)


def when_nearest(moments: Moments, qa: QA) -> np.ndarray:
    """When the target is nearest to the viewer: at the start, in the first or second half, at the end."""
    distance = moments.distances()[0]
    last = distance.shape[1] - 1
    at = distance.argmin(axis=1)
    least = distance.min(axis=1) * (1 + 0.5 * qa.ratio_tolerance)
    inside = (distance[:, 0] > least) & (distance[:, -1] > least)
    far = (distance.max(axis=1) > least) & (np.abs(2 * at - last) >= 2)
    code = np.select([at == 0, at == last, inside & (at < last / 2), inside], [0, 3, 1, 2], NO_ANSWER)
    return np.where(far, code, NO_ANSWER)


def when_fastest(moments: Moments, qa: QA) -> np.ndarray:
    """In which quarter of the interval a target covers most ground."""
    place = moments.targets[0]
    quarters = place[:, :: (place.shape[1] - 1) // 4]
    covered = length(np.diff(quarters, axis=1)) / np.diff(moments.seconds[:, :: (place.shape[1] - 1) // 4])[..., None]
    ranked = np.sort(covered, axis=1)
    clear = ranked[:, -1] > (1 + 0.5 * qa.speed_tolerance) * ranked[:, -2]
    clear &= length(np.diff(quarters, axis=1)).max(axis=1) > qa.min_displacement
    return np.where(clear, covered.argmax(axis=1), NO_ANSWER)


def path_shape(moments: Moments, qa: QA) -> np.ndarray:
    """Shape of a target's path seen from above: straight, bends left, bends right, comes back.

    What is above is told by the agents, who mostly stand upright; a camera may look steeply down.
    """
    steps = np.diff(moments.targets[0][:, ::2], axis=1)
    flat = steps - (steps * moments.up).sum(axis=2, keepdims=True) * moments.up
    covered = length(flat)
    net = length(flat.sum(axis=1)[:, None])[:, 0]
    turn = _signed_angles(flat[:, :-1], flat[:, 1:], moments.up).sum(axis=1)
    straightness = net / covered.sum(axis=1)
    moves = covered.min(axis=1) > 0.5 * qa.min_displacement
    code = np.select(
        [
            straightness < 0.4,
            (np.abs(turn) < np.deg2rad(15)) & (straightness > 0.97),
            (turn > np.deg2rad(40)) & (straightness > 0.5),
            (turn < -np.deg2rad(40)) & (straightness > 0.5),
        ],
        [3, 0, 1, 2],
        NO_ANSWER,
    )
    return np.where(moves, code, NO_ANSWER)


def turn_of_heading(moments: Moments, qa: QA) -> np.ndarray:
    """How far an agent has turned on the whole: hardly, a quarter left, a quarter right, half round."""
    turn = _signed_angles(moments.facing[:, :-1], moments.facing[:, 1:], moments.own_up).sum(axis=1)
    degrees = np.rad2deg(turn)
    return np.select(
        [
            np.abs(degrees) < 20,
            (degrees > 60) & (degrees < 120),
            (degrees < -60) & (degrees > -120),
            (np.abs(degrees) > 150) & (np.abs(degrees) < 210),
        ],
        [0, 1, 2, 3],
        NO_ANSWER,
    )


def side_after_turn(moments: Moments, qa: QA, degrees: float) -> np.ndarray:
    """Where a target would be if the viewer turned at the last moment: front, left, behind, right."""
    bearing = moments.bearings()[0][0][:, -1] - np.deg2rad(degrees)
    quarter = np.round(bearing / (np.pi / 2))
    clear = np.abs(bearing - quarter * np.pi / 2) < np.deg2rad(30)
    clear &= length(moments.targets[0][:, -1:] - moments.viewer[:, -1:])[:, 0] > qa.min_direction
    return np.where(clear, quarter.astype(int) % 4, NO_ANSWER)


def faced_target(moments: Moments, qa: QA) -> np.ndarray:
    """Which of three targets the viewer faces at the last moment, or none of them."""
    seen = np.stack([express(t[:, -1] - moments.viewer[:, -1], moments.axes[:, -1]) for t in moments.targets])
    angle = np.arccos(np.clip(seen[:, :, 0] / length(seen), -1, 1))
    ranked = np.sort(angle, axis=0)
    one = (ranked[0] < np.deg2rad(20)) & (ranked[1] > np.deg2rad(35))
    none = ranked[0] > np.deg2rad(50)
    return np.select([one, none], [angle.argmin(axis=0), 3], NO_ANSWER)


_MIN_BEARING = np.deg2rad(3)
_MIN_SWING = np.deg2rad(2)


def _order(values: np.ndarray, tolerance: float) -> np.ndarray:
    """Code of the ascending order of three positive values [3, K, S]; none where two are within the tolerance."""
    ranked = np.sort(values, axis=0)
    apart = (ranked[1:] > (1 + tolerance) * ranked[:-1]).all(axis=0)
    return np.where(apart, _rank_code(values), NO_ANSWER)


def _rank_code(values: np.ndarray) -> np.ndarray:
    """Index into ORDERS of the ascending order of values [3, K, S]."""
    order = values.argsort(axis=0, kind="stable")
    code_of = np.zeros((3, 3), int)
    for code, permutation in enumerate(ORDERS):
        code_of[permutation[:2]] = code
    return code_of[order[0], order[1]]


def _swaps(values: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Sign changes of values [K, M, S], and whether they are clear.

    They are where both ends exceed the threshold and every sign change does so on both of its sides: a slight one
    would be counted by some and not by others.
    """
    marked = np.where(np.abs(values) > threshold, values, 0)
    clear = (marked[:, 0] != 0) & (marked[:, -1] != 0)
    swaps = _sign_changes(marked)
    return swaps, clear & (swaps == _sign_changes(values))


def _sign_changes(values: np.ndarray) -> np.ndarray:
    """[K, S] how often values [K, M, S] change their sign, zeros left out."""
    held, changes = values[:, 0], np.zeros(values[:, 0].shape, int)
    for moment in range(1, values.shape[1]):
        changes += values[:, moment] * held < 0
        held = np.where(values[:, moment] == 0, held, values[:, moment])
    return changes


def _signed_angles(before: np.ndarray, after: np.ndarray, up: np.ndarray) -> np.ndarray:
    """Angles [..., S] from vectors to vectors [..., 3, S], counter-clockwise about `up`, in radians."""
    sine = (np.cross(before, after, axis=-2) * up).sum(axis=-2)
    flat_before = before - (before * up).sum(axis=-2, keepdims=True) * up
    flat_after = after - (after * up).sum(axis=-2, keepdims=True) * up
    return np.arctan2(sine, (flat_before * flat_after).sum(axis=-2))


@dataclass(frozen=True)
class Family(Form):
    """A free-form family: a form with its own answers."""

    answers: tuple[str, ...] = ()
    decide: Decide = field(kw_only=True)

    @property
    def num_moments(self) -> int:
        return 9

    @property
    def needs_axes(self) -> bool:
        return self.viewer != "none"


_NAMED = "Three are named: first {a}, second {b}, third {c}. "
_ORDER_ANSWERS = tuple(f"The {', then the '.join(ORDINALS[i] for i in order)}." for order in ORDERS)
_COUNTS = ("Not once.", "Once.", "Twice.", "Three times.")
_PAIR_NAMES = tuple(f"the {ORDINALS[i]} and the {ORDINALS[j]}" for i, j in PAIRS)
_PAIR_ANSWERS = (
    "No two of them.",
    *(
        f"{'; '.join(name for bit, name in enumerate(_PAIR_NAMES) if code >> bit & 1)}.".capitalize()
        for code in range(1, 7)
    ),
    "Every two of them.",
)


def _family(
    name: str,
    viewer: Viewer,
    num_targets: int,
    decide: Decide,
    answers: tuple[str, ...],
    *wordings: str,
    agent_target: bool = False,
) -> Family:
    if num_targets == 3:
        wordings = tuple(_NAMED + w for w in wordings)
    return Family("non_temp", name, viewer, num_targets, wordings, False, agent_target, answers=answers, decide=decide)


FAMILIES: tuple[Family, ...] = (
    _family(
        "nearest_at_end",
        "moving",
        3,
        nearest_at_end,
        _ORDER_ANSWERS,
        "In which order of distance from {viewer} are they at {end}, the nearest first?",
        "Rank them by how near they are to {viewer} at {end}, beginning with the nearest.",
    ),
    _family(
        "order_of_speed",
        "none",
        3,
        order_of_speed,
        _ORDER_ANSWERS,
        "Rank them by the ground that each covers {interval}, beginning with the most.",
        "Which moves farthest {interval}, which comes next and which moves least?",
    ),
    _family(
        "order_of_approach",
        "moving",
        3,
        order_of_approach,
        _ORDER_ANSWERS,
        "In which order do they come to their nearest point to {viewer} {interval}?",
        "{Interval}, each is nearest to {viewer} at some moment: in which order?",
    ),
    _family(
        "pairs_that_approach",
        "none",
        3,
        pairs_that_approach,
        _PAIR_ANSWERS,
        "Which of them are clearly closer together at {end} than at {start}?",
        "Compare {end} with {start}: which pairs have come closer together?",
    ),
    _family(
        "count_approaching",
        "moving",
        3,
        count_approaching,
        ("None.", "One.", "Two.", "All three."),
        "How many of them are clearly nearer to {viewer} at {end} than at {start}?",
        "Compare {end} with {start}: how many of them have come closer to {viewer}?",
    ),
    _family(
        "passing",
        "moving",
        2,
        passing,
        ("It does not pass.", "It passes behind.", "It passes in front.", "It passes and comes back."),
        "{Interval}, as seen by {viewer}, how does {a} pass {b} from side to side?",
        "Through the eyes of {viewer} {interval}: does {a} pass {b}, and how?",
    ),
    _family(
        "count_swaps",
        "moving",
        2,
        count_swaps,
        _COUNTS,
        "{Interval}, how many times do {a} and {b} exchange left and right as seen by {viewer}?",
        "Through the eyes of {viewer} {interval}: how often do {a} and {b} change sides?",
    ),
    _family(
        "count_reversals",
        "moving",
        1,
        count_reversals,
        _COUNTS,
        "{Interval}, how many times does {a} turn back between left and right as seen by {viewer}?",
        "Through the eyes of {viewer} {interval}: how often does the sideways motion of {a} reverse?",
    ),
    _family(
        "when_nearest",
        "moving",
        1,
        when_nearest,
        ("At its start.", "In its first half.", "In its second half.", "At its end."),
        "Take the time {interval}: when in it is {a} nearest to {viewer}?",
        "When in the time {interval} does the distance between {viewer} and {a} have its least value?",
    ),
    _family(
        "when_fastest",
        "none",
        1,
        when_fastest,
        ("In the first quarter.", "In the second quarter.", "In the third quarter.", "In the last quarter."),
        "Take the time {interval} in four equal parts: in which does {a} cover most ground?",
        "In which quarter of the time {interval} is {a} fastest over the ground?",
    ),
    _family(
        "path_shape",
        "none",
        1,
        path_shape,
        ("It is straight.", "It bends to the left.", "It bends to the right.", "It comes back."),
        "Seen from above, what shape has the path of {a} {interval}?",
        "How does the path of {a} {interval} run, as drawn on the ground?",
    ),
    _family(
        "turn_of_heading",
        "none",
        1,
        turn_of_heading,
        ("Hardly at all.", "About a quarter turn to the left.", "About a quarter turn to the right.", "Half round."),
        "How far has {a} turned at {end}, compared with how it faced at {start}?",
        "{Interval}, by how much does the facing direction of {a} turn on the whole?",
        agent_target=True,
    ),
    *(
        _family(
            f"side_after_turn_{name}",
            "moving",
            1,
            partial(side_after_turn, degrees=degrees),
            ("In front of it.", "To its left.", "Behind it.", "To its right."),
            f"If {{viewer}} made {turn} on the spot at {{end}}, where would {{a}} then be?",
            f"Imagine that at {{end}} {{viewer}} makes {turn} without moving away. Where is {{a}} then?",
        )
        for name, degrees, turn in (
            ("left", 90.0, "a quarter turn to the left"),
            ("right", -90.0, "a quarter turn to the right"),
            ("round", 180.0, "half a turn"),
        )
    ),
    _family(
        "faced_target",
        "moving",
        3,
        faced_target,
        ("The first.", "The second.", "The third.", "None of them."),
        "Which of them does {viewer} face at {end}?",
        "At {end}, towards which of them is {viewer} turned?",
    ),
)
