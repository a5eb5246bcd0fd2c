"""A multiple-choice question: the table that holds it, its letters and options, its checks, and its prompt.

A table has the published columns first (`PUBLISHED_COLUMNS`), then ours, all of which may be absent: qa_id,
source_video, quartet_id, block; shown_frames, how many of the clip's cue frames the model may see, from the first one
on; start_time and end_time in seconds, what the question is about; category of the clip; viewpoint_kind (none, camera
or agent) and viewpoint_mode (none, relative: moving with its viewer, or absolute: where that was at one moment);
target_kinds, a list of object, agent and camera; states of the answer, and option_states of every option.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Any

import numpy as np
import pandas as pd

from dsr.console import StageError
from dsr.files import sha256_json

TYPES = (
    *("rel_dis", "rel_dir", "rel_ori", "abs_dis", "abs_dir", "abs_ori"),
    *("rel_spd", "abs_spd", "rel_spd_comp", "abs_spd_comp", "rel_dir_pred", "abs_dir_pred", "non_temp"),
)
"""Question types by their published names: viewpoint (relative or absolute) and signal; `non_temp` is free-form."""
PUBLISHED_COLUMNS = ("videoID", "question", "options", "answer", "type")
"""Columns of the published DSR-Train and DSR-Bench."""
OWN_COLUMNS = ("qa_id", "source_video", "quartet_id", "block")
"""Ours that come right after them."""
ALPHABET = ascii_uppercase
"""Option letters in their order; a benchmark may offer more or fewer than four."""
LETTERS = ALPHABET[:4]
"""Letters of the published questions and of ours."""
SYSTEM = "You are a helpful assistant."
INSTRUCTION = "Answer with the letter."
DEFAULT_PROMPT = "dsr"
FRAMES = "These are frames of a video, in order."
"""Line before the prompt where a video goes as pictures."""


@dataclass(frozen=True)
class PromptForm:
    """Text around a question and its options."""

    lead: str
    """Between the video and the question; no tokenizer joins its end with what follows."""
    question: str
    """Line of the question, with {} in its place."""
    heading: str
    """Line between the question and its options; "" for none."""
    dot: str
    """What follows an option's letter."""
    tail: str
    """Line after the options; "" for none."""

    def line(self, question: str) -> str:
        """Line of a question as it stands in the prompt."""
        return self.question.format(question)

    def pieces(self, question: str, options: Sequence[str]) -> list[str]:
        """Text that asks a question: lead, question with its heading, a piece for each option, and tail."""
        opening = f"{self.line(question)}\n" + (f"{self.heading}\n" if self.heading else "")
        lines = [f"{option[0]}{self.dot}{option[2:]}\n" for option in options]
        if not self.tail:
            lines[-1] = lines[-1].removesuffix("\n")
        return [self.lead, opening, *lines, self.tail]


PROMPTS = {
    DEFAULT_PROMPT: PromptForm("", "{}", "Options:", ".", INSTRUCTION),
    # Training data of the published model: github.com/Tiamat-Tech/DSR_Suite, qwen-vl-finetune/qa_json_gen.py.
    "published": PromptForm("\n", "{}", "Options:", "", ""),
    # Its evaluation, and Video-MME's: VLMEvalKit.
    "vlmevalkit": PromptForm(
        "\nThese are the frames of a video. Select the best answer to the following multiple-choice question based on "
        "the video. Respond with only the letter (A, B, C, or D) of the correct option.\nQuestion:",
        " {}",
        "",
        ".",
        "Answer: ",
    ),
}
"""Prompts by name: ours, the published model's training, VLMEvalKit's."""


@dataclass(frozen=True)
class Question:
    """A row of a table of questions."""

    qa_id: str
    clip_id: str
    question: str
    options: tuple[str, ...]
    """Texts with their letters, "A. …"."""
    answer: str
    """The right letter."""
    type: str
    shown_frames: int | None = None
    """Number of the clip's cue frames that the model is given, from the first one on; None: all."""
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
        return ALPHABET[: len(self.options)]

    @property
    def bare_options(self) -> tuple[str, ...]:
        """The options without their letters."""
        return tuple(map(bare, self.options))


def lettered(texts: Iterable[str]) -> tuple[str, ...]:
    """Option texts with their letters.

    >>> lettered(["It grows.", "It shrinks."])
    ('A. It grows.', 'B. It shrinks.')
    """
    return tuple(f"{letter}. {text}" for letter, text in zip(ALPHABET, texts, strict=False))


def bare(option: str) -> str:
    """Text of an option without its letter.

    >>> bare("A. It grows.")
    'It grows.'
    """
    return option[2:].strip()


def prompt(question: str, options: Sequence[str], form: str = DEFAULT_PROMPT) -> str:
    """Text of the user's turn, without the video, in a form of `PROMPTS`.

    >>> prompt("How does it change?", ["A. It grows.", "B. It shrinks."])
    'How does it change?\\nOptions:\\nA. It grows.\\nB. It shrinks.\\nAnswer with the letter.'
    >>> prompt("How does it change?", ["A. It grows.", "B. It shrinks."], "published")
    '\\nHow does it change?\\nOptions:\\nA It grows.\\nB It shrinks.'
    """
    return "".join(PROMPTS[form].pieces(question, options))


def read_row(row: Mapping[str, Any]) -> Question:
    """A row as a question, whatever `row_problem` says of it."""
    options = row["options"]
    return Question(
        qa_id=str(row["qa_id"]),
        clip_id=str(row["videoID"]),
        question=str(row["question"]),
        options=tuple(map(str, options)) if isinstance(options, list | tuple | np.ndarray) else (),
        answer=str(row["answer"]),
        type=str(row["type"]),
        shown_frames=_number(row, "shown_frames", int),
        start_time=_number(row, "start_time", float),
        end_time=_number(row, "end_time", float),
        **_made_from(row),
    )


def _made_from(row: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a question of our own pool that say what its text was made from."""
    if not {"form", "wording", "labels", "boxes"} <= set(row):
        return {}
    boxes = tuple(tuple(map(int, box)) for box in row["boxes"])
    return {"form": row["form"], "wording": int(row["wording"]), "labels": tuple(row["labels"]), "boxes": boxes}


def question_hash(question: Question) -> str:
    """Identity of a question, whatever its id: a hash of clip, text, options and answer."""
    return sha256_json([question.clip_id, question.question, question.options, question.answer])[:16]


def row_problem(row: Mapping[str, Any], published: bool = False) -> str:
    """Reason on one line why a row cannot be asked; "" if it can.

    Args:
        published: as in the published tables, there must be four options and a known type.
    """
    for name in ("videoID", "question"):
        if not isinstance(row[name], str) or not row[name].strip():
            return f"{name} must be a text, not {row[name]!r}"
    options = row["options"]
    count = len(options) if isinstance(options, list | tuple | np.ndarray) else 0
    if published and count != len(LETTERS):
        return f"options must be a list of {len(LETTERS)} texts, not {options!r}"
    if not 2 <= count <= len(ALPHABET):
        return f"{count} options; a question needs at least 2"
    letters = ALPHABET[:count]
    for letter, option in zip(letters, options, strict=True):
        if not isinstance(option, str) or not option.startswith(f"{letter}.") or not bare(option):
            return f"options must be {count} texts that begin with 'A.' to '{letters[-1]}.', not {list(options)!r}"
    if not isinstance(row["answer"], str) or row["answer"] not in list(letters):
        return f"answer must be {', '.join(letters[:-1])} or {letters[-1]}, not {row['answer']!r}"
    if published and row["type"] not in TYPES:
        return f"type {row['type']!r} is unknown; known: {', '.join(TYPES)}"
    shown = _number(row, "shown_frames", float)
    return f"shown_frames is {shown:g}" if shown is not None and shown < 1 else ""


def read_questions(path: Path) -> pd.DataFrame:
    """Read and check a table of questions: pool, train, bench, or a published file with its columns alone.

    Returns:
        One row a question, published columns first, in the file's order. Where the file has no `qa_id` it is
        the file's stem and the row number; no `source_video`: the videoID; no `quartet_id`: "" (no quartet).

    Raises:
        StageError: no such file, not parquet, a column missing, or a bad row (the first one is named).
    """
    try:
        table = pd.read_parquet(path)
    except FileNotFoundError:
        raise StageError(f"{path} does not exist: `dvc repro` makes it") from None
    except (OSError, ValueError) as error:
        raise StageError(f"{path} is not a parquet file: {error}") from None
    absent = [name for name in PUBLISHED_COLUMNS if name not in table]
    if absent:
        raise StageError(f"{path} has no column {', '.join(absent)}: a table of questions needs {PUBLISHED_COLUMNS}")
    checked = table[[name for name in (*PUBLISHED_COLUMNS, "shown_frames") if name in table]].to_dict("records")
    problems = [(row, problem) for row, values in enumerate(checked) if (problem := row_problem(values, True))]
    if problems:
        row, problem = problems[0]
        others = f" ({len(problems) - 1:,} more bad rows)" if len(problems) > 1 else ""
        raise StageError(f"{path}, row {row}: {problem}{others}")
    table["options"] = [list(options) for options in table["options"]]
    for name, default in (
        ("qa_id", [f"{path.stem}-{row:06d}" for row in range(len(table))]),
        ("source_video", table["videoID"]),
        ("quartet_id", ""),
    ):
        if name not in table:
            table[name] = default
        elif table[name].isna().any():
            raise StageError(f"{path}, row {int(table[name].isna().argmax())}: {name} is empty")
    if table["qa_id"].duplicated().any():
        row = int(table["qa_id"].duplicated().argmax())
        raise StageError(f"{path}, row {row}: qa_id {table['qa_id'].iloc[row]!r} is there twice")
    return published_first(table)


def published_first(table: pd.DataFrame) -> pd.DataFrame:
    """Columns in their order: published, ours that every table has, then the others as they are."""
    first = [*PUBLISHED_COLUMNS, *(name for name in OWN_COLUMNS if name in table)]
    return table[[*first, *(name for name in table.columns if name not in first)]]


def about(table: pd.DataFrame) -> pd.DataFrame:
    """Columns by which metrics group questions: viewpoint, target, answer_length, category; "" where not known.

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


def _number(row: Mapping[str, Any], name: str, kind: type) -> Any:
    value = row.get(name)
    return None if value is None or pd.isna(value) else kind(value)
