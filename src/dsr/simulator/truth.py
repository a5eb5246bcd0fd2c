"""The truth file of a simulated clip.

Letters: F rendered frames, B bodies, H x W the video. World: z up, the ground at z = 0, lengths in metres.
Body frame: x forward, y left, z up, origin at the middle of the body's bounding box.
"""

import zipfile
import zlib
from collections.abc import Collection
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from dsr.files import write_npz


@dataclass(frozen=True, eq=False)
class Truth:
    """Exact truth of one clip."""

    timestamps: np.ndarray
    """[F] float64, seconds."""
    camera_poses: np.ndarray
    """[F, 4, 4] float64, camera-to-world, OpenCV axes."""
    intrinsics: np.ndarray
    """[3, 3] float64, pixels."""
    size: np.ndarray
    """[2] int64, height and width in pixels."""
    labels: np.ndarray
    """[B] unicode, as the caption names the body; unique in the clip."""
    words: np.ndarray
    """[B] unicode, the label without what tells it from others of its kind."""
    is_agent: np.ndarray
    """[B] bool, whether its facing means something."""
    body_poses: np.ndarray
    """[F, B, 4, 4] float64, world-from-body."""
    half_extents: np.ndarray
    """[B, 3] float64, half of the bounding box in the body frame."""
    boxes: np.ndarray
    """[F, B, 4] float32, xyxy in pixels; NaN where nothing is visible. Rendered: of the visible pixels;
    trajectory-only: of the projected bounding box inside the image."""
    visible_fraction: np.ndarray
    """[F, B] float32, how much is seen of what would be seen if nothing stood in front; 0 out of view."""
    rendered: np.ndarray
    """[] bool, whether there are pixels: a video, depth and instances."""
    depth: np.ndarray | None = None
    """[F, H, W] float32, depth along the camera's z axis; NaN where there is no surface."""
    instance: np.ndarray | None = None
    """[F, H, W] uint8, 0 the ground or nothing, b + 1 body b."""


def write_truth(path: Path, truth: Truth) -> None:
    """Write a truth file whole; equal truths are equal bytes."""
    values = {f.name: getattr(truth, f.name) for f in fields(Truth)}
    write_npz(path, {name: value for name, value in values.items() if value is not None})


def read_truth(path: Path, *, skip: Collection[str] = ()) -> Truth:
    """Read a truth file.

    Args:
        skip: `depth` and `instance`, where they are not needed.

    Raises:
        ValueError: not a truth file, or a damaged one.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            names = [f.name for f in fields(Truth) if f.name in archive.files and f.name not in skip]
            return Truth(**{name: archive[name] for name in names})
    except (OSError, TypeError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} is not a readable truth file: {error}") from None
