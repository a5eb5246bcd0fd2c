"""An independent, plain implementation of the signals and answers: one question, one member, one frame at a time.

Written from the rules, not from the code: the tests compare the two, and the benchmark measures against it.
"""

import itertools
import math

import numpy as np

from dsr.params import QA
from dsr.questions.engine.scene import Scene
from dsr.questions.language.templates import Form

State = tuple[int, ...]


def merge(states: list[State]) -> tuple[State, ...]:
    """Run-length sequence: equal neighbours merged."""
    return tuple(state for state, _ in itertools.groupby(states))


def spreads(answer: tuple[State, ...], num_moments: int) -> list[tuple[State, ...]]:
    """All ways to spread an answer over the moments, each run at least one moment long."""
    cuts = itertools.combinations(range(1, num_moments), len(answer) - 1)
    return [
        tuple(state for state, a, b in zip(answer, (0, *cut), (*cut, num_moments), strict=True) for _ in range(a, b))
        for cut in cuts
    ]


def answer_distance(first: tuple[State, ...], second: tuple[State, ...], num_moments: int) -> float:
    """Smallest mean difference over all pairs of spreads."""
    return min(
        sum(abs(p - q) for x, y in zip(a, b, strict=True) for p, q in zip(x, y, strict=True)) / num_moments
        for a in spreads(first, num_moments)
        for b in spreads(second, num_moments)
    )


def side(value: float, limit: float) -> int:
    return 1 if value > limit else -1 if value < -limit else 0


def change(values: list[float], tolerance: float) -> list[State] | None:
    """Grows, shrinks or constant from one value to the next; None where a constant run drifts over the tolerance."""
    limit = math.log(1 + tolerance)
    states = [(side(math.log(after / before), limit),) for before, after in itertools.pairwise(values)]
    run = [values[0]]
    for (state,), after in zip(states, values[1:], strict=True):
        run = [after] if state else [*run, after]
        if math.log(max(run) / min(run)) > limit:
            return None
    return states


def direction(vector: np.ndarray, dead_zone: float) -> State:
    unit = vector / math.hypot(*vector)
    return tuple(side(float(component), dead_zone) for component in unit)


def states_of(
    scene: Scene, form: Form, viewer: int, targets: list[int], frames: list[int], qa: QA, member: int = 0
) -> list[State] | None:
    """The state at every moment (before and after the stop for a prediction); None where one does not exist."""
    position = [[scene.positions[e, t, :, member] for t in frames] for e in targets]
    stated = frames[1] if form.signal == "dir_pred" else frames[0]
    eyes = [stated if form.viewer == "fixed" else t for t in frames]
    place = axes = None
    if form.viewer != "none":
        place = [scene.positions[viewer, t, :, member] for t in eyes]
        axes = [scene.axes[viewer, t, :, :, member] for t in eyes]
    moments = range(len(frames))

    if form.signal == "dis":
        ends = position[1] if len(targets) == 2 else place
        distances = [math.dist(position[0][m], ends[m]) for m in moments]
        if min(distances) < qa.min_distance:
            return None
        return change(distances, qa.ratio_tolerance)

    if form.signal == "dir":
        starts, ends = (place, position[0]) if len(targets) == 1 else position
        vectors = [ends[m] - starts[m] for m in moments]
        if min(math.hypot(*v) for v in vectors) < qa.min_direction:
            return None
        return [direction(axes[m].T @ vectors[m], qa.dead_zone) for m in moments]

    if form.signal == "ori":
        facing = [scene.axes[targets[0], t, :, 0, member] for t in frames]
        return [direction(axes[m].T @ facing[m], qa.dead_zone) for m in moments]

    if form.signal == "dir_pred":
        seen = [axes[m].T @ (position[0][m] - place[m]) for m in moments]
        steps = [after - before for before, after in itertools.pairwise(seen)]
        if min(math.hypot(*s) for s in steps) < qa.min_displacement:
            return None
        return [direction(s, qa.dead_zone) for s in steps]

    floor = qa.min_displacement
    speeds: list[list[float]] = []
    slow: list[list[bool]] = []

    def seen_at(entity: int, frame: int) -> np.ndarray:
        eye = scene.positions[viewer, frame, :, member] if form.viewer != "none" else np.zeros(3)
        return scene.positions[entity, frame, :, member] - eye

    for entity in targets:
        moved = []
        for a, b in itertools.pairwise(frames):
            start, end = seen_at(entity, a), seen_at(entity, b)
            middle = (seen_at(entity, (a + b) // 2) + seen_at(entity, -(-(a + b) // 2))) / 2
            moved.append(math.dist(start, middle) + math.dist(middle, end))
        slow.append([d < floor for d in moved])
        seconds = [scene.timestamps[0, b] - scene.timestamps[0, a] for a, b in itertools.pairwise(frames)]
        speeds.append([max(d, floor) / s for d, s in zip(moved, seconds, strict=True)])
    if len(targets) == 1:
        changed = change(speeds[0], qa.speed_tolerance)
        if changed is None:
            return None
        states = changed
        pairs = list(itertools.pairwise(slow[0]))
    else:
        states = [(side(math.log(a / b), math.log(1 + qa.speed_tolerance)),) for a, b in zip(*speeds, strict=True)]
        pairs = list(zip(*slow, strict=True))
    # Two slow speeds cannot be compared, and a slow one is never called about the same.
    if any((a and b) or ((a or b) and state == (0,)) for (a, b), state in zip(pairs, states, strict=True)):
        return None
    return states


def answer_of(
    scene: Scene, form: Form, viewer: int, targets: list[int], frames: list[int], qa: QA, member: int = 0
) -> tuple[State, ...] | None:
    """The answer; None where there is none, which for a prediction includes a target that changes its way."""
    states = states_of(scene, form, viewer, targets, frames, qa, member)
    if states is None:
        return None
    if form.signal == "dir_pred":
        return (states[1],) if states[0] == states[1] else None
    return merge(states)
