"""Smooth controllers: paths of bodies over the frames, drawn many at a time so that one that fits can be chosen.

Letters: P proposals, F frames. A path is a position on the ground plane, a height and a yaw.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np

from dsr.simulator.bodies import Kind

ARENA = 3.8
"""Radius in metres of the disc in which bodies mostly stay."""
KNOT_SECONDS = 0.85
"""Time between two targets of a controller's speed and turn rate."""
GRAVITY = 9.81
_MOVING = 0.05
"""Metres a second; something slower keeps the heading that it had."""


@dataclass(frozen=True, eq=False)
class Paths:
    """Proposed paths of one body."""

    place: np.ndarray
    """[P, F, 3] the middle of the body's underside, metres."""
    yaw: np.ndarray
    """[P, F] radians, counter-clockwise from world x."""


def propose(
    motion: str,
    kind: Kind,
    times: np.ndarray,
    count: int,
    rng: np.random.Generator,
    leader: np.ndarray | None,
    reach: float = 0.9 * ARENA,
) -> Paths:
    """Draw paths of a motion.

    Args:
        times: [F] seconds.
        leader: [F, 3] the path that `chase` follows.
        reach: radius in metres of the disc in which a path begins.
    """
    start = _in_disc(rng, count, reach)
    towards = np.arctan2(-start[:, 1], -start[:, 0]) + rng.normal(0, 0.7, count)
    if motion == "chase" and leader is not None:
        return _chase(leader, times, count, rng)
    speed, turn = _steering(motion, kind.speed, times, count, rng)
    step = np.diff(times, prepend=times[0])
    heading = towards[:, None] + np.cumsum(turn * step, axis=1)
    travelled = np.stack([np.cos(heading), np.sin(heading)], axis=-1) * (speed * step)[..., None]
    ground = start[:, None] + np.cumsum(travelled, axis=1)
    height = np.zeros(heading.shape)
    if motion == "bounce":
        height = _bounces(times, rng.uniform(0.8, 1.8, (count, 1)), rng.uniform(0, 1, (count, 1)))
    elif motion == "float":
        wave = rng.uniform(0.5, 1.3, (count, 1)) * times + rng.uniform(0, 2 * np.pi, (count, 1))
        height = 1.5 + rng.uniform(0.3, 1.1, (count, 1)) * np.sin(wave)
    place = np.concatenate([ground, height[..., None]], axis=-1)
    # What slides or floats keeps its own side to the front; a facing agent drives where it looks.
    yaw = heading if kind.is_agent else rng.uniform(-np.pi, np.pi, (count, 1)) + np.zeros(heading.shape)
    return Paths(place, yaw)


def _steering(
    motion: str, speeds: tuple[float, float], times: np.ndarray, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Speed, metres a second, and turn rate, radians a second, [P, F] each."""
    slow, fast = speeds
    knots = count, _knots(times)
    smooth = partial(_profile, rng, times)
    still = np.zeros((count, len(times)))
    match motion:
        case "wander" | "chase":
            speed = smooth(rng.choice([0.0, slow, fast], knots, p=[0.25, 0.3, 0.45]))
            return speed, smooth(rng.choice([0.0, 1.0, -1.0], knots, p=[0.4, 0.3, 0.3]) * 1.4)
        case "slide":
            speed = smooth(rng.choice([0.0, slow, fast], knots, p=[0.35, 0.25, 0.4]))
            return speed, smooth(rng.normal(0, 0.5, knots))
        case "cross":
            return smooth(rng.uniform(slow, fast, knots)), still + rng.normal(0, 0.1, (count, 1))
        case "circle":
            speed = smooth(rng.uniform(0.6 * fast, fast, knots))
            return speed, speed / rng.uniform(1.0, 2.4, (count, 1)) * rng.choice([-1.0, 1.0], (count, 1))
        case "roll" | "bounce":
            return rng.uniform(slow, fast, (count, 1)) * np.exp(-rng.uniform(0, 0.45, (count, 1)) * times), still
        case "float":
            return smooth(rng.uniform(0, fast, knots)), smooth(rng.normal(0, 0.8, knots))
        case "stand":
            return still, smooth(rng.choice([0.0, 1.2, -1.2], knots, p=[0.5, 0.25, 0.25]))
    return still, still


def _chase(leader: np.ndarray, times: np.ndarray, count: int, rng: np.random.Generator) -> Paths:
    """Follow a leader's path some metres behind it, closing up and falling back; where it stops, stop behind it."""
    velocity = np.gradient(leader[:, :2], times, axis=0)
    speed = np.linalg.norm(velocity, axis=-1)
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(leader[:, :2], axis=0), axis=-1))])
    heading = _steady_heading(velocity[None])[0]
    # A leader that stands at first has no heading of its own until it moves.
    first = int(np.argmax(speed > _MOVING))
    heading[:first] = heading[first]
    gap = _profile(rng, times, rng.uniform(1.5, 2.6, (count, 1)) + rng.uniform(-0.5, 0.5, (count, _knots(times))))
    # Nobody drives backwards to keep a distance.
    at = np.maximum.accumulate(along - gap, axis=1)
    yaw = np.interp(at, along, heading)
    place = np.stack([np.interp(at, along, leader[:, axis]) for axis in range(2)], axis=-1)
    # Before its first moment the leader's path goes on backwards, so that the follower is already under way.
    ahead = np.stack([np.cos(yaw), np.sin(yaw)], axis=-1)
    place += np.minimum(at, 0)[..., None] * ahead
    side = rng.uniform(-0.4, 0.4, (count, 1, 1)) * np.stack([-ahead[..., 1], ahead[..., 0]], axis=-1)
    return Paths(np.concatenate([place + side, np.zeros((*at.shape, 1))], axis=-1), yaw)


def _steady_heading(velocity: np.ndarray) -> np.ndarray:
    """Heading [P, F] of velocities [P, F, 2]; while something hardly moves it keeps the heading it had."""
    moving = np.linalg.norm(velocity, axis=-1) > _MOVING
    moving[:, 0] = True
    last = np.maximum.accumulate(np.where(moving, np.arange(moving.shape[1]), 0), axis=1)
    heading = np.arctan2(velocity[..., 1], velocity[..., 0])
    return np.unwrap(np.take_along_axis(heading, last, axis=1), axis=1)


def _bounces(times: np.ndarray, height: np.ndarray, phase: np.ndarray) -> np.ndarray:
    """Height [P, F] of elastic bounces to `height` [P, 1], begun at a phase of their period."""
    period = 2 * np.sqrt(2 * height / GRAVITY)
    since = np.mod(times / period + phase, 1.0) * period
    return 0.5 * GRAVITY * since * (period - since)


def _knots(times: np.ndarray) -> int:
    return max(2, int(np.ceil((times[-1] - times[0]) / KNOT_SECONDS)) + 1)


def _profile(rng: np.random.Generator, times: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Pass smoothly through targets [P, knots] that begin at a drawn moment: [P, F]."""
    at = (times - times[0]) / KNOT_SECONDS + rng.uniform(0, 1, (len(targets), 1)) * 0.5
    index = np.minimum(at.astype(int), targets.shape[1] - 2)
    share = np.clip(at - index, 0, 1)
    # The smoothstep's quick middle makes clear starts and stops, without a jump in speed.
    share = np.clip(2 * share - 0.5, 0, 1)
    share = share * share * (3 - 2 * share)
    before = np.take_along_axis(targets, index, axis=1)
    return before + share * (np.take_along_axis(targets, index + 1, axis=1) - before)


def _in_disc(rng: np.random.Generator, count: int, radius: float) -> np.ndarray:
    """[P, 2] points spread evenly over a disc."""
    distance = radius * np.sqrt(rng.uniform(0, 1, count))
    angle = rng.uniform(0, 2 * np.pi, count)
    return distance[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
