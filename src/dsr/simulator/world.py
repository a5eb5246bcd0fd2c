"""Worlds: a cast of bodies, a path for each and a camera, all from one seed; pure NumPy.

Bodies are placed one after another, each on the first of several proposed paths that keeps clear of those before
it; the camera likewise is the first of several that sees enough and stands in nobody's way.
"""

from dataclasses import dataclass

import numpy as np
from scipy.signal import lfilter

from dsr.geometry.frames import rotations_from_vectors
from dsr.params import Simulate
from dsr.simulator.bodies import AGENTS, OBJECTS, Kind
from dsr.simulator.motion import ARENA, propose
from dsr.simulator.truth import Truth

CAMERA_MOTIONS = ("static", "handheld", "orbit", "dolly", "follow")
VERTICAL_FOV = np.deg2rad(52.0)
_PROPOSALS = 48
_ATTEMPTS = 16
_CAMERAS = 10
_GAP = 0.15
"""Metres between two bodies' circles at least."""
_NEAR = 0.3
"""Metres before the camera from which on a body counts as in view."""


@dataclass(frozen=True, eq=False)
class World:
    """One clip's bodies, camera and exact truth (without pixels)."""

    kinds: list[Kind]
    colours: list[str]
    """A colour of bodies.COLOURS, or empty where the asset keeps its own."""
    motions: list[str]
    camera_motion: str
    truth: Truth


def make_world(params: Simulate, index: int) -> World:
    """World number `index`; it depends on (seed, index) and the parameters, not on other worlds."""
    rng = np.random.default_rng([params.seed, index])
    frames = max(2, round(rng.uniform(*params.duration) * params.fps))
    times = np.arange(frames) / params.fps
    kinds, colours = _cast(rng, int(rng.integers(params.bodies[0], params.bodies[1] + 1)))
    poses, motions = _body_poses(kinds, times, rng)
    width, height = params.size
    focal = height / 2 / np.tan(VERTICAL_FOV / 2)
    intrinsics = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    half = np.stack([kind.half_extents for kind in kinds])
    camera_motion, camera_poses = _camera(kinds, poses, half, intrinsics, (width, height), times, rng)
    boxes, visible_fraction = projected_boxes(poses, half, camera_poses, intrinsics, (width, height))
    labels = [f"{colour} {kind.word}".strip() for kind, colour in zip(kinds, colours, strict=True)]
    truth = Truth(
        timestamps=times,
        camera_poses=camera_poses,
        intrinsics=intrinsics,
        size=np.array([height, width]),
        labels=np.array(labels),
        words=np.array([kind.word for kind in kinds]),
        is_agent=np.array([kind.is_agent for kind in kinds]),
        body_poses=poses,
        half_extents=half,
        boxes=boxes,
        visible_fraction=visible_fraction,
        rendered=np.array(False),
    )
    return World(kinds, colours, motions, camera_motion, truth)


def _cast(rng: np.random.Generator, count: int) -> tuple[list[Kind], list[str]]:
    """Kinds and colours: about half agents, at least one; only what can be painted comes twice."""
    agents = min(len(AGENTS), max(1, round(count * rng.uniform(0.35, 0.7))))
    kinds = [AGENTS[i] for i in rng.permutation(len(AGENTS))[:agents]]
    free = {kind.word: list(rng.permutation(kind.colours)) if kind.colours else [""] for kind in OBJECTS}
    colours = [""] * agents
    while len(kinds) < count:
        left = [kind for kind in OBJECTS if free[kind.word]]
        kind = left[int(rng.integers(len(left)))]
        kinds.append(kind)
        colours.append(str(free[kind.word].pop()))
    return kinds, colours


def _body_poses(kinds: list[Kind], times: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, list[str]]:
    """World-from-body poses [F, B, 4, 4] and the motion of each body."""
    places: list[np.ndarray] = []
    poses = np.zeros((len(times), len(kinds), 4, 4))
    poses[..., 3, 3] = 1
    motions = []
    for body, kind in enumerate(kinds):
        motion, place, yaw = _clear_path(kinds[: body + 1], places, times, rng)
        places.append(place)
        motions.append(motion)
        poses[:, body, :3, :3] = rotations_from_vectors(np.stack([0 * yaw, 0 * yaw, yaw], axis=-1))
        poses[:, body, :3, 3] = place + np.array([0, 0, kind.half_extents[2]])
    return poses, motions


def _clear_path(
    kinds: list[Kind], places: list[np.ndarray], times: np.ndarray, rng: np.random.Generator
) -> tuple[str, np.ndarray, np.ndarray]:
    """A motion of the last kind, its path [F, 3] and yaw [F], that run into none of the others' paths (`places`).

    Motion and proposals are drawn anew until a path is clear; a world too crowded for that gets the clearest seen.
    """
    kind, others = kinds[-1], kinds[:-1]
    best, found = np.inf, None
    for attempt in range(_ATTEMPTS):
        motion = str(rng.choice(kind.motions))
        leader = places[int(rng.integers(len(places)))] if places else None
        if motion == "chase" and (leader is None or np.ptp(leader[:, :2], axis=0).max() < 1.0):
            motion = "wander"
        # A crowded arena is left to the sides.
        paths = propose(motion, kind, times, _PROPOSALS, rng, leader, (0.9 + 0.1 * attempt) * ARENA)
        away = np.linalg.norm(paths.place[..., :2], axis=-1).max(axis=1) - ARENA
        # A crossing body may leave the arena, and so the view.
        away = np.maximum(away - (2.0 if motion in ("cross", "roll") else 0.0), 0)
        overlap = np.zeros(_PROPOSALS)
        for place, other in zip(places, others, strict=True):
            offset = paths.place - place
            apart = np.hypot(offset[..., 0], offset[..., 1])
            # One may be above the other: a balloon, a ball in the air.
            apart[(offset[..., 2] > other.height) | (-offset[..., 2] > kind.height)] = np.inf
            overlap += np.maximum(kind.radius + other.radius + _GAP - apart.min(axis=1), 0)
        # Leaving the arena is a blemish, running into another body an error.
        cost = away + 100 * overlap
        chosen = int(cost.argmin())
        if cost[chosen] < best:
            best, found = cost[chosen], (motion, paths.place[chosen], paths.yaw[chosen])
        if overlap[chosen] == 0:
            break
    assert found is not None
    return found


def _camera(
    kinds: list[Kind],
    poses: np.ndarray,
    half: np.ndarray,
    intrinsics: np.ndarray,
    size: tuple[int, int],
    times: np.ndarray,
    rng: np.random.Generator,
) -> tuple[str, np.ndarray]:
    """A motion and camera-to-world poses [F, 4, 4]: of several proposals the one that sees most without a collision."""
    motion = str(rng.choice(CAMERA_MOTIONS))
    places = poses[..., :3, 3]
    radii = np.linalg.norm(half, axis=1)
    best, chosen = -np.inf, None
    for _ in range(_CAMERAS):
        proposal = _propose_camera(motion, kinds, places, times, rng)
        near = (np.linalg.norm(places - proposal[:, None, :3, 3], axis=-1) - radii).min()
        seen = _in_view(places, proposal, intrinsics, size).mean()
        # Seeing all of them all the time is not wanted: things enter and leave.
        score = min(seen, 0.85) - (10 if near < 0.8 else 0)
        if score > best:
            best, chosen = score, proposal
        if score >= 0.7:
            break
    assert chosen is not None
    return motion, chosen


def _propose_camera(
    motion: str, kinds: list[Kind], places: np.ndarray, times: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Camera-to-world poses [F, 4, 4] of one proposal."""
    middle = places.mean(axis=(0, 1))
    azimuth = np.full(len(times), rng.uniform(0, 2 * np.pi))
    distance = np.full(len(times), rng.uniform(4.4, 6.4))
    height = rng.uniform(1.2, 3.2)
    look = middle + np.zeros((len(times), 3))
    shift = np.zeros((len(times), 3))
    match motion:
        case "handheld":
            shift = _sway(times, 0.12, rng)
            look = look + _sway(times, 0.25, rng)
        case "orbit":
            azimuth = azimuth + rng.choice([-1, 1]) * rng.uniform(0.15, 0.5) * times
        case "dolly":
            begins, ends = rng.permutation([rng.uniform(0, 1.5), rng.uniform(-2.0, -0.5)])
            distance = distance + np.linspace(begins, ends, len(times))
            shift = shift + np.linspace(-1, 1, len(times))[:, None] * [*rng.normal(0, 0.9, 2), 0.0]
        case "follow":
            agents = [body for body, kind in enumerate(kinds) if kind.is_agent]
            look = _follow(places[:, agents[int(rng.integers(len(agents)))]])
            shift = 0.8 * (look - look[:1])
            look = 0.7 * look + 0.3 * middle
    outward = np.stack([np.cos(azimuth), np.sin(azimuth), np.zeros(len(times))], axis=-1)
    eye = middle + distance[:, None] * outward + shift
    eye[:, 2] = np.maximum(height + shift[:, 2], 0.5)
    return _look_at(eye, look)


def _look_at(eye: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Upright OpenCV camera-to-world poses [F, 4, 4]."""
    forward = target - eye
    forward /= np.linalg.norm(forward, axis=-1, keepdims=True)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right, axis=-1, keepdims=True)
    poses = np.tile(np.eye(4), (len(eye), 1, 1))
    poses[:, :3, :3] = np.stack([right, np.cross(forward, right), forward], axis=-1)
    poses[:, :3, 3] = eye
    return poses


def _sway(times: np.ndarray, amount: float, rng: np.random.Generator) -> np.ndarray:
    """Unsteady hands: three slow waves an axis, [F, 3], of about `amount` metres."""
    waves = rng.uniform(0.25, 1.1, (3, 3)) * 2 * np.pi
    phases = rng.uniform(0, 2 * np.pi, (3, 3))
    return amount / np.sqrt(1.5) * np.sin(times[:, None, None] * waves + phases).mean(axis=1) * np.sqrt(3)


def _follow(path: np.ndarray) -> np.ndarray:
    """A path [F, 3] as an operator follows it: late and smooth (exponential smoothing)."""
    return lfilter([0.15], [1, -0.85], path - path[:1], axis=0) + path[:1]


def _in_view(points: np.ndarray, camera_poses: np.ndarray, intrinsics: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """[F, B] bool: points [F, B, 3] project into the image."""
    pixels, depth = _project(points, camera_poses, intrinsics)
    return (depth > _NEAR) & (pixels >= 0).all(axis=-1) & (pixels < np.array(size)).all(axis=-1)


def _project(points: np.ndarray, camera_poses: np.ndarray, intrinsics: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels [F, n, 2] and depths [F, n] of world points [F, n, 3]."""
    seen = (points - camera_poses[:, None, :3, 3]) @ camera_poses[:, :3, :3]
    depth = seen[..., 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        pixels = seen[..., :2] / depth[..., None] * intrinsics[[0, 1], [0, 1]] + intrinsics[:2, 2]
    return pixels, depth


_CORNERS = np.stack(np.meshgrid([-1, 1], [-1, 1], [-1, 1], indexing="ij"), axis=-1).reshape(8, 3)
_SAMPLES = (np.arange(5) + 0.5) / 5


def projected_boxes(
    poses: np.ndarray,
    half_extents: np.ndarray,
    camera_poses: np.ndarray,
    intrinsics: np.ndarray,
    size: tuple[int, int],
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes and visible fractions of the bodies' bounding boxes, as the camera sees them.

    A body hides the middle four fifths of its projected box from what is farther away: bodies are rounder than
    their boxes. Visibility is judged on a grid of 5 x 5 points of the visible part of the box.

    Returns:
        boxes [F, B, 4] float32 inside the image, NaN where out of view or wholly hidden, and the visible fraction
        [F, B] float32.
    """
    f, b = poses.shape[:2]
    corners = poses[..., None, :3, :3] @ (_CORNERS * half_extents[:, None])[..., None]
    corners = corners[..., 0] + poses[..., None, :3, 3]
    pixels, depth = _project(corners.reshape(f, b * 8, 3), camera_poses, intrinsics)
    pixels, depth = pixels.reshape(f, b, 8, 2), depth.reshape(f, b, 8)
    full = np.concatenate([pixels.min(axis=2), pixels.max(axis=2)], axis=-1)
    boxes = np.clip(full, 0, [*size, *size])
    shown = (depth.min(axis=2) > _NEAR) & (boxes[..., 2:] - boxes[..., :2] >= 1).all(axis=-1)
    boxes = np.where(shown[..., None], boxes, np.nan)

    x = boxes[..., 0, None] + (boxes[..., 2] - boxes[..., 0])[..., None] * _SAMPLES
    y = boxes[..., 1, None] + (boxes[..., 3] - boxes[..., 1])[..., None] * _SAMPLES
    margin = 0.1 * (full[..., 2:] - full[..., :2])
    low, high = full[..., :2] + margin, full[..., 2:] - margin
    middle = depth.mean(axis=2)
    nearer = (middle[:, None] < middle[:, :, None]) & shown[:, None]
    in_x = (x[:, :, None] > low[:, None, :, None, 0]) & (x[:, :, None] < high[:, None, :, None, 0])
    in_y = (y[:, :, None] > low[:, None, :, None, 1]) & (y[:, :, None] < high[:, None, :, None, 1])
    hidden = (in_x[..., None, :] & in_y[..., :, None] & nearer[..., None, None]).any(axis=2)
    visible = np.where(shown, 1 - hidden.mean(axis=(2, 3)), 0)
    return np.where((visible > 0)[..., None], boxes, np.nan).astype(np.float32), visible.astype(np.float32)
