"""The question types: what each one states and asks, in words, and its answers to words and back.

What makes a question meaningful, type by type (a question states nothing that its answer cannot depend on):

- `rel_dis` distance between a viewer and a target that both move, or between two targets (no viewpoint: whose
  eyes see it does not matter); `abs_dis` distance between a target and the place where the viewer was.
- `rel_dir`, `abs_dir` direction of a target from the viewer, or of a second target from a first one, in the
  viewer's axes: those of each moment (relative) or of the interval's first moment (absolute).
- `rel_ori`, `abs_ori` the way an agent (or the camera) faces, in the viewer's axes, likewise.
- `rel_spd` speed relative to the viewer's position (its own rotation does not enter); `abs_spd` speed over the
  ground, which does not depend on a viewpoint, so none is stated. `rel_spd_comp`, `abs_spd_comp` likewise.
- `rel_dir_pred`, `abs_dir_pred` where a target moves next, after the last frame that is shown.

A viewer is the camera or an agent and never a target of the same question. Every track that a question names is
given with its box at a stated moment.
"""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Literal

NUM_MOMENTS = {"dis": 5, "dir": 5, "ori": 5, "spd": 6, "spd_comp": 6, "dir_pred": 3}
"""Key moments at which a signal is looked at; a prediction's are before, at and after the stop."""
NUM_STATES = {"dis": 4, "dir": 5, "ori": 5, "spd": 4, "spd_comp": 5, "dir_pred": 1}
"""States of an answer before equal neighbours merge: changes for distance and speed (which is itself a change)."""
Viewer = Literal["moving", "fixed", "none"]
ROLES = ("viewer", "a", "b", "c")
"""Roles of those whom a question can mention: whose eyes, and its targets."""


@dataclass(frozen=True, eq=False)
class Form:
    """One way to ask a question type: who sees, how many targets, and the wordings to choose from."""

    type: str
    signal: str
    """`dis`, `dir`, `ori`, `spd`, `spd_comp`, `dir_pred`, or a free-form family's name."""
    viewer: Viewer
    """`moving`: relative; `fixed`: absolute, as at the first moment; `none`: nothing depends on a viewpoint."""
    num_targets: int
    wordings: tuple[str, ...]
    """Fields: {interval}, {Interval} (capital), {start}, {end}, {moment}, {viewer}, {a}, {b}, {c}."""
    camera_target: bool = True
    """False where asking about the camera repeats another form with viewer and target exchanged."""
    oriented_target: bool = False
    """True where the first target must have a facing direction."""

    @cached_property
    def name(self) -> str:
        """Name that no other form has; a question of the pool keeps it."""
        if self.type == "non_temp":
            return self.signal
        return f"{self.type}_between" if self.num_targets == 2 and self.signal in ("dis", "dir") else self.type

    @cached_property
    def roles(self) -> tuple[str, ...]:
        """Roles of those whom a question mentions, in the order of the pool's columns."""
        return ROLES[self.viewer == "none" : 1 + self.num_targets]

    @property
    def num_moments(self) -> int:
        return NUM_MOMENTS[self.signal]

    @property
    def stated(self) -> int:
        """Index of the stated moment, at which boxes and an absolute viewpoint are taken."""
        return 1 if self.signal == "dir_pred" else 0

    @property
    def vocabulary(self) -> str:
        """Name of the words that an answer is given in."""
        return "dir_between" if self.signal == "dir" and self.num_targets == 2 else self.signal

    @property
    def needs_axes(self) -> bool:
        """True where the viewer's axes enter, not only its position."""
        return self.signal in ("dir", "ori", "dir_pred")


TEMPLATES = (
    Form(
        "rel_dis",
        "dis",
        "moving",
        1,
        (
            "{interval}, how does the distance between {viewer} and {a} change?",
            "How does the distance from {viewer} to {a} develop {interval}, wherever both go?",
            "Keep following {viewer} {interval}: how does its distance to {a} change?",
        ),
        camera_target=False,
    ),
    Form(
        "rel_dis",
        "dis",
        "none",
        2,
        (
            "{interval}, how does the distance between {a} and {b} change?",
            "How does the gap between {a} and {b} develop {interval}?",
            "Watch {a} and {b} {interval}: how does the distance between them change?",
        ),
        camera_target=False,
    ),
    Form(
        "abs_dis",
        "dis",
        "fixed",
        1,
        (
            "{interval}, how does the distance change between {a} and the place where {viewer} was at {moment}?",
            "Mark the place of {viewer} at {moment}. How does the distance of {a} from that place change {interval}?",
            "How far is {a} from where {viewer} was at {moment}: how does this develop {interval}?",
        ),
    ),
    Form(
        "rel_dir",
        "dir",
        "moving",
        1,
        (
            "{interval}, in which direction is {a} as seen by {viewer}, moving and turning with it?",
            "Look through the eyes of {viewer} {interval}: where is {a}?",
            "Following the viewpoint of {viewer} {interval}, in which direction does {a} lie?",
        ),
    ),
    Form(
        "rel_dir",
        "dir",
        "moving",
        2,
        (
            "{interval}, in the axes of {viewer} as it moves and turns, in which direction does {b} lie from {a}?",
            "Following the viewpoint of {viewer} {interval}, in which direction from {a} is {b}?",
            "Go from {a} to {b}, as {viewer} would say at each moment {interval}: which direction is that?",
        ),
    ),
    Form(
        "abs_dir",
        "dir",
        "fixed",
        1,
        (
            "{interval}, in which direction is {a} from where {viewer} was, and as it faced, at {moment}?",
            "Keep the viewpoint that {viewer} had at {moment}. In which direction is {a} {interval}?",
            "As seen with the viewpoint of {viewer} at {moment}, where does {a} lie {interval}?",
        ),
    ),
    Form(
        "abs_dir",
        "dir",
        "fixed",
        2,
        (
            "{interval}, in the axes that {viewer} had at {moment}, in which direction does {b} lie from {a}?",
            "Keep the viewpoint that {viewer} had at {moment}. In which direction from {a} is {b} {interval}?",
            "Go from {a} to {b} {interval}, in terms of how {viewer} faced at {moment}: which direction is that?",
        ),
    ),
    Form(
        "rel_ori",
        "ori",
        "moving",
        1,
        (
            "{interval}, which way does {a} face as seen by {viewer}, moving and turning with it?",
            "Look through the eyes of {viewer} {interval}: which way is {a} facing?",
            "Following the viewpoint of {viewer} {interval}, how is {a} oriented?",
        ),
        oriented_target=True,
    ),
    Form(
        "abs_ori",
        "ori",
        "fixed",
        1,
        (
            "{interval}, which way does {a} face in the axes that {viewer} had at {moment}?",
            "Keep the viewpoint that {viewer} had at {moment}. Which way is {a} facing {interval}?",
            "As seen with the viewpoint of {viewer} at {moment}, how is {a} oriented {interval}?",
        ),
        oriented_target=True,
    ),
    Form(
        "rel_spd",
        "spd",
        "moving",
        1,
        (
            "{interval}, how does the speed of {a} relative to {viewer} change?",
            "Moving along with {viewer} {interval}, how does the speed of {a} develop?",
            "Measured from {viewer} as it moves {interval}, how does the speed of {a} change?",
        ),
        camera_target=False,
    ),
    Form(
        "abs_spd",
        "spd",
        "none",
        1,
        (
            "{interval}, how does the speed of {a} over the ground change?",
            "How does the speed of {a} through the scene develop {interval}?",
            "Watch {a} {interval}: how does its speed through the scene change?",
        ),
    ),
    Form(
        "rel_spd_comp",
        "spd_comp",
        "moving",
        2,
        (
            "{interval}, measured from {viewer} as it moves, how fast is {a} compared with {b}?",
            "Moving along with {viewer} {interval}, compare the speed of {a} with that of {b}.",
            "Relative to {viewer} {interval}, is {a} faster or slower than {b}?",
        ),
        camera_target=False,
    ),
    Form(
        "abs_spd_comp",
        "spd_comp",
        "none",
        2,
        (
            "{interval}, how fast does {a} move through the scene compared with {b}?",
            "Compare the speed of {a} over the ground with that of {b} {interval}.",
            "Is {a} faster or slower than {b} {interval}, measured over the ground?",
        ),
    ),
    Form(
        "rel_dir_pred",
        "dir_pred",
        "moving",
        1,
        (
            "The clip stops at {moment}. Which way will {a} move next, as seen by {viewer} moving and turning?",
            "Predict what follows {moment}: which way will {a} move through the moving view of {viewer}?",
            "Right after {moment}, following the viewpoint of {viewer}, which way will {a} move?",
        ),
    ),
    Form(
        "abs_dir_pred",
        "dir_pred",
        "fixed",
        1,
        (
            "The clip stops at {moment}. In which direction will {a} move next, in the axes that {viewer} has then?",
            "Predict what follows {moment}: which way will {a} move, in terms of how {viewer} faces at {moment}?",
            "Right after {moment}, keeping the viewpoint that {viewer} has at {moment}, which way will {a} move?",
        ),
    ),
)

_INTERVALS = (("between ", " and "), ("from ", " to "))
THEN = ", then "
"""Word between two states of an answer."""
_DIRECTIONS = (("in front", "behind"), ("left", "right"), ("above", "below"))
_BETWEEN = (("forward", "backward"), ("left", "right"), ("above", "below"))
"""From one target to another, in the viewer's axes: "in front" and "behind" would mean the opposite to many, and
"nearer" is not so for what lies behind the viewer."""
_WAYS = (("forward", "backward"), ("left", "right"), ("up", "down"))
_SCALARS: dict[str, dict[int, str]] = {
    "dis": {1: "grows", 0: "stays about the same", -1: "shrinks"},
    "spd": {1: "speeds up", 0: "keeps about the same speed", -1: "slows down"},
    "spd_comp": {1: "faster", 0: "about as fast", -1: "slower"},
}
_OPENINGS = {
    "dis": "It ",
    "spd": "It ",
    "spd_comp": "It is ",
    "dir": "It is ",
    "dir_between": "It is ",
    "ori": "It faces ",
    "dir_pred": "It moves ",
}

Answer = tuple[tuple[int, ...], ...]
"""A run-length sequence of states; a state has one value, or three for directions."""


def num_axes(signal: str) -> int:
    return 1 if signal in _SCALARS else 3


def axis_words(question_type: str) -> list[dict[str, str]]:
    """Words of a type's states for each axis, by their sign in `encode_states`; [] for a type without states.

    >>> axis_words("rel_dis")
    [{'-': 'shrinks', '0': 'stays about the same', '+': 'grows'}]
    """
    signal = question_type.split("_", 1)[-1]
    if signal in _SCALARS:
        return [{"-0+"[state + 1]: word for state, word in sorted(_SCALARS[signal].items())}]
    axes = {"dir": _DIRECTIONS, "ori": _WAYS, "dir_pred": _WAYS}.get(signal, ())
    return [{"-": negative, "0": "neither", "+": positive} for positive, negative in axes]


def _axes_phrases(words: tuple[tuple[str, str], ...]) -> dict[tuple[int, ...], str]:
    """A phrase for each of the 26 directions, such as "in front, left and above"."""
    phrases = {}
    for state in itertools.product((-1, 0, 1), repeat=3):
        parts = [positive if s > 0 else negative for s, (positive, negative) in zip(state, words, strict=True) if s]
        if parts:
            phrases[state] = " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 2 else parts)
    return phrases


_PHRASES: dict[str, dict[tuple[int, ...], str]] = {
    **{signal: {(state,): phrase for state, phrase in words.items()} for signal, words in _SCALARS.items()},
    "dir": _axes_phrases(_DIRECTIONS),
    "dir_between": _axes_phrases(_BETWEEN),
    "ori": _axes_phrases(_WAYS),
    "dir_pred": _axes_phrases(_WAYS),
}
_STATES = {signal: {phrase: state for state, phrase in phrases.items()} for signal, phrases in _PHRASES.items()}


def states_of(vocabulary: str) -> tuple[tuple[int, ...], ...]:
    """All states that words of a vocabulary tell.

    >>> states_of("dis")
    ((1,), (0,), (-1,))
    """
    return tuple(_PHRASES[vocabulary])


def answer_text(vocabulary: str, answer: Answer) -> str:
    """An answer as a sentence, such as "It grows, then shrinks."; `parse_answer` reads it back."""
    return _OPENINGS[vocabulary] + THEN.join(_PHRASES[vocabulary][state] for state in answer) + "."


def parse_answer(vocabulary: str, text: str) -> Answer:
    """The states that an answer's sentence tells.

    Raises:
        ValueError: not a sentence of `answer_text`.
    """
    opening = _OPENINGS[vocabulary]
    if not (text.startswith(opening) and text.endswith(".")):
        raise ValueError(f"not an answer about {vocabulary}: {text!r}")
    try:
        return tuple(_STATES[vocabulary][phrase] for phrase in text[len(opening) : -1].split(THEN))
    except KeyError as error:
        raise ValueError(f"not an answer about {vocabulary}: {text!r} ({error} is no state)") from None


def encode_states(answer: Answer) -> str:
    """Compact code of an answer: a sign a state and axis.

    >>> encode_states(((1, 0, -1), (0, 0, -1)))
    '+0- 00-'
    """
    return " ".join("".join("-0+"[state + 1] for state in states) for states in answer)


def mention(label: str, box: Sequence[float] | None, moment: float) -> str:
    """Name of an entity in a question: a track with its box in pixels at a moment; without a box, the camera.

    >>> mention("white car", [10.2, 20.0, 60.7, 90.0], 1.5), mention("", None, 1.5)
    ('the white car (box [10, 20, 61, 90] at 1.5 s)', 'the camera')
    """
    if not box:
        return "the camera"
    x1, y1, x2, y2 = map(round, box)
    return f"the {_without_brackets(label)} (box [{x1}, {y1}, {x2}, {y2}] at {moment:.1f} s)"


@cache
def _without_brackets(label: str) -> str:
    """Brackets are for the box, or the question could not be read back."""
    return " ".join(re.sub(r"[()\[\]]", " ", label).split())


def question_text(form: Form, wording: int, start: float, end: float, moment: float, names: dict[str, str]) -> str:
    """The question of a form in one of its wordings.

    Args:
        wording: any non-negative number; it chooses among the form's wordings and the ways to say an interval.
        names: `viewer`, `a`, `b`, `c` as given by `mention`, those that the form needs.
    """
    first, last = f"{start:.1f} s", f"{end:.1f} s"
    before, between = _INTERVALS[wording % len(_INTERVALS)]
    interval = f"{before}{first}{between}{last}"
    template = form.wordings[wording // len(_INTERVALS) % len(form.wordings)]
    times = {"moment": first if moment == start else f"{moment:.1f} s", "start": first, "end": last}
    text = template.format(interval=interval, Interval=interval.capitalize(), **times, **names)
    return text[0].upper() + text[1:]


NUM_WORDINGS = 12
"""Wordings to draw from: a common multiple of all forms' numbers of wordings and intervals, so that none is rarer."""
