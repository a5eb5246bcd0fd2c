"""Guidance of training by what a pool keeps of each question beside its answer: the states that its signal goes
through, and the 3D tokens that show them. And changes of a clip and its questions that leave the answers as they are.

Geometry token i tells the state at key moment i of a question; the answer is their run-length sequence. A free-form
answer's tokens tell its parts, one after another. A state is a sentence, the shortest answer that tells it alone ("It
grows"), so that a language model that reads answers reads states. Nothing of this is there at evaluation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from dsr import project
from dsr.console import StageError
from dsr.examples.records import Example
from dsr.questions.engine.answers import decode_run_lengths, run_lengths
from dsr.questions.engine.signals import states_of_signal
from dsr.questions.language.families import FORM_INDEX, FORMS, Family
from dsr.questions.language.templates import (
    THEN,
    Form,
    answer_text,
    encode_states,
    mention,
    num_axes,
    parse_answer,
    question_text,
    states_of,
)

if TYPE_CHECKING:
    from dsr.params import QA

CAMERA, NOBODY = -1, -2
"""A pool's `viewpoint` and `targets`: the camera; nobody's viewpoint. Tracks are counted from 0."""
NUM_SIGHTS = 4
"""Tokens that a key moment's state is read from, at most. Heads that share keys take neighbouring ones: they also share
what a query can say of whom and when it asks for, so each half is best of one thing or one moment."""
_COLUMNS = {"qa_id", "form", "signal", "states", "viewpoint", "targets", "frames"}


def state_sentences(form: Form, answer: str) -> tuple[str, ...]:
    """Sentences of the states that an answer tells, one after another.

    >>> state_sentences(FORMS[FORM_INDEX["rel_dis"]], "It grows, then shrinks.")
    ('It grows', 'It shrinks')
    >>> state_sentences(FORMS[FORM_INDEX["faced_target"]], "None of them.")
    ('None of them',)
    """
    if isinstance(form, Family):
        return tuple(part[0].upper() + part[1:] for part in answer.removesuffix(".").split(THEN))
    states = parse_answer(form.vocabulary, answer)
    return tuple(answer_text(form.vocabulary, (state,)).removesuffix(".") for state in states)


def _vocabulary(form: Form) -> list[str]:
    """Sentences of all states that a form's answers can have."""
    answers = form.answers if isinstance(form, Family) else [answer_text(form.vocabulary, states_of(form.vocabulary))]
    return list(dict.fromkeys(sentence for answer in answers for sentence in state_sentences(form, answer)))


_VOCABULARIES = {form.name: _vocabulary(form) for form in FORMS}
STATES = tuple(dict.fromkeys(sentence for sentences in _VOCABULARIES.values() for sentence in sentences))
"""Sentences of all states of all forms."""
_PLACES = {sentence: place for place, sentence in enumerate(STATES)}
STATES_OF_FORM: Mapping[str, np.ndarray] = {
    name: np.array([_PLACES[sentence] for sentence in sentences]) for name, sentences in _VOCABULARIES.items()
}
"""Places in STATES of the states that a form's answers can have, by its name."""


def told_states(form: Form, answer: str) -> tuple[int, ...]:
    """Places in STATES of what an answer tells, one after another."""
    return tuple(_PLACES[sentence] for sentence in state_sentences(form, answer))


@dataclass(frozen=True)
class Sight:
    """A 3D token that shows something of a question: of a thing, or of a thing as a viewer sees it."""

    viewer: int
    """NOBODY for a token of the thing alone."""
    thing: int
    frame: int


@dataclass(frozen=True)
class Guide:
    """States of a question at its key moments, and where they are seen."""

    form: str
    states: tuple[int, ...]
    """Places in STATES, one a geometry token."""
    viewer: int
    targets: tuple[int, ...]
    frames: tuple[int, ...]
    """Key moments, in frames of the cues."""

    def sights(self) -> list[tuple[Sight, ...]]:
        """Tokens to look at for each state, up to NUM_SIGHTS; they follow from the question's text alone."""
        form, count = FORMS[FORM_INDEX[self.form]], len(self.states)
        if isinstance(form, Family):
            return [self._of_family(form)] * count
        if form.signal == "dir_pred":
            return [self._of_state(form, self.frames[form.stated])]
        if form.signal in ("dir", "ori"):
            return [self._of_state(form, frame) for frame in self.frames][:count]
        return [self._of_change(form, k) for k in range(min(count, len(self.frames) - 1))]

    def _of_state(self, form: Form, frame: int) -> tuple[Sight, ...]:
        """Targets as the viewer sees them at a moment; in axes of another moment, also how these stood."""
        viewer, first, last, stated = self.viewer, self.targets[0], self.targets[-1], self.frames[form.stated]
        if form.viewer == "moving" or form.signal == "dir_pred":
            return (Sight(viewer, first, frame),) * 2 + (Sight(viewer, last, frame),) * 2
        now, then = (tuple(Sight(viewer, thing, at) for thing in (first, last)) for at in (frame, stated))
        if form.num_targets == 2:
            return now[0], then[0], now[1], then[1]
        return now[0], then[0], Sight(NOBODY, first, frame), Sight(NOBODY, viewer, stated)

    def _of_change(self, form: Form, number: int) -> tuple[Sight, ...]:
        """Targets at a moment and at the one after it; for a change of speed, at both ends of both of its steps."""
        viewer, first, last = self.viewer, self.targets[0], self.targets[-1]
        now, following = self.frames[number : number + 2]
        if form.viewer == "fixed":
            stood = Sight(NOBODY, viewer, self.frames[form.stated])
            return Sight(NOBODY, first, now), Sight(NOBODY, first, following), stood, Sight(viewer, first, now)
        if form.num_targets == 2:
            return tuple(Sight(viewer, thing, at) for thing in (first, last) for at in (now, following))
        moments = (now, now, following, following)
        if form.signal == "spd":
            moments = (now, following, following, self.frames[number + 2])
        return tuple(Sight(viewer, first, at) for at in moments)

    def _of_family(self, form: Family) -> tuple[Sight, ...]:
        """Targets at the moments that a family's rule compares, as far as there is room."""
        start, *_, end = self.frames
        if form.signal in ("order_of_speed", "order_of_approach"):
            moments = self.frames[len(self.frames) // 2 :][:1]
        elif form.signal in ("when_nearest", "path_shape", "count_reversals"):
            moments = self.frames[0:3:2] + self.frames[-3::2]
        elif form.signal == "when_fastest":
            moments = self.frames[1::2]  # the middle of each quarter
        else:
            moments = (end,) if form.at_end else (end, start)
        if len(self.targets) == 2:
            return tuple(Sight(self.viewer, thing, frame) for thing in self.targets for frame in moments)
        sights = [Sight(self.viewer, thing, frame) for frame in moments for thing in self.targets]
        repeats = NUM_SIGHTS // len(sights) or 1
        return tuple(sight for sight in sights for _ in range(repeats))[:NUM_SIGHTS]


def read_guides(table: pd.DataFrame, qa: "QA") -> dict[str, Guide]:
    """Guides of the questions of a pool by their qa_id; none of questions from elsewhere.

    Args:
        qa: parameters that the pool was made with.

    Raises:
        StageError: the states that follow from a signal are not those of the question.
    """
    if not set(table) >= _COLUMNS:
        return {}
    guides = {}
    for name, rows in table.groupby("form", sort=False):
        if name not in FORM_INDEX:
            continue
        form = FORMS[FORM_INDEX[str(name)]]
        states = _states(form, rows, qa)
        about = zip(rows.qa_id, states, rows.viewpoint, rows.targets, rows.frames, strict=True)
        for qa_id, own, viewer, targets, frames in about:
            guides[str(qa_id)] = Guide(form.name, own, int(viewer), tuple(map(int, targets)), tuple(map(int, frames)))
    return guides


def _states(form: Form, rows: pd.DataFrame, qa: "QA") -> list[tuple[int, ...]]:
    """Places in STATES for each question of a form."""
    if isinstance(form, Family):
        return [told_states(form, form.answers[int(code)]) for code in rows.states]
    axes = {"spd_comp": 2}.get(form.signal, num_axes(form.signal))
    signal = np.stack([np.reshape(values, (-1, axes)) for values in rows.signal]).astype(np.float32)
    states = states_of_signal(form, signal, qa)
    if form.signal == "dir_pred":
        states = states[:, 1:]
    codes = run_lengths(states).tolist()
    found = [encode_states(decode_run_lengths(code, num_axes(form.signal))) for code in codes]
    for row, told, own in zip(rows.qa_id, found, rows.states, strict=True):
        if told != own:
            raise StageError(
                f"{project.TRAIN}: the signal of {row} tells {told}, its answer {own}: the questions were made with "
                "other `qa` parameters; run `dsr qa` and `dsr split`"
            )
    return [
        tuple(_PLACES[answer_text(form.vocabulary, (tuple(state),)).removesuffix(".")] for state in question)
        for question in states.tolist()
    ]


@dataclass(frozen=True)
class Change:
    """Changes of a clip and of all questions about it that leave the answers as they are."""

    names: Mapping[str, str] = field(default_factory=dict)
    """Another name for each that is exchanged; the camera, which has no box, keeps its own."""
    shift: float = 0.0
    """Seconds by which clocks are put forward."""
    noise: float = 0.0
    """Deviation of the noise on the values of 3D tokens."""
    seed: int = 0
    """Seed of the noise."""

    @classmethod
    def draw(cls, names: Sequence[str], max_shift: float, noise: float, rng: np.random.Generator) -> "Change":
        """Draw a permutation of names, a shift, and a seed of noise."""
        exchanged = dict(zip(names, rng.permutation(names).tolist(), strict=True)) if names else {}
        return cls(exchanged, float(rng.uniform(0, max_shift)), noise, int(rng.integers(2**32)))

    def question(self, example: Example) -> str:
        """Text of a question of a pool with other names and times."""
        if example.form not in FORM_INDEX or example.start_time is None or example.end_time is None:
            return example.question
        form = FORMS[FORM_INDEX[example.form]]
        start, end = example.start_time + self.shift, example.end_time + self.shift
        if form.signal == "dir_pred":
            start = example.start_time
        moment = end if form.signal == "dir_pred" else start
        mentioned = zip(example.labels, example.boxes, strict=True)
        mentions = [mention(self.names.get(label, label), box, moment) for label, box in mentioned]
        names = dict(zip(form.roles, mentions, strict=True))
        return question_text(form, example.wording, start, end, moment, names)


@dataclass(frozen=True)
class GuidedExample(Example):
    """A question for training, with what is known of it and what is changed."""

    guide: Guide | None = None
    change: Change = Change()


def guide_examples(examples: Sequence[Example], guides: Mapping[str, Guide]) -> list[GuidedExample]:
    """Examples with their guides, where they have one."""
    return [GuidedExample(**vars(example), guide=guides.get(example.qa_id)) for example in examples]


def changed(example: GuidedExample, change: Change) -> GuidedExample:
    """The question as it is asked about the changed clip."""
    return replace(example, question=change.question(example), change=change)
