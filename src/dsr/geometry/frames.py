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
    """
    return camera_poses[..., :3, :3] @ CAMERA_FROM_VIEWPOINT


def rotations_from_vectors(vectors: np.ndarray) -> np.ndarray:
    """Rotation matrices [..., 3, 3] of rotation vectors [..., 3] in radians (Rodrigues' formula)."""
    angle = np.linalg.norm(vectors, axis=-1)[..., None, None]
    x, y, z = np.moveaxis(vectors, -1, 0)
    zero = np.zeros_like(x)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=-1).reshape(*x.shape, 3, 3)
    # sinc(x) = sin(pi x) / (pi x) has no division by zero at angle 0.
    first = np.sinc(angle / np.pi)
    second = 0.5 * np.sinc(angle / (2 * np.pi)) ** 2
    return np.eye(3) + first * cross + second * (cross @ cross)


def orthonormal_axes(axes: np.ndarray) -> np.ndarray:
    """Nearest frame that keeps the direction of forward (Gram-Schmidt: forward, then left, up = forward x left).

    Args:
        axes: [..., 3, 3, S], column j is axes[..., :, j, :]; need not be orthonormal; NaN stays NaN.

    Returns:
        [..., 3, 3, S] rotations.
    """
    forward = axes[..., :, 0, :]
    forward = forward / length(forward)[..., None, :]
    left = axes[..., :, 1, :]
    left = left - (left * forward).sum(axis=-2, keepdims=True) * forward
    left = left / length(left)[..., None, :]
    up = np.cross(forward, left, axis=-2)
    return np.stack([forward, left, up], axis=-2)


def express(vectors: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Components of world vectors [..., 3, S] along the columns of `axes` [..., 3, 3, S]: [..., 3, S]."""
    x, y, z = vectors[..., 0, None, :], vectors[..., 1, None, :], vectors[..., 2, None, :]
    return axes[..., 0, :, :] * x + axes[..., 1, :, :] * y + axes[..., 2, :, :] * z
