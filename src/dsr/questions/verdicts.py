"""Verdicts of people on questions: the rows of data/qa/review.csv, and what follows from them.

Design choices:
- A row is one line, and rows are only ever added: two people's files merge line by line (`merge=union`), and what is
  withdrawn is withdrawn by a later row. Of a reviewer's rows on the same wording the latest counts.
- The file is written whole under a lock, old rows byte for byte: a killed process, a full disk or a second reviewer on
  the same machine leaves no half row and loses none.
- A verdict is on a wording, named by the question's hash. Once text, options or answer are others, it is stale: counted
  and without effect. An edit makes a new wording, on which verdicts are given in turn.
- A question is rejected where at least as many reviewers reject it as keep it: a benchmark can spare a question more
  easily than hold a wrong one.
- A rejected question leaves with its quartet. Four questions share four options, and each option is right once; with
  one question gone, its option would be known to be wrong in the other three. A question in its place would have to be
  of the same block, form and signature with the same right option, and those that there are have their own quartets.
- An edit changes the question's words alone. Options are the words of a vocabulary, the same in all four questions of a
  quartet and all over the pool: one that reads differently would give itself away. Numbers stay too, as boxes and times
  are what the answer was derived for.
"""

import csv
import fcntl
import io
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path

import pandas as pd

from dsr.console import StageError
from dsr.files import write_bytes
from dsr.mcq import LETTERS, Question, question_hash, read_row

ACCEPT, EDIT, REJECT, WITHDRAW = "accept", "edit", "reject", "withdraw"
VERDICTS = (ACCEPT, EDIT, REJECT)
"""Verdicts in force; a row can also withdraw one."""
REASONS = ("wrong label", "unclear wording", "target not visible", "wrong box", "too easy", "other")
UNSURE = "unsure"
"""Own answer of a reviewer who cannot tell."""
LONGEST_TEXT = 1000
LONGEST_NAME = 60
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_CONFLICT = ("<<<<<<<", "=======", ">>>>>>>")


@dataclass(frozen=True)
class Verdict:
    """A row of the file, in the order of its columns."""

    qa_id: str
    question_hash: str
    """Of the wording that the reviewer saw (`mcq.question_hash`)."""
    reviewer: str
    verdict: str
    """accept, edit, reject or withdraw."""
    reason: str
    """One of REASONS, for a rejection; else ""."""
    own_answer: str
    """Letter that the reviewer gave before seeing the derived one, or "unsure"; "" where withdrawn."""
    seconds: float
    """Time spent on the question."""
    time: str
    """UTC, such as 2026-12-01T09:30:00.000Z: texts in order are times in order."""
    edited_question: str = ""
    """New wording, for an edit; else ""."""
    note: str = ""


COLUMNS = tuple(field.name for field in fields(Verdict))
HEADER = ",".join(COLUMNS) + "\n"


def verdict_problem(verdict: Verdict) -> str:
    """Reason on one line why a row is none; "" if it is one."""
    texts = {name: getattr(verdict, name) for name in COLUMNS if name != "seconds"}
    for name, text in texts.items():
        if not text.isprintable():
            return f"{name} must be printable text on one line"
        if len(text) > LONGEST_TEXT:
            return f"{name} has {len(text):,} characters, at most {LONGEST_TEXT:,}"
    known = (*VERDICTS, WITHDRAW)
    if not verdict.qa_id or not re.fullmatch(r"[0-9a-f]{16}", verdict.question_hash):
        return "qa_id and question_hash (16 hexadecimal digits) must be given"
    if not verdict.reviewer.strip() or len(verdict.reviewer) > LONGEST_NAME:
        return f"reviewer must be a name of at most {LONGEST_NAME} characters"
    if verdict.verdict not in known:
        return f"verdict must be one of {', '.join(known)}, not {verdict.verdict!r}"
    if (verdict.reason in REASONS) != (verdict.verdict == REJECT) or verdict.reason not in ("", *REASONS):
        return f"reason must be one of {', '.join(REASONS)} for a rejection and empty else, not {verdict.reason!r}"
    if bool(verdict.edited_question.strip()) != (verdict.verdict == EDIT):
        return "edited_question must be the new wording for an edit and empty else"
    if verdict.verdict != WITHDRAW and verdict.own_answer not in (*LETTERS, UNSURE):
        return f"own_answer must be {', '.join(LETTERS)} or {UNSURE}, not {verdict.own_answer!r}"
    if not 0 <= verdict.seconds < 1e6:
        return f"seconds must be 0 or more, not {verdict.seconds}"
    return "" if _TIME.fullmatch(verdict.time) else f"time must be like 2026-12-01T09:30:00.000Z, not {verdict.time!r}"


def edit_problem(question: Question, edited: str) -> str:
    """Reason on one line why a wording cannot take the place of a question's; "" if it can."""
    if " ".join(edited.split()) == " ".join(question.question.split()):
        return "the wording is the same as before"
    if not edited.strip() or not edited.isprintable() or len(edited) > LONGEST_TEXT:
        return f"a wording is one line of at most {LONGEST_TEXT:,} characters"
    before, after = (set(_NUMBER.findall(text)) for text in (question.question, edited))
    if before != after:
        return f"numbers are part of the question: {', '.join(sorted(before ^ after))} must not come or go"
    return ""


# --- The file ---


def read_verdicts(path: Path) -> list[Verdict]:
    """The rows of a file, in its order; none where there is no file.

    Raises:
        StageError: a conflict of a merge, or a row that is none (the line is named).
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise StageError(f"{path} cannot be read as UTF-8 ({error}): restore it with `git checkout`") from None
    rows = []
    for line, values in _rows(path, text):
        if tuple(values) == COLUMNS:  # Once more where two people began the file.
            continue
        if line == 1:
            raise StageError(f"{path}, line 1: must be {HEADER.strip()}")
        if values[0].startswith(_CONFLICT):
            raise StageError(f"{path}, line {line}: a conflict of a merge; keep the rows of both sides")
        if len(values) != len(COLUMNS):
            raise StageError(f"{path}, line {line}: {len(values)} values instead of {len(COLUMNS)}: mend or delete it")
        fields_of_row: dict[str, str | float] = dict(zip(COLUMNS, values, strict=True))
        try:
            fields_of_row["seconds"] = float(fields_of_row["seconds"])
        except ValueError:
            fields_of_row["seconds"] = -1.0
        verdict = Verdict(**fields_of_row)  # type: ignore[arg-type]
        if problem := verdict_problem(verdict):
            raise StageError(f"{path}, line {line}: {problem}: mend or delete it")
        rows.append(verdict)
    return rows


def _rows(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    while True:
        try:
            values = next(reader, None)
        except csv.Error as error:
            raise StageError(f"{path}, line {reader.line_num}: {error}: mend or delete it") from None
        if values is None:
            return
        if values:
            yield reader.line_num, values


def append_verdict(path: Path, verdict: Verdict) -> None:
    """Add a row to the file, which is made where there is none.

    Raises:
        ValueError: the row is none.
        OSError: it could not be written; the file is as before.
    """
    if problem := verdict_problem(verdict):
        raise ValueError(problem)
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path):
        before = path.read_bytes() if path.exists() else HEADER.encode()
        if before and not before.endswith(b"\n"):
            before += b"\n"
        write_bytes(path, before + _line(verdict).encode())


def _line(verdict: Verdict) -> str:
    line = io.StringIO(newline="")
    csv.writer(line, lineterminator="\n").writerow(astuple(replace(verdict, seconds=round(verdict.seconds, 1))))
    return line.getvalue()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other processes and threads from writing the file; the lock is its folder's, as a file is replaced."""
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


# --- What follows from them ---


def in_force(verdicts: Iterable[Verdict]) -> dict[str, list[Verdict]]:
    """Verdicts by qa_id: each reviewer's latest on each wording, without those that were withdrawn, oldest first."""
    latest: dict[tuple[str, str, str], Verdict] = {}
    for verdict in sorted(verdicts, key=lambda row: row.time):  # Stable: at one time the later row counts.
        latest[verdict.qa_id, verdict.question_hash, verdict.reviewer] = verdict
    found: dict[str, list[Verdict]] = defaultdict(list)
    for verdict in sorted(latest.values(), key=lambda row: (row.time, row.reviewer)):
        if verdict.verdict != WITHDRAW:
            found[verdict.qa_id].append(verdict)
    return dict(found)


@dataclass(frozen=True)
class Outcome:
    """Outcome of a question's review."""

    status: str
    """accept, edit or reject; "" where nobody has looked at it."""
    question: str
    """The wording that it has now."""
    current: Sequence[Verdict]
    """Verdicts in force on its wordings."""
    stale: Sequence[Verdict]
    """Verdicts on wordings that it has no longer, of reviewers who have not looked at it since."""


def outcome(question: Question, verdicts: Sequence[Verdict]) -> Outcome:
    """Outcome of a question's verdicts in force (`in_force`); `question` as in the pool."""
    now, seen, current = question, set[str](), list[Verdict]()
    rejected = False
    while (key := question_hash(now)) not in seen:
        seen.add(key)
        own = [verdict for verdict in verdicts if verdict.question_hash == key]
        current += own
        rejections = sum(verdict.verdict == REJECT for verdict in own)
        rejected = 0 < len(own) <= 2 * rejections
        edits = [verdict for verdict in own if verdict.verdict == EDIT]
        if rejected or not edits:
            break
        now = replace(now, question=edits[-1].edited_question)
    status = ACCEPT if current else ""
    if rejected:
        status = REJECT
    elif now.question != question.question:
        status = EDIT
    returned = {verdict.reviewer for verdict in current}
    stale = [verdict for verdict in verdicts if verdict not in current and verdict.reviewer not in returned]
    return Outcome(status, now.question, current, stale)


def outcomes(questions: pd.DataFrame, verdicts: Iterable[Verdict]) -> dict[str, Outcome]:
    """Outcomes by qa_id of the questions that have verdicts; `questions` as in the pool."""
    by_question = in_force(verdicts)
    judged = questions[questions["qa_id"].isin(by_question)]
    return {row["qa_id"]: outcome(read_row(row), by_question[row["qa_id"]]) for row in judged.to_dict("records")}


def apply_outcomes(questions: pd.DataFrame, found: dict[str, Outcome]) -> pd.DataFrame:
    """The questions without the quartets of those rejected, with edited wordings; the same table if nothing changes."""
    rejected = {qa_id for qa_id, result in found.items() if result.status == REJECT}
    edited = {qa_id: result.question for qa_id, result in found.items() if result.status == EDIT}
    if not rejected and not edited:
        return questions
    out = questions["qa_id"].isin(rejected)
    quartets = set(questions.loc[out, "quartet_id"]) - {""}
    kept = questions[~(out | questions["quartet_id"].isin(quartets))].reset_index(drop=True)
    wordings = [edited.get(qa_id, text) for qa_id, text in zip(kept["qa_id"], kept["question"], strict=True)]
    return kept.assign(question=wordings)
