"""Signals and states of drawn questions, each worked out by itself: what decides what an answer is.

Letters: K questions of one form, M key moments, A axes of a state, S of the scene's ensemble members. What survey.py
finds, by working out all moments at once on a few members, is what this finds one question at a time.
"""

from dataclasses import dataclass
from functools import cached_property
from math import log1p

import numpy as np

from dsr.geometry.frames import express
from dsr.geometry.signals import length
from dsr.params import QA
from dsr.questions.engine.answers import change_states, comparable, comparison_states, direction_states
from dsr.questions.engine.free_form import Moments, decide
from dsr.questions.engine.scene import AGENT, CAMERA, Scene
from dsr.questions.language.families import Family
from dsr.questions.language.templates import Form

_NOTHING = np.zeros(0, np.float32)


@dataclass(frozen=True, eq=False)
class Drawn:
    """Questions of one form; entities are those of the scene, -1 where there is none."""

    viewer: np.ndarray
    """[K] int."""
    targets: np.ndarray
    """[K, MAX_TARGETS] int."""
    frames: np.ndarray
    """[K, M] int."""

    def __len__(self) -> int:
        return len(self.viewer)

    def take(self, index: np.ndarray) -> "Drawn":
        return Drawn(self.viewer[index], self.targets[index], self.frames[index])


class Members:
    """Some of a scene's ensemble members, laid out for gathering.

    What `at` and `axes_at` return lies in memory component by component and moment by moment, so that the
    arithmetic on one of them runs over one stretch of memory.
    """

    def __init__(self, scene: Scene, members: slice) -> None:
        self._scene, self._members = scene, members
        self._positions = _by_component(scene.positions[..., members])
        self._axes = _by_component(scene.axes[..., members])
        self._num_frames = scene.positions.shape[1]

    @cached_property
    def up(self) -> np.ndarray:
        """[E, 3, S] float32, mean up of the agents of an entity's clip; NaN without any."""
        scene = self._scene
        own = np.where((scene.kinds == AGENT)[:, None] & scene.oriented, np.float32(1), np.float32(np.nan))
        own = np.nansum(scene.axes[..., :, 2, self._members] * own[..., None, None], axis=1)
        up = np.add.reduceat(own, np.flatnonzero(scene.kinds == CAMERA))
        with np.errstate(invalid="ignore"):
            return (up / length(up)[:, None])[np.searchsorted(scene.first[scene.kinds == CAMERA], scene.first)]

    def at(self, entities: np.ndarray, frames: np.ndarray) -> np.ndarray:
        """[K, M, 3, S] float32 positions of entities [K] at frames [K, M]."""
        return self._gather(self._positions, entities, frames)

    def halfway(self, entities: np.ndarray, frames: np.ndarray) -> np.ndarray:
        """[K, M - 1, 3, S] float32 positions halfway between frames [K, M]; between two frames, their mean."""
        twice = frames[:, :-1] + frames[:, 1:]
        return (self.at(entities, twice // 2) + self.at(entities, (twice + 1) // 2)) / 2

    def axes_at(self, entities: np.ndarray, frames: np.ndarray) -> np.ndarray:
        """[K, M, 3, 3, S] float32 axes, likewise."""
        cells = self._gather(self._axes, entities, frames)
        return cells.reshape(*cells.shape[:2], 3, 3, cells.shape[-1])

    def direction_at(self, axis: int, entities: np.ndarray, frames: np.ndarray) -> np.ndarray:
        """[K, M, 3, S] float32 forward (0), left (1) or up (2) of entities [K] at frames [K, M], in the world."""
        return self._gather(self._axes[axis::3], entities, frames)

    def _gather(self, components: list[np.ndarray], entities: np.ndarray, frames: np.ndarray) -> np.ndarray:
        """[K, M, components, S]."""
        place = entities * self._num_frames + frames.T
        gathered = np.empty((len(components), *place.shape, components[0].shape[1]), np.float32)
        for component, out in zip(components, gathered, strict=True):
            # Far faster than indexing; "clip" spares a copy, all places are valid.
            np.take(component, place, axis=0, out=out, mode="clip")
        return gathered.transpose(2, 1, 0, 3)


def _by_component(values: np.ndarray) -> list[np.ndarray]:
    """[E, T, 3, S] or [E, T, 3, 3, S] as 3 or 9 arrays [E * T, S]."""
    flat = values.reshape(values.shape[0] * values.shape[1], -1, values.shape[-1])
    return list(np.ascontiguousarray(np.moveaxis(flat, 1, 0)))


def signal_states(
    scene: Scene, form: Form, drawn: Drawn, qa: QA, members: Members
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Signal of the first member [K, M, A] float32, states [K, M, A, S] int8, whether every state exists [K, S]."""
    if isinstance(form, Family):
        return _family_states(scene, form, drawn, qa, members)
    with np.errstate(invalid="ignore", divide="ignore"):
        if form.signal in ("spd", "spd_comp"):
            return _speed_states(scene, form, drawn, qa, members)
        if form.signal == "dis":
            distance = length(_reach(form, drawn, members))
            states, clear = change_states(distance, qa.ratio_tolerance)
            return distance[..., :1], states, clear & _throughout(distance >= qa.min_distance)
        axes = members.axes_at(drawn.viewer, _viewer_frames(form, drawn))
        match form.signal:
            case "ori":
                seen, floor = express(members.direction_at(0, drawn.targets[:, 0], drawn.frames), axes), 0.0
            case "dir":
                seen, floor = express(_reach(form, drawn, members), axes), qa.min_direction
            case _ if form.viewer == "moving":
                seen, floor = np.diff(express(_reach(form, drawn, members), axes), axis=1), qa.min_displacement
            case _:
                path = members.at(drawn.targets[:, 0], drawn.frames)
                seen, floor = express(np.diff(path, axis=1), axes), qa.min_displacement
        return seen[..., 0], direction_states(seen, qa.dead_zone), _throughout(length(seen) >= floor)


def _viewer_frames(form: Form, drawn: Drawn) -> np.ndarray:
    """[K, M], or [K, 1] for a fixed viewer: frames at which the viewer is looked at."""
    return drawn.frames[:, [form.stated]] if form.viewer == "fixed" else drawn.frames


def _reach(form: Form, drawn: Drawn, members: Members) -> np.ndarray:
    """[K, M, 3, S] from the viewer to the target, or from the first of two targets to the second, in the world."""
    if form.num_targets == 2:
        start = members.at(drawn.targets[:, 0], drawn.frames)
    else:
        start = members.at(drawn.viewer, _viewer_frames(form, drawn))
    return members.at(drawn.targets[:, form.num_targets - 1], drawn.frames) - start


def step_ways(form: Form, drawn: Drawn, members: Members) -> list[np.ndarray]:
    """For each target [K, M - 1, S] float32, how far it goes in a step; from the viewer's place, where it has one.

    The way is measured over the frame halfway: the mere displacement of what circles is far too short.
    """
    frames, targets = drawn.frames, drawn.targets.T[: form.num_targets]
    paths = [(members.at(target, frames), members.halfway(target, frames)) for target in targets]
    if form.viewer != "none":
        eyes, eyes_halfway = members.at(drawn.viewer, frames), members.halfway(drawn.viewer, frames)
        paths = [(path - eyes, middle - eyes_halfway) for path, middle in paths]
    return [length(middle - path[:, :-1]) + length(path[:, 1:] - middle) for path, middle in paths]


def _speed_states(
    scene: Scene, form: Form, drawn: Drawn, qa: QA, members: Members
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As `signal_states`, for the change of one speed or the comparison of two.

    A slow step's speed is set to the floor's: it can still be told from a fast one.
    """
    ways = step_ways(form, drawn, members)
    seconds = np.diff(scene.timestamps[drawn.targets[:, [0]], drawn.frames], axis=1)[..., None]
    speeds = [np.maximum(way, qa.min_displacement) / seconds for way in ways]
    slow = [way < qa.min_displacement for way in ways]
    if len(ways) == 1:
        states, clear = change_states(speeds[0], qa.speed_tolerance)
        slow = [slow[0][:, :-1], slow[0][:, 1:]]
    else:
        states = comparison_states(speeds[0], speeds[1], qa.speed_tolerance)
        clear = np.ones(slow[0][:, 0].shape, bool)
    known = _throughout(comparable(slow[0], slow[1], states[:, :, 0]))
    return np.stack([speed[..., 0] for speed in speeds], axis=-1), states, clear & known


def _throughout(holds: np.ndarray) -> np.ndarray:
    """[K, S]: true at every moment of [K, M, S]."""
    return np.logical_and.reduce(holds, axis=1)


def family_moments(scene: Scene, form: Family, drawn: Drawn, members: Members) -> Moments:
    """What a free-form family sees of its questions."""
    first, frames = drawn.targets[:, 0], drawn.frames
    targets = [members.at(target, frames) for target in drawn.targets.T[: form.num_targets]]
    return Moments(
        targets=targets,
        facing=members.direction_at(0, first, frames) if form.oriented_target else _NOTHING,
        viewer=members.at(drawn.viewer, frames) if form.viewer != "none" else np.full_like(targets[0], np.nan),
        axes=members.axes_at(drawn.viewer, frames) if form.needs_axes else _NOTHING,
        own_up=members.direction_at(2, first, frames[:, :1]) if form.oriented_target else _NOTHING,
        up=members.up[first, None],
        seconds=scene.timestamps[first[:, None], frames],
    )


def _family_states(
    scene: Scene, form: Family, drawn: Drawn, qa: QA, members: Members
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As `signal_states`: one state a question, which is its answer; the signal is the answer too."""
    codes = decide(form.signal, family_moments(scene, form, drawn, members), qa)
    return codes[:, None, :1].astype(np.float32), codes[:, None, None].astype(np.int8), codes >= 0


# --- Between the key moments ---

_LOOKS_PER_STEP = 4
"""Looks at the signal from one key moment to the next."""


def look_frames(frames: np.ndarray) -> np.ndarray:
    """[K, _LOOKS_PER_STEP * (M - 1) + 1] int, frames at which questions with key moments [K, M] are looked at.

    The key moments, which are equally far apart, are among them. Where they are close, a frame comes several times.
    """
    looks = np.arange(_LOOKS_PER_STEP * (frames.shape[1] - 1) + 1)
    step = frames[:, [1]] - frames[:, [0]]
    return frames[:, [0]] + (step * looks + _LOOKS_PER_STEP // 2) // _LOOKS_PER_STEP


def told_between(scene: Scene, form: Form, drawn: Drawn, states: np.ndarray, qa: QA, members: Members) -> np.ndarray:
    """[K] bool: between two key moments the cues show nothing that the answer does not tell.

    A direction there is that of the moment before or after. A distance stays between those of the two, but for the
    tolerance; so it does not come and go unseen.

    Args:
        states: [K, M, A] of the questions, at their key moments.
        members: the one to look at.
    """
    looks = Drawn(drawn.viewer, drawn.targets, look_frames(drawn.frames))
    signal, dense, _ = signal_states(scene, form, looks, qa, members)
    number = np.arange(looks.frames.shape[1])
    before, after = number // _LOOKS_PER_STEP, -(-number // _LOOKS_PER_STEP)
    if form.signal == "dis":
        log = np.log(signal[..., 0])
        key = log[:, ::_LOOKS_PER_STEP]
        limit = log1p(qa.ratio_tolerance)
        low, high = np.minimum(key[:, before], key[:, after]), np.maximum(key[:, before], key[:, after])
        return ((log > low - limit) & (log < high + limit)).all(axis=1)
    dense = dense[..., 0]
    as_before = (dense == states[:, before]).all(axis=2)
    return (as_before | (dense == states[:, after]).all(axis=2)).all(axis=1)
