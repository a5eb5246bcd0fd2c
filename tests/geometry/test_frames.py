"""Frames of reference: where forward, left and up are, and rotations against an independent implementation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.transform import Rotation

from dsr.geometry.frames import (
    CAMERA_FROM_VIEWPOINT,
    camera_viewpoint_axes,
    express,
    orthonormal_axes,
    rotations_from_vectors,
)

X, Y, Z = np.eye(3)


def vectors(shape: int | tuple[int, ...], limit: float = 3.0):
    return arrays(np.float64, shape, elements=st.floats(-limit, limit, allow_subnormal=False))


def pose(rotation: np.ndarray) -> np.ndarray:
    result = np.eye(4)
    result[:3, :3] = rotation
    return result


def test_camera_at_rest_in_its_own_frame() -> None:
    # OpenCV: x right, y down, z forward. Left is therefore -x and up is -y.
    forward, left, up = camera_viewpoint_axes(np.eye(4)).T
    np.testing.assert_array_equal(forward, Z)
    np.testing.assert_array_equal(left, -X)
    np.testing.assert_array_equal(up, -Y)


def test_camera_upright_looking_along_world_x() -> None:
    # World z up. Columns: right = -y, down = -z, forward = +x.
    forward, left, up = camera_viewpoint_axes(pose(np.stack([-Y, -Z, X], axis=1))).T
    np.testing.assert_array_equal(forward, X)
    np.testing.assert_array_equal(left, Y)
    np.testing.assert_array_equal(up, Z)


def test_camera_looking_straight_down() -> None:
    # Forward = -z; the top of the image towards world x, so down in the image = -x; right = down x forward = -y.
    forward, left, up = camera_viewpoint_axes(pose(np.stack([-Y, -X, -Z], axis=1))).T
    np.testing.assert_array_equal(forward, -Z)
    np.testing.assert_array_equal(left, Y)
    np.testing.assert_array_equal(up, X)


def test_viewpoint_axes_are_a_right_handed_frame() -> None:
    np.testing.assert_array_equal(CAMERA_FROM_VIEWPOINT.T @ CAMERA_FROM_VIEWPOINT, np.eye(3))
    assert np.linalg.det(CAMERA_FROM_VIEWPOINT) == pytest.approx(1)


def test_viewpoint_axes_ignore_where_the_camera_is_and_take_any_leading_axes() -> None:
    poses = np.tile(np.eye(4), (2, 5, 1, 1))
    poses[..., :3, 3] = np.random.default_rng(0).normal(size=(2, 5, 3))
    np.testing.assert_array_equal(camera_viewpoint_axes(poses), np.broadcast_to(CAMERA_FROM_VIEWPOINT, (2, 5, 3, 3)))


@given(vectors((4, 3)))
def test_rotation_vectors_match_scipy(rotvecs: np.ndarray) -> None:
    np.testing.assert_allclose(rotations_from_vectors(rotvecs), Rotation.from_rotvec(rotvecs).as_matrix(), atol=1e-12)


@pytest.mark.parametrize("angle", [0.0, 1e-300, 1e-12, 1e-8, 1e-4, np.pi - 1e-9, np.pi, 2 * np.pi, 7.0])
def test_rotation_vectors_at_angles_where_the_formula_could_break(angle: float) -> None:
    vector = angle * np.array([2.0, -1.0, 2.0]) / 3
    np.testing.assert_allclose(rotations_from_vectors(vector), Rotation.from_rotvec(vector).as_matrix(), atol=1e-12)


def test_a_quarter_turn_about_up_takes_forward_to_left() -> None:
    np.testing.assert_allclose(rotations_from_vectors(np.pi / 2 * Z) @ X, Y, atol=1e-15)


@given(vectors((2, 3)))
def test_rotating_back_is_the_inverse(rotvecs: np.ndarray) -> None:
    product = rotations_from_vectors(rotvecs) @ rotations_from_vectors(-rotvecs)
    np.testing.assert_allclose(product, np.broadcast_to(np.eye(3), (2, 3, 3)), atol=1e-12)


@given(vectors((5, 3)), vectors((5, 3, 3), limit=0.15))
def test_orthonormal_axes_are_rotations_that_keep_forward(rotvecs: np.ndarray, disturbance: np.ndarray) -> None:
    disturbed = Rotation.from_rotvec(rotvecs).as_matrix() + disturbance
    # The ensemble axis is last: [3, 3, S].
    result = np.moveaxis(orthonormal_axes(np.moveaxis(disturbed, 0, -1)), -1, 0)
    np.testing.assert_allclose(result @ result.transpose(0, 2, 1), np.broadcast_to(np.eye(3), (5, 3, 3)), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(result), 1)
    forward = disturbed[:, :, 0] / np.linalg.norm(disturbed[:, :, 0], axis=1, keepdims=True)
    np.testing.assert_allclose(result[:, :, 0], forward, atol=1e-12)
    # The new left lies in the plane of the old forward and left, on the old left's side.
    assert (np.abs(np.einsum("si,si->s", np.cross(forward, disturbed[:, :, 1]), result[:, :, 1])) < 1e-9).all()
    assert (np.einsum("si,si->s", disturbed[:, :, 1], result[:, :, 1]) > 0).all()


@given(vectors((5, 3)))
def test_orthonormal_axes_leave_rotations_as_they_are(rotvecs: np.ndarray) -> None:
    axes = np.moveaxis(Rotation.from_rotvec(rotvecs).as_matrix(), 0, -1)
    np.testing.assert_allclose(orthonormal_axes(axes), axes, atol=1e-12)


def test_unknown_axes_stay_unknown_and_spoil_no_neighbour() -> None:
    axes = np.repeat(np.eye(3)[..., None], 3, axis=-1)
    axes[..., 1] = np.nan
    result = orthonormal_axes(axes)
    assert np.isnan(result[..., 1]).all()
    np.testing.assert_array_equal(result[..., [0, 2]], axes[..., [0, 2]])


def test_express_by_hand() -> None:
    # Forward = world y, left = -world x, up = world z; the world vector (1, 2, 3) is 2 ahead, 1 right, 3 up.
    axes = np.stack([Y, -X, Z], axis=1)[..., None]
    np.testing.assert_array_equal(express(np.array([1.0, 2.0, 3.0])[:, None], axes)[:, 0], [2, -1, 3])


@given(vectors((4, 3)), vectors((4, 3), limit=100))
def test_express_round_trips_and_keeps_lengths(rotvecs: np.ndarray, world: np.ndarray) -> None:
    rotations = Rotation.from_rotvec(rotvecs)
    axes = np.moveaxis(rotations.as_matrix(), 0, -1)
    seen = express(world.T, axes).T
    np.testing.assert_allclose(rotations.apply(seen), world, atol=1e-10)
    np.testing.assert_allclose(np.linalg.norm(seen, axis=1), np.linalg.norm(world, axis=1), atol=1e-10)


@given(vectors(3), vectors((2, 3)), vectors(3, limit=100))
def test_what_is_seen_does_not_depend_on_the_world_frame(turn: np.ndarray, own: np.ndarray, world: np.ndarray) -> None:
    axes, other = Rotation.from_rotvec(own[0]).as_matrix(), Rotation.from_rotvec(turn).as_matrix()
    before = express(world[:, None], axes[..., None])
    after = express((other @ world)[:, None], (other @ axes)[..., None])
    np.testing.assert_allclose(after, before, atol=1e-9)


@given(vectors(3, limit=100))
def test_the_image_of_a_camera_and_its_viewpoint_agree(point: np.ndarray) -> None:
    # A point right of the optical axis (x > 0) is not left; one low in the image (y > 0) is not up.
    forward, left, up = express(point[:, None], camera_viewpoint_axes(np.eye(4))[..., None])[:, 0]
    assert (forward, left, up) == (point[2], -point[0], -point[1])
