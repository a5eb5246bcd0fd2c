"""Answers of the free-form families, worked out on the trajectories.

Whatever is near a threshold has no answer (-1), and the ensemble sorts out what the cues' noise could turn.
Letters: K questions, M moments, n targets, S ensemble members.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from dsr.geometry.frames import express
from dsr.geometry.signals import length
from dsr.params import QA
from dsr.questions.language.families import ORDERS, PAIRS

NO_ANSWER = -1


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


RULES: dict[str, Decide] = {
    rule.__name__: rule
    for rule in (
        nearest_at_end,
        order_of_speed,
        order_of_approach,
        pairs_that_approach,
        count_approaching,
        passing,
        count_swaps,
        count_reversals,
        when_nearest,
        when_fastest,
        path_shape,
        turn_of_heading,
        faced_target,
    )
} | {
    "side_after_turn_left": partial(side_after_turn, degrees=90.0),
    "side_after_turn_right": partial(side_after_turn, degrees=-90.0),
    "side_after_turn_round": partial(side_after_turn, degrees=180.0),
}
