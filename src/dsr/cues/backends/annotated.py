"""Cues of annotated clips: camera poses, tracks and perhaps depth that somebody measured.

The files' format, and how entries are matched to frames: dsr/cues/annotations.py.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dsr.clips.video import probe
from dsr.cues import backends
from dsr.cues.annotations import DEPTH_SUFFIX, AnnotatedTrack, Annotation, AnnotationError, read_annotation, read_depth
from dsr.cues.backends import ClipFailure, clip_times, cue_frames
from dsr.cues.clips import Clip
from dsr.cues.point_maps import back_project, pixel_rays, sampled_pixels
from dsr.cues.sampling import Sampling
from dsr.cues.schema import ClipCues, nan_where_unknown, no_masks
from dsr.files import sha256_file
from dsr.params import Cues


class Backend(backends.Backend):
    """Reads `Clip.annotation` and the depth maps beside it."""

    def __init__(self, params: Cues) -> None:
        self.num_frames = params.num_frames
        self.point_map_size = params.point_map_size

    def identity(self, clip: Clip) -> dict[str, Any]:
        path = annotation_path(clip)
        depth = path.with_suffix(DEPTH_SUFFIX)
        if not path.is_file():
            raise ClipFailure(f"{path}: no such annotation file")
        return {
            "params": {"num_frames": self.num_frames, "point_map_size": list(self.point_map_size)},
            "files": {
                "annotation": sha256_file(path),
                "depth": sha256_file(depth) if depth.is_file() else None,
            },
        }

    def extract(self, clip: Clip) -> ClipCues:
        if clip.video is None:
            raise ClipFailure("no video: the `annotated` backend needs its frames' times")
        path = annotation_path(clip)
        video_times = probe(clip.video).timestamps
        annotation = read_annotation(path, video_times)
        frames = cue_frames(video_times, clip, self.num_frames)
        times = video_times[frames]
        poses = annotation.camera.at(times, path)
        point_map = _point_map(annotation, times, self.point_map_size, (clip.height, clip.width))
        tracks = [_observe(track, times, poses, (clip.width, clip.height)) for track in annotation.tracks]
        kept = [k for k, seen in enumerate(tracks) if seen.visible.any()]
        seen = [tracks[k] for k in kept]
        return _assemble(annotation, frames, clip_times(video_times, frames), poses, point_map, seen, kept)


def annotation_path(clip: Clip) -> Path:
    """Path of a clip's annotation file.

    Raises:
        ClipFailure: the clip has neither a column `annotation` nor a video that one could lie beside.
    """
    if clip.annotation is not None:
        return clip.annotation
    if clip.video is None:
        raise ClipFailure("no annotation file: name it in the column `annotation` of clips.csv")
    return clip.video.with_name(f"{clip.clip_id}.annotation.json")


@dataclass(frozen=True)
class _ObservedTrack:
    """A track at the cue frames."""

    visible: np.ndarray
    boxes: np.ndarray
    centers: np.ndarray
    orientations: np.ndarray


def _observe(track: AnnotatedTrack, times: np.ndarray, poses: np.ndarray, size: tuple[int, int]) -> _ObservedTrack:
    """Match a track to cue times [T], in the camera frame of `poses` [T, 4, 4].

    Args:
        size: width and height of the video.
    """
    known = np.isfinite(track.boxes).all(axis=1) & np.isfinite(track.centers).all(axis=1)
    match = track.sampling.match(track.times, known, times)
    boxes = np.clip(match.blend(track.boxes), 0, np.tile(size, 2))
    visible = match.known & (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    to_camera = np.swapaxes(poses[:, :3, :3], 1, 2)
    centers = (to_camera @ (match.blend(track.centers) - poses[:, :3, 3])[..., None])[..., 0]
    facing = track.sampling.match(track.times, np.isfinite(track.rotations).all(axis=(1, 2)), times)
    orientations = to_camera @ facing.blend_rotations(track.rotations)
    return _ObservedTrack(visible, *(nan_where_unknown(visible, a) for a in (boxes, centers, orientations)))


def _point_map(annotation: Annotation, times: np.ndarray, grid: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """[T, h, w, 3] float32, all NaN without depth maps.

    Args:
        size: height and width of the video.
    """
    path = annotation.path.with_suffix(DEPTH_SUFFIX)
    if not path.is_file():
        return np.full((len(times), *grid, 3), np.nan, np.float32)
    if annotation.intrinsics is None:
        raise AnnotationError(f"{annotation.path}: intrinsics: needed, because there are depth maps ({path.name})")
    depth, depth_times = read_depth(path, annotation)
    match = Sampling(annotation.sampling.tolerance, max_gap=-1.0).match(depth_times, np.ones(len(depth), bool), times)
    rows, columns = sampled_pixels(depth.shape[1:], grid)
    sampled = depth[np.ix_(match.before, rows, columns)].astype(np.float64)
    sampled = np.where(match.known[:, None, None] & (sampled > 0) & np.isfinite(sampled), sampled, np.nan)
    # The depth maps' pixels are the video's, scaled.
    scale = np.array([[depth.shape[2] / size[1]], [depth.shape[1] / size[0]], [1.0]])
    return back_project(sampled, pixel_rays(annotation.intrinsics * scale, rows, columns))


def _assemble(
    annotation: Annotation,
    frames: np.ndarray,
    times: np.ndarray,
    poses: np.ndarray,
    point_map: np.ndarray,
    seen: list[_ObservedTrack],
    kept: list[int],
) -> ClipCues:
    t, n = len(frames), len(seen)
    tracks = [annotation.tracks[k] for k in kept]
    intrinsics = np.full((3, 3), np.nan) if annotation.intrinsics is None else annotation.intrinsics
    visible = np.array([s.visible for s in seen], bool).reshape(n, t)
    orientations = np.array([s.orientations for s in seen], np.float32).reshape(n, t, 3, 3)
    uncertainty = np.array([track.uncertainty for track in tracks], np.float32).reshape(n, 1)
    mask_rle, mask_offsets = no_masks(n, t)
    return ClipCues(
        timestamps=times,
        frame_index=frames,
        camera_poses=poses,
        intrinsics=np.tile(intrinsics, (t, 1, 1)),
        point_map=point_map,
        confidence=np.isfinite(point_map).all(axis=-1).astype(np.float32),
        labels=np.array([track.label for track in tracks], np.str_),
        is_agent=np.array([track.is_agent for track in tracks], bool),
        boxes=np.array([s.boxes for s in seen], np.float32).reshape(n, t, 4),
        visible=visible,
        centers=np.array([s.centers for s in seen], np.float32).reshape(n, t, 3),
        center_uncertainty=nan_where_unknown(visible, uncertainty),
        orientations=orientations,
        orientation_confidence=np.isfinite(orientations[..., 0, 0]).astype(np.float32),
        mask_rle=mask_rle,
        mask_offsets=mask_offsets,
    )
