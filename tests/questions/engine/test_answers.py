"""Answers: run lengths, and how far answers are apart."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsr.questions.engine.answers import (
    MAX_RUN_BASE,
    answer_distances,
    decode_run_lengths,
    run_lengths,
)
from tests.questions.reference import answer_distance, merge


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
