"""What a question was read from, measured on every version of its clip's cues.

Letters: M key moments, P points of a signal (moments, or the steps between them), L looks, n targets, S versions of
the cues (the first is the cues as they are). `candidates.signal_states` decides and gives the signal of one version;
here is all of what it decides by.
"""

from dataclasses import dataclass, replace

import numpy as np

from dsr.geometry.signals import length
from dsr.params import QA
from dsr.qa.candidates import LOOKS_PER_STEP, Drawn, Members, signal_states
from dsr.qa.free_form import Family, Moments
from dsr.qa.scene import Scene
from dsr.qa.templates import Form


@dataclass(frozen=True, eq=False)
class Looks:
    """The signal between the key moments, on the cues as they are."""

    times: np.ndarray
    """[L] seconds, none of a key moment."""
    signal: np.ndarray
    """[L, axes]."""
    before: np.ndarray
    """[L] int, the key moment before; the next one is after."""


@dataclass(frozen=True, eq=False)
class Measured:
    """A template's question."""

    signal: np.ndarray
    """[P, axes, S]."""
    states: np.ndarray
    """[number of states, axes] int, of the cues as they are."""
    times: np.ndarray
    """[M] seconds."""
    looks: Looks | None
    """Of a distance or a direction, where there are frames between its moments."""
    ways: np.ndarray
    """[targets, M - 1, S] how far each goes in a step, of a speed; else empty."""


def measure_template(scene: Scene, form: Form, drawn: Drawn, qa: QA) -> Measured:
    """Measure one question (K = 1) of a template on all members of a scene."""
    versions = [Members(scene, slice(i, i + 1)) for i in range(scene.positions.shape[-1])]
    results = [signal_states(scene, form, drawn, qa, version) for version in versions]
    return Measured(
        signal=np.stack([signal[0] for signal, _, _ in results], axis=-1),
        states=results[0][1][0, ..., 0],
        times=scene.timestamps[0, drawn.frames[0]],
        looks=_look_between(scene, form, drawn, qa) if form.signal in ("dis", "dir", "ori") else None,
        ways=_ways(scene, form, drawn) if form.signal in ("spd", "spd_comp") else np.zeros((0, 0, 0)),
    )


def _look_between(scene: Scene, form: Form, drawn: Drawn, qa: QA) -> Looks | None:
    """The looks of `candidates.told_between`; None where moments are neighbouring frames."""
    first, second = drawn.frames[0, :2]
    step = second - first
    number = np.arange(LOOKS_PER_STEP * (form.num_moments - 1) + 1)
    past = np.unique((step * number + LOOKS_PER_STEP // 2) // LOOKS_PER_STEP)
    as_they_are = Members(scene, slice(0, 1))
    # With the key moments: a fixed viewpoint is that of the first.
    signal, _, _ = signal_states(scene, form, replace(drawn, frames=first + past[None]), qa, as_they_are)
    inside = past % step > 0
    past = past[inside]
    return Looks(scene.timestamps[0, first + past], signal[0, inside], past // step) if len(past) else None


def _ways(scene: Scene, form: Form, drawn: Drawn) -> np.ndarray:
    """[targets, M - 1, S] over the place halfway, relative to the viewer if it counts."""
    members, frames, ways = Members(scene, slice(None)), drawn.frames, []
    for target in drawn.targets.T[: form.num_targets]:
        path, middle = members.at(target, frames), members.halfway(target, frames)
        if form.viewer != "none":
            path, middle = path - members.at(drawn.viewer, frames), middle - members.halfway(drawn.viewer, frames)
        ways.append((length(middle - path[:, :-1]) + length(path[:, 1:] - middle))[0])
    return np.stack(ways)


def measure_family(scene: Scene, form: Family, drawn: Drawn) -> Moments:
    """What a free-form family sees of a question, on all members of a scene."""
    members, frames = Members(scene, slice(None)), drawn.frames
    first, nothing = drawn.targets[:, 0], np.zeros(0, np.float32)
    targets = [members.at(target, frames) for target in drawn.targets.T[: form.num_targets]]
    return Moments(
        targets=targets,
        facing=members.direction_at(0, first, frames) if form.oriented_target else nothing,
        viewer=members.at(drawn.viewer, frames) if form.viewer != "none" else np.full_like(targets[0], np.nan),
        axes=members.axes_at(drawn.viewer, frames) if form.needs_axes else nothing,
        own_up=members.direction_at(2, first, frames[:, :1]) if form.oriented_target else nothing,
        up=members.up[first, None],
        seconds=scene.timestamps[0, frames],
    )
