"""Three-way states of signals: tolerances, dead zones, drift; and the conditions that they come down to."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dsr.geometry.signals import length
from dsr.questions.engine.conditions import all_hold
from dsr.questions.engine.states import Floor, changes, comparable, comparison, sides_of_axes, way_to_compare

TOLERANCE = 0.2


def changed(values: list[float], tolerance: float = TOLERANCE) -> list[int] | None:
    """States of the steps; None where they are not clear."""
    signs, steady = changes("", "", np.array(values, float)[None, :, None], tolerance, "")
    return signs.states[0, :, 0, 0].tolist() if steady.holds[0, 0] else None


def compared(first: float, second: float, tolerance: float = 0.5) -> int:
    signs = comparison([""], np.full((1, 1, 1), first), np.full((1, 1, 1), second), tolerance, "")
    return int(signs.states[0, 0, 0, 0])


def seen(*vector: float, dead_zone: float = 0.3) -> list[int]:
    vectors = np.array(vector)[None, None, :, None]
    return sides_of_axes([], vectors, length(vectors), dead_zone, "").states[0, 0, :, 0].tolist()


def test_steps_beyond_the_tolerance() -> None:
    # Ratios 1.3, 1/1.3, 1.1, 1/1.1: beyond 1.2 either way, then within.
    assert changed([1, 1.3, 1, 1.1, 1]) == [1, -1, 0, 0]


def test_the_tolerance_is_a_ratio_and_the_same_both_ways() -> None:
    # 1/1.19 = 0.84 and 1/1.21 = 0.826: a fall by 17 % is beyond what a rise by 20 % allows, one by 16 % is not.
    assert changed([1, 1.19]) == changed([1, 1 / 1.19]) == [0]
    assert changed([1, 1.21]) == [1]
    assert changed([1, 1 / 1.21]) == [-1]
    assert changed([1, 0.81]) == [-1]


def test_slow_drift_is_not_clear() -> None:
    # Every step is 1.1, within 1.2; two of them are not.
    assert changed([1, 1.1]) == [0]
    assert changed([1, 1.1, 1.21]) is None
    assert changed([1.21, 1.1, 1]) is None


def test_a_run_starts_anew_after_a_change() -> None:
    # After the jump to 2 the run begins at 2: 2.3/2 = 1.15 is constant, and so is 2.3, 2.0 after it.
    assert changed([1, 1.15, 2, 2.3]) == [0, 1, 0]
    assert changed([1, 2, 2.3, 2.0]) == [1, 0, 0]
    # 2, 2.3, 1.95: each step within 1.2, and all within 1.18 of each other; with 1.9 it would be 1.21.
    assert changed([1, 2, 2.3, 1.95]) == [1, 0, 0]
    assert changed([1, 2, 2.3, 2.1, 1.9]) is None


def test_a_wobble_is_constant_where_all_its_values_are_near() -> None:
    assert changed([1, 1.1, 0.95, 1.1, 0.95, 1.1]) == [0] * 5
    assert changed([1, 1.1, 0.95, 1.1, 0.9]) == [0, 0, 0, -1]


def test_members_and_questions_are_independent() -> None:
    values = np.array([[[1, 1], [2, 1], [2, 2]], [[3, 3], [1, 3], [1, 9]]], float)
    rule, steady = changes("", "", values, TOLERANCE, "")
    states = rule.states
    assert steady.holds.all()
    assert states.shape == (2, 2, 1, 2)
    assert states.dtype == np.int8
    assert states[:, :, 0].transpose(0, 2, 1).tolist() == [[[1, 0], [0, 1]], [[-1, 0], [0, 1]]]


positive = st.floats(0.01, 100)


@given(st.lists(positive, min_size=2, max_size=7), st.floats(0.05, 1))
def test_changes_are_symmetric_in_the_logarithm_and_blind_to_scale(values: list[float], tolerance: float) -> None:
    limit = math.log1p(tolerance)
    assume(all(abs(abs(math.log(a / b)) - limit) > 1e-9 for a, b in itertools.combinations(values, 2)))
    states = changed(values, tolerance)
    assert changed([1 / v for v in values], tolerance) == (None if states is None else [-s for s in states])
    assert changed([20 * v for v in values], tolerance) == states


@given(st.lists(st.floats(0.5, 2), min_size=2, max_size=7), st.floats(0.05, 1))
def test_a_constant_run_stays_within_the_tolerance(values: list[float], tolerance: float) -> None:
    states = changed(values, tolerance)
    assume(states is not None)
    for first, last in itertools.combinations(range(len(values)), 2):
        if not any(states[first:last]):
            assert abs(math.log(values[first] / values[last])) <= math.log1p(tolerance) + 1e-9


@given(st.lists(st.floats(0.5, 2), min_size=2, max_size=7), st.floats(0.05, 1))
def test_reversing_time_reverses_and_flips_changes(values: list[float], tolerance: float) -> None:
    limit = math.log1p(tolerance)
    assume(all(abs(abs(math.log(a / b)) - limit) > 1e-9 for a, b in itertools.combinations(values, 2)))
    states = changed(values, tolerance)
    assert changed(values[::-1], tolerance) == (None if states is None else [-s for s in reversed(states)])


def test_comparison_by_hand() -> None:
    assert [compared(1.6, 1), compared(1.4, 1), compared(1, 1.4), compared(1, 1.6)] == [1, 0, 0, -1]
    assert comparison([], np.ones((2, 5, 3)), np.ones((2, 5, 3)), 0.5, "").states.shape == (2, 5, 1, 3)


@given(positive, positive, st.floats(0.05, 2))
def test_exchanging_the_two_flips_a_comparison(first: float, second: float, tolerance: float) -> None:
    assume(abs(abs(math.log(first / second)) - math.log1p(tolerance)) > 1e-9)
    assert compared(first, second, tolerance) == -compared(second, first, tolerance)


def test_directions_by_hand() -> None:
    assert seen(5, 0, 0) == [1, 0, 0]
    assert seen(0, -2, 0) == [0, -1, 0]
    assert seen(1, 1, -1) == [1, 1, -1]
    # sin 17 deg = 0.292 is inside the dead zone of 0.3, sin 18 deg = 0.309 is outside.
    for degrees, left in ((17, 0), (18, 1), (-17, 0), (-18, -1)):
        assert seen(math.cos(math.radians(degrees)), math.sin(math.radians(degrees)), 0) == [1, left, 0]


@given(st.tuples(*[st.floats(-50, 50, allow_subnormal=False)] * 3), st.floats(0.01, 100))
def test_directions_know_no_length_and_have_a_side(vector: tuple[float, float, float], factor: float) -> None:
    norm = math.hypot(*vector)
    assume(norm > 1e-3 and all(abs(abs(v) / norm - 0.3) > 1e-9 for v in vector))
    state = seen(*vector)
    # The largest of three components of a unit vector is at least 0.577.
    assert any(state)
    assert seen(*(factor * v for v in vector)) == state
    assert seen(*(-v for v in vector)) == [-s for s in state]


# --- Conditions ---


def versions(*shape: int, seed: int) -> np.ndarray:
    """Positive values [1, *shape, S] of a question on many versions."""
    return np.exp(np.random.default_rng(seed).normal(0, 0.3, (1, *shape, 400)))


@pytest.mark.parametrize("seed", range(20))
def test_conditions_hold_exactly_on_the_versions_with_the_states_of_the_first(seed: int) -> None:
    values, vectors = versions(4, seed=seed), np.log(versions(4, 3, seed=seed))
    points = [f"{i} s" for i in range(4)]
    for signs, *others in (
        changes("distance", points, values, 0.5, ""),
        (comparison(points, values, versions(4, seed=seed + 100), TOLERANCE, ""),),
        (sides_of_axes(points, vectors, length(vectors), 0.3, ""),),
    ):
        expected = (signs.states == signs.states[..., :1]).all(axis=(0, 1, 2))
        for steady in others:
            expected &= steady.holds[0]
        conditions = [c for rule in (signs, *others) for c in rule.conditions()]
        np.testing.assert_array_equal(all_hold(conditions), expected)
        assert not expected.all()


def test_a_run_that_drifts_fails_the_condition_of_its_spread() -> None:
    """Two versions of three values: in the second each step is within 1.2, but not both together."""
    signs, steady = changes("distance", ["1 s", "2 s", "3 s"], np.array([[[1, 1], [1.1, 1.1], [1.05, 1.21]]]), 0.2, "k")
    assert all_hold(signs.conditions()).tolist() == [True, True]
    (spread,) = steady.conditions()
    np.testing.assert_allclose(spread.values, [1.1, 1.21])
    assert spread.what == "largest over least distance from 1 s to 3 s"
    assert spread.holds.tolist() == steady.holds[0].tolist() == [True, False]


def test_conditions_are_shown_on_the_side_of_their_state() -> None:
    signs = comparison(["a over b"], np.full((1, 1, 1), 1.0), np.full((1, 1, 1), 2.0), 0.5, "key")
    (condition,) = signs.conditions()
    assert (condition.what, condition.side, condition.key) == ("1 / (a over b)", "above", "key")
    assert condition.values[0] == pytest.approx(2)
    assert condition.limit == pytest.approx(1.5)
    vectors = np.array([0.0, -4, 3])[None, None, :, None]
    forward, left, up = sides_of_axes(["1 s"], vectors, length(vectors), 0.3, "").conditions()
    assert [c.what for c in (forward, left, up)] == ["|forward, 1 s|", "-left, 1 s", "+up, 1 s"]
    assert [c.side for c in (forward, left, up)] == ["below", "above", "above"]
    assert [float(c.values[0]) for c in (forward, left, up)] == [0, 0.8, 0.6]


def test_floors_are_conditions_of_their_lengths() -> None:
    lengths = np.array([[[0.2, 0.05], [0.3, 0.3]]])
    floor = Floor(["distance at 1.0 s", "distance at 2.0 s"], lengths, 0.1, "qa.min_distance")
    assert floor.holds.tolist() == [[True, False]]
    assert all_hold(floor.conditions()).tolist() == [True, False]
    assert [c.what for c in floor.conditions()] == ["distance at 1.0 s", "distance at 2.0 s"]


def test_of_two_ways_the_longer_must_not_be_slow_and_the_shorter_neither_where_they_are_alike() -> None:
    ways, others = np.array([0.2, 0.05, 0.05, 0.2]), np.array([0.05, 0.2, 0.05, 0.2])
    assert (way_to_compare(ways, others, np.array([1, -1, 1, -1])) >= 0.1).tolist() == [True, True, False, True]
    assert (way_to_compare(ways, others, np.zeros(4)) >= 0.1).tolist() == [False, False, False, True]
    for states in (np.array([1, -1, 1, -1]), np.zeros(4, int)):
        expected = way_to_compare(ways, others, states) >= 0.1
        assert comparable(ways < 0.1, others < 0.1, states).tolist() == expected.tolist()
