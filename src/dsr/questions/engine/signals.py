"""Signals of questions, each worked out by itself, their states, and the conditions of their answers.

Letters: K questions of one form, M key moments, A axes of a state, S of the scene's ensemble members. What survey.py
finds, by working out all moments at once on a few members, is what this finds one question at a time.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from math import exp
from typing import TYPE_CHECKING

import numpy as np

from dsr.geometry.frames import express
from dsr.geometry.signals import length
from dsr.questions.engine.conditions import Condition
from dsr.questions.engine.free_form import Moments, decide
from dsr.questions.engine.scene import AGENT, CAMERA, Scene
from dsr.questions.engine.states import (
    Floor,
    Signs,
    Steady,
    changes,
    comparison,
    floor_of,
    sides_of_axes,
    tolerance_of,
    way_to_compare,
)
from dsr.questions.language.families import Family
from dsr.questions.language.templates import Form

if TYPE_CHECKING:
    from dsr.params import QA

_NOTHING = np.zeros(0, np.float32)


@dataclass(frozen=True, eq=False)
class QuestionBatch:
    """Questions of one form; entities are those of the scene, -1 where there is none."""

    viewer: np.ndarray
    """[K] int."""
    targets: np.ndarray
    """[K, MAX_TARGETS] int."""
    frames: np.ndarray
    """[K, M] int."""

    def __len__(self) -> int:
        return len(self.viewer)

    def take(self, index: np.ndarray) -> "QuestionBatch":
        return QuestionBatch(self.viewer[index], self.targets[index], self.frames[index])


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


@dataclass(frozen=True, eq=False)
class Measured:
    """Signal of K questions of a template, its states, and what else must hold for an answer."""

    signal: np.ndarray
    """[K, P, A, S] float32 at the moments, or over the steps between them."""
    signs: Signs
    rules: Sequence[Floor | Steady]
    """A floor first."""
    seconds: np.ndarray
    """[M] key moments of the first question."""

    @property
    def states(self) -> np.ndarray:
        """[K, number of states, A, S] int8."""
        return self.signs.states

    @property
    def valid(self) -> np.ndarray:
        """[K, S] bool: every state exists."""
        return np.logical_and.reduce([rule.holds for rule in self.rules])

    def conditions(self) -> list[Condition]:
        """Conditions under which a version gives the first question the states of its first version."""
        return [condition for rule in (*self.rules, self.signs) for condition in rule.conditions()]


def signal_states(
    scene: Scene, form: Form, batch: QuestionBatch, qa: "QA", members: Members
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Signal of the first member [K, P, A] float32, states [K, M, A, S] int8, whether every state exists [K, S]."""
    if isinstance(form, Family):
        return _family_states(scene, form, batch, qa, members)
    with np.errstate(invalid="ignore", divide="ignore"):
        measured = measure(scene, form, batch, qa, members)
        return measured.signal[..., 0], measured.states, measured.valid


def states_of_signal(form: Form, signal: np.ndarray, qa: "QA") -> np.ndarray:
    """States [K, number of states, A] int8 that `measure` reads from a template's signals [K, P, A] float32."""
    values, tolerance = signal[..., None], tolerance_of(form.signal, qa)
    names = [""] * signal.shape[1]
    with np.errstate(invalid="ignore", divide="ignore"):
        match form.signal:
            case "dis" | "spd":
                signs = changes("", names, values[:, :, 0], *tolerance)[0]
            case "spd_comp":
                signs = comparison(names, values[:, :, 0], values[:, :, 1], *tolerance)
            case _:
                signs = sides_of_axes(names, values, length(values), *tolerance)
        return signs.states[..., 0]


def measure(scene: Scene, form: Form, batch: QuestionBatch, qa: "QA", members: Members) -> Measured:
    """Measure questions of a template."""
    first = scene.timestamps[batch.targets[:1, [0]], batch.frames[:1]].ravel()
    moments, steps = [f"{t:.1f} s" for t in first], [f"{a:.1f} to {b:.1f} s" for a, b in pairwise(first)]
    if form.signal in ("spd", "spd_comp"):
        return _speeds(scene, form, batch, steps, qa, members)
    least, key = floor_of(form.signal, qa)
    if form.signal == "dis":
        distance = length(_reach(form, batch, members))
        signs, steady = changes("distance", moments, distance, *tolerance_of(form.signal, qa))
        floor = Floor([f"distance at {t}" for t in moments], distance, least, key)
        return Measured(distance[:, :, None], signs, [floor, steady], first)
    axes, points = members.axes_at(batch.viewer, _viewer_frames(form, batch)), moments
    match form.signal:
        case "ori":
            seen = express(members.direction_at(0, batch.targets[:, 0], batch.frames), axes)
        case "dir":
            seen = express(_reach(form, batch, members), axes)
        case _ if form.viewer == "moving":
            seen, points = np.diff(express(_reach(form, batch, members), axes), axis=1), steps
        case _:
            path = members.at(batch.targets[:, 0], batch.frames)
            seen, points = express(np.diff(path, axis=1), axes), steps
    size = length(seen)
    sides = sides_of_axes(points, seen, size, *tolerance_of(form.signal, qa))
    return Measured(seen, sides, [Floor([f"length, {point}" for point in points], size, least, key)], first)


def _viewer_frames(form: Form, batch: QuestionBatch) -> np.ndarray:
    """[K, M], or [K, 1] for a fixed viewer: frames at which the viewer is looked at."""
    return batch.frames[:, [form.stated]] if form.viewer == "fixed" else batch.frames


def _reach(form: Form, batch: QuestionBatch, members: Members) -> np.ndarray:
    """[K, M, 3, S] from the viewer to the target, or from the first of two targets to the second, in the world."""
    if form.num_targets == 2:
        start = members.at(batch.targets[:, 0], batch.frames)
    else:
        start = members.at(batch.viewer, _viewer_frames(form, batch))
    return members.at(batch.targets[:, form.num_targets - 1], batch.frames) - start


def _step_ways(form: Form, batch: QuestionBatch, members: Members) -> list[np.ndarray]:
    """Ways of each target in a step, [K, M - 1, S] float32; from the viewer's place, where it has one.

    The way is measured over the frame halfway: the mere displacement of what circles is far too short.
    """
    frames, targets = batch.frames, batch.targets.T[: form.num_targets]
    paths = [(members.at(target, frames), members.halfway(target, frames)) for target in targets]
    if form.viewer != "none":
        eyes, eyes_halfway = members.at(batch.viewer, frames), members.halfway(batch.viewer, frames)
        paths = [(path - eyes, middle - eyes_halfway) for path, middle in paths]
    return [length(middle - path[:, :-1]) + length(path[:, 1:] - middle) for path, middle in paths]


def _speeds(scene: Scene, form: Form, batch: QuestionBatch, steps: list[str], qa: "QA", members: Members) -> Measured:
    """Measure the change of one speed, or the comparison of two.

    A slow step's speed is set to the floor's: it can still be told from a fast one.

    Args:
        steps: names of the first question's.
    """
    ways, seconds = _step_ways(form, batch, members), scene.timestamps[batch.targets[:, [0]], batch.frames]
    first, (least, least_key), tolerance = seconds[:1].ravel(), floor_of(form.signal, qa), tolerance_of(form.signal, qa)
    speeds = [np.maximum(way, least) / np.diff(seconds, axis=1)[..., None] for way in ways]
    rules: list[Floor | Steady] = []
    if len(ways) == 2:
        pair, where = ways, [f"ways, {step}" for step in steps]
        signs = comparison([f"ratio of the speeds, {step}" for step in steps], speeds[0], speeds[1], *tolerance)
    else:
        pair, where = [ways[0][:, :-1], ways[0][:, 1:]], [f"steps at {t:.1f} s" for t in first[1:-1]]
        middles = [f"{t:.1f} s" for t in (first[1:] + first[:-1]) / 2]
        signs, steady = changes("speed", middles, speeds[0], *tolerance)
        rules.append(steady)
    states = signs.states[:, :, 0]
    shown = zip(states[:1, :, 0].ravel(), where, strict=False)
    names = [f"{'longer' if state else 'shorter'} of the two {at}" for state, at in shown]
    floor = Floor(names, way_to_compare(pair[0], pair[1], states), least, least_key)
    return Measured(np.stack(speeds, axis=2), signs, [floor, *rules], first)


def family_moments(scene: Scene, form: Family, batch: QuestionBatch, members: Members) -> Moments:
    """Positions and axes of a free-form family's questions."""
    first, frames = batch.targets[:, 0], batch.frames
    targets = [members.at(target, frames) for target in batch.targets.T[: form.num_targets]]
    return Moments(
        targets=targets,
        facing=members.direction_at(0, first, frames) if form.oriented_target else _NOTHING,
        viewer=members.at(batch.viewer, frames) if form.viewer != "none" else np.full_like(targets[0], np.nan),
        axes=members.axes_at(batch.viewer, frames) if form.needs_axes else _NOTHING,
        own_up=members.direction_at(2, first, frames[:, :1]) if form.oriented_target else _NOTHING,
        up=members.up[first, None],
        seconds=scene.timestamps[first[:, None], frames],
    )


def _family_states(
    scene: Scene, form: Family, batch: QuestionBatch, qa: "QA", members: Members
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Answers in the shapes of `signal_states`: one state a question, and the signal, are its answer."""
    codes = decide(form.signal, family_moments(scene, form, batch, members), qa)
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


@dataclass(frozen=True, eq=False)
class Looks:
    """Signal between the key moments on one version of the cues, which may show nothing that the answer does not tell.

    A direction there is that of the moment before or after. A distance stays between those of the two, but for the
    tolerance; so it does not come and go unseen.
    """

    measured: Measured
    """At L looks."""
    states: np.ndarray
    """[K, M, A] at the key moments."""
    between: np.ndarray
    """[L] bool: a look of the first question at a frame of its own, which is none of a key moment."""

    @cached_property
    def _around(self) -> list[np.ndarray]:
        """[L] int, the key moment before, and after, each look; or that of the look."""
        looks = np.arange(self.measured.signal.shape[1])
        return [looks // _LOOKS_PER_STEP, -(-looks // _LOOKS_PER_STEP)]

    @cached_property
    def _beyond(self) -> np.ndarray:
        """[K, L] by how much the logarithm of a distance is above or below those at both moments around."""
        log = np.log(self.measured.signal[:, :, 0, 0])
        before, after = (log[:, _LOOKS_PER_STEP * moments] for moments in self._around)
        return np.maximum(log - np.maximum(before, after), np.minimum(before, after) - log)

    @property
    def holds(self) -> np.ndarray:
        """[K] bool."""
        signs = self.measured.signs
        if signs.ratios:
            return np.logical_and.reduce(self._beyond < signs.limit, axis=1)
        as_around = [(signs.states[..., 0] == self.states[:, moments]).all(axis=2) for moments in self._around]
        return np.logical_and.reduce(as_around[0] | as_around[1], axis=1)

    def conditions(self) -> list[Condition]:
        """Condition of the first question at the look that is nearest to failing it, if there is a look at all."""
        signs, looks = self.measured.signs, np.flatnonzero(self.between)
        conditions = []
        for look in looks.tolist():
            name, around = f"{self.measured.seconds[look]:.1f} s", [int(moments[look]) for moments in self._around]
            if signs.ratios:
                what = f"distance at {name}, between moments, beyond those of the moments around"
                value, limit = np.exp(self._beyond[0, [look]]), exp(signs.limit)
                conditions.append(Condition(what, value, "below", limit, signs.key, alone=True))
                continue
            either = []
            # All axes as at the moment before, or all as at the one after.
            for moment, which in zip(around, ("before", "after"), strict=True):
                states = enumerate(self.states[0, moment].tolist())
                axes = [signs.condition(look, axis, state, f", as {which}") for axis, state in states]
                either.append(min(axes, key=_margin))
            conditions.append(replace(max(either, key=_margin), alone=True))
        return [min(conditions, key=_margin)] if conditions else []


def _margin(condition: Condition) -> float:
    return float(condition.margins[0])


def look_between(
    scene: Scene, form: Form, batch: QuestionBatch, states: np.ndarray, qa: "QA", members: Members
) -> Looks:
    """Look at a distance or a direction between the key moments.

    Args:
        states: [K, M, A] of the questions, at their key moments.
        members: the one to look at.
    """
    frames = look_frames(batch.frames)
    with np.errstate(invalid="ignore", divide="ignore"):
        measured = measure(scene, form, replace(batch, frames=frames), qa, members)
    first = frames[:1].ravel()
    return Looks(measured, states, ~np.isin(first, batch.frames[:1]) & (np.diff(first, prepend=-1) > 0))
