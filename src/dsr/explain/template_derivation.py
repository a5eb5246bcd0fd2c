"""Derivations of the templates' answers: signal, states and conditions of the question engine, in words and panels.

Letters: M key moments, P points of a signal (moments, or the steps between them), S versions of the cues (the first is
the cues as they are).
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from dsr.explain.derivation import Band, Derivation, Panel, Series, State
from dsr.params import QA
from dsr.questions.engine.answers import decode_run_lengths, run_lengths
from dsr.questions.engine.conditions import DEPTHS
from dsr.questions.engine.scene import Scene
from dsr.questions.engine.signals import Looks, Measured, Members, QuestionBatch, look_between, measure
from dsr.questions.engine.states import AXES, Floor, runs
from dsr.questions.language.templates import Form, answer_text, num_axes

_OPENINGS = ("It is ", "It faces ", "It moves ", "It ")
_SPEED = f"{DEPTHS} a second"


def derive_template(
    scene: Scene, form: Form, batch: QuestionBatch, names: dict[str, str], qa: QA
) -> tuple[Derivation, str]:
    """Derivation of the answer to a template's question, and the answer on the cues as they are.

    Args:
        batch: one question.
        names: `viewer`, `a`, `b`: what the question's words mean.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        measured = measure(scene, form, batch, qa, Members(scene, slice(None)))
        states, looks = measured.states[..., 0], None
        if form.signal in ("dis", "dir", "ori"):
            looks = look_between(scene, form, batch, states, qa, Members(scene, slice(0, 1)))
        conditions = [*measured.conditions(), *(looks.conditions() if looks else [])]
        read = {"dis": _derive_change, "spd": _derive_change, "spd_comp": _derive_comparison}
        signal, panels, shown, points = read.get(form.signal, _derive_direction)(form, measured, looks, names)
    derivation = Derivation(signal, panels, shown, conditions, *_table(panels, shown, points))
    if not np.isfinite(measured.signal[..., 0]).all():
        return derivation, "(not known at every moment)"
    code = int(run_lengths(states[:, 1:] if form.signal == "dir_pred" else states)[0])
    return derivation, answer_text(form.vocabulary, decode_run_lengths(code, num_axes(form.signal)))


_Parts = tuple[str, list[Panel], list[State], list[str]]
"""Signal in words, panels, states, and the names of the signal's points."""


def phrase(vocabulary: str, state: tuple[int, ...]) -> str:
    """A state in the words of an answer, without the sentence around it."""
    text = answer_text(vocabulary, (state,)).removesuffix(".")
    return next(text.removeprefix(opening) for opening in _OPENINGS if text.startswith(opening))


def _derive_change(form: Form, measured: Measured, looks: Looks | None, names: dict[str, str]) -> _Parts:
    """Derivation of a change of distance or speed."""
    values, times = measured.signal[0, :, 0], measured.seconds
    what, unit = _distance_words(form, times, names), DEPTHS
    if form.signal == "spd":
        what, unit, times = f"speed of {names['a']} {_relative(form, names)}", _SPEED, (times[1:] + times[:-1]) / 2
    spans, signs = list(pairwise(times)), measured.states[0, :, 0, 0]
    bands = []
    for state, run in runs(signs):
        for i in run:
            # About the same as the start of the step, and as all of a constant run before it.
            so_far = values[run[0] if state == 0 else i : i + 1, 0]
            low, high = measured.signs.band
            bands.append(Band(*spans[i], so_far.max() * low, so_far.min() * high))
    panel = Panel(
        what,
        unit,
        [Series(unit, "a", times, values)],
        between=[Series(unit, "a", *_between(looks, looks.measured.signal[0, :, 0]))] if looks else [],
        bands=bands,
        limits=[_floor(form, measured)],
        logarithmic=True,
    )
    return what, [panel], _scalar_states(form, signs, spans), [f"{t:.2f} s" for t in times]


def _derive_comparison(form: Form, measured: Measured, looks: Looks | None, names: dict[str, str]) -> _Parts:
    speeds, moments = measured.signal[0], measured.seconds
    spans, middles, (low, high) = list(pairwise(moments)), (moments[1:] + moments[:-1]) / 2, measured.signs.band
    speed_panel = Panel(
        f"speeds, {_relative(form, names)}",
        _SPEED,
        [Series(names[letter], letter, middles, speeds[:, target]) for target, letter in enumerate("ab")],
        limits=[_floor(form, measured)],
        logarithmic=True,
    )
    ratio_panel = Panel(
        "ratio of the speeds",
        f"{names['a']} / {names['b']}",
        [Series("ratio", "", middles, speeds[:, 0] / speeds[:, 1])],
        bands=[Band(moments[0], moments[-1], low, high)],
        logarithmic=True,
    )
    what = f"speed of {names['a']} compared with {names['b']}, {_relative(form, names)} ({_SPEED})"
    points = [f"{start:.2f} to {end:.2f} s" for start, end in spans]
    return what, [speed_panel, ratio_panel], _scalar_states(form, measured.states[0, :, 0, 0], spans), points


def _derive_direction(form: Form, measured: Measured, looks: Looks | None, names: dict[str, str]) -> _Parts:
    """Derivation of a direction in the viewer's axes (forward, left, up)."""
    times, predicts, what = measured.seconds, form.signal == "dir_pred", _direction_words(form, measured, names)
    spans = list(pairwise(times)) if predicts else [(t, t) for t in times]
    states: list[State] = []
    for (start, end), state in zip(spans, measured.states[0, ..., 0].tolist(), strict=True):
        words = tuple(_axis_word(form.vocabulary, axis, sign) for axis, sign in enumerate(state))
        text = phrase(form.vocabulary, tuple(state)) if any(state) else "no side"
        states.append(State(start, end, tuple(state), words, text if states or not predicts else f"so far {text}"))
    at, components = np.mean(spans, axis=1), measured.signs.values[0]
    seen = looks.measured.signs.values[0] if looks else components
    panel = Panel(
        what,
        "component of the unit vector",
        [Series(role, role, at, components[:, axis]) for axis, role in enumerate(AXES)],
        between=[Series(role, role, *_between(looks, seen[:, axis])) for axis, role in enumerate(AXES) if looks],
        bands=[Band(times[0], times[-1], *measured.signs.band)],
        band_means="neither side",
    )
    points = [f"{start:.2f} to {end:.2f} s" if predicts else f"{start:.2f} s" for start, end in spans]
    return what, [panel], states, points


def _table(panels: list[Panel], states: list[State], points: list[str]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows: the signal at each of its points, and the state there or since the point before."""
    lines = [line for panel in panels for line in panel.series]
    texts = ["", *(state.text for state in states)][-len(points) :]
    rows = [
        [point, *(f"{line.values[i, 0]:.3f}" for line in lines), text]
        for i, (point, text) in enumerate(zip(points, texts, strict=True))
    ]
    return ["time", *(line.label for line in lines), "state"], rows


def _floor(form: Form, measured: Measured) -> tuple[float, str]:
    """Limit of lengths, or of the speed that a way has in a step, and its parameter."""
    floor = measured.rules[0]
    assert isinstance(floor, Floor)
    return floor.limit / (1 if form.signal == "dis" else float(np.diff(measured.seconds).mean())), floor.key


def _between(looks: Looks | None, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Times and values [L, 1] of the looks that are at no key moment."""
    assert looks is not None
    return looks.measured.seconds[looks.between], values[looks.between]


def _scalar_states(form: Form, signs: np.ndarray, spans: Sequence[tuple[float, float]]) -> list[State]:
    texts = [phrase(form.signal, (int(sign),)) for sign in signs]
    return [State(*span, (int(s),), (text,), text) for span, s, text in zip(spans, signs, texts, strict=True)]


# --- Words ---


def _distance_words(form: Form, moments: np.ndarray, names: dict[str, str]) -> str:
    a, viewer = names["a"], names.get("viewer", "")
    return {
        "none": f"distance between {a} and {names.get('b', '')}",
        "moving": f"distance between {viewer} and {a}",
        "fixed": f"distance of {a} from where {viewer} was at {moments[0]:.1f} s",
    }[form.viewer]


def _relative(form: Form, names: dict[str, str]) -> str:
    return "over the ground" if form.viewer == "none" else f"relative to {names['viewer']}"


def _direction_words(form: Form, measured: Measured, names: dict[str, str]) -> str:
    viewer, a, moment = names["viewer"], names["a"], measured.seconds[form.stated]
    axes = f"the axes of {viewer} " + (f"at {moment:.1f} s" if form.viewer == "fixed" else "at each moment")
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
