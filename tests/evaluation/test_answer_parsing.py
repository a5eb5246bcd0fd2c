"""A corpus of what models write: one letter, or none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsr.evaluation.answer_parsing import parse_answer

OPTIONS = (
    "A. It grows.",
    "B. It shrinks.",
    "C. It grows, then shrinks.",
    "D. It stays about the same.",
)

LETTER_ALONE = [
    ("A", "A"),
    ("b", "B"),
    (" C ", "C"),
    ("D.", "D"),
    ("(A)", "A"),
    ("[b]", "B"),
    ("C)", "C"),
    ("D:", "D"),
    ("**B**", "B"),
    ("**B.**", "B"),
    ("A\n", "A"),
]
SAID = [
    # with the option's text
    ("A. It grows.", "A"),
    ("(B) It shrinks.", "B"),
    ("C: It grows, then shrinks.", "C"),
    ("**D.** It stays about the same.", "D"),
    ("It grows, then shrinks.", "C"),
    ("it grows", "A"),
    ("B. It shrinks.\n\nThe ball comes closer to the camera in every frame.", "B"),
    ("Looking at the frames.\n\nC. It grows, then shrinks.", "C"),
    ("The ball comes closer to the camera.\n\nB", "B"),
    # in a sentence
    ("The answer is B.", "B"),
    ("The answer is (C).", "C"),
    ("The correct answer is D", "D"),
    ("The correct answer is option C.", "C"),
    ("The correct option is **A**.", "A"),
    ("Answer: B", "B"),
    ("answer: b", "B"),
    ("Answer:C", "C"),
    ("Answer: **D. It stays about the same.**", "D"),
    ("ANSWER = A", "A"),
    ("My answer would be B because the gap closes.", "B"),
    ("The answer is A because the gap opens.", "A"),
    ("The answer is A It grows.", "A"),
    ("The right choice is C, since it turns.", "C"),
    ("Option B is correct.", "B"),
    ("B is the correct answer.", "B"),
    ("C. It grows, then shrinks is the best option", "C"),
    ("I would choose option D.", "D"),
    ("I'll go with (B).", "B"),
    ('The answer is "C".', "C"),
    ("It looks as if it shrinks, (B).", "B"),
    ("The answer is A, not B.", "A"),
    ("It does not shrink, so the answer is A.", "A"),
    ("B. It shrinks.\nIt does not grow.", "B"),
    ("It isn't growing, I would select C.", "C"),
    # the more explicit way wins
    ("A. It grows could fit, but the final answer is C.", "C"),
    ("At first, the answer is A. No: the ball turns. Final answer: C", "C"),
    ("Option A is tempting. <answer>B</answer>", "B"),
    ("<answer> (D) </answer>", "D"),
    ("<answer>B. It shrinks.</answer>", "B"),
    ("<answer>It shrinks.</answer>", "B"),
    ("So $\\boxed{C}$", "C"),
    ("\\boxed{\\text{C}}", "C"),
    # thinking aloud
    ("<think>Is it A? The answer is A... no, it shrinks.</think>B", "B"),
    ("<think>maybe A</think>\n\nThe answer is D.", "D"),
    ("the answer is A ... wait </think> C", "C"),
]
NOT_SAID = [
    "",
    " ",
    "I cannot tell.",
    "E",
    "AB",
    "A or B",
    "A and C",
    "The answer is A or B.",
    "The answer is either A or C.",
    "Answer: A, B",
    "A. It grows.\nB. It shrinks.",
    "A. It grows.\nB. It shrinks.\nC. It grows, then shrinks.\nD. It stays about the same.",
    "The answer is not A.",
    "The correct answer is not B.",
    "A is not correct.",
    "Option A is wrong.",
    "The answer is a ball that comes closer.",
    "The answer is A ball.",
    "A ball moves towards the camera.",
    "The distance between A and B grows.",
    "It does not grow.",
    "It grows. It shrinks.",
    "Between (A) and (B) I cannot decide.",
    "The answer is A. The answer is B.",
    "Final answer: A. Final answer: B.",
    "The answer is A. However, B is correct.",
    "I don't think the answer is B.",
    "I would not choose option D.",
    "I doubt that the answer is C.",
    "It is not (A).",
    "(A) is wrong.",
    "A. is incorrect.",
    "Neither (A) nor anything else.",
    "<think>The answer is A",
    "<answer></answer>",
    "<answer>A or B</answer>",
    "\\boxed{AB}",
    "The video shows an agent; as a result, the gap closes.",
    "None of the above.",
    "All of the above",
    "F. Something else",
    "42",
    "答案不确定",
]


@pytest.mark.parametrize(("text", "letter"), LETTER_ALONE)
@pytest.mark.parametrize("parser", ["strict", "lenient"])
def test_a_letter_alone(text: str, letter: str, parser) -> None:
    assert parse_answer(text, OPTIONS, parser) == letter


@pytest.mark.parametrize(("text", "letter"), SAID)
def test_what_a_model_means_is_read_leniently_and_not_strictly(text: str, letter: str) -> None:
    assert parse_answer(text, OPTIONS, "lenient") == letter
    assert parse_answer(text, OPTIONS, "strict") == ""


@pytest.mark.parametrize("text", NOT_SAID)
@pytest.mark.parametrize("parser", ["strict", "lenient"])
def test_what_is_not_one_answer_is_none(text: str, parser) -> None:
    assert parse_answer(text, OPTIONS, parser) == ""


def test_letters_are_those_of_the_options() -> None:
    assert parse_answer("E", (*OPTIONS, "E. Something else."), "strict") == "E"
    assert parse_answer("The answer is D.", OPTIONS[:2], "lenient") == ""


@given(st.text(alphabet="ABCDabcd .,:()*\n<>answerthinkis", max_size=60))
def test_any_text_gives_one_letter_or_none_and_strict_is_never_contradicted(text: str) -> None:
    strict, lenient = (parse_answer(text, OPTIONS, parser) for parser in ("strict", "lenient"))
    assert lenient in ("", "A", "B", "C", "D")
    assert strict in ("", lenient)
