"""Hand-made scenes as ClipCues: cameras and tracks are given in the world, cues are what a camera would see."""

import dataclasses

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


def hide(cues: ClipCues, hidden: np.ndarray) -> ClipCues:
    """Cues without the detections where `hidden` [N, T] is True."""
    lost = hidden | ~cues.visible
    nan = {
        name: np.where(lost.reshape(*lost.shape, *[1] * (array.ndim - 2)), np.float32("nan"), array)
        for name, array in ((n, getattr(cues, n)) for n in ("boxes", "centers", "center_uncertainty", "orientations"))
    }
    confidence = np.where(lost, np.float32(0), cues.orientation_confidence)
    return dataclasses.replace(cues, visible=~lost, orientation_confidence=confidence, **nan)


def _wandering(rng: np.random.Generator, t: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions [T, 2] and yaw [T] of something that walks, stops, turns and speeds up, smoothly."""
    time = np.linspace(0, 1, t)
    pace, swing = (np.sin(2 * np.pi * (cycles * time + rng.random())) for cycles in rng.uniform(0.25, 1.25, 2))
    speed = rng.uniform(4, 22) * np.clip(1 + 1.5 * pace, 0, 2)
    yaw = rng.uniform(0, 2 * np.pi) + rng.uniform(0, 3) * swing
    way = np.stack([np.cos(yaw), np.sin(yaw)], axis=-1) * speed[:, None] / t
    path = np.cumsum(way, axis=0)
    return rng.uniform(-3, 3, 2) + path - path.mean(axis=0), yaw


def random_cues(seed: int, *, num_frames: int = 32, uncertainty: float = 0.01) -> ClipCues:
    """Exact cues of a random smooth scene: 2-4 agents and 1-3 objects, a camera that stands, sways, orbits or goes by.

    What leaves the image is not visible there.
    """
    rng = np.random.default_rng([seed, 7])
    time = np.linspace(0, 1, num_frames)
    angle, radius, height = rng.uniform(0, 2 * np.pi), rng.uniform(7, 11), rng.uniform(1, 4)
    match rng.integers(4):
        case 1:
            angle = angle + 0.05 * np.sin(2 * np.pi * (2 * time + rng.random()))
        case 2:
            angle = angle + rng.uniform(-2.5, 2.5) * time
        case 3:
            radius = radius + rng.uniform(-3, 4) * time
    spot = np.stack(np.broadcast_arrays(radius * np.cos(angle), radius * np.sin(angle), height + 0 * time), axis=-1)
    sight = rng.uniform(-1, 1, 3) * [1, 1, 0] + 0.5 * np.sin(2 * np.pi * (time + rng.random()))[:, None] * [1, 1, 0]
    tracks: dict[str, tuple[np.ndarray, np.ndarray | None]] = {}
    names = ["robot", "dog", "cat", "car"][: rng.integers(2, 5)], ["ball", "cube", "duck"][: rng.integers(1, 4)]
    for name in (*names[0], *names[1]):
        xy, yaw = _wandering(rng, num_frames)
        if rng.random() < 0.3:
            xy = np.broadcast_to(rng.uniform(-4, 4, 2), (num_frames, 2))
        z = np.full((num_frames, 1), 0.3) if rng.random() < 0.8 else 1 + np.sin(6 * time + rng.uniform(0, 6))[:, None]
        axes = heading(yaw, num_frames) if name in names[0] else None
        tracks[name] = (np.concatenate([xy, z], axis=1), axes)
    cues = make_cues(
        looking(spot, sight),
        tracks,
        seconds=float(rng.uniform(4, 8)),
        uncertainty=uncertainty,
        box_size=0.8,
        clip_id=f"random_{seed:03d}",
    )
    middle = (cues.boxes[..., :2] + cues.boxes[..., 2:]) / 2
    outside = (cues.centers[..., 2] < 0.5) | (middle < 0).any(axis=-1) | (middle > [WIDTH, HEIGHT]).any(axis=-1)
    return hide(cues, outside)
