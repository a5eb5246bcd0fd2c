"""A model's view in words: shares and states that are made by hand."""

import numpy as np

from dsr.explain.model_view import Glance, ModelView, Seen, Told, things_shown, view_text

TOKENS = [
    Seen("the dog", 1.0),
    Seen("the dog", 2.0),
    Seen("the ball seen by the dog", 1.0),
    Seen("the ball seen by the dog", 2.0),
    Seen("the cat", 1.0),
    Seen("the camera", 1.0),
]


def view(**changes: object) -> ModelView:
    shares = np.array([[0.1, 0.04, 0.6, 0.2, 0.03, 0.03], [0.05, 0.3, 0.1, 0.5, 0.03, 0.02]])
    glances = [
        Glance("1.00 s", 1.0, 1.0, shares[0], Told("It is left", 0.875, "It is left")),
        Glance("2.00 s", 2.0, 2.0, shares[1], Told("It is right", 0.5, "It is behind")),
    ]
    made = {
        "name": "models/gsm",
        "trained_on": False,
        "probabilities": [0.1, 0.2, 0.65, 0.05],
        "right": "C",
        "tokens": TOKENS,
        "glances": glances,
    }
    return ModelView(**(made | changes))  # type: ignore[arg-type]


def test_each_moment_has_its_largest_shares_and_what_its_token_tells() -> None:
    assert view_text(view()).splitlines() == [
        "The model (models/gsm)",
        "  letters: A 10 %, B 20 %, C 65 %, D 5 %: C, right",
        "  its selector looked at these of 6 3D tokens (shares of its attention)",
        "  1: 1.00 s   tells: It is left (88 %), as derived",
        "     60 %  the ball seen by the dog at 1.00 s",
        "     20 %  the ball seen by the dog at 2.00 s",
        "     10 %  the dog at 1.00 s",
        "  2: 2.00 s   tells: It is right (50 %), derived: It is behind",
        "     50 %  the ball seen by the dog at 2.00 s",
        "     30 %  the dog at 2.00 s",
        "     10 %  the ball seen by the dog at 1.00 s",
        "      5 %  the dog at 1.00 s",
    ]


def test_attention_that_is_spread_thinly_names_one_token() -> None:
    even = Glance("all 8 geometry tokens", 0.0, 2.0, np.full(40, 1 / 40), None)
    text = view_text(view(tokens=[Seen("the dog", float(i)) for i in range(40)], glances=[even]))
    assert text.splitlines()[-2:] == ["  1: all 8 geometry tokens", "      2 %  the dog at 0.00 s"]


def test_a_wrong_answer_and_a_question_for_training_are_said() -> None:
    assert view(right="A").letters().endswith(": C, wrong, A is right")
    assert view(trained_on=True).letters().endswith("C, right; it learned from this question")
    no_state = Told("It is left", 1.0, "")
    assert str(no_state) == "It is left (100 %), derived: no state"


def test_a_view_that_is_not_there_is_one_line() -> None:
    assert view_text("models/gsm holds no model") == "The model: not read, models/gsm holds no model"


def test_things_are_shown_by_their_attention_over_all_times() -> None:
    assert things_shown(view(), 9) == ["the ball seen by the dog", "the dog"]
    assert things_shown(view(), 1) == ["the ball seen by the dog"]
    scattered = Glance("1.00 s", 1.0, 1.0, np.full(40, 1 / 40), None)
    many = view(tokens=[Seen(f"thing {i}", 0.0) for i in range(40)], glances=[scattered])
    assert things_shown(many, 9) == ["thing 0"]
