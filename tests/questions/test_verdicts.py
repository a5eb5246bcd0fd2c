"""Rows of the file of verdicts, and what follows from them."""

import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsr.console import StageError
from dsr.mcq import question_hash, read_row
from dsr.questions.verdicts import (
    HEADER,
    Verdict,
    append_verdict,
    apply_outcomes,
    edit_problem,
    in_force,
    outcome,
    outcomes,
    read_verdicts,
    verdict_problem,
)
from tests.questions.reviewing import a_question, a_verdict

PROJECT = Path(__file__).parents[2]
ASKED = a_question()
CLEARER = "From 0.9 s to 1.5 s, how far away is the cup?"


def edit_by(reviewer: str, text: str, at: int = 0) -> Verdict:
    return a_verdict(ASKED, "edit", reviewer, at, edited_question=text)


def status(*verdicts: Verdict) -> str:
    return outcome(ASKED, in_force(verdicts).get(ASKED.qa_id, [])).status


# --- The file ---


texts = st.text(st.characters(exclude_categories=("C", "Z")) | st.just(" "), max_size=30)


@settings(max_examples=25)
@given(note=texts, question=texts.map(lambda text: text + "?"), seconds=st.integers(0, 9999))
def test_a_row_is_read_back_as_it_was_written(tmp_path_factory, note, question, seconds) -> None:
    path = tmp_path_factory.mktemp("rows") / "review.csv"
    row = replace(edit_by("Ann, B.", question), note=note, seconds=float(seconds))
    append_verdict(path, row)
    append_verdict(path, replace(row, reviewer='"'))
    assert read_verdicts(path) == [row, replace(row, reviewer='"')]
    assert path.read_text().count("\n") == 3


def test_no_file_is_no_verdicts_and_the_projects_file_is_one(tmp_path: Path) -> None:
    assert read_verdicts(tmp_path / "none.csv") == []
    assert (PROJECT / "data/qa/review.csv").read_text().startswith(HEADER)
    read_verdicts(PROJECT / "data/qa/review.csv")


def test_old_rows_are_kept_byte_for_byte(tmp_path: Path) -> None:
    path = tmp_path / "review.csv"
    append_verdict(path, a_verdict(ASKED))
    written_by_a_spreadsheet = b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n").rstrip()
    path.write_bytes(written_by_a_spreadsheet)
    append_verdict(path, a_verdict(ASKED, reviewer="ben"))
    assert path.read_bytes().startswith(written_by_a_spreadsheet + b"\n")
    assert [row.reviewer for row in read_verdicts(path)] == ["ann", "ben"]


def test_rows_written_at_once_are_all_there(tmp_path: Path) -> None:
    path = tmp_path / "review.csv"
    rows = [a_verdict(ASKED, reviewer=f"r{number}", at=number) for number in range(24)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda row: append_verdict(path, row), rows))
    assert sorted(read_verdicts(path), key=lambda row: row.time) == rows
    assert [file.name for file in tmp_path.iterdir()] == ["review.csv"]


def test_a_disk_that_is_full_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "review.csv"
    append_verdict(path, a_verdict(ASKED))
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dsr.files.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        append_verdict(path, a_verdict(ASKED, reviewer="ben"))
    assert path.read_bytes() == before


def test_two_reviewers_files_merge_without_conflict(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        command = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    def judge(branch: str, *rows: Verdict) -> None:
        git("checkout", "-q", *(() if branch == "main" else ("-b",)), branch)
        for row in rows:
            append_verdict(path, row)
        git("commit", "-qam", branch)
        git("checkout", "-q", "main")

    path = tmp_path / "data/qa/review.csv"
    path.parent.mkdir(parents=True)
    path.write_text(HEADER)
    (tmp_path / ".gitattributes").write_bytes((PROJECT / ".gitattributes").read_bytes())
    git("init", "-qb", "main")
    git("add", "-A")
    git("commit", "-qm", "none yet")
    others = [a_question(f"q{number}") for number in range(3)]
    judge("ann", *(a_verdict(question, "reject", at=number) for number, question in enumerate(others)))
    judge("ben", *(a_verdict(question, reviewer="ben", at=number) for number, question in enumerate(others)))
    git("merge", "-q", "ann")
    git("merge", "-q", "--no-edit", "ben")
    assert {(row.qa_id, row.reviewer) for row in read_verdicts(path)} == {
        (q.qa_id, r) for q in others for r in ("ann", "ben")
    }


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace("qa_id,", "id,"), "line 1: must be qa_id,"),
        (lambda text: text + "<<<<<<< HEAD\n", "line 3: a conflict of a merge; keep the rows of both sides"),
        (lambda text: text + "a,b\n", "line 3: 2 values instead of 10"),
        (lambda text: text.replace("accept", "fine"), "line 2: verdict must be one of accept, edit, reject, withdraw"),
        (lambda text: text.replace("4.0", "long"), "line 2: seconds must be 0 or more"),
        (lambda text: text.replace("2026", "26"), "line 2: time must be like 2026-12-01T09:30:00.000Z, not '26-"),
        (lambda text: text.replace(",A,", ",E,"), "line 2: own_answer must be A, B, C, D or unsure, not 'E'"),
        (lambda text: text.replace("accept", "reject"), "line 2: reason must be one of wrong label, unclear"),
        (lambda text: text + 'a,"b\n', "line 3: unexpected end of data"),
    ],
)
def test_a_row_that_is_none_is_named(tmp_path: Path, change, said: str) -> None:
    path = tmp_path / "review.csv"
    append_verdict(path, a_verdict(ASKED))
    path.write_text(change(path.read_text()))
    with pytest.raises(StageError) as error:
        read_verdicts(path)
    assert f"{path}, {said}" in str(error.value)


def test_a_row_on_two_lines_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="edited_question must be printable text on one line"):
        append_verdict(tmp_path / "review.csv", edit_by("ann", "One\ntwo?"))
    assert not (tmp_path / "review.csv").exists()
    assert "at most 60" in verdict_problem(a_verdict(ASKED, reviewer="a" * 61))
    assert "1,000" in verdict_problem(replace(a_verdict(ASKED), note="a" * 1001))


def test_a_header_that_both_sides_brought_is_no_row(tmp_path: Path) -> None:
    path = tmp_path / "review.csv"
    append_verdict(path, a_verdict(ASKED))
    path.write_text(path.read_text() + HEADER)
    assert len(read_verdicts(path)) == 1


# --- What follows from them ---


def test_of_a_reviewers_verdicts_the_latest_counts_wherever_it_stands() -> None:
    early, late = a_verdict(ASKED, "reject", at=1), a_verdict(ASKED, at=2)
    assert status(early, late) == status(late, early) == "accept"
    assert status(early, late, a_verdict(ASKED, "withdraw", at=3)) == ""
    assert status(a_verdict(ASKED, "withdraw", at=3), early, late, a_verdict(ASKED, "reject", at=4)) == "reject"


def test_as_many_rejections_as_other_verdicts_reject() -> None:
    ann, ben, cem = (
        a_verdict(ASKED, kind, name) for kind, name in (("reject", "ann"), ("accept", "ben"), ("accept", "cem"))
    )
    assert status(ann) == "reject"
    assert status(ann, ben) == "reject"
    assert status(ann, ben, cem) == "accept"
    assert status(edit_by("ben", CLEARER), ann) == "reject"


def test_a_verdict_on_another_text_or_answer_is_stale() -> None:
    verdicts = [a_verdict(ASKED, "reject")]
    for changed in (replace(ASKED, question="How far?"), replace(ASKED, answer="B")):
        result = outcome(changed, verdicts)
        assert (result.status, list(result.stale)) == ("", verdicts)
        again = a_verdict(changed, at=5)
        assert list(outcome(changed, [*verdicts, again]).stale) == []
        assert list(outcome(changed, [*verdicts, replace(again, reviewer="ben")]).stale) == verdicts


def test_an_edit_makes_a_wording_that_is_judged_in_turn() -> None:
    first = edit_by("ann", CLEARER, at=1)
    edited = replace(ASKED, question=CLEARER)
    assert outcome(ASKED, [first]).question == CLEARER
    assert outcome(ASKED, [first, a_verdict(edited, "reject", "ben", 2)]).status == "reject"
    better = "From 0.9 s to 1.5 s, how does the cup's distance change?"
    second = a_verdict(edited, "edit", "ben", 3, edited_question=better)
    result = outcome(ASKED, [first, second])
    assert (result.status, result.question, list(result.current), list(result.stale)) == (
        "edit",
        better,
        [first, second],
        [],
    )


def test_of_two_edits_the_later_one_is_taken_and_wordings_in_a_circle_end() -> None:
    other = "From 0.9 s to 1.5 s, how distant is the cup?"
    assert (
        outcome(ASKED, in_force([edit_by("ben", other, 9), edit_by("ann", CLEARER, 3)])[ASKED.qa_id]).question == other
    )
    back = a_verdict(replace(ASKED, question=CLEARER), "edit", "ben", 9, edited_question=ASKED.question)
    result = outcome(ASKED, [edit_by("ann", CLEARER, 3), back])
    assert (result.status, result.question) == ("accept", ASKED.question)


@pytest.mark.parametrize(
    ("edited", "said"),
    [
        (CLEARER, ""),
        ("Between 0.9 s and 1.5 s, how far is the mug? Look at 0.9 s.", ""),
        (f" {ASKED.question}", "the wording is the same"),
        ("From 0.9 s to 1.6 s, how far is the cup?", "1.5, 1.6 must not come or go"),
        ("How far is the cup?", "0.9, 1.5 must not come or go"),
        ("From 0.9 s to 1.5 s,\nhow far is it?", "a wording is one line"),
        (" ", "a wording is one line"),
    ],
)
def test_an_edit_changes_words_and_no_numbers(edited: str, said: str) -> None:
    problem = edit_problem(ASKED, edited)
    assert said in problem
    assert bool(problem) == bool(said)


def table() -> pd.DataFrame:
    """Two quartets."""
    rows = [
        {
            "qa_id": f"{quartet}-{letter}",
            "videoID": f"clip{quartet}",
            "question": f"Is it {letter} at 1.0 s?",
            "options": list(ASKED.options),
            "answer": letter,
            "type": "rel_dis",
            "quartet_id": quartet,
        }
        for quartet in ("x", "y")
        for letter in "ABCD"
    ]
    return pd.DataFrame(rows)


def test_a_rejected_question_leaves_with_its_quartet_and_an_edit_changes_its_text_alone() -> None:
    questions = table()
    asked = [read_row(row) for row in questions.to_dict("records")]
    verdicts = [
        a_verdict(asked[1], "reject"),
        a_verdict(asked[6], "edit", edited_question="At 1.0 s, is it C?"),
        a_verdict(asked[7]),
        a_verdict(a_question("gone")),
    ]
    kept = apply_outcomes(questions, outcomes(questions, verdicts))
    assert kept["qa_id"].tolist() == ["y-A", "y-B", "y-C", "y-D"]
    assert kept["question"].tolist() == [
        "Is it A at 1.0 s?",
        "Is it B at 1.0 s?",
        "At 1.0 s, is it C?",
        "Is it D at 1.0 s?",
    ]
    pd.testing.assert_frame_equal(
        kept.drop(columns="question"), questions[4:].reset_index(drop=True).drop(columns="question")
    )


def test_verdicts_that_change_nothing_leave_the_very_table() -> None:
    questions = table()
    accepted = [a_verdict(read_row(row)) for row in questions.to_dict("records")]
    assert apply_outcomes(questions, outcomes(questions, accepted)) is questions


def test_a_hash_is_of_what_is_asked_whatever_its_id() -> None:
    assert question_hash(replace(ASKED, qa_id="other", type="abs_dis")) == question_hash(ASKED)
    changed = [replace(ASKED, answer="B"), replace(ASKED, question="Which?"), replace(ASKED, clip_id="other")]
    assert len({question_hash(question) for question in (ASKED, *changed)}) == 4
