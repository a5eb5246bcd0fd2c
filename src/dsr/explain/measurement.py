"""What a question was read from, measured on every version of its clip's cues.

Letters: M key moments, P points of a signal (moments, or the steps between them), L looks, n targets, S versions of
the cues (the first is the cues as they are). `signals.signal_states` decides and gives the signal of one version;
here is all of what it decides by.
"""

from dataclasses import dataclass, replace

import numpy as np

from dsr.params import QA
from dsr.questions.engine.scene import Scene
from dsr.questions.engine.signals import Drawn, Members, look_frames, signal_states, step_ways
from dsr.questions.language.templates import Form


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
    speed, everyone = form.signal in ("spd", "spd_comp"), Members(scene, slice(None))
    versions = [Members(scene, slice(i, i + 1)) for i in range(scene.positions.shape[-1])]
    results = [signal_states(scene, form, drawn, qa, version) for version in versions]
    return Measured(
        signal=np.stack([signal[0] for signal, _, _ in results], axis=-1),
        states=results[0][1][0, ..., 0],
        times=scene.timestamps[0, drawn.frames[0]],
        looks=_look_between(scene, form, drawn, qa) if form.signal in ("dis", "dir", "ori") else None,
        ways=np.concatenate(step_ways(form, drawn, everyone)) if speed else np.zeros((0, 0, 0), np.float32),
    )


def _look_between(scene: Scene, form: Form, drawn: Drawn, qa: QA) -> Looks | None:
    """The looks of `signals.told_between`; None where moments are neighbouring frames."""
    moments, frames = drawn.frames[0], np.unique(look_frames(drawn.frames))
    # With the key moments: a fixed viewpoint is that of the first.
    signal, _, _ = signal_states(scene, form, replace(drawn, frames=frames[None]), qa, Members(scene, slice(0, 1)))
    between = ~np.isin(frames, moments)
    before = np.searchsorted(moments, frames[between]) - 1
    return Looks(scene.timestamps[0, frames[between]], signal[0, between], before) if between.any() else None
