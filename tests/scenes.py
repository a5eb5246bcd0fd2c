"""Hand-made scenes as ClipCues: cameras and tracks are given in the world, cues are what a camera would see."""

import numpy as np

from dsr.cues.schema import SCHEMA_VERSION, ClipCues, no_masks

FOCAL = 300.0
WIDTH, HEIGHT = 640, 480


def looking(position: np.ndarray, towards: np.ndarray) -> np.ndarray:
    """Camera-to-world poses [T, 4, 4] at positions [T, 3] or [3], looking towards points; z is up in the world."""
    position, towards = np.broadcast_arrays(np.asarray(position, float), np.asarray(towards, float))
    forward = towards - position
    forward = forward / np.linalg.norm(forward, axis=-1, keepdims=True)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right = right / np.linalg.norm(right, axis=-1, keepdims=True)
    down = np.cross(forward, right)
    poses = np.zeros((*forward.shape[:-1], 4, 4))
    poses[..., :3, :3] = np.stack([right, down, forward], axis=-1)
    poses[..., :3, 3] = position
    poses[..., 3, 3] = 1
    return poses


def heading(yaw: np.ndarray | float, num_frames: int) -> np.ndarray:
    """World-from-agent rotations [T, 3, 3] of agents upright on the ground, facing along `yaw` radians from world x."""
    yaw = np.broadcast_to(np.asarray(yaw, float), (num_frames,))
    zero, one = np.zeros_like(yaw), np.ones_like(yaw)
    rows = [np.cos(yaw), -np.sin(yaw), zero, np.sin(yaw), np.cos(yaw), zero, zero, zero, one]
    return np.stack(rows, axis=-1).reshape(-1, 3, 3)


def make_cues(
    camera_poses: np.ndarray,
    tracks: dict[str, tuple[np.ndarray, np.ndarray | None]],
    *,
    seconds: float = 6.0,
    uncertainty: float = 0.0,
    box_size: float = 0.4,
    clip_id: str = "hand",
) -> ClipCues:
    """Exact cues of tracks that are always seen.

    Args:
        camera_poses: [T, 4, 4] camera-to-world.
        tracks: label -> (positions [T, 3], world-from-agent rotations [T, 3, 3], or None for an object).
        box_size: side of a track's box at depth 1, in lengths of the world.
    """
    t, n = len(camera_poses), len(tracks)
    world = np.stack([np.broadcast_to(p, (t, 3)) for p, _ in tracks.values()]).astype(float)
    rotation, position = camera_poses[:, :3, :3], camera_poses[:, :3, 3]
    centers = np.einsum("tij,nti->ntj", rotation, world - position)
    orientations = np.full((n, t, 3, 3), np.nan)
    for track, (_, axes) in enumerate(tracks.values()):
        if axes is not None:
            orientations[track] = np.swapaxes(rotation, 1, 2) @ axes
    is_agent = np.array([axes is not None for _, axes in tracks.values()])
    depth = np.maximum(np.abs(centers[..., 2:]), 1e-3)
    middle = FOCAL * centers[..., :2] / depth + np.array([WIDTH, HEIGHT]) / 2
    half = FOCAL * box_size / 2 / depth
    rle, offsets = no_masks(n, t)
    return ClipCues(
        timestamps=np.linspace(0, seconds, t),
        frame_index=np.arange(t),
        camera_poses=camera_poses,
        intrinsics=np.tile(np.array([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]]), (t, 1, 1)),
        point_map=np.full((t, 4, 4, 3), np.nan, np.float32),
        confidence=np.zeros((t, 4, 4), np.float32),
        labels=np.array(list(tracks)),
        is_agent=is_agent,
        boxes=np.concatenate([middle - half, middle + half], axis=-1).astype(np.float32),
        visible=np.ones((n, t), bool),
        centers=centers.astype(np.float32),
        center_uncertainty=np.full((n, t), uncertainty, np.float32),
        orientations=orientations.astype(np.float32),
        orientation_confidence=np.where(np.isfinite(orientations).all(axis=(2, 3)), 1, 0).astype(np.float32),
        mask_rle=rle,
        mask_offsets=offsets,
        meta={"clip_id": clip_id, "width": WIDTH, "height": HEIGHT, "schema_version": SCHEMA_VERSION},
    )
