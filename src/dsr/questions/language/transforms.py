"""Questions rewritten for a video that is played backwards or mirrored, or with their options rotated.

A question of this project's templates is written again for the changed video: times count from the other end, boxes lie
on the other side, and each option tells its states as they then are. Since every option is changed by the same rule,
which is one to one, the right letter stays. A question of the pool says what it was made from; the text of one from
elsewhere is parsed (parsing.py).

- Backwards, a run of states is told in reverse. A change (of distance, of speed) changes its sign as well; a direction,
  an orientation and a comparison of speeds do not. What moves next (`dir_pred`) is what came before: not defined.
- Mirrored, left and right change places, for an agent's own axes too; nothing else does.
- Each free-form family states it for its own answers (families.py). Those that compare the end of an interval with its
  start are not defined backwards: who did not come closer did not therefore go away.

Not defined: such questions, and every text that is no wording of ours. They are left out and counted.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from dsr.mcq import Question, lettered
from dsr.questions.language.families import FORM_INDEX, FORMS, Family
from dsr.questions.language.parsing import parse_question
from dsr.questions.language.templates import Answer, Form, answer_text, mention, parse_answer, question_text

LEFT_AXIS = 1
"""Place of left among the three axes of a direction: forward, left, up."""


class UndefinedError(Exception):
    """A question that has no counterpart under a control; the message says why."""


@dataclass(frozen=True)
class ClipFacts:
    """Facts of a clip that the words of a question depend on."""

    width: int
    """Pixels of the original video."""
    first: float
    """Seconds of its first cue frame."""
    last: float


def rotate_options(question: Question, clip: ClipFacts, places: int) -> Question:
    """Every option moved by some places; the letters stay in their order."""
    count = len(question.options)
    if places >= count:
        raise UndefinedError(f"{count} options have no rotation by {places}")
    texts = [question.bare_options[(k - places) % count] for k in range(count)]
    right = question.letters[(question.letters.index(question.answer) + places) % count]
    return replace(question, options=lettered(texts), answer=right)


def without_text(question: Question, clip: ClipFacts) -> Question:
    """The options alone."""
    return replace(question, question="")


def reverse_time(question: Question, clip: ClipFacts) -> Question:
    """The question about the clip played backwards.

    Raises:
        UndefinedError: see the module's docstring.
    """
    source = _source(question)
    form = source.form
    if form.signal == "dir_pred":
        raise UndefinedError("dir_pred is not defined backwards")
    options = _change_options(question, form, _backwards, lambda family: family.backwards)
    start, end, moment = _times(question, form)
    whole = clip.first + clip.last
    mirrored = (whole - end, whole - start, whole - moment)
    if isinstance(form, Family) and form.at_end:
        mirrored = (mirrored[0], whole - end, mirrored[2])
    text = _write(question, source, mirrored, source.boxes)
    return replace(question, question=text, options=options, start_time=mirrored[0], end_time=mirrored[1])


def mirror(question: Question, clip: ClipFacts) -> Question:
    """The question about the clip with left and right exchanged.

    Raises:
        UndefinedError: see the module's docstring.
    """
    source = _source(question)
    boxes = tuple((clip.width - box[2], box[1], clip.width - box[0], box[3]) if box else () for box in source.boxes)
    text = _write(question, source, _times(question, source.form), boxes)
    options = _change_options(question, source.form, _mirrored, lambda family: family.mirrored)
    return replace(question, question=text, options=options, boxes=boxes if question.boxes else ())


# --- Answers ---


_CHANGES = ("dis", "spd")
"""Signals whose states are changes."""


def _backwards(signal: str, answer: Answer) -> Answer:
    sign = -1 if signal in _CHANGES else 1
    return tuple(tuple(sign * s for s in states) for states in reversed(answer))


def _mirrored(signal: str, answer: Answer) -> Answer:
    if signal not in ("dir", "ori", "dir_pred"):
        return answer
    return tuple(tuple(-s if axis == LEFT_AXIS else s for axis, s in enumerate(states)) for states in answer)


def _change_options(
    question: Question,
    form: Form,
    change: Callable[[str, Answer], Answer],
    family_change: Callable[[Family], Sequence[int] | None],
) -> tuple[str, ...]:
    """Options of the changed question, of a template's by `change`, of a family's by its own table."""
    try:
        if isinstance(form, Family):
            table = family_change(form)
            if table is None:
                raise UndefinedError(f"{form.signal} is not defined backwards")
            return lettered([form.answers[table[form.answers.index(text)]] for text in question.bare_options])
        answers = [parse_answer(form.vocabulary, text) for text in question.bare_options]
        return lettered([answer_text(form.vocabulary, change(form.signal, answer)) for answer in answers])
    except ValueError:
        raise UndefinedError("an option is no answer of the templates") from None


# --- Words ---


@dataclass(frozen=True)
class _Original:
    """Form, wording and mentions that the text of a question is made of."""

    form: Form
    wordings: Sequence[int]
    """Numbers of `question_text`, one of which is the question's."""
    roles: Sequence[str]
    labels: Sequence[str]
    boxes: Sequence[tuple[int, ...]]

    def texts(self, times: tuple[float, float, float], boxes: Sequence[tuple[int, ...]]) -> list[str]:
        """The text in each of the wordings, with these times and boxes."""
        mentions = [mention(label, box, times[2]) for label, box in zip(self.labels, boxes, strict=True)]
        names = dict(zip(self.roles, mentions, strict=True))
        return [question_text(self.form, wording, *times, names) for wording in self.wordings]


def _source(question: Question) -> _Original:
    if question.form in FORM_INDEX:
        form = FORMS[FORM_INDEX[question.form]]
        if len(form.roles) == len(question.labels) == len(question.boxes):
            return _Original(form, (question.wording,), form.roles, question.labels, question.boxes)
    parsed = parse_question(question.question, question.type)
    if parsed.form is None:
        raise UndefinedError("the question's text is no wording of the templates")
    labels, boxes = zip(*((m.label, m.box or ()) for m in parsed.mentions.values()), strict=True)
    # Two ways to say an interval for each wording.
    wordings = (2 * parsed.wording, 2 * parsed.wording + 1)
    return _Original(FORMS[parsed.form], wordings, tuple(parsed.mentions), labels, boxes)


def _times(question: Question, form: Form) -> tuple[float, float, float]:
    """Start and end of the interval, and the stated moment."""
    if question.start_time is None or question.end_time is None:
        raise UndefinedError("the table has no start_time and end_time")
    return question.start_time, question.end_time, question.end_time if form.stated else question.start_time


def _write(
    question: Question, source: _Original, times: tuple[float, float, float], boxes: Sequence[tuple[int, ...]]
) -> str:
    """The question with other times and boxes; it is refused where it could not even be written as it is."""
    same = [
        _plain(text) == _plain(question.question) for text in source.texts(_times(question, source.form), source.boxes)
    ]
    if True not in same:
        raise UndefinedError("the question's text is no wording of the templates")
    return source.texts(times, boxes)[same.index(True)]


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", text).casefold()
