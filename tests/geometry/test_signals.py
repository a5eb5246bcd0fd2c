"""Smoothing, gaps, lengths and the noise that is read off a series."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dsr.geometry.signals import fill_single_gaps, jitter, length, smooth

BINOMIAL = (0.25, 0.5, 0.25)
NAN = np.nan


def series(size: int, limit: float = 100.0):
    return arrays(np.float64, size, elements=st.floats(-limit, limit, allow_subnormal=False))


def test_smooth_by_hand_and_its_ends_stay() -> None:
    # (0 + 2*4 + 8)/4 = 4, (4 + 2*8 + 0)/4 = 5.
    np.testing.assert_array_equal(smooth(np.array([0.0, 4, 8, 0]), BINOMIAL, axis=0), [0, 4, 5, 0])


def test_smooth_leaves_what_has_an_unknown_neighbour_and_invents_nothing() -> None:
    values = np.array([0.0, 4, NAN, 1, 5, 1])
    # Frames 1 and 3 lack a neighbour; frame 4: (1 + 10 + 1)/4 = 3.
    np.testing.assert_array_equal(smooth(values, BINOMIAL, axis=0), [0, 4, NAN, 1, 3, 1])


@pytest.mark.parametrize("size", [1, 2])
def test_series_too_short_to_smooth_or_fill_come_back(size: int) -> None:
    values = np.arange(size, dtype=float)
    np.testing.assert_array_equal(smooth(values, BINOMIAL, axis=0), values)
    np.testing.assert_array_equal(fill_single_gaps(values, axis=0), values)


@given(st.integers(0, 2), st.integers(0, 2**32 - 1))
def test_smooth_works_along_any_axis_and_leaves_its_input(axis: int, seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=(4, 5, 6))
    before = values.copy()
    result = smooth(values, (1 / 3, 1 / 3, 1 / 3), axis=axis)
    expected = np.apply_along_axis(
        lambda v: np.concatenate([v[:1], np.convolve(v, np.ones(3) / 3, "valid"), v[-1:]]), axis, values
    )
    np.testing.assert_allclose(result, expected, atol=1e-12)
    np.testing.assert_array_equal(values, before)


@given(st.floats(-5, 5), st.floats(-5, 5))
def test_uniform_motion_is_a_fixed_point(start: float, speed: float) -> None:
    line = start + speed * np.arange(8.0)
    np.testing.assert_allclose(smooth(line, BINOMIAL, axis=0), line, atol=1e-12)


@given(series(9))
def test_smooth_commutes_with_reversing_time(values: np.ndarray) -> None:
    np.testing.assert_allclose(
        smooth(values[::-1], BINOMIAL, axis=0), smooth(values, BINOMIAL, axis=0)[::-1], atol=1e-12
    )


def test_only_single_gaps_between_known_frames_are_filled() -> None:
    values = np.array([NAN, 1, NAN, 3, NAN, NAN, 7, NAN, 8, NAN])
    # 2 between 1 and 3, 7.5 between 7 and 8; the gap of two and both ends stay.
    np.testing.assert_array_equal(fill_single_gaps(values, axis=0), [NAN, 1, 2, 3, NAN, NAN, 7, 7.5, 8, NAN])


def test_a_filled_gap_is_no_neighbour_for_the_next_one() -> None:
    values = np.array([0.0, NAN, 2, NAN, 4, NAN, NAN])
    np.testing.assert_array_equal(fill_single_gaps(values, axis=0), [0, 1, 2, 3, 4, NAN, NAN])


def test_gaps_are_filled_along_the_given_axis_for_every_member() -> None:
    values = np.arange(24.0).reshape(2, 4, 3)
    holes = values.copy()
    holes[1, 2] = NAN
    np.testing.assert_array_equal(fill_single_gaps(holes, axis=1), values)
    # Along the first axis the hole is an end.
    np.testing.assert_array_equal(fill_single_gaps(holes, axis=0), holes)
    assert np.isnan(holes[1, 2]).all()


@given(arrays(np.float64, (2, 3, 4), elements=st.floats(-1e6, 1e6, allow_subnormal=False)))
def test_length_is_the_euclidean_norm_over_the_last_but_one_axis(vectors: np.ndarray) -> None:
    np.testing.assert_allclose(length(vectors), np.linalg.norm(vectors, axis=-2), rtol=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.floats(-3, 3), st.floats(-2, 2), st.floats(-0.2, 0.2), st.integers(0, 2**32 - 1))
def test_jitter_is_the_deviation_of_white_noise_whatever_parabola_carries_it(
    start: float, speed: float, acceleration: float, seed: int
) -> None:
    time = np.arange(2000.0)
    noise = 0.05 * np.random.default_rng(seed).standard_normal(2000)
    # The median of 2,000 correlated third differences scatters by about 2.5 %.
    assert jitter(start + speed * time + acceleration * time**2 + noise) == pytest.approx(0.05, rel=0.15)


def test_jitter_of_a_parabola_alone_is_nothing() -> None:
    time = np.arange(32.0)
    assert jitter(3 - 2 * time + 0.25 * time**2) == pytest.approx(0, abs=1e-12)


def test_jitter_of_few_frames_is_right_on_average() -> None:
    noise = np.random.default_rng(3).standard_normal((4000, 32))
    assert np.median(jitter(noise)) == pytest.approx(1, rel=0.1)


def test_a_few_jumps_do_not_count_as_jitter() -> None:
    noise = 0.01 * np.random.default_rng(4).standard_normal(400)
    noise[[50, 200, 350]] += 5.0
    assert jitter(noise) == pytest.approx(0.01, rel=0.25)


def test_jitter_needs_four_consecutive_frames() -> None:
    values = np.array([[1.0, 2, 4, NAN, 8, 9, 7], [1, 2, 4, 0, NAN, NAN, NAN], [NAN] * 7])
    result = jitter(values)
    # Row 0 has runs of three; row 1's only third difference is 0 - 3*4 + 3*2 - 1 = -7; row 2 is unknown.
    assert np.isnan(result[[0, 2]]).all()
    assert result[1] == pytest.approx(1.4826 * 7 / np.sqrt(20))
    assert np.isnan(jitter(np.zeros((2, 3)))).all()


@given(series(16), st.floats(0.01, 100))
def test_jitter_scales_with_its_series(values: np.ndarray, factor: float) -> None:
    np.testing.assert_allclose(jitter(factor * values), factor * jitter(values), atol=1e-9)
    np.testing.assert_allclose(jitter(values[::-1]), jitter(values), atol=1e-9)
