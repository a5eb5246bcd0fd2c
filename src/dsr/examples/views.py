"""Views of a clip, by name: its frames changed, its cues changed alike.

Cues are changed rather than the tokens made of them, so that geometry stays something a model can have seen: that of
a mirrored scene, of a scene played backwards, of a scene in which nothing was observed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from dsr.cues.schema import SCHEMA_VERSION, ClipCues, no_masks

VideoView = Literal["whole", "none", "black", "first_frame", "reversed", "mirrored"]
GeometryView = Literal["own", "none", "zeroed", "shuffled", "first_frame", "reversed", "mirrored"]


@dataclass(frozen=True)
class View:
    """Frames and geometry that are shown of a clip."""

    video: VideoView = "whole"
    geometry: GeometryView = "own"


VIEWS: Mapping[str, View] = {
    "whole": View(),
    "blind": View("none", "none"),
    "black_video": View("black"),
    "first_frame": View("first_frame", "first_frame"),
    "zeroed_geometry": View(geometry="zeroed"),
    "shuffled_geometry": View(geometry="shuffled"),
    "reversed_time": View("reversed", "reversed"),
    "mirrored": View("mirrored", "mirrored"),
}
VIDEO_OF: Mapping[GeometryView, VideoView] = {
    "own": "whole",
    "shuffled": "whole",
    "zeroed": "black",
    "first_frame": "first_frame",
    "reversed": "reversed",
    "mirrored": "mirrored",
}
"""Video that a geometry is of: what an encoder that looks at frames is shown."""

_OVER_TIME = ("camera_poses", "intrinsics", "point_map", "confidence")
"""Arrays of ClipCues whose first axis is time."""
_OF_TRACKS = ("boxes", "visible", "centers", "center_uncertainty", "orientations", "orientation_confidence")
"""Arrays whose second axis is time."""
_FLIP_X = np.diag([-1.0, 1.0, 1.0])
"""In the camera's frame: x is to the right."""
_FLIP_LEFT = np.diag([1.0, -1.0, 1.0])
"""In an agent's frame: y is to the left."""


def change_frames(frames: np.ndarray, view: VideoView) -> np.ndarray:
    """Frames [T, H, W, 3] as a view shows them, a copy where they change.

    Raises:
        ValueError: `none`, which has no frames.
    """
    match view:
        case "whole":
            return frames
        case "black":
            return np.zeros_like(frames)
        case "first_frame":
            return np.repeat(frames[:1], len(frames), axis=0)
        case "reversed":
            return np.ascontiguousarray(frames[::-1])
        case "mirrored":
            return np.ascontiguousarray(frames[:, :, ::-1])
    raise ValueError(f"a view without frames: {view}")


def change_cues(cues: ClipCues, view: GeometryView) -> ClipCues:
    """Cues as a view shows them, without masks.

    Args:
        view: `own` and `shuffled` (another clip's) are given as they are.

    Raises:
        ValueError: `none`, which has no geometry.
    """
    match view:
        case "own" | "shuffled":
            return cues
        case "zeroed":
            width, height = int(cues.meta["width"]), int(cues.meta["height"])
            return bare_cues(cues.timestamps, cues.frame_index, width, height)
        case "first_frame":
            return _rearrange(cues, np.zeros(cues.num_frames, int))
        case "reversed":
            backwards = _rearrange(cues, np.arange(cues.num_frames)[::-1])
            times = cues.timestamps
            return replace(backwards, timestamps=np.ascontiguousarray(times[0] + times[-1] - times[::-1]))
        case "mirrored":
            return mirror_cues(cues)
    raise ValueError(f"a view without geometry: {view}")


def bare_cues(timestamps: np.ndarray, frame_index: np.ndarray, width: int, height: int) -> ClipCues:
    """Cues in which nothing was observed: no tracks, no points, a camera that stands still."""
    t = len(timestamps)
    rle, offsets = no_masks(0, t)
    return ClipCues(
        timestamps=timestamps,
        frame_index=frame_index,
        camera_poses=np.tile(np.eye(4), (t, 1, 1)),
        intrinsics=np.full((t, 3, 3), np.nan),
        point_map=np.zeros((t, 0, 0, 3), np.float32),
        confidence=np.zeros((t, 0, 0), np.float32),
        labels=np.zeros(0, "U1"),
        is_agent=np.zeros(0, bool),
        boxes=np.zeros((0, t, 4), np.float32),
        visible=np.zeros((0, t), bool),
        centers=np.zeros((0, t, 3), np.float32),
        center_uncertainty=np.zeros((0, t), np.float32),
        orientations=np.zeros((0, t, 3, 3), np.float32),
        orientation_confidence=np.zeros((0, t), np.float32),
        mask_rle=rle,
        mask_offsets=offsets,
        meta={"width": width, "height": height, "schema_version": SCHEMA_VERSION},
    )


def mirror_cues(cues: ClipCues) -> ClipCues:
    """The scene with left and right exchanged, as the mirrored video shows it.

    An agent's left axis is turned round after the reflection, so that its axes stay right-handed: what was on its left
    is on its right.
    """
    width = float(cues.meta["width"])
    poses = cues.camera_poses.copy()
    poses[:, :3, :3] = _FLIP_X @ poses[:, :3, :3] @ _FLIP_X
    poses[:, 0, 3] *= -1
    intrinsics = cues.intrinsics.copy()
    intrinsics[:, 0, 2] = width - intrinsics[:, 0, 2]
    boxes = cues.boxes.copy()
    boxes[..., [0, 2]] = width - boxes[..., [2, 0]]
    rle, offsets = no_masks(cues.num_tracks, cues.num_frames)
    return replace(
        cues,
        camera_poses=poses,
        intrinsics=intrinsics,
        point_map=np.ascontiguousarray(cues.point_map[:, :, ::-1]) * np.array([-1, 1, 1], np.float32),
        confidence=np.ascontiguousarray(cues.confidence[:, :, ::-1]),
        boxes=boxes,
        centers=cues.centers * np.array([-1, 1, 1], np.float32),
        orientations=(_FLIP_X @ cues.orientations @ _FLIP_LEFT).astype(np.float32),
        mask_rle=rle,
        mask_offsets=offsets,
    )


def _rearrange(cues: ClipCues, order: np.ndarray) -> ClipCues:
    """The content of other frames at the same times."""
    rle, offsets = no_masks(cues.num_tracks, cues.num_frames)
    over_time: dict[str, Any] = {name: np.ascontiguousarray(getattr(cues, name)[order]) for name in _OVER_TIME}
    of_tracks: dict[str, Any] = {name: np.ascontiguousarray(getattr(cues, name)[:, order]) for name in _OF_TRACKS}
    return replace(cues, **over_time, **of_tracks, mask_rle=rle, mask_offsets=offsets)
