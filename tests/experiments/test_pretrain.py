"""Texts that the small backbone is pre-trained on: names, questions, options."""

import numpy as np
import pytest

from dsr.questions.language.families import FORM_INDEX, FORMS, Family
from dsr.questions.language.parsing import parse_question
from dsr.questions.language.templates import parse_answer
from experiments.pretrain.texts import (
    END,
    ROLES,
    START,
    draw_choice,
    draw_question,
    key_seconds,
    names,
    opening,
    option_words,
    vocabulary_of,
    write_question,
)


def test_no_noun_is_both_seen_and_held_out() -> None:
    seen, held_out = set(names().nouns), set(names(held_out=True).nouns)
    assert not seen & held_out
    assert 0.08 < len(held_out) / len(seen | held_out) < 0.12


@pytest.mark.parametrize("form", range(len(FORMS)), ids=lambda form: FORMS[form].name)
def test_question_is_one_of_the_projects_and_its_spans_are_its_labels_and_times(form: int) -> None:
    rng = np.random.default_rng(form)
    for _ in range(5):
        question = draw_question(rng, names(), form)
        parsed = parse_question(question.text, FORMS[form].type)
        assert parsed.form is not None
        assert FORMS[parsed.form].type == FORMS[form].type
        labels = {ROLES[tag - 1]: question.text[a:b] for a, b, tag in question.spans if tag <= len(ROLES)}
        # A viewer that moves, and the first of two targets, can be worded alike.
        assert sorted(labels.values()) == sorted(mention.label for mention in parsed.mentions.values())
        times = {float(question.text[a:b]): tag for a, b, tag in question.spans if tag in (START, END)}
        first, last = round(question.seconds[0], 1), round(question.seconds[-1], 1)
        assert [time for time, tag in times.items() if tag == END] == [last]
        assert first == last or times in ({first: START, last: END}, {last: END})


def test_question_of_a_pool_is_written_again() -> None:
    box = (10, 20, 61, 90)
    question = write_question(FORM_INDEX["rel_dis"], 0, 1.0, 3.0, ["camera", "mug"], [(), box])
    expected = "Between 1.0 s and 3.0 s, how does the distance between the camera and the mug (box [10, 20, 61, 90] at "
    assert question.text == expected + "1.0 s) change?"
    assert question.seconds == (1.0, 1.5, 2.0, 2.5, 3.0, 3.0)


def test_texts_that_are_the_same_are_read_the_same() -> None:
    box = (10, 20, 61, 90)
    one, other = (
        write_question(FORM_INDEX[name], 0, 1.0, 3.0, ["car", "mug"], [box, box])
        for name in ("rel_dis", "rel_dis_between")
    )
    assert one == other
    assert [tag for _, _, tag in one.spans] == [ROLES.index("a") + 1, ROLES.index("b") + 1, START, END]


def test_key_moments_of_what_is_asked_about_one_moment_are_that_one() -> None:
    for name in ("abs_dir_pred", "faced_target"):
        assert key_seconds(FORMS[FORM_INDEX[name]], 1.0, 4.0) == (4.0,) * 6


@pytest.mark.parametrize("form", range(len(FORMS)), ids=lambda form: FORMS[form].name)
def test_states_are_those_of_the_right_option_alone(form: int) -> None:
    rng = np.random.default_rng(form)
    for _ in range(5):
        choice = draw_choice(rng, form)
        assert len(set(choice.options)) == 4
        assert set(choice.states) <= set(choice.vocabulary.words)
        asked = FORMS[form]
        told = [state for k, state in enumerate(choice.states) if k == 0 or state != choice.states[k - 1]]
        if isinstance(asked, Family):
            told_by = [[opening(word) for word in words] for words in choice.words]
        else:
            spoken = [parse_answer(asked.vocabulary, option[3:]) for option in choice.options]
            known = dict(zip(map(tuple, choice.vocabulary.axes.tolist()), choice.vocabulary.words, strict=True))
            told_by = [[known[state] for state in answer] for answer in spoken]
        assert [words == told for words in told_by] == [k == choice.right for k in range(4)]


def test_words_of_an_option_add_up_to_it() -> None:
    assert "".join(option_words("It is left, then right.")) + "." == " It is left, then right."


def test_a_state_has_one_word_for_each_of_its_vocabulary() -> None:
    for form in range(len(FORMS)):
        vocabulary = vocabulary_of(form)
        assert len(set(vocabulary.words)) == len(vocabulary.words) == len(vocabulary.axes)
