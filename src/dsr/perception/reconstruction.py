"""Dense geometry of a clip from its frames: the output of every reconstruction model, and where it can be trusted.

- A model is one module with `load(path, device)` and one line in RECONSTRUCTORS; callers know the protocol alone.
- A point counts if the model is sure enough of it and it does not lie on a depth edge: between two surfaces a network
  interpolates, and such a flying point belongs to neither. Both thresholds are pi3's published ones.

Letters: T frames, h x w the model's resolution. Pixel (r, c) of a map covers the same share of the picture as in the
video, whatever the two sizes.
"""

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from dsr.console import StageError, package
from dsr.geometry.frames import nearest_rotations

ndimage = package("scipy.ndimage", "pip install scipy")

MIN_CONFIDENCE = 0.1
EDGE_TOLERANCE = 0.03
"""Depth range within 3 x 3 pixels, relative to the depth of the middle one, above which it is an edge."""

RECONSTRUCTORS = {"pi3": "dsr.perception.pi3"}
"""Name -> module with `load(path: Path, device: str) -> Reconstructor`, imported when it is asked for."""


class ReconstructionError(Exception):
    """A clip that a model could not reconstruct; the message says why."""


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """Dense geometry of one clip, up to scale."""

    points: np.ndarray
    """[T, h, w, 3] float32, each frame's points in its own camera's frame (OpenCV); NaN where not finite."""
    confidence: np.ndarray
    """[T, h, w] float32 in [0, 1]; 0 where the point is not finite."""
    valid: np.ndarray
    """[T, h, w] bool: confident and not on a depth edge."""
    camera_poses: np.ndarray
    """[T, 4, 4] float64, camera-to-world; the world is the first camera's frame, so the first one is the identity."""

    @classmethod
    def from_outputs(cls, points: np.ndarray, confidence: np.ndarray, camera_poses: np.ndarray) -> "Reconstruction":
        """Clean a model's raw outputs: non-finite points are marked, the valid mask made, the world moved.

        Args:
            points: [T, h, w, 3], camera frames.
            confidence: [T, h, w] in [0, 1].
            camera_poses: [T, 4, 4] camera-to-world, in any world.

        Raises:
            ReconstructionError: a camera pose is not finite, so nothing can be placed.
        """
        lost = np.flatnonzero(~np.isfinite(camera_poses).all(axis=(1, 2)))
        if len(lost):
            raise ReconstructionError(f"camera pose of frame {lost[0]} is not finite ({len(lost)} of {len(points)})")
        finite = np.isfinite(points).all(axis=-1) & np.isfinite(confidence)
        points = np.where(finite[..., None], points, np.nan).astype(np.float32)
        confidence = np.where(finite, confidence, 0).astype(np.float32)
        return cls(points, confidence, valid_points(points, confidence), from_first_camera(camera_poses))


class Reconstructor(Protocol):
    """A loaded reconstruction model."""

    def reconstruct(self, frames: np.ndarray) -> Reconstruction:
        """Geometry of a clip's frames [T, H, W, 3] uint8 RGB, T >= 1; all frames are seen together.

        Raises:
            ReconstructionError: the outputs cannot be used.
        """


def load_reconstructor(name: str, path: Path, device: str) -> Reconstructor:
    """The model registered as `name` with the weights at `path`.

    Raises:
        StageError: unknown name, or a checkpoint that is missing or not this model's.
    """
    if name not in RECONSTRUCTORS:
        raise StageError(f"no reconstruction model is called {name!r}; known: {', '.join(sorted(RECONSTRUCTORS))}")
    return importlib.import_module(RECONSTRUCTORS[name]).load(path, device)


def valid_points(
    points: np.ndarray,
    confidence: np.ndarray,
    min_confidence: float = MIN_CONFIDENCE,
    edge_tolerance: float = EDGE_TOLERANCE,
) -> np.ndarray:
    """[..., h, w] bool: finite points [..., h, w, 3] in front of the camera, confident and on no depth edge."""
    depth = points[..., 2]
    usable = np.isfinite(points).all(axis=-1) & (depth > 0)
    return usable & (confidence > min_confidence) & ~depth_edges(depth, edge_tolerance)


def depth_edges(depth: np.ndarray, tolerance: float = EDGE_TOLERANCE) -> np.ndarray:
    """[..., h, w] bool: pixels in whose 3 x 3 neighbourhood depth spans more than `tolerance` times their own depth.

    The definition is pi3's (`depth_edge` with `rtol`). Pixels without a finite depth are no edge and make none.

    Args:
        depth: [..., h, w].
    """
    known = np.isfinite(depth)
    size = (1,) * (depth.ndim - 2) + (3, 3)
    # The nearest pixel is repeated beyond the border: it is in the window already, so it changes nothing.
    highest = ndimage.maximum_filter(np.where(known, depth, -np.inf), size, mode="nearest")
    lowest = ndimage.minimum_filter(np.where(known, depth, np.inf), size, mode="nearest")
    with np.errstate(invalid="ignore"):
        return known & (highest - lowest > tolerance * depth)


def from_first_camera(camera_poses: np.ndarray) -> np.ndarray:
    """Camera-to-world poses [T, 4, 4] with the first camera's frame as the world: float64, rotations orthonormal."""
    poses = np.asarray(camera_poses, np.float64)
    rotations = nearest_rotations(poses[:, :3, :3])
    moved = np.zeros_like(poses)
    moved[:, :3, :3] = rotations[0].T @ rotations
    moved[:, :3, 3] = (poses[:, :3, 3] - poses[0, :3, 3]) @ rotations[0]
    moved[:, 3, 3] = 1
    moved[0] = np.eye(4)
    return moved
