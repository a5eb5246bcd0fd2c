"""What the answer of a template's question was read from, signal by signal; see `measurement` for the letters.

The limits are those of answers.py and candidates.py in questions/engine/; that the conditions hold exactly where these
give the answer is tested.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby, pairwise

import numpy as np

from dsr.explain.evidence import AXIS_ROLES, Band, Panel, Reading, Series, State
from dsr.explain.measurement import Looks, Measured
from dsr.geometry.signals import length
from dsr.params import QA
from dsr.questions.engine.conditions import DEPTHS, Condition
from dsr.questions.language.templates import Form, answer_text

_OPENINGS = ("It is ", "It faces ", "It moves ", "It ")
_RATIO, _SPEED, _SIDE = "qa.ratio_tolerance", "qa.speed_tolerance", "qa.dead_zone"
_FLOORS = {"dir": "min_direction", "dir_pred": "min_displacement"}
"""Of the length of a direction; a facing direction has none."""


def read_template(form: Form, measured: Measured, names: dict[str, str], qa: QA) -> Reading:
    """The reading of one of the twelve template types.

    Args:
        names: `viewer`, `a`, `b`: what the question's words mean.
    """
    read = {"dis": _read_distance, "spd": _read_speed, "spd_comp": _read_comparison}.get(form.signal, _read_direction)
    return read(form, measured, names, qa)


def phrase(vocabulary: str, state: tuple[int, ...]) -> str:
    """A state in the words of an answer, without the sentence around it."""
    text = answer_text(vocabulary, (state,)).removesuffix(".")
    return next(text.removeprefix(opening) for opening in _OPENINGS if text.startswith(opening))


def _read_distance(form: Form, measured: Measured, names: dict[str, str], qa: QA) -> Reading:
    distance, states, times = measured.signal[:, 0], measured.states[:, 0], measured.times
    a, viewer = names["a"], names.get("viewer", "")
    what = {
        "none": f"distance between {a} and {names.get('b', '')}",
        "moving": f"distance between {viewer} and {a}",
        "fixed": f"distance of {a} from where {viewer} was at {times[0]:.1f} s",
    }[form.viewer]
    conditions = [
        Condition(f"distance at {t:.1f} s", d, "above", qa.min_distance, "qa.min_distance", DEPTHS)
        for t, d in zip(times, distance, strict=True)
    ]
    conditions += _change_conditions("distance", distance, states, times, qa.ratio_tolerance, _RATIO)
    panel = Panel(
        what,
        DEPTHS,
        [Series(what, "a", times, distance)],
        bands=_change_bands(distance[:, 0], states, times, qa.ratio_tolerance),
        limits=[(qa.min_distance, "qa.min_distance")],
        logarithmic=True,
    )
    if measured.looks is not None:
        conditions.append(_distance_between(measured.looks, distance[:, 0], times, qa))
        panel = replace(panel, between=[Series(what, "a", measured.looks.times, measured.looks.signal)])
    shown = [_change_state("dis", s, times[i], times[i + 1]) for i, s in enumerate(states)]
    return Reading(what, [panel], shown, conditions, *_change_table(distance[:, 0], states, times, shown, DEPTHS))


def _read_speed(form: Form, measured: Measured, names: dict[str, str], qa: QA) -> Reading:
    speed, states, times = measured.signal[:, 0], measured.states[:, 0], measured.times
    what = f"speed of {names['a']} " + (
        "over the ground" if form.viewer == "none" else f"relative to {names['viewer']}"
    )
    middle = (times[1:] + times[:-1]) / 2
    conditions = []
    for i, state in enumerate(states):
        slower = f"way of the two steps at {times[i + 1]:.1f} s"
        conditions.append(_moved(slower, measured.ways[0, i : i + 2], state, qa))
    conditions += _change_conditions("speed", speed, states, middle, qa.speed_tolerance, _SPEED)
    unit = f"{DEPTHS} a second"
    floor = qa.min_displacement / float(np.diff(times).mean())
    panel = Panel(
        what,
        unit,
        [Series(what, "a", middle, speed)],
        bands=_change_bands(speed[:, 0], states, middle, qa.speed_tolerance),
        limits=[(floor, "qa.min_displacement")],
        logarithmic=True,
    )
    shown = [_change_state("spd", s, middle[i], middle[i + 1]) for i, s in enumerate(states)]
    return Reading(what, [panel], shown, conditions, *_change_table(speed[:, 0], states, middle, shown, unit))


def _read_comparison(form: Form, measured: Measured, names: dict[str, str], qa: QA) -> Reading:
    speeds, states, times = measured.signal, measured.states[:, 0], measured.times
    way = "over the ground" if form.viewer == "none" else f"relative to {names['viewer']}"
    what = f"speed of {names['a']} compared with {names['b']}, {way}"
    ratio, limit = speeds[:, 0] / speeds[:, 1], 1 + qa.speed_tolerance
    conditions, spans = [], list(pairwise(times))
    for i, (state, (start, end)) in enumerate(zip(states, spans, strict=True)):
        span = f"{start:.1f} to {end:.1f} s"
        conditions.append(_moved(f"way of the two, {span}", measured.ways[:, i], state, qa))
        conditions.append(_ratio(f"speed ratio, {span}", ratio[i], state, limit, _SPEED))
    unit = f"{DEPTHS} a second"
    middle = (times[1:] + times[:-1]) / 2
    floor = qa.min_displacement / float(np.diff(times).mean())
    speed_panel = Panel(
        f"speeds, {way}",
        unit,
        [Series(names[letter], letter, middle, speeds[:, target]) for target, letter in enumerate("ab")],
        limits=[(floor, "qa.min_displacement")],
        logarithmic=True,
    )
    ratio_panel = Panel(
        "ratio of the speeds",
        f"{names['a']} / {names['b']}",
        [Series("ratio", "", middle, ratio)],
        bands=[Band(times[0], times[-1], 1 / limit, limit)],
        logarithmic=True,
    )
    shown = [_change_state("spd_comp", s, start, end) for s, (start, end) in zip(states, spans, strict=True)]
    numbers = np.stack([speeds[:, 0, 0], speeds[:, 1, 0], ratio[:, 0]])
    rows = [
        (f"{start:.2f} to {end:.2f} s", *(f"{number:.2f}" for number in step), state.text)
        for (start, end), step, state in zip(spans, numbers.T, shown, strict=True)
    ]
    columns = ("time", names["a"], names["b"], "ratio", "state")
    return Reading(f"{what} ({unit})", [speed_panel, ratio_panel], shown, conditions, columns, rows)


def _read_direction(form: Form, measured: Measured, names: dict[str, str], qa: QA) -> Reading:
    """Vectors are [P, 3, S] in the viewer's axes (forward, left, up)."""
    vectors, states, times = measured.signal, measured.states, measured.times
    what = _direction_words(form, times, names)
    distance = length(vectors)
    unit_vectors = vectors / distance[:, None]
    predicts = form.signal == "dir_pred"
    spans = [(times[i], times[i + 1]) if predicts else (t, t) for i, t in enumerate(times[: len(vectors)])]
    labels = [f"{s:.1f} to {e:.1f} s" if e > s else f"{s:.1f} s" for s, e in spans]
    conditions, shown = [], []
    for i, (label, (start, end)) in enumerate(zip(labels, spans, strict=True)):
        if key := _FLOORS.get(form.signal):
            floor = getattr(qa, key)
            conditions.append(Condition(f"length, {label}", distance[i], "above", floor, f"qa.{key}", DEPTHS))
        conditions += [
            _side(f"{AXIS_ROLES[axis]}, {label}", unit_vectors[i, axis], int(state), qa.dead_zone)
            for axis, state in enumerate(states[i])
        ]
        signs = tuple(int(s) for s in states[i])
        axis_words = tuple(_axis_word(form.vocabulary, axis, s) for axis, s in enumerate(signs))
        text = phrase(form.vocabulary, signs) if any(signs) else "no side"
        shown.append(State(start, end, signs, axis_words, f"so far {text}" if predicts and i == 0 else text))
    at = np.array([(start + end) / 2 for start, end in spans])
    series = [Series(role, role, at, unit_vectors[:, axis]) for axis, role in enumerate(AXIS_ROLES)]
    band = Band(times[0], times[-1], -qa.dead_zone, qa.dead_zone)
    panel = Panel(what, "component of the unit vector", series, bands=[band], band_means="neither side")
    if measured.looks is not None:
        looks = measured.looks.signal / np.linalg.norm(measured.looks.signal, axis=1, keepdims=True)
        conditions.append(_direction_between(measured.looks, looks, states, times, qa))
        lines = [Series(role, role, measured.looks.times, looks[:, [axis]]) for axis, role in enumerate(AXIS_ROLES)]
        panel = replace(panel, between=lines)
    columns = ["time", *AXIS_ROLES, f"length ({DEPTHS})", "state"]
    rows = [
        [label, *(f"{u:+.2f}" for u in unit_vectors[i, :, 0]), f"{distance[i, 0]:.3f}", shown[i].text]
        for i, label in enumerate(labels)
    ]
    if form.signal == "ori":
        for line in (columns, *rows):
            line.pop(-2)  # A facing direction has no length of its own.
    return Reading(what, [panel], shown, conditions, columns, rows)


def _direction_words(form: Form, times: np.ndarray, names: dict[str, str]) -> str:
    viewer = names["viewer"]
    moment = times[form.stated]
    axes = f"the axes of {viewer} " + (f"at {moment:.1f} s" if form.viewer == "fixed" else "at each moment")
    a = names["a"]
    if form.signal == "ori":
        return f"facing direction of {a}, in {axes}"
    if form.signal == "dir_pred":
        return f"movement of {a} before and after {moment:.1f} s, in {axes}"
    if form.num_targets == 2:
        return f"direction from {a} to {names['b']}, in {axes}"
    return f"direction of {a} from {viewer}, in {axes}"


def _axis_word(vocabulary: str, axis: int, sign: int) -> str:
    state = [0, 0, 0]
    state[axis] = sign
    return phrase(vocabulary, tuple(state)) if sign else "neither"


def _distance_between(looks: Looks, distance: np.ndarray, times: np.ndarray, qa: QA) -> Condition:
    """That the distance does not come and go between two moments: the look where it is nearest to doing so."""
    ends = np.stack([distance[looks.before], distance[looks.before + 1]])
    seen = looks.signal[:, 0]
    beyond = np.stack([seen / ends.max(axis=0), ends.min(axis=0) / seen])
    way, look = np.unravel_index(np.argmax(beyond), beyond.shape)
    before = looks.before[look]
    around = f"of those at {times[before]:.1f} and {times[before + 1]:.1f} s"
    now = f"distance at {looks.times[look]:.1f} s"
    what = f"{now}, between moments, over the larger {around}" if way == 0 else f"smaller {around} over {now}, between"
    return Condition(what, beyond[way, [look]], "below", 1 + qa.ratio_tolerance, _RATIO, alone=True)


def _direction_between(looks: Looks, seen: np.ndarray, states: np.ndarray, times: np.ndarray, qa: QA) -> Condition:
    """That a direction between two moments is that of one of them: the look where it is nearest to being neither.

    Args:
        seen: [L, 3] unit vectors.
        states: [M, 3].
    """
    moments = np.stack([looks.before, looks.before + 1])
    told = states[moments]
    # How far each component is inside its state, for the state before and for the one after.
    room = np.where(told != 0, told * seen - qa.dead_zone, qa.dead_zone - np.abs(seen))
    least = room.min(axis=-1)
    look = int(np.argmin(least.max(axis=0)))
    which = int(np.argmax(least[:, look]))
    axis = int(np.argmin(room[which, look]))
    what = f"{AXIS_ROLES[axis]}, {looks.times[look]:.1f} s, between moments, as at {times[moments[which, look]]:.1f} s"
    return replace(_side(what, seen[look, [axis]], int(told[which, look, axis]), qa.dead_zone), alone=True)


def _change_conditions(
    what: str, values: np.ndarray, states: np.ndarray, times: np.ndarray, tolerance: float, key: str
) -> list[Condition]:
    """Conditions of `answers.change_states`: steps that change, and runs of steps that do not."""
    conditions = []
    for state, run in _runs(states):
        start, end = run[0], run[-1] + 1
        if state == 0 and len(run) > 1:
            spread = values[start : end + 1].max(axis=0) / values[start : end + 1].min(axis=0)
            title = f"largest over least {what} from {times[start]:.1f} to {times[end]:.1f} s"
            conditions.append(Condition(title, spread, "below", 1 + tolerance, key))
            continue
        for i in run:
            title = f"{what} at {times[i + 1]:.1f} s over that at {times[i]:.1f} s"
            conditions.append(_ratio(title, values[i + 1] / values[i], state, 1 + tolerance, key))
    return conditions


def _runs(states: np.ndarray) -> list[tuple[int, list[int]]]:
    """Each state with the steps that it lasts."""
    return [(int(state), list(run)) for state, run in groupby(range(len(states)), key=lambda i: states[i])]


def _change_bands(values: np.ndarray, states: np.ndarray, times: np.ndarray, tolerance: float) -> list[Band]:
    """For each step: where its end is about the same as its start, and as all of a constant run before it."""
    bands = []
    for _, run in _runs(states):
        for i in run:
            before = values[run[0] : i + 1] if states[i] == 0 else values[[i]]
            bands.append(Band(times[i], times[i + 1], before.max() / (1 + tolerance), before.min() * (1 + tolerance)))
    return bands


def _change_table(
    values: np.ndarray, states: np.ndarray, times: np.ndarray, shown: Sequence[State], unit: str
) -> tuple[list[str], list[list[str]]]:
    rows = [[f"{times[0]:.2f} s", f"{values[0]:.3f}", "", "", ""]]
    for state, run in _runs(states):
        for i in run:
            so_far = values[run[0] : i + 2]
            spread = f"{so_far.max() / so_far.min():.2f}" if state == 0 else ""
            ratio = f"{values[i + 1] / values[i]:.2f}"
            rows.append([f"{times[i + 1]:.2f} s", f"{values[i + 1]:.3f}", ratio, spread, shown[i].text])
    return ["time", unit, "over the last", "spread while constant", "state"], rows


def _change_state(vocabulary: str, sign: int, start: float, end: float) -> State:
    text = phrase(vocabulary, (int(sign),))
    return State(float(start), float(end), (int(sign),), (text,), text)


def _ratio(what: str, ratio: np.ndarray, state: int, limit: float, key: str) -> Condition:
    """A ratio that is above the limit (state 1), below its inverse (-1), or between the two (0)."""
    if state > 0:
        return Condition(what, ratio, "above", limit, key)
    if state < 0:
        return Condition(f"1 / ({what})", 1 / ratio, "above", limit, key)
    return Condition(f"{what}, either way", np.maximum(ratio, 1 / ratio), "below", limit, key)


def _side(what: str, component: np.ndarray, state: int, dead_zone: float) -> Condition:
    if state:
        return Condition(f"{'-' if state < 0 else '+'}{what}", state * component, "above", dead_zone, _SIDE)
    return Condition(f"|{what}|", np.abs(component), "below", dead_zone, _SIDE)


def _moved(what: str, pair: np.ndarray, state: int, qa: QA) -> Condition:
    """That of two ways [2, S] one is long enough to have a speed; both, where they are about as fast."""
    covered, which = (pair.min(axis=0), "shorter") if state == 0 else (pair.max(axis=0), "longer")
    return Condition(f"{which} {what}", covered, "above", qa.min_displacement, "qa.min_displacement", DEPTHS)
