"""A clip as the questions see it: entities in the world, with an ensemble of what the cues' noise allows.

Design choices:
- the camera is an entity like the tracks, so that it can be a viewer or a target by the same code;
- member 0 is the cues as they are, the others are perturbed by the cues' own uncertainty: the backend's
  statement or the jitter seen in the track, whichever is larger, times a margin. How the noise came about is not
  known here: a half is independent from frame to frame, a half moves slowly with the track;
- all members are smoothed alike: [1, 2, 1]/4 on positions, a mean of three frames on axes;
- lengths are in the scene's median depths, so that every floor is a plain number and single precision is enough.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

from dsr.cues.schema import ClipCues
from dsr.geometry.frames import camera_viewpoint_axes, orthonormal_axes, rotations_from_vectors
from dsr.geometry.signals import fill_single_gaps, jitter, smooth
from dsr.params import Ensemble

CAMERA, AGENT, OBJECT = 0, 1, 2
KINDS = ("camera", "agent", "object")


@dataclass(frozen=True, eq=False)
class Scene:
    """Entities of one clip; see the module for the letters."""

    labels: list[str]
    """[E] "camera", then the tracks' labels."""
    kinds: np.ndarray
    """[E] int, CAMERA, AGENT or OBJECT."""
    timestamps: np.ndarray
    """[T] seconds."""
    positions: np.ndarray
    """[E, T, 3, S] float32, smoothed, in median depths from where the camera was first; NaN where unknown."""
    axes: np.ndarray
    """[E, T, 3, 3, S] float32 world-from-viewpoint rotations, smoothed; NaN where unknown."""
    boxes: np.ndarray
    """[E, T, 4] xyxy as shares of the image's width and height; NaN where there is none."""
    located: np.ndarray
    """[E, T] bool: the position is known."""
    oriented: np.ndarray
    """[E, T] bool: the axes are known."""


def build_scene(cues: ClipCues, ensemble: Ensemble, rng: np.random.Generator) -> Scene | None:
    """The scene of a clip, or None where no track is ever seen in front of the camera."""
    depth = cues.centers[..., 2].astype(np.float64)
    if not (depth > 0).any():
        return None
    scale = np.median(depth[depth > 0])
    members = ensemble.members + 1
    camera_axes, camera_positions = _camera_members(cues, ensemble, scale, members, rng)
    centers = _center_members(cues, ensemble, members, rng)
    axes = _orientation_members(cues, ensemble, members, rng)

    # World from camera for every member: [T, 3, 3, S] applied to [N, T, 3, S] and to the columns of [N, T, 3, 3, S].
    world = (camera_axes[None] * centers[:, :, None]).sum(axis=3) + camera_positions[None]
    world_axes = (camera_axes[None, :, :, :, None] * axes[:, :, None]).sum(axis=3)
    viewpoint = camera_viewpoint_axes(np.moveaxis(camera_axes, -1, 0))
    positions = (np.concatenate([camera_positions[None], world]) - cues.camera_poses[0, :3, 3, None]) / scale
    all_axes = np.concatenate([np.moveaxis(viewpoint, 0, -1)[None], world_axes])

    positions = smooth(fill_single_gaps(positions, axis=1), (0.25, 0.5, 0.25), axis=1)
    all_axes = orthonormal_axes(smooth(fill_single_gaps(all_axes, axis=1), (1 / 3, 1 / 3, 1 / 3), axis=1))
    size = np.array([cues.meta["width"], cues.meta["height"]] * 2, dtype=np.float64)
    boxes = np.concatenate([np.full((1, cues.num_frames, 4), np.nan), cues.boxes / size])
    return Scene(
        labels=["camera", *cues.labels.tolist()],
        kinds=np.concatenate([[CAMERA], np.where(cues.is_agent, AGENT, OBJECT)]),
        timestamps=cues.timestamps,
        positions=positions.astype(np.float32),
        axes=all_axes.astype(np.float32),
        boxes=boxes,
        located=np.isfinite(positions[..., 0, 0]),
        oriented=np.isfinite(all_axes[..., 0, 0, 0]),
    )


def _camera_members(
    cues: ClipCues, ensemble: Ensemble, scale: float, members: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """World-from-camera rotations [T, 3, 3, S] and positions [T, 3, S]."""
    t = cues.num_frames
    rotation = cues.camera_poses[:, :3, :3]
    vectors = ensemble.margin * ensemble.camera * _noise((t, 3), members, rng)
    turned = rotation[..., None, :, :] @ rotations_from_vectors(np.moveaxis(vectors, -1, 1))
    shift = ensemble.margin * ensemble.camera * scale * _noise((t, 3), members, rng)
    return np.moveaxis(turned, 1, -1), cues.camera_poses[:, :3, 3, None] + shift


def _center_members(cues: ClipCues, ensemble: Ensemble, members: int, rng: np.random.Generator) -> np.ndarray:
    """Perturbed centres in the camera frame, [N, T, 3, S]: mostly along the viewing ray, a little across it."""
    n, t = cues.visible.shape
    centers = cues.centers.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        seen = jitter(np.log(centers[..., 2]))
    stated = cues.center_uncertainty.astype(np.float64)
    sigma = ensemble.margin * np.fmax(stated, np.minimum(seen, ensemble.max_jitter)[:, None])
    independent = _noise((n, t, 1), members, rng)
    slow = _slow_noise((n, t, 1), members, rng)
    along = 1 + sigma[..., None, None] * np.sqrt(0.5) * (independent + slow)
    across = ensemble.across * (sigma * centers[..., 2])[..., None, None] * _noise((n, t, 3), members, rng)
    return centers[..., None] * along + across


def _orientation_members(cues: ClipCues, ensemble: Ensemble, members: int, rng: np.random.Generator) -> np.ndarray:
    """Perturbed camera-from-agent rotations, [N, T, 3, 3, S]."""
    n, t = cues.visible.shape
    result = np.full((n, t, 3, 3, members), np.nan)
    agents = np.flatnonzero(cues.is_agent)
    angle = ensemble.margin * np.deg2rad(ensemble.angle)
    mixed = _noise((len(agents), t, 3), members, rng) + _slow_noise((len(agents), t, 3), members, rng)
    turns = rotations_from_vectors(np.moveaxis(angle * np.sqrt(0.5) * mixed, -1, 2))
    result[agents] = np.moveaxis(cues.orientations[agents].astype(np.float64)[:, :, None] @ turns, 2, -1)
    return result


@cache
def _noise_bank() -> np.ndarray:
    """Standard normal numbers shared by all clips; a clip reads stretches of it from drawn places."""
    return np.random.default_rng(20251220557).standard_normal(1 << 20)


def _noise(shape: tuple[int, ...], members: int, rng: np.random.Generator) -> np.ndarray:
    """[*shape, S] standard normal, 0 in member 0."""
    bank = _noise_bank()
    size = int(np.prod(shape)) * members
    start = int(rng.integers(len(bank) - size)) if size < len(bank) else 0
    noise = np.resize(bank[start : start + size], (*shape, members))
    noise[..., 0] = 0
    return noise


def _slow_noise(shape: tuple[int, int, int], members: int, rng: np.random.Generator) -> np.ndarray:
    """[n, T, c, S] of unit variance that turns slowly over the clip: a cosine of random phase and period."""
    n, t, c = shape
    phase = rng.uniform(0, 2 * np.pi, (n, 1, c, members))
    cycles = rng.uniform(0.2, 1.5, (n, 1, c, members))
    noise = np.sqrt(2.0) * np.cos(2 * np.pi * cycles * np.arange(t)[None, :, None, None] / t + phase)
    noise[..., 0] = 0
    return noise
