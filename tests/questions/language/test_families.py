"""Families' words."""

import string

import pytest

from dsr.questions.language.families import FAMILIES, Family


def test_at_least_twelve_families_and_each_has_four_answers_that_differ() -> None:
    assert len({f.signal for f in FAMILIES}) == len(FAMILIES) >= 12
    assert all(len(set(f.answers)) == len(f.answers) >= 4 for f in FAMILIES)
    assert all(answer[0].isupper() and answer.endswith(".") for f in FAMILIES for answer in f.answers)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.signal)
def test_what_is_changed_twice_is_as_before(family: Family) -> None:
    for table in (family.mirrored, family.backwards):
        if table is not None:
            assert [table[table[k]] for k in range(len(family.answers))] == list(range(len(family.answers)))


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.signal)
def test_wordings_name_all_that_is_needed(family: Family) -> None:
    needed = {"a"} | ({"viewer"} if family.viewer != "none" else set())
    needed |= {"a", "b", "c"} if family.num_targets == 3 else {"a", "b"} if family.num_targets == 2 else set()
    assert len(set(family.wordings)) >= 2
    for wording in family.wordings:
        told = {name for _, name, _, _ in string.Formatter().parse(wording) if name}
        assert needed <= told
        assert told & {"interval", "Interval", "end"}
        assert told - needed <= {"interval", "Interval", "start", "end"}
