"""Centres of bodies from what is seen of them; bounds on damaged simulated clips: tests/cues/test_foundation_oracle."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsr.perception.centers import CUT_OFF, DEPTH_SHARE, FLOOR, locate, settle

H, W = 40, 60
FOCAL = 60.0


def scene(depths: list[float], side: float = 1.0) -> tuple[np.ndarray, np.ndarray, dict[int, np.ndarray]]:
    """Points, validity and masks of a square plate of a side, straight ahead at a depth in each frame; a wall at 20."""
    v, u = np.mgrid[:H, :W]
    x, y = (u + 0.5 - W / 2) / FOCAL, (v + 0.5 - H / 2) / FOCAL
    points, masks = [], {}
    for t, depth in enumerate(depths):
        masks[t] = (np.abs(x) * depth < side / 2) & (np.abs(y) * depth < side / 2)
        z = np.where(masks[t], depth, 20.0)
        points.append(np.stack([x * z, y * z, z], axis=-1))
    stacked = np.array(points, np.float32)
    return stacked, np.ones(stacked.shape[:3], bool), masks


def test_the_middle_lies_half_a_side_behind_the_surface() -> None:
    places = locate(*scene([5.0] * 6))
    # The quantiles leave a tenth of the side out.
    assert places.positions[0] == pytest.approx([0, 0, 5 + DEPTH_SHARE * 0.9], abs=0.06)
    assert places.positions.dtype == np.float32


def test_what_a_mask_covers_of_the_wall_does_not_count() -> None:
    points, valid, masks = scene([5.0] * 6)
    clean = locate(points, valid, masks)
    bled = {t: np.roll(mask, 3, axis=1) | mask for t, mask in masks.items()}
    np.testing.assert_allclose(locate(points, valid, bled).positions, clean.positions, atol=0.05)


def test_invalid_points_do_not_count() -> None:
    points, valid, masks = scene([5.0] * 6)
    clean = locate(points, valid, masks)
    points[2, masks[2]] *= np.linspace(1, 4, masks[2].sum())[:, None]
    valid[2] = ~masks[2] | (np.arange(W) % 2 == 0)
    points[2, :, ::2] = points[3, :, ::2]
    np.testing.assert_allclose(locate(points, valid, masks).positions, clean.positions, atol=0.05)


def test_too_few_points_have_no_place() -> None:
    points, valid, masks = scene([5.0] * 6)
    valid[3] = False
    places = locate(points, valid, masks)
    assert np.isnan(places.positions[3]).all()
    assert np.isnan(places.uncertainty[3])
    assert np.isfinite(places.uncertainty[[0, 1, 2, 4, 5]]).all()
    assert not np.isfinite(locate(points, valid, {}).positions).any()


def test_a_leap_is_taken_back_and_said_to_be_unsure() -> None:
    points, valid, masks = scene([5.0] * 8)
    points[4, masks[4]] *= 2
    places = locate(points, valid, masks)
    np.testing.assert_allclose(places.positions[4], places.positions[3], atol=0.1)
    assert places.uncertainty[4] > 5 * places.uncertainty[3]


def test_motion_is_not_taken_for_a_leap() -> None:
    depths = [4.0, 4.0, 4.0, 6.0, 6.0, 6.0, 3.0, 3.0]
    settled, moved = settle(np.array(depths), np.arange(8))
    np.testing.assert_allclose(settled, depths)
    assert not moved.any()


@given(st.floats(0.8, 1.2), st.integers(4, 30), st.integers(0, 1000))
def test_steady_motion_with_small_noise_stays_as_it_is(rate: float, length: int, seed: int) -> None:
    noise = np.exp(np.random.default_rng(seed).uniform(-0.02, 0.02, length))
    depths = 5 * rate ** np.arange(length) * noise
    np.testing.assert_allclose(settle(depths, np.arange(length))[0], depths)


def test_gaps_do_not_count_as_neighbours() -> None:
    settled, _ = settle(np.array([5.0, 9.0, 5.0]), np.array([0, 10, 20]))
    np.testing.assert_allclose(settled, [5, 9, 5])


def test_a_body_at_the_border_is_less_sure() -> None:
    points, valid, masks = scene([5.0] * 6)
    inside = locate(points, valid, masks).uncertainty
    cut = {t: mask | (np.arange(W) == 0) & mask.any(axis=1, keepdims=True) for t, mask in masks.items()}
    at_border = locate(points, valid, cut).uncertainty
    assert inside[0] < 0.1
    assert at_border[0] > 2 * inside[0]
    assert inside[0] > FLOOR
    assert CUT_OFF > 1


@given(st.floats(0.01, 100))
def test_lengths_are_up_to_scale(scale: float) -> None:
    points, valid, masks = scene([5.0, 5.5, 6.0, 6.5])
    one, other = locate(points, valid, masks), locate(points * scale, valid, masks)
    np.testing.assert_allclose(other.positions, one.positions * scale, rtol=1e-4)
    np.testing.assert_allclose(other.uncertainty, one.uncertainty, rtol=1e-3)
