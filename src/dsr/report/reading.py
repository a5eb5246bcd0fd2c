"""What an answer was read from: the signal over time, its states, and every condition that had to hold.

Letters: M key moments, P points of a signal (moments, or the steps between them), S versions of the cues (the first is
the cues as they are). A version gives the same states exactly if it meets all conditions, so the smallest margin of a
condition says how close a question came to another answer, or to none.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from dsr.geometry.signals import length
from dsr.params import QA
from dsr.qa.templates import Form, answer_text

AXES = (("front", "behind"), ("left", "right"), ("above", "below"))
AXIS_ROLES = ("forward", "left", "up")
DEPTHS = "median depths"
_OPENINGS = ("It is ", "It faces ", "It moves ", "It ")


@dataclass(frozen=True, eq=False)
class Condition:
    """A number that had to be above, below or equal to a limit, in every version of the cues."""

    what: str
    values: np.ndarray
    """[S] float; NaN where a version does not know it."""
    side: Literal["above", "below", "equal"]
    limit: float
    key: str = ""
    """The parameter behind the limit; empty where it is fixed in the code."""
    unit: str = ""

    @property
    def margins(self) -> np.ndarray:
        """[S] how far from the limit, as a share of it; positive where the condition holds."""
        if self.side == "equal":
            return np.where(self.values == self.limit, np.inf, -np.inf)
        above = (self.values - self.limit) / abs(self.limit)
        return above if self.side == "above" else -above

    def text(self) -> str:
        """Such as "distance at 1.2 s: 1.31 (1.25 to 1.38) above 0.08 (qa.min_distance)"."""
        sign = {"above": "above", "below": "below", "equal": "equal to"}[self.side]
        low, high = np.nanmin(self.values), np.nanmax(self.values)
        spread = f" ({low:.3g} to {high:.3g})" if high > low else ""
        unit = f" {self.unit}" if self.unit else ""
        key = f" ({self.key})" if self.key else ""
        return f"{self.what}: {self.values[0]:.3g}{spread}{unit}, {sign} {self.limit:.3g}{key}"


@dataclass(frozen=True, eq=False)
class Series:
    """A line of a plot."""

    label: str
    role: str
    """Whose it is: `a`, `b`, `c`, two of them as in `ab`, `viewer`, one of AXIS_ROLES, or "": decides the colour."""
    times: np.ndarray
    """[P] seconds."""
    values: np.ndarray
    """[P, S]."""


@dataclass(frozen=True)
class Band:
    """Between two values, from one time to another: what counts as about the same, or as neither side."""

    start: float
    end: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Panel:
    title: str
    unit: str
    series: Sequence[Series]
    bands: Sequence[Band] = ()
    band_means: str = "about the same, or neither side"
    limits: Sequence[tuple[float, str]] = ()
    """Horizontal lines and what they are."""
    logarithmic: bool = False
    """Where ratios are compared, equal ratios are equal heights."""


@dataclass(frozen=True)
class State:
    """One qualitative value and the time that it stands for (a moment has no length)."""

    start: float
    end: float
    signs: tuple[int, ...]
    """One a row of the strip: -1, 0 or 1; 2 where there is no opposite."""
    words: tuple[str, ...]
    """What each row says."""
    text: str


@dataclass(frozen=True, eq=False)
class Reading:
    """How one question's answer comes about."""

    signal: str
    """What is measured, in words."""
    panels: Sequence[Panel]
    states: Sequence[State]
    conditions: Sequence[Condition]
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = field(default=())
    """The signal at each moment or step, as text."""


def read_template(
    form: Form, signal: np.ndarray, states: np.ndarray, times: np.ndarray, names: dict[str, str], qa: QA
) -> Reading:
    """The reading of one of the twelve template types.

    Args:
        signal: [P, axes, S] of `signal_states`.
        states: [number of states, axes] int, of the cues as they are.
        times: [M] seconds.
        names: `viewer`, `a`, `b`: what the question's words mean.
    """
    match form.signal:
        case "dis":
            return _read_distance(form, signal[:, 0], states[:, 0], times, names, qa)
        case "spd":
            return _read_speed(form, signal[:, 0], states[:, 0], times, names, qa)
        case "spd_comp":
            return _read_comparison(form, signal, states[:, 0], times, names, qa)
        case _:
            return _read_direction(form, signal, states, times, names, qa)


def phrase(vocabulary: str, state: tuple[int, ...]) -> str:
    """A state in the words of an answer, without the sentence around it."""
    text = answer_text(vocabulary, (state,)).removesuffix(".")
    return next(text.removeprefix(opening) for opening in _OPENINGS if text.startswith(opening))


def _read_distance(
    form: Form, distance: np.ndarray, states: np.ndarray, times: np.ndarray, names: dict[str, str], qa: QA
) -> Reading:
    a, viewer = names["a"], names.get("viewer", "")
    what = {
        "none": f"distance between {a} and {names.get('b', '')}",
        "moving": f"distance between {viewer} and {a}",
        "fixed": f"distance of {a} from where {viewer} was at {times[0]:.1f} s",
    }[form.viewer]
    floors = [
        Condition(f"distance at {t:.1f} s", d, "above", qa.min_distance, "qa.min_distance", DEPTHS)
        for t, d in zip(times, distance, strict=True)
    ]
    key = "qa.ratio_tolerance"
    changes, bands = _change_conditions("distance", distance, states, times, times, qa.ratio_tolerance, key)
    panel = Panel(
        what,
        DEPTHS,
        [Series(what, "a", times, distance)],
        bands,
        limits=[(qa.min_distance, "qa.min_distance")],
        logarithmic=True,
    )
    shown = [_change_state("dis", s, times[i], times[i + 1]) for i, s in enumerate(states)]
    return Reading(what, [panel], shown, [*floors, *changes], *_change_table(distance, states, times, shown, DEPTHS))


def _read_speed(
    form: Form, speed: np.ndarray, states: np.ndarray, times: np.ndarray, names: dict[str, str], qa: QA
) -> Reading:
    what = f"speed of {names['a']} " + ("over the ground" if form.viewer == "none" else f"as {names['viewer']} moves")
    seconds = np.diff(times)
    middle = (times[1:] + times[:-1]) / 2
    covered = speed * seconds[:, None]
    key = "qa.speed_tolerance"
    changes, bands = _change_conditions("speed", speed, states, middle, middle, qa.speed_tolerance, key)
    floors = []
    for i, state in enumerate(states):
        pick, which = (np.minimum, "shorter") if state == 0 else (np.maximum, "longer")
        floors.append(
            _moved(f"{which} way of the two steps at {times[i + 1]:.1f} s", pick(covered[i], covered[i + 1]), qa)
        )
    unit = f"{DEPTHS} a second"
    floor = qa.min_displacement / float(seconds.mean())
    panel = Panel(
        what, unit, [Series(what, "a", middle, speed)], bands, limits=[(floor, "qa.min_displacement")], logarithmic=True
    )
    shown = [_change_state("spd", s, middle[i], middle[i + 1]) for i, s in enumerate(states)]
    return Reading(what, [panel], shown, [*floors, *changes], *_change_table(speed, states, middle, shown, unit))


def _read_comparison(
    form: Form, speeds: np.ndarray, states: np.ndarray, times: np.ndarray, names: dict[str, str], qa: QA
) -> Reading:
    """Speeds are [P, 2, S]."""
    way = "over the ground" if form.viewer == "none" else f"as {names['viewer']} moves"
    what = f"speed of {names['a']} compared with {names['b']}, {way}"
    seconds = np.diff(times)
    middle = (times[1:] + times[:-1]) / 2
    covered = speeds * seconds[:, None, None]
    conditions = []
    for i, state in enumerate(states):
        pick, which = (np.minimum, "shorter") if state == 0 else (np.maximum, "longer")
        span = f"{times[i]:.1f} to {times[i + 1]:.1f} s"
        conditions.append(_moved(f"{which} way of the two, {span}", pick(covered[i, 0], covered[i, 1]), qa))
        ratio = speeds[i, 0] / speeds[i, 1]
        conditions.append(_ratio(f"speed ratio, {span}", ratio, state, 1 + qa.speed_tolerance, "qa.speed_tolerance"))
    unit = f"{DEPTHS} a second"
    limit = 1 + qa.speed_tolerance
    floor = qa.min_displacement / float(seconds.mean())
    speed_panel = Panel(
        f"speeds, {way}",
        unit,
        [Series(names["a"], "a", middle, speeds[:, 0]), Series(names["b"], "b", middle, speeds[:, 1])],
        limits=[(floor, "qa.min_displacement")],
        logarithmic=True,
    )
    ratio_panel = Panel(
        "ratio of the speeds",
        f"{names['a']} / {names['b']}",
        [Series("ratio", "", middle, speeds[:, 0] / speeds[:, 1])],
        [Band(times[0], times[-1], 1 / limit, limit)],
        logarithmic=True,
    )
    shown = [_change_state("spd_comp", s, times[i], times[i + 1]) for i, s in enumerate(states)]
    rows = [
        (
            f"{times[i]:.2f} to {times[i + 1]:.2f} s",
            f"{speeds[i, 0, 0]:.3f}",
            f"{speeds[i, 1, 0]:.3f}",
            f"{speeds[i, 0, 0] / speeds[i, 1, 0]:.2f}",
            shown[i].text,
        )
        for i in range(len(states))
    ]
    columns = ("time", names["a"], names["b"], "ratio", "state")
    return Reading(f"{what} ({unit})", [speed_panel, ratio_panel], shown, conditions, columns, rows)


def _read_direction(
    form: Form, vectors: np.ndarray, states: np.ndarray, times: np.ndarray, names: dict[str, str], qa: QA
) -> Reading:
    """Vectors are [P, 3, S] in the viewer's axes (forward, left, up)."""
    what = _direction_words(form, times, names)
    distance = length(vectors)
    unit_vectors = vectors / distance[:, None]
    predicts = form.signal == "dir_pred"
    spans = [(times[i], times[i + 1]) if predicts else (t, t) for i, t in enumerate(times[: len(vectors)])]
    labels = [f"{s:.1f} to {e:.1f} s" if e > s else f"{s:.1f} s" for s, e in spans]
    conditions, shown = [], []
    vocabulary = form.vocabulary
    floor, floor_key = {
        "dir": (qa.min_direction, "qa.min_direction"),
        "dir_pred": (qa.min_displacement, "qa.min_displacement"),
    }.get(form.signal, (0.0, ""))
    for i, (label, (start, end)) in enumerate(zip(labels, spans, strict=True)):
        if floor:
            conditions.append(Condition(f"length, {label}", distance[i], "above", floor, floor_key, DEPTHS))
        conditions += [
            _side(f"{AXIS_ROLES[axis]}, {label}", unit_vectors[i, axis], int(state), qa.dead_zone)
            for axis, state in enumerate(states[i])
        ]
        signs = tuple(int(s) for s in states[i])
        axis_words = tuple(_axis_word(vocabulary, axis, s) for axis, s in enumerate(signs))
        text = phrase(vocabulary, signs)
        shown.append(State(start, end, signs, axis_words, f"so far {text}" if predicts and i == 0 else text))
    at = np.array([(start + end) / 2 for start, end in spans])
    series = [Series(role, role, at, unit_vectors[:, axis]) for axis, role in enumerate(AXIS_ROLES)]
    band = Band(times[0], times[-1], -qa.dead_zone, qa.dead_zone)
    panel = Panel(what, "component of the unit vector", series, [band])
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


def _change_conditions(
    what: str,
    values: np.ndarray,
    states: np.ndarray,
    times: np.ndarray,
    band_times: np.ndarray,
    tolerance: float,
    key: str,
) -> tuple[list[Condition], list[Band]]:
    """Conditions of `answers.change_states`, and the band around the value with which each run began."""
    log, limit = np.log(values), np.log1p(tolerance)
    reference = 0
    conditions, bands = [], []
    for i, state in enumerate(states):
        change, drift = log[i + 1] - log[i], log[i + 1] - log[reference]
        label = f"{what} at {times[i + 1]:.1f} s over that at {times[i]:.1f} s"
        if state:
            # A step that is not large enough by itself still counts if it leaves the run's first value behind.
            size = np.maximum(state * change, np.minimum(state * change + 2 * limit, state * drift))
            conditions.append(_ratio(label, np.exp(state * size), int(state), 1 + tolerance, key))
        else:
            conditions.append(_ratio(label, np.exp(change), 0, 1 + tolerance, key))
            if reference < i:
                since = f"{what} at {times[i + 1]:.1f} s over that at {times[reference]:.1f} s, where the run began"
                conditions.append(_ratio(since, np.exp(drift), 0, 1 + tolerance, key))
        centre = values[reference, 0]
        bands.append(Band(band_times[i], band_times[i + 1], centre / (1 + tolerance), centre * (1 + tolerance)))
        reference = i + 1 if state else reference
    return conditions, bands


def _change_table(
    values: np.ndarray, states: np.ndarray, times: np.ndarray, shown: Sequence[State], unit: str
) -> tuple[list[str], list[list[str]]]:
    reference = 0
    rows = [[f"{times[0]:.2f} s", f"{values[0, 0]:.3f}", "", "", ""]]
    for i, state in enumerate(states):
        ratios = [f"{values[i + 1, 0] / values[j, 0]:.2f}" for j in (i, reference)]
        rows.append([f"{times[i + 1]:.2f} s", f"{values[i + 1, 0]:.3f}", *ratios, shown[i].text])
        reference = i + 1 if state else reference
    return ["time", unit, "over the last", "over the run's first", "state"], rows


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
        return Condition(f"{'-' if state < 0 else '+'}{what}", state * component, "above", dead_zone, "qa.dead_zone")
    return Condition(f"|{what}|", np.abs(component), "below", dead_zone, "qa.dead_zone")


def _moved(what: str, covered: np.ndarray, qa: QA) -> Condition:
    # A slow step is told as the floor itself, up to rounding, and is not above it.
    values = np.where(covered < qa.min_displacement * (1 + 1e-5), np.minimum(covered, qa.min_displacement), covered)
    return Condition(what, values, "above", qa.min_displacement, "qa.min_displacement", DEPTHS)
