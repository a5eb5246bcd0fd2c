"""Questions are read back as they were written."""

import pytest

from dsr.questions.language.families import FORMS
from dsr.questions.language.parsing import Mention, parse_question
from dsr.questions.language.templates import NUM_WORDINGS, mention, question_text

BOXES = {"viewer": (1.0, 2, 30, 40), "a": (100.0, 50, 160, 90), "b": (300.0, 20, 320, 70), "c": (5.0, 200, 60, 240)}
LABELS = {"viewer": "second robot dog", "a": "red cube", "b": "person", "c": "ball"}


@pytest.mark.parametrize("index", range(len(FORMS)), ids=[f"{f.type}-{f.signal}-{i}" for i, f in enumerate(FORMS)])
def test_every_wording_of_every_form_is_read_back(index: int) -> None:
    form, roles = FORMS[index], FORMS[index].roles
    names = {role: mention(LABELS[role], BOXES[role], 1.2) for role in roles}
    for wording in range(NUM_WORDINGS):
        parsed = parse_question(question_text(form, wording, 1.2, 3.4, 1.2, names), form.type)
        assert parsed.form is not None
        assert FORMS[parsed.form].type == form.type
        found = {m.label: m.box for m in parsed.mentions.values()}
        assert found == {LABELS[role]: tuple(int(x) for x in BOXES[role]) for role in roles}
        assert set(parsed.times) <= {1.2, 3.4}
        # Where two forms ask in the same words, they ask for the same; else it is this form with these roles.
        if parsed.form == index:
            assert {role: m.label for role, m in parsed.mentions.items()} == {role: LABELS[role] for role in roles}


def test_the_camera_has_no_box() -> None:
    text = "Follow the camera: what of the ball (box [1, 2, 3, 4] at 0.5 s) at 2.0 s?"
    parsed = parse_question(text, "non_temp")
    assert parsed.form is None
    assert parsed.mentions == {"viewer": Mention("camera", None), "a": Mention("ball", (1, 2, 3, 4))}
    assert parsed.times == (2.0,)


def test_any_text_is_read() -> None:
    parsed = parse_question("", "rel_dis")
    assert (parsed.form, parsed.mentions, parsed.times) == (None, {}, ())
