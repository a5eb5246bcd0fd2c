"""States and answers: tolerances, dead zones, run lengths, and how far answers are apart."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dsr.questions.engine.answers import (
    MAX_RUN_BASE,
    answer_distances,
    change_states,
    comparison_states,
    decode_run_lengths,
    direction_states,
    run_lengths,
)
from tests.questions.reference import answer_distance, merge

TOLERANCE = 0.2


def changes(values: list[float], tolerance: float = TOLERANCE) -> list[int] | None:
    """States of the steps; None where they are not clear."""
    states, clear = change_states(np.array(values, float)[None, :, None], tolerance)
    return states[0, :, 0, 0].tolist() if clear[0, 0] else None


def compared(first: float, second: float, tolerance: float = 0.5) -> int:
    return int(comparison_states(np.full((1, 1, 1), first), np.full((1, 1, 1), second), tolerance)[0, 0, 0, 0])


def seen(*vector: float, dead_zone: float = 0.3) -> list[int]:
    return direction_states(np.array(vector)[None, None, :, None], dead_zone)[0, 0, :, 0].tolist()


def test_steps_beyond_the_tolerance() -> None:
    # Ratios 1.3, 1/1.3, 1.1, 1/1.1: beyond 1.2 either way, then within.
    assert changes([1, 1.3, 1, 1.1, 1]) == [1, -1, 0, 0]


def test_the_tolerance_is_a_ratio_and_the_same_both_ways() -> None:
    # 1/1.19 = 0.84 and 1/1.21 = 0.826: a fall by 17 % is beyond what a rise by 20 % allows, one by 16 % is not.
    assert changes([1, 1.19]) == changes([1, 1 / 1.19]) == [0]
    assert changes([1, 1.21]) == [1]
    assert changes([1, 1 / 1.21]) == [-1]
    assert changes([1, 0.81]) == [-1]


def test_slow_drift_is_not_clear() -> None:
    # Every step is 1.1, within 1.2; two of them are not.
    assert changes([1, 1.1]) == [0]
    assert changes([1, 1.1, 1.21]) is None
    assert changes([1.21, 1.1, 1]) is None


def test_a_run_starts_anew_after_a_change() -> None:
    # After the jump to 2 the run begins at 2: 2.3/2 = 1.15 is constant, and so is 2.3, 2.0 after it.
    assert changes([1, 1.15, 2, 2.3]) == [0, 1, 0]
    assert changes([1, 2, 2.3, 2.0]) == [1, 0, 0]
    # 2, 2.3, 1.95: each step within 1.2, and all within 1.18 of each other; with 1.9 it would be 1.21.
    assert changes([1, 2, 2.3, 1.95]) == [1, 0, 0]
    assert changes([1, 2, 2.3, 2.1, 1.9]) is None


def test_a_wobble_is_constant_where_all_its_values_are_near() -> None:
    assert changes([1, 1.1, 0.95, 1.1, 0.95, 1.1]) == [0] * 5
    assert changes([1, 1.1, 0.95, 1.1, 0.9]) == [0, 0, 0, -1]


def test_members_and_questions_are_independent() -> None:
    values = np.array([[[1, 1], [2, 1], [2, 2]], [[3, 3], [1, 3], [1, 9]]], float)
    states, clear = change_states(values, TOLERANCE)
    assert clear.all()
    assert states.shape == (2, 2, 1, 2)
    assert states.dtype == np.int8
    assert states[:, :, 0].transpose(0, 2, 1).tolist() == [[[1, 0], [0, 1]], [[-1, 0], [0, 1]]]


positive = st.floats(0.01, 100)


@given(st.lists(positive, min_size=2, max_size=7), st.floats(0.05, 1))
def test_changes_are_symmetric_in_the_logarithm_and_blind_to_scale(values: list[float], tolerance: float) -> None:
    limit = math.log1p(tolerance)
    assume(all(abs(abs(math.log(a / b)) - limit) > 1e-9 for a, b in itertools.combinations(values, 2)))
    states = changes(values, tolerance)
    assert changes([1 / v for v in values], tolerance) == (None if states is None else [-s for s in states])
    assert changes([20 * v for v in values], tolerance) == states


@given(st.lists(st.floats(0.5, 2), min_size=2, max_size=7), st.floats(0.05, 1))
def test_a_constant_run_stays_within_the_tolerance(values: list[float], tolerance: float) -> None:
    states = changes(values, tolerance)
    assume(states is not None)
    for first, last in itertools.combinations(range(len(values)), 2):
        if not any(states[first:last]):
            assert abs(math.log(values[first] / values[last])) <= math.log1p(tolerance) + 1e-9


@given(st.lists(st.floats(0.5, 2), min_size=2, max_size=7), st.floats(0.05, 1))
def test_reversing_time_reverses_and_flips_changes(values: list[float], tolerance: float) -> None:
    limit = math.log1p(tolerance)
    assume(all(abs(abs(math.log(a / b)) - limit) > 1e-9 for a, b in itertools.combinations(values, 2)))
    states = changes(values, tolerance)
    assert changes(values[::-1], tolerance) == (None if states is None else [-s for s in reversed(states)])


def test_comparison_by_hand() -> None:
    assert [compared(1.6, 1), compared(1.4, 1), compared(1, 1.4), compared(1, 1.6)] == [1, 0, 0, -1]
    assert comparison_states(np.ones((2, 5, 3)), np.ones((2, 5, 3)), 0.5).shape == (2, 5, 1, 3)


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


def sequences(num_axes: int, max_size: int = 6):
    return st.lists(st.tuples(*[st.integers(-1, 1)] * num_axes), min_size=1, max_size=max_size)


any_sequence = st.sampled_from([1, 3]).flatmap(lambda axes: st.tuples(st.just(axes), sequences(axes)))


@given(any_sequence)
def test_run_lengths_decode_to_the_merged_sequence(case: tuple[int, list[tuple[int, ...]]]) -> None:
    num_axes, states = case
    code = run_lengths(np.array(states, np.int8)[None])
    assert code.shape == (1,)
    assert decode_run_lengths(int(code[0]), num_axes) == merge(states)


@given(
    st.sampled_from([1, 3]).flatmap(
        lambda a: st.lists(sequences(a, 5).filter(lambda s: len(s) == 5), min_size=2, max_size=6)
    )
)
def test_codes_are_equal_where_the_merged_sequences_are(rows: list[list[tuple[int, ...]]]) -> None:
    codes = run_lengths(np.array(rows, np.int8))
    for i, j in itertools.combinations(range(len(rows)), 2):
        assert (codes[i] == codes[j]) == (merge(rows[i]) == merge(rows[j]))


def test_the_longest_answer_fits_its_code() -> None:
    states = [(1, 1, 1), (1, 1, 0)] * 3
    assert MAX_RUN_BASE**6 < 2**63
    assert decode_run_lengths(int(run_lengths(np.array([states], np.int8))[0]), 3) == tuple(states)


def codes_of(answers: list[tuple[tuple[int, ...], ...]], num_moments: int) -> np.ndarray:
    padded = [list(a) + [a[-1]] * (num_moments - len(a)) for a in answers]
    return run_lengths(np.array(padded, np.int8))


def test_answer_distances_by_hand() -> None:
    grows, shrinks, constant = ((1,),), ((-1,),), ((0,),)
    answers = [grows, shrinks, constant, ((1,), (0,)), ((1,), (0,), (1,))]
    distances = answer_distances(codes_of(answers, 5), 1, 5)
    # Opposite at all five moments: 2 a moment.
    assert distances[0, 1] == 2
    assert distances[0, 2] == 1
    # "grows, then constant" spread over five moments is nearest to "grows" as four of grows and one of constant: 1/5.
    assert distances[0, 3] == pytest.approx(0.2)
    # ... and to "constant" as one of grows: 1/5.
    assert distances[2, 3] == pytest.approx(0.2)
    # 1 0 0 0 0 against 1 0 0 0 1: one moment differs.
    assert distances[3, 4] == pytest.approx(0.2)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([1, 3]).flatmap(
        lambda axes: st.tuples(st.just(axes), st.lists(sequences(axes, 4), min_size=2, max_size=4))
    ),
    st.sampled_from([4, 5]),
)
def test_answer_distances_match_a_search_over_all_spreads(
    case: tuple[int, list[list[tuple[int, ...]]]], num_moments: int
) -> None:
    num_axes, raw = case
    answers = [merge(states) for states in raw]
    distances = answer_distances(codes_of(answers, num_moments), num_axes, num_moments)
    expected = [[answer_distance(a, b, num_moments) for b in answers] for a in answers]
    np.testing.assert_allclose(distances, expected, atol=1e-12)


def test_one_moment_predictions_differ_by_the_sum_over_axes() -> None:
    answers = [((1, 0, 0),), ((-1, 0, 0),), ((0, 1, 1),)]
    distances = answer_distances(codes_of(answers, 1), 3, 1)
    np.testing.assert_array_equal(distances, [[0, 2, 3], [2, 0, 3], [3, 3, 0]])
