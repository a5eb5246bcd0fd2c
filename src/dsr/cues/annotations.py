"""Annotation files: camera poses and tracks that somebody measured (KITTI, Waymo, a motion-capture room).

A clip's annotation is a JSON file: the column `annotation` of clips.csv, else `<clip_id>.annotation.json` beside the
video. Every list below has one entry for each of its times, and `null` is "not visible", "not known":

    {
      "timestamps": [0.0, 0.1, 0.2],             seconds since the video's first frame; or "frames": [0, 1, 2]
      "camera_poses": [[[1, 0, 0, 0], …], …],    4x4 camera-to-world, OpenCV axes (x right, y down, z forward); a
                                                 single one for a camera that stands still
      "intrinsics": [[500, 0, 320], …],          3x3, pixels of the video; needed with "depths" and depth maps
      "up": [0, 0, 1],                           the world's up axis, for "headings"; default z
      "tolerance": 0.02,                         seconds from a frame to its nearest entry; default half a frame
      "max_gap": 0.6,                            entries closer than this are interpolated between
      "tracks": [
        {
          "label": "white car",                  as questions name it, unique in the clip
          "agent": true,                         whether it has a facing direction
          "boxes": [[10, 20, 60, 90], null, …],  x1 y1 x2 y2, pixels of the video
          "frame": "world",                      of centers, headings and orientations: "world" or "camera"
          "centers": [[4.0, 1.5, 0.8], null, …], or "depths": [4.0, null, …]: z of the centre behind the box's middle
          "headings": [[1, 0, 0], …],            optional, agents only: a vector; or "orientations": 3x3 rotations,
                                                 columns forward, left, up
          "timestamps": […] or "frames": […],    optional: the track's own times, where they are fewer
          "uncertainty": 0.01                    optional: standard deviation of centres relative to depth
        }
      ]
    }

Dense depth is optional: `<name>.depth.npz` beside `<name>.json` with `depth` [K, H', W'] in the unit of the poses
(z-depth; NaN or <= 0: none) of any size, and `timestamps` or `frames` [K] unless they are the file's.

At a cue frame between two known entries no more than `max_gap` apart, values are interpolated (in the world, so that a
moving camera does not bend a straight path); otherwise the nearest entry within `tolerance` counts; otherwise a
track is not visible there. A camera pose must be known at every cue frame. Boxes are clipped to the image, and a
track is visible where box and centre are known and the clipped box is not empty.
"""

import difflib
import json
import math
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dsr.cues.sampling import Sampling
from dsr.geometry.frames import is_rotation

DEPTH_SUFFIX = ".depth.npz"
_UNCERTAINTY = 0.01
_MAX_GAP = 0.6
"""Seconds; joins key frames at 2 Hz."""


class AnnotationError(ValueError):
    """An annotation that cannot be used; the message names file, track and field."""


@dataclass(frozen=True)
class Camera:
    """Camera-to-world poses over time; K entries, NaN where not known."""

    times: np.ndarray
    rotations: np.ndarray
    positions: np.ndarray
    sampling: Sampling

    def at(self, times: np.ndarray, path: Path) -> np.ndarray:
        """[T, 4, 4] poses.

        Raises:
            AnnotationError: not known at one of the times [T].
        """
        match = self.sampling.match(self.times, np.isfinite(self.positions).all(axis=-1), times)
        if not match.known.all():
            missing = times[~match.known][0]
            raise AnnotationError(f"{path}: camera_poses: none near {missing:.3f} s, which is a frame that is needed")
        poses = np.tile(np.eye(4), (len(times), 1, 1))
        poses[:, :3, :3] = match.blend_rotations(self.rotations)
        poses[:, :3, 3] = match.blend(self.positions)
        return poses


@dataclass(frozen=True)
class AnnotatedTrack:
    """One annotated thing; K entries in the world, NaN where not known."""

    label: str
    is_agent: bool
    uncertainty: float
    times: np.ndarray
    boxes: np.ndarray
    centers: np.ndarray
    rotations: np.ndarray
    """[K, 3, 3] world-from-agent."""
    sampling: Sampling


@dataclass(frozen=True)
class Annotation:
    """An annotation file, checked, with everything in the world frame."""

    path: Path
    times: np.ndarray
    camera: Camera
    intrinsics: np.ndarray | None
    tracks: list[AnnotatedTrack]
    sampling: Sampling
    video_times: np.ndarray


def read_annotation(path: Path, video_times: np.ndarray) -> Annotation:
    """Read and check an annotation file.

    Args:
        video_times: [F] float64, seconds of the video's frames, for entries given by frame.

    Raises:
        AnnotationError: no such file, not JSON, or a field that is missing, unknown or wrong; names file, track, field.
    """
    try:
        tree = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except (OSError, ValueError, RecursionError) as error:
        raise AnnotationError(f"{path}: not a readable JSON file ({error})") from None
    fields = _Fields(str(path), tree)
    times = fields.times(video_times)
    default = 0.5 * float(np.median(np.diff(video_times))) if len(video_times) > 1 else 0.0
    sampling = Sampling(fields.number("tolerance", default), fields.number("max_gap", _MAX_GAP))
    poses = fields.rows("camera_poses", len(times), (4, 4), single=True)
    intrinsics = None
    if "intrinsics" in fields:
        intrinsics = fields.array("intrinsics", (3, 3))
        fields.check(intrinsics[0, 0] > 0 and intrinsics[1, 1] > 0, "intrinsics", "needs focal lengths > 0")
        fields.check(bool((intrinsics[2] == [0, 0, 1]).all()), "intrinsics", "needs a last row 0 0 1")
    up = fields.array("up", (3,)) if "up" in fields else np.array([0.0, 0.0, 1.0])
    fields.check(bool(np.linalg.norm(up) > 0), "up", "is zero")
    entries = fields.items("tracks")
    fields.finish()
    known = np.isfinite(poses).all(axis=(1, 2))
    fields.check_rotations("camera_poses", poses[:, :3, :3])
    fields.check(bool((poses[known, 3] == [0, 0, 0, 1]).all()), "camera_poses", "needs a last row 0 0 0 1")
    camera = Camera(times, poses[:, :3, :3], poses[:, :3, 3], sampling)
    if len(tree["camera_poses"]) == 1:
        # A camera that stands still is known at all times.
        camera = Camera(times[:1], poses[:1, :3, :3], poses[:1, :3, 3], Sampling(math.inf, 0.0))
    scene = _Scene(path, times, video_times, camera, intrinsics, up / np.linalg.norm(up), sampling)
    tracks = [scene.track(k, entry) for k, entry in enumerate(entries)]
    for k, track in enumerate(tracks):
        same = [j for j in range(k) if tracks[j].label == track.label]
        if same:
            raise AnnotationError(
                f"{path}: tracks[{k}] {track.label!r}: label: tracks[{same[0]}] has the same; questions name tracks by "
                "their label, so tell them apart ('white car')"
            )
    return Annotation(path, times, camera, intrinsics, tracks, sampling, video_times)


@dataclass(frozen=True)
class _Scene:
    """Parts of an annotation file that its tracks are read with."""

    path: Path
    times: np.ndarray
    video_times: np.ndarray
    camera: Camera
    intrinsics: np.ndarray | None
    up: np.ndarray
    sampling: Sampling

    def track(self, number: int, entry: Any) -> AnnotatedTrack:
        label = entry.get("label") if isinstance(entry, dict) else None
        fields = _Fields(f"{self.path}: tracks[{number}]" + (f" {label!r}" if label else ""), entry)
        label, is_agent = fields.text("label"), fields.flag("agent")
        own = "timestamps" in fields or "frames" in fields
        times = fields.times(self.video_times) if own else self.times
        boxes = fields.rows("boxes", len(times), (4,))
        given = np.isfinite(boxes).all(axis=1)
        fields.check(
            bool((boxes[given, 2:] > boxes[given, :2]).all()), "boxes", "needs x1 < x2 and y1 < y2 in each box"
        )
        frame = fields.text("frame", "world")
        fields.check(frame in ("world", "camera"), "frame", f"must be world or camera, not {frame!r}")
        uncertainty = fields.number("uncertainty", _UNCERTAINTY)
        # Camera poses at this track's times, to bring what it has in the camera frame into the world.
        match = self.camera.sampling.match(self.camera.times, np.isfinite(self.camera.positions).all(axis=-1), times)
        rotations, positions = match.blend_rotations(self.camera.rotations), match.blend(self.camera.positions)
        centers = self._centers(fields, boxes)
        if "depths" in fields or frame == "camera":
            centers = (rotations @ centers[..., None])[..., 0] + positions
        axes = self._axes(fields, len(times), rotations if frame == "camera" else None)
        fields.check(is_agent or axes is None, "agent", "is false, but there are headings or orientations")
        fields.finish()
        unknown = np.full((len(times), 3, 3), np.nan)
        return AnnotatedTrack(
            label, is_agent, uncertainty, times, boxes, centers, unknown if axes is None else axes, self.sampling
        )

    def _centers(self, fields: "_Fields", boxes: np.ndarray) -> np.ndarray:
        """[K, 3] in the frame that they are given in; from `depths`, in the camera frame."""
        fields.check(
            ("centers" in fields) != ("depths" in fields), "centers", "or depths is needed, and not both of them"
        )
        if "centers" in fields:
            return fields.rows("centers", len(boxes), (3,))
        depths = fields.rows("depths", len(boxes), ())
        fields.check(bool((depths[np.isfinite(depths)] > 0).all()), "depths", "must be > 0")
        if self.intrinsics is None:
            raise AnnotationError(f"{self.path}: intrinsics: needed, because tracks have depths")
        middle = 0.5 * (boxes[:, :2] + boxes[:, 2:])
        pixels = np.concatenate([middle, np.ones((len(boxes), 1))], axis=1)
        return pixels @ np.linalg.inv(self.intrinsics).T * depths[:, None]

    def _axes(self, fields: "_Fields", count: int, to_world: np.ndarray | None) -> np.ndarray | None:
        """[K, 3, 3] world-from-agent; None without headings and orientations."""
        fields.check(not ("headings" in fields and "orientations" in fields), "headings", "and orientations: give one")
        if "orientations" in fields:
            axes = fields.rows("orientations", count, (3, 3))
            fields.check_rotations("orientations", axes)
            return axes if to_world is None else to_world @ axes
        if "headings" not in fields:
            return None
        forward = fields.rows("headings", count, (3,))
        if to_world is not None:
            forward = (to_world @ forward[..., None])[..., 0]
        left = np.cross(self.up, forward)
        sideways, length = np.linalg.norm(left, axis=1), np.linalg.norm(forward, axis=1)
        level = ~(sideways <= 1e-6 * length)
        fields.check(bool(level.all()), "headings", f"[{np.argmin(level)}] is zero or along the world's up axis")
        forward, left = forward / length[:, None], left / sideways[:, None]
        return np.stack([forward, left, np.cross(forward, left)], axis=-1)


class _Fields:
    """A JSON mapping whose fields are read with checks; `where` begins every message."""

    def __init__(self, where: str, tree: Any) -> None:
        self.where = where
        self.read: set[str] = set()
        if not isinstance(tree, dict):
            raise AnnotationError(f"{where}: must be a mapping, not {type(tree).__name__}")
        self.tree = tree

    def __contains__(self, name: str) -> bool:
        self.read.add(name)
        return self.tree.get(name) is not None

    def check(self, condition: bool, name: str, problem: str) -> None:
        if not condition:
            raise AnnotationError(f"{self.where}: {name} {problem}")

    def value(self, name: str) -> Any:
        self.check(name in self, name, "is missing")
        return self.tree[name]

    def text(self, name: str, default: str | None = None) -> str:
        if default is not None and name not in self:
            return default
        value = self.value(name)
        self.check(isinstance(value, str) and value.strip() == value != "", name, f"must be a text, not {value!r}")
        return value

    def flag(self, name: str) -> bool:
        value = self.value(name)
        self.check(isinstance(value, bool), name, f"must be true or false, not {value!r}")
        return value

    def number(self, name: str, default: float) -> float:
        if name not in self:
            return default
        value = float(self.array(name, ()))
        self.check(value >= 0, name, f"must be at least 0, not {value:g}")
        return value

    def items(self, name: str) -> Sequence[Any]:
        value = self.value(name)
        self.check(isinstance(value, list), name, f"must be a list, not {type(value).__name__}")
        return value

    def array(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        return self._array(self.value(name), shape, name)

    def rows(self, name: str, count: int, shape: tuple[int, ...], *, single: bool = False) -> np.ndarray:
        """[count, *shape] float64, NaN where an entry is null; with `single` one entry may stand for all."""
        entries = self.items(name)
        if single and len(entries) == 1:
            entries = [entries[0]] * count
        self.check(len(entries) == count, name, f"has {len(entries)} entries for {count} times")
        result = np.full((count, *shape), np.nan)
        for k, entry in enumerate(entries):
            if entry is not None:
                result[k] = self._array(entry, shape, f"{name}[{k}]")
        return result

    def times(self, video_times: np.ndarray) -> np.ndarray:
        """[K] seconds from `timestamps` or `frames`."""
        self.check(
            ("timestamps" in self) != ("frames" in self), "timestamps", "or frames is needed, and not both of them"
        )
        name = "timestamps" if "timestamps" in self else "frames"
        values = self.rows(name, len(self.items(name)), ())
        self.check(len(values) > 0, name, "is empty")
        self.check(bool(np.isfinite(values).all()), name, "has null")
        self.check(bool((np.diff(values) > 0).all()), name, "must increase strictly")
        if name == "timestamps":
            return values
        inside = (values >= 0) & (values < len(video_times)) & (values == np.floor(values))
        self.check(bool(inside.all()), name, f"must be whole numbers from 0 to {len(video_times) - 1}")
        return video_times[values.astype(np.int64)]

    def check_rotations(self, name: str, rotations: np.ndarray) -> None:
        """Refuse the first of [K, 3, 3] that is neither a rotation nor NaN."""
        wrong = np.isfinite(rotations).all(axis=(1, 2)) & ~is_rotation(rotations)
        self.check(not wrong.any(), f"{name}[{np.argmax(wrong)}]", "is no rotation (orthonormal, determinant 1)")

    def finish(self) -> None:
        """Refuse fields that nothing has asked for: a misspelt one would be ignored."""
        for name in sorted(set(self.tree) - self.read):
            near = difflib.get_close_matches(name, self.read, n=1)
            self.check(False, name, "is unknown" + (f"; did you mean {near[0]!r}?" if near else ""))

    def _array(self, value: Any, shape: tuple[int, ...], name: str) -> np.ndarray:
        wanted = "x".join(map(str, shape)) + " numbers" if shape else "a number"
        try:
            array = np.array(value)
        except ValueError:
            array = np.array(None)
        self.check(array.dtype.kind in "iuf" and array.shape == shape, name, f"must be {wanted}")
        self.check(bool(np.isfinite(array).all()), name, "is not finite")
        return array.astype(np.float64)


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON value; write null")


def read_depth(path: Path, annotation: Annotation) -> tuple[np.ndarray, np.ndarray]:
    """Depth maps [K, H', W'] and their times [K], increasing.

    Raises:
        AnnotationError: not a readable .npz, or without such maps; names the file and the field.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise AnnotationError(f"{path}: not a readable .npz file ({error})") from None
    depth = arrays.pop("depth", np.zeros(0))
    if depth.ndim != 3 or depth.dtype.kind != "f" or not math.prod(depth.shape):
        raise AnnotationError(f"{path}: depth must be [K, H, W] floating point")
    fields = _Fields(str(path), {name: array.tolist() for name, array in arrays.items()})
    times = fields.times(annotation.video_times) if fields.tree else annotation.times
    fields.finish()
    fields.check(len(times) == len(depth), "depth", f"has {len(depth)} maps for {len(times)} times")
    return depth, times
