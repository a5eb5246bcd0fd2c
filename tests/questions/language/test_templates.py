"""Questions and answers in words, and back."""

import itertools
import string
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsr.mcq import TYPES
from dsr.questions.language.families import FORMS
from dsr.questions.language.templates import (
    NUM_WORDINGS,
    TEMPLATES,
    answer_text,
    encode_states,
    mention,
    num_axes,
    parse_answer,
    question_text,
)
from tests.questions.reference import merge

SIGNALS = ("dis", "dir", "ori", "spd", "spd_comp", "dir_pred")
SCALARS = ("dis", "spd", "spd_comp")
NAMES = {"viewer": "the dog (box [1, 2, 3, 4] at 1.0 s)", "a": "the red cube", "b": "the camera"}


def all_states(signal: str) -> list[tuple[int, ...]]:
    states = itertools.product((-1, 0, 1), repeat=num_axes(signal))
    return [s for s in states if num_axes(signal) == 1 or any(s)]


def form_id(form) -> str:
    return f"{form.type}-{form.num_targets}"


def fields_of(wording: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(wording) if name}


def test_every_form_has_a_name_of_its_own() -> None:
    assert [form.name for form in FORMS][:5] == ["rel_dis", "rel_dis_between", "abs_dis", "rel_dir", "rel_dir_between"]
    assert len({form.name for form in FORMS}) == len(FORMS)
    assert [form.roles for form in FORMS[:3]] == [("viewer", "a"), ("a", "b"), ("viewer", "a")]


@pytest.mark.parametrize("signal", SIGNALS)
def test_every_state_has_words_of_its_own_that_are_read_back(signal: str) -> None:
    states = all_states(signal)
    texts = [answer_text(signal, (state,)) for state in states]
    assert len(set(texts)) == len(states) == (3 if signal in SCALARS else 26)
    assert [parse_answer(signal, text) for text in texts] == [(state,) for state in states]


@given(
    st.sampled_from(SIGNALS).flatmap(
        lambda signal: st.tuples(st.just(signal), st.lists(st.sampled_from(all_states(signal)), min_size=1, max_size=6))
    )
)
def test_any_sequence_is_read_back(case: tuple[str, list[tuple[int, ...]]]) -> None:
    signal, states = case
    answer = merge(states)
    text = answer_text(signal, answer)
    assert parse_answer(signal, text) == answer
    assert text[0].isupper()
    assert text.count(".") == 1
    assert text.endswith(".")


@pytest.mark.parametrize(
    ("signal", "answer", "text"),
    [
        ("dis", ((1,), (0,), (-1,)), "It grows, then stays about the same, then shrinks."),
        ("spd", ((1,), (-1,)), "It speeds up, then slows down."),
        ("spd_comp", ((0,), (-1,)), "It is about as fast, then slower."),
        ("dir", ((1, 0, 0), (-1, 1, 1)), "It is in front, then behind, left and above."),
        ("ori", ((0, -1, 0),), "It faces right."),
        ("dir_pred", ((0, 0, -1),), "It moves down."),
    ],
)
def test_answers_read_as_sentences(signal: str, answer: tuple, text: str) -> None:
    assert answer_text(signal, answer) == text


@pytest.mark.parametrize(
    ("signal", "text"),
    [
        ("dis", ""),
        ("dis", "It grows"),
        ("dis", "It faces left."),
        ("dis", "It explodes."),
        ("dir", "It is ."),
        ("dir", "It is left and in front."),
        ("spd", "It speeds up, then ."),
    ],
)
def test_what_is_no_answer_is_refused(signal: str, text: str) -> None:
    with pytest.raises(ValueError, match="not an answer"):
        parse_answer(signal, text)


def test_states_have_a_compact_code() -> None:
    assert encode_states(((1,), (0,), (-1,))) == "+ 0 -"
    assert encode_states(((1, 0, -1), (0, 0, -1))) == "+0- 00-"


def test_the_published_types_in_their_order() -> None:
    assert len(TYPES) == 13
    assert TYPES[-1] == "non_temp"
    assert {form.type for form in TEMPLATES} == set(TYPES[:-1])


@pytest.mark.parametrize("form", TEMPLATES, ids=form_id)
def test_every_form_has_at_least_three_wordings_that_differ(form) -> None:
    assert len(set(form.wordings)) == len(form.wordings) >= 3


@pytest.mark.parametrize("form", TEMPLATES, ids=form_id)
def test_no_wording_lacks_a_name_it_needs_or_names_what_it_does_not_need(form) -> None:
    needed = {"a"}
    if form.viewer != "none":
        needed.add("viewer")
    if form.num_targets == 2:
        needed.add("b")
    predicts = form.signal == "dir_pred"
    # A prediction has a moment instead of an interval; a fixed viewpoint is meaningless without its moment.
    needed |= {"moment"} if predicts else {"interval"}
    if form.viewer == "fixed":
        needed.add("moment")
    for wording in form.wordings:
        assert fields_of(wording) == needed


def test_relative_forms_follow_their_viewer_absolute_ones_do_not() -> None:
    assert all(form.viewer in ("moving", "none") for form in TEMPLATES if form.type.startswith("rel_"))
    assert all(form.viewer in ("fixed", "none") for form in TEMPLATES if form.type.startswith("abs_"))
    # The distance of a pair and a speed over the ground are the same for all eyes; directions never are.
    assert {form.signal for form in TEMPLATES if form.viewer == "none"} == {"dis", "spd", "spd_comp"}


@pytest.mark.parametrize("form", TEMPLATES, ids=form_id)
def test_questions_are_sentences_with_every_name_in_place(form) -> None:
    texts = Counter(question_text(form, wording, 0.5, 3.25, 0.5, NAMES) for wording in range(NUM_WORDINGS))
    # Every wording is reached, evenly: none is preferred by the draw of a wording number.
    assert len(texts) >= 3
    assert len(set(texts.values())) == 1
    for text in texts:
        assert text[0].isupper()
        assert text[-1] in "?."
        assert not set("{}") & set(text)
        assert "  " not in text
        assert NAMES["a"] in text
        assert (NAMES["viewer"] in text) == (form.viewer != "none")
        assert (NAMES["b"] in text) == (form.num_targets == 2)
        assert ("3.2 s" in text) == (form.signal != "dir_pred")


@pytest.mark.parametrize("form", TEMPLATES, ids=form_id)
def test_a_missing_name_is_an_error_not_a_gap(form) -> None:
    with pytest.raises(KeyError):
        question_text(form, 0, 0.0, 1.0, 0.0, {})


def test_a_label_with_braces_stays_text() -> None:
    assert "{a} {0}" in question_text(TEMPLATES[1], 0, 0.0, 1.0, 0.0, {"a": "{a} {0}", "b": "x"})


def test_tracks_are_mentioned_with_their_box_in_pixels_and_the_camera_as_it_is() -> None:
    # Python rounds halves to even: 10.5 is written 10.
    assert mention("red cube", (10.4, 20.6, 110.0, 99.9), 1.25) == "the red cube (box [10, 21, 110, 100] at 1.2 s)"
    assert mention("camera", None, 1.25) == "the camera"
