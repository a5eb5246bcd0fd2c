"""What becomes of a question when its video is played backwards, is mirrored, or its options are rotated.

A question of this project's templates is read back (reading.py) and written again for the changed video: times count
from the other end, boxes lie on the other side, and each option tells its states as they then are. Since every option
is changed by the same rule, which is one to one, the right letter stays.

- Backwards, a run of states is told in reverse. A change (of distance, of speed) changes its sign as well; a direction,
  an orientation and a comparison of speeds do not. What moves next (`dir_pred`) is what came before: not defined.
- Mirrored, left and right change places, for an agent's own axes too; nothing else does.
- Each free-form family states it for its own answers (families.py). Those that compare the end of an interval with its
  start are not defined backwards: who did not come closer did not therefore go away.

Not defined: such questions, and every text that is no wording of ours. They are left out and counted.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from dsr.mcq import Question, lettered
from dsr.questions.language.families import FORMS, Family
from dsr.questions.language.reading import Mention, Reading, read_question
from dsr.questions.language.templates import Answer, Form, answer_text, mention, parse_answer, question_text

LEFT_AXIS = 1
"""Of the three axes of a direction: forward, left, up."""


class UndefinedError(Exception):
    """A question that has no counterpart under a control; the message says why."""


@dataclass(frozen=True)
class ClipFacts:
    """What of a clip the words of a question depend on."""

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
    form, reading = _read(question)
    if form.signal == "dir_pred":
        raise UndefinedError("dir_pred is not defined backwards")
    options = _change_options(question, form, _backwards, lambda family: family.backwards)
    start, end, moment = _times(question, form)
    whole = clip.first + clip.last
    mirrored = (whole - end, whole - start, whole - moment)
    if isinstance(form, Family) and form.at_end:
        mirrored = (mirrored[0], whole - end, mirrored[2])
    text = _write(question, form, reading, mirrored, {role: m.box for role, m in reading.mentions.items()})
    return replace(question, question=text, options=options, start_time=mirrored[0], end_time=mirrored[1])


def mirror(question: Question, clip: ClipFacts) -> Question:
    """The question about the clip with left and right exchanged.

    Raises:
        UndefinedError: see the module's docstring.
    """
    form, reading = _read(question)
    boxes = {
        role: None if m.box is None else (clip.width - m.box[2], m.box[1], clip.width - m.box[0], m.box[3])
        for role, m in reading.mentions.items()
    }
    text = _write(question, form, reading, _times(question, form), boxes)
    options = _change_options(question, form, _mirrored, lambda family: family.mirrored)
    return replace(question, question=text, options=options)


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


def _read(question: Question) -> tuple[Form, Reading]:
    reading = read_question(question.question, question.type)
    if reading.form is None:
        raise UndefinedError("the question's text is no wording of the templates")
    return FORMS[reading.form], reading


def _times(question: Question, form: Form) -> tuple[float, float, float]:
    """Start and end of the interval, and the stated moment."""
    if question.start_time is None or question.end_time is None:
        raise UndefinedError("the table has no start_time and end_time")
    return question.start_time, question.end_time, question.end_time if form.stated else question.start_time


def _write(
    question: Question,
    form: Form,
    reading: Reading,
    times: tuple[float, float, float],
    boxes: Mapping[str, tuple[int, int, int, int] | None],
) -> str:
    """The question with other times and boxes; it is refused where it could not even be written as it is."""

    def written(times: tuple[float, float, float], boxes: Mapping[str, tuple[int, int, int, int] | None]) -> list[str]:
        start, end, moment = times
        names = {role: _mention(m, boxes[role], moment) for role, m in reading.mentions.items()}
        # Two ways to say an interval for each wording.
        return [question_text(form, 2 * reading.wording + way, start, end, moment, names) for way in (0, 1)]

    own = {role: m.box for role, m in reading.mentions.items()}
    same = [_plain(text) == _plain(question.question) for text in written(_times(question, form), own)]
    if True not in same:
        raise UndefinedError("the question's text is no wording of the templates")
    return written(times, boxes)[same.index(True)]


def _mention(read: Mention, box: tuple[int, int, int, int] | None, moment: float) -> str:
    return mention(read.label, box, moment)


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", text).casefold()
