"""A clip as the questions see it: entities in the world, with an ensemble of what the cues' noise allows.

Design choices:
- the camera is an entity like the tracks, so that it can be a viewer or a target by the same code;
- member 0 is the cues as they are, the others are perturbed by the cues' own uncertainty: the backend's
  statement or the jitter seen in the track, whichever is larger, times a margin. How the noise came about is not
  known here: a half is independent from frame to frame, a half moves slowly with the track;
- all members are smoothed alike: [1, 2, 1]/4 on positions, a mean of three frames on axes;
- lengths are in the scene's median depths, so that every floor is a plain number and single precision is enough.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from dsr.cues.schema import ClipCues
from dsr.geometry.frames import apply, camera_viewpoint_axes, compose, orthonormal_axes, rotations_from_vectors
from dsr.geometry.signals import fill_single_gaps, jitter, smooth

if TYPE_CHECKING:
    from dsr.params import Ensemble

CAMERA, AGENT, OBJECT = 0, 1, 2
KINDS = ("camera", "agent", "object")


@dataclass(frozen=True, eq=False)
class Scene:
    """Entities of one clip or of several, clip by clip; see the module for the letters.

    Questions of many clips are found at once, because a NumPy call on one clip's few entities is mostly overhead.
    """

    labels: list[str]
    """[E] "camera", then the tracks' labels, for each clip."""
    kinds: np.ndarray
    """[E] int, CAMERA, AGENT or OBJECT."""
    clip: np.ndarray
    """[E] int, ascending: place of the entity's clip among those that the scene was built of."""
    first: np.ndarray
    """[E] int, the entity that is the camera of its clip."""
    timestamps: np.ndarray
    """[E, T] seconds."""
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


def build_scene(cues: ClipCues, ensemble: "Ensemble", rng: np.random.Generator) -> Scene | None:
    """The scene of a clip, or None where no track is ever seen in front of the camera."""
    return build_scenes([cues], ensemble, rng)


def build_scenes(clips: Sequence[ClipCues], ensemble: "Ensemble", rng: np.random.Generator) -> Scene | None:
    """The scene of clips with the same number of frames.

    Clips where no track is ever seen in front of the camera have no entities; None where that is so for all.
    """
    scales = [_median_depth(cues) for cues in clips]
    kept = [i for i, scale in enumerate(scales) if scale > 0]
    if not kept:
        return None
    members = ensemble.members + 1
    tracks = _Tracks.of([clips[i] for i in kept], np.array([scales[i] for i in kept]))
    agents = np.flatnonzero(tracks.is_agent)
    camera_axes, camera_positions = _camera_members(tracks, ensemble, members, rng)
    centers = _center_members(tracks, ensemble, members, rng)
    axes = _orientation_members(tracks, agents, ensemble, members, rng)

    # World from camera for every member: [n, T, 3, 3, S] applied to [n, T, 3, S] and to the columns of [n, T, 3, 3, S].
    world = apply(camera_axes[tracks.clip], centers) + camera_positions[tracks.clip]
    world_axes = compose(camera_axes[tracks.clip[agents]], axes)
    viewpoint = np.moveaxis(camera_viewpoint_axes(np.moveaxis(camera_axes, -1, 2)), 2, -1)

    # The camera of each clip goes before its tracks.
    clip = np.concatenate([np.arange(len(kept)), tracks.clip])
    order = np.argsort(clip, kind="stable")
    positions = np.concatenate([camera_positions, world])[order]
    positions = smooth(fill_single_gaps(positions, axis=1), (0.25, 0.5, 0.25), axis=1)
    facing = np.concatenate([viewpoint, world_axes])
    facing = orthonormal_axes(smooth(fill_single_gaps(facing, axis=1), (1 / 3, 1 / 3, 1 / 3), axis=1))
    all_axes = np.full((len(clip), *facing.shape[1:]), np.nan, np.float32)
    all_axes[np.argsort(order)[np.concatenate([np.arange(len(kept)), len(kept) + agents])]] = facing
    boxes = np.concatenate([np.full((len(kept), *tracks.boxes.shape[1:]), np.nan), tracks.boxes])[order]
    kinds = np.concatenate([np.full(len(kept), CAMERA), np.where(tracks.is_agent, AGENT, OBJECT)])[order]
    return Scene(
        labels=[label for i in kept for label in ("camera", *clips[i].labels.tolist())],
        kinds=kinds,
        clip=np.array(kept)[clip[order]],
        first=np.flatnonzero(kinds == CAMERA)[clip[order]],
        timestamps=tracks.timestamps[clip[order]],
        positions=positions,
        axes=all_axes,
        boxes=boxes,
        located=np.isfinite(positions[..., 0, 0]),
        oriented=np.isfinite(all_axes[..., 0, 0, 0]),
    )


def _median_depth(cues: ClipCues) -> float:
    """The clip's unit of length; 0 where nothing is seen in front of the camera."""
    depth = cues.centers[..., 2]
    ahead = depth[depth > 0]
    return float(np.median(ahead.astype(np.float64))) if len(ahead) else 0.0


@dataclass(frozen=True, eq=False)
class _Tracks:
    """Cues of C clips, their n tracks one after another; lengths in each clip's median depth."""

    clip: np.ndarray
    """[n] int."""
    timestamps: np.ndarray
    """[C, T]."""
    camera_rotations: np.ndarray
    """[C, T, 3, 3] world from camera."""
    camera_positions: np.ndarray
    """[C, T, 3] from the first one."""
    centers: np.ndarray
    """[n, T, 3] camera frame."""
    uncertainty: np.ndarray
    """[n, T] relative to depth."""
    orientations: np.ndarray
    """[n, T, 3, 3] camera from agent."""
    is_agent: np.ndarray
    """[n] bool."""
    boxes: np.ndarray
    """[n, T, 4] as shares of the image."""

    @classmethod
    def of(cls, clips: Sequence[ClipCues], scales: np.ndarray) -> "_Tracks":
        counts = [cues.num_tracks for cues in clips]
        poses = np.stack([cues.camera_poses for cues in clips])
        sizes = np.array([[cues.meta["width"], cues.meta["height"]] * 2 for cues in clips], np.float64)

        def of_tracks(name: str) -> np.ndarray:
            return np.concatenate([getattr(cues, name) for cues in clips])

        clip = np.repeat(np.arange(len(clips)), counts)
        return cls(
            clip=clip,
            timestamps=np.stack([cues.timestamps for cues in clips]),
            camera_rotations=poses[..., :3, :3],
            camera_positions=(poses[..., :3, 3] - poses[:, :1, :3, 3]) / scales[:, None, None],
            centers=of_tracks("centers") / scales[clip, None, None],
            uncertainty=of_tracks("center_uncertainty").astype(np.float64),
            orientations=of_tracks("orientations"),
            is_agent=of_tracks("is_agent"),
            boxes=of_tracks("boxes") / sizes[clip, None],
        )


def _camera_members(
    tracks: _Tracks, ensemble: "Ensemble", members: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """World-from-camera rotations [C, T, 3, 3, S] and positions [C, T, 3, S]."""
    deviation = np.float32(ensemble.margin * ensemble.camera)
    shape = tracks.camera_positions.shape
    turns = rotations_from_vectors(deviation * _noise(shape, members, rng), axis=-2)
    rotations = compose(tracks.camera_rotations[..., None].astype(np.float32), turns)
    positions = tracks.camera_positions[..., None].astype(np.float32)
    return rotations, positions + deviation * _noise(shape, members, rng)


def _center_members(tracks: _Tracks, ensemble: "Ensemble", members: int, rng: np.random.Generator) -> np.ndarray:
    """Perturbed centres in the camera frame, [n, T, 3, S]: mostly along the viewing ray, a little across it."""
    n, t = tracks.uncertainty.shape
    depth = tracks.centers[..., 2]
    with np.errstate(invalid="ignore", divide="ignore"):
        seen = jitter(np.log(depth))
    sigma = ensemble.margin * np.fmax(tracks.uncertainty, np.minimum(seen, ensemble.max_jitter)[:, None])
    mixed = _noise((n, t, 1), members, rng) + _slow_noise((n, t, 1), members, rng)
    along = 1 + (np.sqrt(0.5) * sigma)[..., None, None].astype(np.float32) * mixed
    across = (ensemble.across * sigma * depth)[..., None, None].astype(np.float32) * _noise((n, t, 3), members, rng)
    return tracks.centers[..., None].astype(np.float32) * along + across


def _orientation_members(
    tracks: _Tracks, agents: np.ndarray, ensemble: "Ensemble", members: int, rng: np.random.Generator
) -> np.ndarray:
    """Perturbed camera-from-agent rotations of the agents among the tracks, [agents, T, 3, 3, S]."""
    # The forward axis jitters about the two others; as much again moves slowly and is not seen as jitter.
    each = jitter(np.moveaxis(tracks.orientations[agents, ..., 0], 1, 2).astype(np.float64))
    seen = np.sqrt((each**2).sum(axis=1))
    angle = np.fmax(np.deg2rad(ensemble.angle), np.minimum(seen, np.deg2rad(ensemble.max_angle)))
    shape = (len(agents), tracks.uncertainty.shape[1], 3)
    mixed = _noise(shape, members, rng) + _slow_noise(shape, members, rng)
    deviation = (ensemble.margin * np.sqrt(0.5) * angle)[:, None, None, None].astype(np.float32)
    turns = rotations_from_vectors(deviation * mixed, axis=-2)
    return compose(tracks.orientations[agents, ..., None], turns)


@cache
def _noise_bank() -> np.ndarray:
    """Standard normal numbers shared by all clips; a clip reads stretches of it from drawn places."""
    return np.random.default_rng(20251220557).standard_normal(1 << 20, np.float32)


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
    phase = rng.uniform(0, 2 * np.pi, (n, 1, c, members)).astype(np.float32)
    a_frame = 2 * np.pi / t * rng.uniform(0.2, 1.5, (n, 1, c, members)).astype(np.float32)
    noise = np.float32(np.sqrt(2)) * np.cos(a_frame * np.arange(t, dtype=np.float32)[:, None, None] + phase)
    noise[..., 0] = 0
    return noise
