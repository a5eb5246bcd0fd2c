"""Frames of reference: camera (OpenCV: x right, y down, z forward), viewpoint (x forward, y left, z up), world."""

import numpy as np

from dsr.geometry.signals import length

CAMERA_FROM_VIEWPOINT = np.array([[0.0, -1.0, 0.0], [0.0, 0.0, -1.0], [1.0, 0.0, 0.0]])
"""[3, 3] rotation: a camera's viewpoint axes (forward, left, up) as columns in its OpenCV frame."""


def camera_viewpoint_axes(camera_poses: np.ndarray) -> np.ndarray:
    """World-from-viewpoint rotations of a camera.

    Args:
        camera_poses: [..., 4, 4] camera-to-world.

    Returns:
        [..., 3, 3], columns forward, left, up in the world.

    A camera whose axes are the world's looks along z; left of it is -x, above it -y:

    >>> camera_viewpoint_axes(np.eye(4)).T.tolist()
    [[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]
    """
    return camera_poses[..., :3, :3] @ CAMERA_FROM_VIEWPOINT


def rotations_from_vectors(vectors: np.ndarray, axis: int = -1) -> np.ndarray:
    """Rotation matrices of rotation vectors in radians (Rodrigues' formula).

    Args:
        vectors: three components on `axis`.

    Returns:
        With rows and columns, 3 x 3, in the place of `axis`.

    A quarter turn about z takes x to y:

    >>> np.round(rotations_from_vectors(np.array([0, 0, np.pi / 2])) @ [1, 0, 0], 12).tolist()
    [0.0, 1.0, 0.0]
    """
    axis %= vectors.ndim
    x, y, z = np.moveaxis(vectors, axis, 0)
    angle = np.sqrt(x * x + y * y + z * z)
    # sinc(x) = sin(pi x) / (pi x) has no division by zero at angle 0.
    first = np.sinc(angle / np.pi)
    second = 0.5 * np.sinc(angle / (2 * np.pi)) ** 2
    rotations = np.empty((*vectors.shape[:axis], 3, *vectors.shape[axis:]), angle.dtype)
    cells = np.moveaxis(rotations, (axis, axis + 1), (0, 1))
    cells[0, 0], cells[1, 1], cells[2, 2] = (1 - second * (a * a + b * b) for a, b in ((y, z), (x, z), (x, y)))
    for row, column, opposite, across in ((0, 1, -z, x * y), (0, 2, y, x * z), (1, 2, -x, y * z)):
        cells[row, column] = first * opposite + second * across
        cells[column, row] = second * across - first * opposite
    return rotations


def orthonormal_axes(axes: np.ndarray) -> np.ndarray:
    """Nearest frame that keeps the direction of forward (Gram-Schmidt: forward, then left, up = forward x left).

    Args:
        axes: [..., 3, 3, S], column j is axes[..., :, j, :]; need not be orthonormal; NaN stays NaN.

    Returns:
        [..., 3, 3, S] rotations.

    >>> skewed = np.array([[2.0, 1.0, 0.0], [0.0, 3.0, 0.0], [0.0, 0.0, 9.0]])
    >>> np.array_equal(orthonormal_axes(skewed[..., None])[..., 0], np.eye(3))
    True
    """
    forward = axes[..., :, 0, :]
    forward = forward / length(forward)[..., None, :]
    left = axes[..., :, 1, :]
    left = left - dot(left, forward)[..., None, :] * forward
    left = left / length(left)[..., None, :]
    return np.stack([forward, left, cross(forward, left)], axis=-2)


def is_rotation(matrices: np.ndarray) -> np.ndarray:
    """True where matrices [..., 3, 3] are orthonormal within 0.001 and keep handedness: [...]; NaN is no rotation.

    >>> is_rotation(np.stack([np.eye(3), 2 * np.eye(3), np.diag([1.0, 1.0, -1.0])])).tolist()
    [True, False, False]
    """
    off = np.abs(matrices @ np.swapaxes(matrices, -1, -2) - np.eye(3)).max(axis=(-2, -1))
    with np.errstate(invalid="ignore"):  # NaN
        return (off < 1e-3) & (np.linalg.det(matrices) > 0)


def nearest_rotations(matrices: np.ndarray) -> np.ndarray:
    """Rotations [..., 3, 3] nearest to matrices [..., 3, 3] with positive determinants.

    >>> np.round(nearest_rotations(np.diag([2.0, 0.5, 1.0])), 12).tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    u, _, vt = np.linalg.svd(matrices)
    return u @ vt


def dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Scalar product of vectors [..., 3, S]: [..., S]."""
    # Three products and two sums are several times faster than a reduction over an axis of three.
    return a[..., 0, :] * b[..., 0, :] + a[..., 1, :] * b[..., 1, :] + a[..., 2, :] * b[..., 2, :]


def cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cross product of vectors [..., 3, S].

    >>> cross(np.array([[1.0], [0.0], [0.0]]), np.array([[0.0], [1.0], [0.0]]))[:, 0].tolist()
    [0.0, 0.0, 1.0]
    """
    # np.cross takes several times longer.
    (ax, ay, az), (bx, by, bz) = np.moveaxis(a, -2, 0), np.moveaxis(b, -2, 0)
    return np.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], axis=-2)


def apply(rotations: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Rotations [..., 3, 3, S] of vectors [..., 3, S]: [..., 3, S].

    >>> apply(CAMERA_FROM_VIEWPOINT[..., None], np.array([1.0, 0.0, 0.0])[:, None])[:, 0].tolist()
    [0.0, 0.0, 1.0]
    """
    x, y, z = (vectors[..., i, None, :] for i in range(3))
    return rotations[..., 0, :] * x + rotations[..., 1, :] * y + rotations[..., 2, :] * z


def compose(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Products of rotations [..., 3, 3, S]."""
    return np.stack([apply(a, b[..., column, :]) for column in range(3)], axis=-2)


def express(vectors: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Components of world vectors [..., 3, S] along the columns of `axes` [..., 3, 3, S]: [..., 3, S].

    What lies along the world's z is in front of a camera whose axes are the world's:

    >>> axes = camera_viewpoint_axes(np.eye(4))[..., None]
    >>> express(np.array([0.0, 0.0, 5.0])[:, None], axes)[:, 0].tolist()
    [5.0, 0.0, 0.0]
    """
    x, y, z = vectors[..., 0, None, :], vectors[..., 1, None, :], vectors[..., 2, None, :]
    return axes[..., 0, :, :] * x + axes[..., 1, :, :] * y + axes[..., 2, :, :] * z
