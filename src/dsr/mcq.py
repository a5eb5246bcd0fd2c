"""A question as it is put to a model, and what a table of questions says about it."""

from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any

import pandas as pd

LETTERS = ascii_uppercase
"""Option letters in their order; a benchmark may offer more than four."""


@dataclass(frozen=True)
class Question:
    qa_id: str
    clip_id: str
    question: str
    options: tuple[str, ...]
    """Texts with their letters, "A. …"."""
    answer: str
    """The right letter."""
    type: str
    shown_frames: int | None = None
    """The model is given this many of the clip's cue frames, from the first one on; None: all."""
    start_time: float | None = None
    """Seconds; what the question is about. None where a table does not say."""
    end_time: float | None = None
    form: str = ""
    """Name of the form that the question was made from, as in the pool; "" for a question from elsewhere."""
    wording: int = 0
    labels: tuple[str, ...] = ()
    """Names of viewer and targets, those that the form has."""
    boxes: tuple[tuple[int, ...], ...] = ()
    """Their boxes in the question, xyxy in pixels; () for the camera."""

    @property
    def letters(self) -> str:
        return LETTERS[: len(self.options)]

    @property
    def bare_options(self) -> tuple[str, ...]:
        """The options without their letters."""
        return tuple(option[2:].strip() for option in self.options)


def lettered(texts: Sequence[str]) -> tuple[str, ...]:
    """Option texts with their letters."""
    return tuple(f"{letter}. {text}" for letter, text in zip(LETTERS, texts, strict=False))


def read_row(row: dict[str, Any]) -> Question:
    """A row of `dsr.questions.split.read_questions` or of a benchmark's reader."""
    return Question(
        qa_id=str(row["qa_id"]),
        clip_id=str(row["videoID"]),
        question=str(row["question"]),
        options=tuple(map(str, row["options"])),
        answer=str(row["answer"]),
        type=str(row["type"]),
        shown_frames=_number(row, "shown_frames", int),
        start_time=_number(row, "start_time", float),
        end_time=_number(row, "end_time", float),
        **_made_from(row),
    )


def _made_from(row: dict[str, Any]) -> dict[str, Any]:
    """Fields of a question of our own pool that say what its text was made from."""
    if not {"form", "wording", "labels", "boxes"} <= set(row):
        return {}
    boxes = tuple(tuple(map(int, box)) for box in row["boxes"])
    return {"form": row["form"], "wording": int(row["wording"]), "labels": tuple(row["labels"]), "boxes": boxes}


def question_problem(question: Question) -> str:
    """Why a question cannot be asked, or ""."""
    if not 2 <= len(question.options) <= len(LETTERS):
        return f"{len(question.options)} options; a question needs at least 2"
    if [option[:2] for option in question.options] != [f"{letter}." for letter in question.letters]:
        return f"options are not texts that begin with 'A.' to '{question.letters[-1]}.'"
    if question.answer not in list(question.letters):
        return f"answer {question.answer!r} is no letter of {question.letters}"
    if question.shown_frames is not None and question.shown_frames < 1:
        return f"shown_frames is {question.shown_frames}"
    return ""


def about(table: pd.DataFrame) -> pd.DataFrame:
    """What metrics group questions by: columns viewpoint, target, answer_length, category; "" where not known.

    `answer_length` is the number of states that the answer tells one after another, "free-form" for `non_temp`.
    """
    blank = pd.Series("", index=table.index)
    columns = {"viewpoint": blank, "target": blank, "answer_length": blank, "category": blank}
    if {"viewpoint_mode", "viewpoint_kind"} <= set(table):
        both = table["viewpoint_mode"].astype(str) + " " + table["viewpoint_kind"].astype(str)
        columns["viewpoint"] = both.where(table["viewpoint_kind"] != "none", "none")
    if "target_kinds" in table:
        columns["target"] = table["target_kinds"].map(lambda kinds: " + ".join(sorted(set(kinds))))
    if "states" in table:
        lengths = table["states"].map(lambda states: str(len(str(states).split())))
        columns["answer_length"] = lengths.where(table["type"] != "non_temp", "free-form")
    if "category" in table:
        columns["category"] = table["category"].fillna("").astype(str)
    return pd.DataFrame(columns, index=table.index).astype(object)


def _number(row: dict[str, Any], name: str, kind: type) -> Any:
    value = row.get(name)
    return None if value is None or pd.isna(value) else kind(value)
