"""A clip's cues as a rerun recording: video, boxes, masks, point cloud, camera, trajectories and agents' axes.

One timeline, `video`, in the clip's seconds. What is the same throughout (paths) is static.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dsr.console import StageError
from dsr.cues.clips import Clip
from dsr.cues.schema import ClipCues
from dsr.explain.frames import clip_frames, segmentation
from dsr.explain.palette import AXES, GREY, rgb, track_colour
from dsr.files import whole_file

if TYPE_CHECKING:
    import rerun as rr

TIMELINE = "video"
_IMAGE = "world/camera/image"
_AXIS_COLOURS = [rgb(AXES[axis]) for axis in ("forward", "left", "up")]


def write_recording(path: Path, cues: ClipCues, clip: Clip | None) -> None:
    """Write a .rrd file.

    Raises:
        StageError: rerun-sdk is not installed.
    """
    try:
        import rerun as rr
        import rerun.blueprint as rrb
    except ImportError:
        raise StageError("a recording needs rerun: pip install 'dsr[report]'") from None
    clip_id = str(cues.meta.get("clip_id", "clip"))
    stream = rr.RecordingStream("dsr", recording_id=clip_id)
    blueprint = rrb.Blueprint(
        rrb.Horizontal(
            rrb.Spatial3DView(origin="world", name="scene"),
            rrb.Spatial2DView(origin=_IMAGE, name="video"),
            column_shares=[3, 2],
        ),
        rrb.TimePanel(timeline=TIMELINE),
        collapse_panels=True,
    )
    with whole_file(path) as partial:
        stream.save(partial, default_blueprint=blueprint)
        stream.log("world", _view_coordinates(cues), static=True)
        _log_paths(stream, cues)
        images = clip_frames(clip, cues, np.arange(cues.num_frames))
        for frame in range(cues.num_frames):
            stream.set_time(TIMELINE, duration=float(cues.timestamps[frame]))
            _log_camera(stream, cues, frame, images[frame] if images is not None else None)
            _log_points(stream, cues, frame, images[frame] if images is not None else None)
            _log_tracks(stream, cues, frame)
        stream.flush()
        stream.disconnect()


def _view_coordinates(cues: ClipCues) -> Any:
    """View coordinates with the axis of the world that is nearest to up, by the cameras' mean up."""
    import rerun as rr

    up = -cues.camera_poses[:, :3, 1].mean(axis=0)
    axis = int(np.abs(up).argmax())
    return getattr(rr.ViewCoordinates, f"RIGHT_HAND_{'XYZ'[axis]}_{'UP' if up[axis] > 0 else 'DOWN'}")


def _entity(cues: ClipCues, track: int) -> str:
    import rerun as rr

    # A label is anything; as one part of a path it is escaped.
    return f"world/tracks/{rr.escape_entity_path_part(f'{track} {cues.labels[track]}')}"


def _world_centers(cues: ClipCues) -> np.ndarray:
    """[N, T, 3]; NaN where not visible."""
    rotation, position = cues.camera_poses[:, :3, :3], cues.camera_poses[:, :3, 3]
    return np.einsum("tij,ntj->nti", rotation, cues.centers.astype(float)) + position


def _log_paths(stream: "rr.RecordingStream", cues: ClipCues) -> None:
    import rerun as rr

    camera = cues.camera_poses[:, :3, 3]
    stream.log("world/camera_path", rr.LineStrips3D([camera], colors=[rgb(GREY)]), static=True)
    for track, path in enumerate(_world_centers(cues)):
        # A gap in the track is a gap in its path.
        parts = np.split(path, np.flatnonzero(~cues.visible[track]))
        strips = [part for p in parts if len(part := p[np.isfinite(p).all(axis=-1)]) > 1]
        colours = [rgb(track_colour(track))] * len(strips)
        stream.log(f"{_entity(cues, track)}/path", rr.LineStrips3D(strips, colors=colours), static=True)


def _log_camera(stream: "rr.RecordingStream", cues: ClipCues, frame: int, image: np.ndarray | None) -> None:
    import rerun as rr

    pose = cues.camera_poses[frame]
    size = [int(cues.meta["width"]), int(cues.meta["height"])]
    stream.log("world/camera", rr.Transform3D(translation=pose[:3, 3], mat3x3=pose[:3, :3]))
    shown = size if image is None else [image.shape[1], image.shape[0]]
    scale = np.array([shown[0] / size[0], shown[1] / size[1]])
    if np.isfinite(cues.intrinsics[frame]).all():
        pinhole = cues.intrinsics[frame] * np.array([[scale[0]], [scale[1]], [1.0]])
        view = rr.Pinhole(image_from_camera=pinhole, resolution=shown, camera_xyz=rr.ViewCoordinates.RDF)
        stream.log(_IMAGE, view)
    if image is not None:
        stream.log(_IMAGE, rr.Image(image).compress(jpeg_quality=80))
    visible = np.flatnonzero(cues.visible[:, frame])
    boxes = rr.Boxes2D(
        array=cues.boxes[visible, frame] * np.tile(scale, 2),
        array_format=rr.Box2DFormat.XYXY,
        labels=[str(cues.labels[t]) for t in visible],
        colors=[rgb(track_colour(t)) for t in visible],
    )
    stream.log(f"{_IMAGE}/boxes", boxes)
    segments = segmentation(cues, frame)
    if segments is not None:
        rows, columns = (np.arange(n) * size // n for n, size in zip(shown[::-1], segments.shape, strict=True))
        stream.log(f"{_IMAGE}/masks", rr.SegmentationImage(segments[rows[:, None], columns], opacity=0.4))
        if frame == 0 or not cues.visible[:, :frame].any():
            context = [
                rr.AnnotationInfo(t + 1, str(cues.labels[t]), rgb(track_colour(t))) for t in range(cues.num_tracks)
            ]
            stream.log(_IMAGE, rr.AnnotationContext(context), static=True)


def _log_points(stream: "rr.RecordingStream", cues: ClipCues, frame: int, image: np.ndarray | None) -> None:
    import rerun as rr

    points = cues.point_map[frame]
    valid = np.isfinite(points).all(axis=-1)
    if not valid.any():
        return
    colours = None
    if image is not None:
        rows, columns = (
            ((np.arange(n) + 0.5) * size / n).astype(int) for n, size in zip(valid.shape, image.shape[:2], strict=True)
        )
        colours = image[rows[:, None], columns][valid]
    stream.log("world/camera/points", rr.Points3D(points[valid], colors=colours))


def _log_tracks(stream: "rr.RecordingStream", cues: ClipCues, frame: int) -> None:
    import rerun as rr

    pose = cues.camera_poses[frame]
    centers = _world_centers(cues)[:, frame]
    length = 0.1 * float(np.nanmedian(cues.centers[..., 2])) if cues.visible.any() else 1.0
    for track in range(cues.num_tracks):
        entity = _entity(cues, track)
        if not cues.visible[track, frame]:
            stream.log(entity, rr.Clear(recursive=False))
            stream.log(f"{entity}/axes", rr.Clear(recursive=False))
            continue
        label = str(cues.labels[track])
        stream.log(
            entity,
            rr.Points3D([centers[track]], radii=[0.15 * length], colors=[rgb(track_colour(track))], labels=[label]),
        )
        axes = pose[:3, :3] @ cues.orientations[track, frame].astype(float)
        if np.isfinite(axes).all():
            arrows = rr.Arrows3D(origins=[centers[track]] * 3, vectors=axes.T * length, colors=_AXIS_COLOURS)
            stream.log(f"{entity}/axes", arrows)
