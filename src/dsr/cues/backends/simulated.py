"""Cues of simulated clips: the simulator's exact truth, seen through an imperfect perception.

What the noise is like (every part is seeded by clip, and exactly nothing at 0):

- Depth. A reconstruction's errors are mostly shared: a clip's depth disagrees with its camera path by one factor,
  frames agree with each other up to a slow drift, and a track's depth is biased (its visible surface is not its
  centre) and jitters. Log-normal factors along the viewing ray, so directions stay exact; their variances are
  the shares DEPTH_SHARES of `noise.depth` squared and add up to it. The track's parts grow as less of a body is
  seen. The point map carries the same factors (a body's points and its centre agree) and a fine grain.
- Camera. Slow drift and jitter in equal parts, of its position (each axis, relative to the scene's median depth)
  and its rotation (each component of a rotation vector).
- Orientation. A random rotation, half of its variance a bias that a track keeps; `noise.angle` is the deviation
  about each of the agent's axes.
- Detections. Misses come in runs (a detector that misses a body will likely miss it in the next frame). Box edges
  jitter by `noise.depth` of the box's size, about a pixel, and the centre moves with its box.

Visible is a body of which at least VISIBLE_FRACTION of the pixels that it would cover unoccluded is seen.
"""

import math
import zlib
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from dsr.cues import backends
from dsr.cues.backends import ClipFailure, clip_times, cue_frames
from dsr.cues.clips import Clip
from dsr.cues.point_maps import back_project, cast_rays, pixel_rays, sampled_pixels
from dsr.cues.schema import ClipCues, encode_masks, nan_where_unknown, no_masks
from dsr.files import sha256_file
from dsr.geometry.frames import rotations_from_vectors
from dsr.params import CueNoise, Cues
from dsr.simulator.truth import Truth, read_truth

VISIBLE_FRACTION = 0.1
FAR = 60.0
"""Metres; trajectory-only worlds have no ground beyond it, as rendered ones."""
DEPTH_SHARES = {"clip": 0.2, "frame": 0.2, "track": 0.2, "jitter": 0.4}
"""Shares of the depth noise's variance."""
GRAIN = 0.25
"""Deviation of a point's own depth noise, in `noise.depth`."""
DRIFT = 0.95
"""Correlation of what drifts between neighbouring cue frames."""
RUNS = 0.7
"""Correlation of missed detections between neighbouring cue frames: at this value a miss lasts about two frames."""


class Backend(backends.Backend):
    """Reads `Clip.truth`."""

    def __init__(self, params: Cues) -> None:
        self.num_frames = params.num_frames
        self.point_map_size = params.point_map_size
        self.noise = params.simulated.noise
        self.seed = params.simulated.seed

    def identity(self, clip: Clip) -> dict[str, Any]:
        if clip.truth is None:
            raise ClipFailure("no truth file: the `simulated` backend reads clips of the simulate stage only")
        if not clip.truth.is_file():
            raise ClipFailure(f"{clip.truth}: no such truth file")
        return {
            "params": {
                "num_frames": self.num_frames,
                "point_map_size": list(self.point_map_size),
                "seed": self.seed,
                "noise": asdict(self.noise),
            },
            "files": {"truth": sha256_file(clip.truth)},
        }

    def extract(self, clip: Clip) -> ClipCues:
        if clip.truth is None:
            raise ClipFailure("no truth file")
        truth = read_truth(clip.truth)
        if truth.rendered and (truth.depth is None or truth.instance is None):
            raise ClipFailure(f"{clip.truth}: of a rendered clip, but without depth or instance")
        frames = cue_frames(truth.timestamps, clip, self.num_frames)
        rng = np.random.default_rng([self.seed, zlib.crc32(clip.clip_id.encode())])
        return cues_from_truth(truth, frames, self.point_map_size, self.noise, rng)


@dataclass(frozen=True)
class _Errors:
    """Errors of a simulated perception; T frames, B bodies. All zero (nothing missed) without noise."""

    frame_depth: np.ndarray
    """[T] logarithm of the factor on everything's depth."""
    track_depth: np.ndarray
    """[B, T] the same, of a body besides."""
    grain: np.ndarray
    """[T, h, w] the same, of a point besides."""
    camera_shift: np.ndarray
    """[T, 3] relative to the scene's median depth."""
    camera_turn: np.ndarray
    """[T, 3] rotation vector, radians."""
    agent_turn: np.ndarray
    """[B, T, 3] rotation vector, radians."""
    box: np.ndarray
    """[B, T, 4] shift of the edges, in the box's width and height."""
    missed: np.ndarray
    """[B, T] bool."""


def cues_from_truth(
    truth: Truth,
    frames: np.ndarray,
    point_map_size: tuple[int, int],
    noise: CueNoise,
    rng: np.random.Generator,
) -> ClipCues:
    """Cues (without meta) of the frames [T] int64 of a truth; bodies that are never seen are left out."""
    camera_poses = truth.camera_poses[frames]
    seen = truth.visible_fraction[frames].T
    errors = _draw(noise, rng, seen, point_map_size)

    depth, body, rays = _surfaces(truth, frames, point_map_size)
    point_errors = errors.frame_depth[:, None, None] + errors.grain
    point_errors = point_errors + _of_body(errors.track_depth, body)
    valid = np.isfinite(depth)
    scene_depth = float(np.median(depth[valid])) if valid.any() else 1.0

    boxes = truth.boxes[frames].swapaxes(0, 1).astype(np.float64)
    shown = (seen >= VISIBLE_FRACTION) & np.isfinite(boxes).all(axis=-1)
    visible = shown & ~errors.missed
    kept = visible.any(axis=1)
    visible = visible[kept]

    body_poses = np.linalg.inv(camera_poses)[None] @ truth.body_poses[frames].swapaxes(0, 1)[kept]
    noisy_boxes, shift = _jitter_boxes(boxes[kept], errors.box[kept], truth.size)
    centers = body_poses[..., :3, 3] * np.exp(errors.frame_depth + errors.track_depth[kept])[..., None]
    focal = truth.intrinsics[[0, 1], [0, 1]]
    centers[..., :2] += np.where(visible[..., None], shift, 0) / focal * centers[..., 2:]

    is_agent = truth.is_agent[kept]
    oriented = visible & is_agent[:, None]
    axes = body_poses[..., :3, :3] @ rotations_from_vectors(errors.agent_turn[kept])
    masks = _masks(truth, frames, kept, visible)
    return ClipCues(
        timestamps=clip_times(truth.timestamps, frames),
        frame_index=frames,
        camera_poses=_perturbed_poses(camera_poses, errors, scene_depth),
        intrinsics=np.repeat(truth.intrinsics[None], len(frames), axis=0),
        point_map=back_project(depth * np.exp(point_errors), rays),
        confidence=valid.astype(np.float32),
        labels=truth.labels[kept],
        is_agent=is_agent,
        boxes=nan_where_unknown(visible, noisy_boxes),
        visible=visible,
        centers=nan_where_unknown(visible, centers),
        center_uncertainty=nan_where_unknown(visible, _depth_deviation(noise, seen[kept])),
        orientations=nan_where_unknown(oriented, axes),
        orientation_confidence=np.where(oriented, _within_30_degrees(noise.angle), 0).astype(np.float32),
        mask_rle=masks[0],
        mask_offsets=masks[1],
    )


def _draw(noise: CueNoise, rng: np.random.Generator, seen: np.ndarray, grid: tuple[int, int]) -> _Errors:
    """Draw a clip's errors. Every normal is drawn whatever the noise, so one level leaves the others' draws.

    Args:
        seen: [B, T] visible fraction.
        grid: height and width of the point map.
    """
    b, t = seen.shape
    share = {name: noise.depth * math.sqrt(value) for name, value in DEPTH_SHARES.items()}
    clip, frame = rng.standard_normal(), _drifting(rng, (), t, DRIFT)
    track, jitter = rng.standard_normal((b, 1)), rng.standard_normal((b, t))
    grain = rng.standard_normal((t, *grid))
    camera = _drifting(rng, (2, 3), t, DRIFT) + rng.standard_normal((2, 3, t))
    shift, turn = np.swapaxes(camera, 1, 2) * (noise.pose * math.sqrt(0.5))
    axes = (rng.standard_normal((b, 1, 3)) + rng.standard_normal((b, t, 3))) * math.sqrt(0.5)
    edges = rng.standard_normal((b, t, 4))
    detector = _drifting(rng, (b,), t, RUNS)
    return _Errors(
        frame_depth=share["clip"] * clip + share["frame"] * frame,
        track_depth=(share["track"] * track + share["jitter"] * jitter) * _occlusion_factor(seen),
        grain=GRAIN * noise.depth * grain,
        camera_shift=shift,
        camera_turn=turn,
        agent_turn=math.radians(noise.angle) * axes,
        box=noise.depth * edges,
        # The upper tail of a standard normal: exactly the share that is asked for, in runs.
        missed=detector > (NormalDist().inv_cdf(1 - noise.missed) if noise.missed else math.inf),
    )


def _drifting(rng: np.random.Generator, shape: tuple[int, ...], num_frames: int, correlation: float) -> np.ndarray:
    """[*shape, T] standard normal at every frame, correlated between neighbours (a stationary AR(1) process)."""
    series = rng.standard_normal((*shape, num_frames))
    fresh = math.sqrt(1 - correlation**2)
    for k in range(1, num_frames):
        series[..., k] = correlation * series[..., k - 1] + fresh * series[..., k]
    return series


def _occlusion_factor(seen: np.ndarray) -> np.ndarray:
    """Growth of a track's depth error as less of it is seen: fewer points, and less typical ones; at most 2."""
    return 1 / np.sqrt(np.clip(seen, 0.25, 1))


def _depth_deviation(noise: CueNoise, seen: np.ndarray) -> np.ndarray:
    """[B, T] relative standard deviation of a centre's depth, all parts together."""
    shared = DEPTH_SHARES["clip"] + DEPTH_SHARES["frame"]
    own = DEPTH_SHARES["track"] + DEPTH_SHARES["jitter"]
    return noise.depth * np.sqrt(shared + own * _occlusion_factor(seen) ** 2)


def _within_30_degrees(angle: float) -> float:
    """Share of headings that are within 30 degrees of the truth."""
    return math.erf(30 / (angle * math.sqrt(2))) if angle else 1.0


def _surfaces(truth: Truth, frames: np.ndarray, grid: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Reduced z-depth [T, h, w], body [T, h, w] (-1: none) and rays [h, w, 3] of what the camera sees."""
    size = (int(truth.size[0]), int(truth.size[1]))
    rows, columns = sampled_pixels(size, grid)
    rays = pixel_rays(truth.intrinsics, rows, columns)
    if truth.depth is not None and truth.instance is not None:
        at = np.ix_(frames, rows, columns)
        return truth.depth[at].astype(np.float64), truth.instance[at].astype(np.int64) - 1, rays
    x1, y1, x2, y2 = np.moveaxis(truth.boxes[frames], -1, 0)[..., None]
    # A pixel of margin: boxes may be rounded to whole pixels.
    in_columns = (columns + 0.5 >= x1 - 1) & (columns + 0.5 <= x2 + 1)
    in_rows = (rows + 0.5 >= y1 - 1) & (rows + 0.5 <= y2 + 1)
    reached = in_rows[..., :, None] & in_columns[..., None, :]
    poses = truth.camera_poses[frames], truth.body_poses[frames]
    return *cast_rays(rays, *poses, truth.half_extents, reached, FAR), rays


def _of_body(errors: np.ndarray, body: np.ndarray) -> np.ndarray:
    """[T, h, w]: the error [B, T] of the body seen there, 0 where there is none."""
    nobody = np.zeros((1, errors.shape[1]))
    return np.concatenate([errors, nobody])[body, np.arange(errors.shape[1])[:, None, None]]


def _perturbed_poses(poses: np.ndarray, errors: _Errors, scene_depth: float) -> np.ndarray:
    perturbed = poses.copy()
    perturbed[:, :3, :3] = poses[:, :3, :3] @ rotations_from_vectors(errors.camera_turn)
    perturbed[:, :3, 3] += errors.camera_shift * scene_depth
    return perturbed


def _jitter_boxes(boxes: np.ndarray, errors: np.ndarray, size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Boxes [B, T, 4] with shifted edges, inside the image, and the shift [B, T, 2] of their middle in pixels.

    A box that would end up thinner than a pixel stays as it was.
    """
    height, width = size
    extent = np.tile(boxes[..., 2:] - boxes[..., :2], 2)
    moved = np.clip(boxes + errors * extent, 0, [width, height, width, height])
    thin = (moved[..., 2:] - moved[..., :2] < 1).any(axis=-1, keepdims=True)
    moved = np.where(thin, boxes, moved)
    return moved, 0.5 * ((moved - boxes)[..., :2] + (moved - boxes)[..., 2:])


def _masks(truth: Truth, frames: np.ndarray, kept: np.ndarray, visible: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if truth.instance is None:
        return no_masks(*visible.shape)
    bodies = np.flatnonzero(kept) + 1
    return encode_masks(truth.instance[frames][None] == bodies[:, None, None, None], visible)
