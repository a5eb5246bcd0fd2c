"""Depth edges, valid points and the first camera's world, by hand and against pi3's own definition."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsr.console import StageError
from dsr.geometry.frames import rotations_from_vectors
from dsr.perception.reconstruction import (
    Reconstruction,
    ReconstructionError,
    depth_edges,
    from_first_camera,
    load_reconstructor,
    valid_points,
)
from tests.perception.parity import FIXTURES, slope_with_a_step


def wall(depth: float = 2.0, t: int = 1, h: int = 5, w: int = 7) -> np.ndarray:
    """[t, h, w, 3] points of a wall."""
    points = np.zeros((t, h, w, 3), np.float32)
    points[..., 2] = depth
    return points


def test_a_step_is_an_edge_on_both_sides() -> None:
    depth = np.full((4, 6), 1.0)
    depth[:, 3:] = 1.1
    assert depth_edges(depth).tolist() == [[False, False, True, True, False, False]] * 4


def test_the_tolerance_is_relative_to_the_pixels_own_depth() -> None:
    depth = np.full((3, 4), 1.0)
    depth[:, 2:] = 1.0305
    # 0.0305 is more than 3 % of 1.0 and less than 3 % of 1.0305.
    assert depth_edges(depth).tolist() == [[False, True, False, False]] * 3


def test_a_gentle_slope_has_no_edge_and_a_steep_one_is_all_edge() -> None:
    columns = np.arange(8.0)
    assert not depth_edges(np.tile(1 + 0.014 * columns, (5, 1))).any()
    assert depth_edges(np.tile(1 + 0.05 * columns, (5, 1))).all()


def test_unknown_depth_is_no_edge_and_makes_none() -> None:
    depth = np.full((5, 5), 2.0)
    depth[2, 2], depth[0, 0] = np.nan, np.inf
    assert not depth_edges(depth).any()
    assert not depth_edges(np.full((5, 5), np.nan)).any()


def test_frames_do_not_touch_each_other() -> None:
    depth = np.stack([np.full((4, 4), 1.0), np.full((4, 4), 9.0)])
    assert not depth_edges(depth).any()


def test_edges_are_those_of_the_reference() -> None:
    stored = np.load(FIXTURES / "pi3.npz")
    ours = depth_edges(slope_with_a_step())
    assert ours.tolist() == stored["slope_edges"].tolist()
    assert 0 < ours[0].sum() < ours[0].size
    assert ours[0].sum() != ours[1].sum()  # farther away, the ground's slope is within the tolerance
    assert depth_edges(stored["points"][..., 2]).tolist() == stored["edges"].tolist()


def test_valid_needs_confidence_a_finite_point_in_front_and_no_edge() -> None:
    points, confidence = wall(), np.full((1, 5, 7), 0.9, np.float32)
    confidence[0, 0, 0] = 0.1  # not above the threshold
    points[0, 4, 0] = np.nan
    valid = valid_points(points, confidence)
    assert not valid[0, 0, 0]
    assert not valid[0, 4, 0]
    assert valid.sum() == 33
    assert not valid_points(wall(-2.0), np.ones((1, 5, 7))).any()
    points[0, :, 5:, 2] = 3
    assert valid_points(points, confidence)[0].any(axis=0).tolist() == [True, True, True, True, False, False, True]


def test_outputs_that_are_not_finite_are_marked_not_passed_on() -> None:
    points, confidence = wall(t=2), np.full((2, 5, 7), 0.5)
    points[0, 1, 1, 0], confidence[1, 2, 2] = np.inf, np.nan
    made = Reconstruction.from_outputs(points, confidence, np.tile(np.eye(4), (2, 1, 1)))
    for k in ((0, 1, 1), (1, 2, 2)):
        assert np.isnan(made.points[k]).all()
        assert made.confidence[k] == 0
        assert not made.valid[k]
    assert made.valid.sum() == 2 * 35 - 2
    assert (made.points.dtype, made.confidence.dtype, made.camera_poses.dtype) == (np.float32, np.float32, np.float64)


def test_a_pose_that_is_not_finite_loses_the_clip_with_a_reason() -> None:
    poses = np.tile(np.eye(4), (3, 1, 1))
    poses[1, 0, 3] = np.nan
    with pytest.raises(ReconstructionError, match=r"camera pose of frame 1 is not finite \(1 of 3\)"):
        Reconstruction.from_outputs(wall(t=3), np.ones((3, 5, 7)), poses)


def test_the_first_camera_is_the_world() -> None:
    # Two cameras that look along world x, the second one 1 ahead and 2 to the left (world y) of the first.
    looking_along_x = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
    poses = np.tile(np.eye(4), (2, 1, 1))
    poses[:, :3, :3] = looking_along_x
    poses[0, :3, 3], poses[1, :3, 3] = [5, 5, 5], [6, 7, 5]
    moved = from_first_camera(poses)
    assert moved[0].tolist() == np.eye(4).tolist()
    np.testing.assert_allclose(moved[1, :3, 3], [-2, 0, 1], atol=1e-12)  # left is -x, ahead is z
    np.testing.assert_allclose(moved[1, :3, :3], np.eye(3), atol=1e-12)


@given(st.lists(st.tuples(*[st.floats(-3, 3)] * 6), min_size=1, max_size=5))
def test_relative_motion_survives_the_change_of_world(numbers: list[tuple[float, ...]]) -> None:
    motion = np.array(numbers)
    poses = np.tile(np.eye(4), (len(motion), 1, 1))
    poses[:, :3, :3], poses[:, :3, 3] = rotations_from_vectors(motion[:, :3]), motion[:, 3:]
    moved = from_first_camera(poses.astype(np.float32))
    np.testing.assert_allclose(moved, np.linalg.inv(poses[0]) @ poses, atol=1e-5)
    np.testing.assert_allclose(
        moved[:, :3, :3] @ moved[:, :3, :3].swapaxes(1, 2), np.tile(np.eye(3), (len(motion), 1, 1)), atol=1e-12
    )


def test_an_unknown_model_is_named_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"no reconstruction model is called 'pi4'; known: pi3"):
        load_reconstructor("pi4", tmp_path, "cpu")
