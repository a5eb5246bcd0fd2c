"""What becomes of a question when its video is played backwards, is mirrored, or its options are rotated.

A question of this project's templates is read back (reading.py) and written again for the changed video: times count
from the other end, boxes lie on the other side, and each option tells its states as they then are. Since every option
is changed by the same rule, which is one to one, the right letter stays.

- Backwards, a run of states is told in reverse. A change (of distance, of speed) changes its sign as well; a direction,
  an orientation and a comparison of speeds do not. What moves next (`dir_pred`) is what came before: not defined.
- Mirrored, left and right change places, for an agent's own axes too; nothing else does.
- Free-form families have a rule each. Those that compare the end of an interval with its start cannot be told from
  the other end ("come closer" does not say what "did not come farther away" is), so they are not defined backwards.

Not defined: such questions, and every text that is no wording of ours. They are left out and counted.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from dsr.mcq import Question, lettered
from dsr.questions.engine.candidates import FORMS
from dsr.questions.engine.free_form import ORDERS, Family
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
    if form.signal in _UNDEFINED_BACKWARDS:
        raise UndefinedError(f"{form.signal} is not defined backwards")
    options = _change_options(question, form, _backwards, _FREE_FORM_BACKWARDS)
    start, end, moment = _times(question, form)
    whole = clip.first + clip.last
    mirrored = (whole - end, whole - start, whole - moment)
    if form.signal in _AT_END:
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
    return replace(question, question=text, options=_change_options(question, form, _mirrored, _FREE_FORM_MIRRORED))


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


_SAME = None
_BACK_ORDER = tuple(ORDERS.index(order[::-1]) for order in ORDERS)
_SWAP_1_2 = (0, 2, 1, 3)
_SWAP_1_3 = (0, 3, 2, 1)
_SWAP_0_2 = (2, 1, 0, 3)
_REVERSED = (3, 2, 1, 0)
_FREE_FORM_BACKWARDS: Mapping[str, tuple[int, ...] | None] = {
    "nearest_at_end": _SAME,
    "order_of_speed": _SAME,
    "order_of_approach": _BACK_ORDER,
    "passing": _SAME,
    "count_swaps": _SAME,
    "count_reversals": _SAME,
    "when_nearest": _REVERSED,
    "when_fastest": _REVERSED,
    "path_shape": _SWAP_1_2,
    "turn_of_heading": _SWAP_1_2,
    "side_after_turn_left": _SAME,
    "side_after_turn_right": _SAME,
    "side_after_turn_round": _SAME,
    "faced_target": _SAME,
}
"""Answer k of a family becomes answer table[k]."""
_FREE_FORM_MIRRORED: Mapping[str, tuple[int, ...] | None] = {
    **dict.fromkeys(_FREE_FORM_BACKWARDS, _SAME),
    "pairs_that_approach": _SAME,
    "count_approaching": _SAME,
    "path_shape": _SWAP_1_2,
    "turn_of_heading": _SWAP_1_2,
    # Who turns left in the mirror turned right: a target that was then in front would be behind.
    "side_after_turn_left": _SWAP_0_2,
    "side_after_turn_right": _SWAP_0_2,
    "side_after_turn_round": _SWAP_1_3,
}
_UNDEFINED_BACKWARDS = ("dir_pred", "pairs_that_approach", "count_approaching")
_AT_END = (
    *("nearest_at_end", "faced_target"),
    *("side_after_turn_left", "side_after_turn_right", "side_after_turn_round"),
)
"""Families that ask about the last moment alone: backwards the same instant, so the same answer."""


def _change_options(
    question: Question,
    form: Form,
    change: Callable[[str, Answer], Answer],
    families: Mapping[str, tuple[int, ...] | None],
) -> tuple[str, ...]:
    try:
        if isinstance(form, Family):
            if form.signal not in families:
                raise UndefinedError(f"no rule for {form.signal}")
            table = families[form.signal]
            codes = [form.answers.index(text) for text in question.bare_options]
            return lettered([form.answers[code if table is None else table[code]] for code in codes])
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
