"""The one home of a multiple-choice question: tables are read and checked, a prompt is the same text for everybody."""

import doctest
import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest

from dsr import mcq
from dsr.console import StageError
from dsr.exports import conversations, lmms_eval, vlmevalkit
from dsr.exports.exported import Exported
from dsr.files import write_parquet
from dsr.mcq import PUBLISHED_COLUMNS, prompt, read_questions, read_row, row_problem
from dsr.params import PromptName

OPTIONS = ["A. grows", "B. shrinks", "C. stays", "D. grows, then shrinks"]
ROW = {"videoID": "clip", "question": "How?", "options": OPTIONS, "answer": "C", "type": "rel_dis", "qa_id": "q"}


def quartet() -> pd.DataFrame:
    return pd.DataFrame([ROW | {"qa_id": f"q-{letter}", "quartet_id": "q", "answer": letter} for letter in "ABCD"])


def test_the_examples_of_the_docstrings_hold() -> None:
    assert doctest.testmod(mcq).failed == 0


def test_published_files_are_read_with_their_columns_alone(tmp_path: Path) -> None:
    published = quartet()[[*PUBLISHED_COLUMNS][::-1]]
    write_parquet(tmp_path / "DSR-Bench.parquet", published)
    questions = read_questions(tmp_path / "DSR-Bench.parquet")
    assert tuple(questions.columns) == (*PUBLISHED_COLUMNS, "qa_id", "source_video", "quartet_id")
    assert questions["qa_id"].tolist() == [f"DSR-Bench-{row:06d}" for row in range(4)]
    assert questions["source_video"].tolist() == questions["videoID"].tolist()
    assert questions["options"][0] == OPTIONS


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("videoID", "", "videoID must be a text"),
        ("question", None, "question must be a text"),
        ("options", OPTIONS[:3], "options must be a list of 4 texts"),
        ("options", [*OPTIONS[:3], " "], "options must be 4 texts"),
        ("options", [*OPTIONS[:3], "E. turns"], "options must be 4 texts that begin with 'A.' to 'D.'"),
        ("answer", "E", "answer must be A, B, C or D, not 'E'"),
        ("answer", None, "answer must be A, B, C or D"),
        ("type", "rel_dst", "type 'rel_dst' is unknown"),
        ("quartet_id", None, "quartet_id is empty"),
        ("qa_id", "q-A", "is there twice"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, column: str, value: object, message: str) -> None:
    rows = quartet().to_dict("records")
    rows[2][column] = value
    write_parquet(tmp_path / "bad.parquet", pd.DataFrame(rows))
    with pytest.raises(StageError, match=rf"bad\.parquet, row 2: .*{message}"):
        read_questions(tmp_path / "bad.parquet")


def test_a_file_that_is_no_table_of_questions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="does not exist"):
        read_questions(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("videoID,question")
    with pytest.raises(StageError, match="not a parquet file"):
        read_questions(tmp_path / "text.parquet")
    write_parquet(tmp_path / "other.parquet", pd.DataFrame({"videoID": ["a"]}))
    with pytest.raises(StageError, match="no column question, options, answer, type"):
        read_questions(tmp_path / "other.parquet")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({}, ""),
        ({"options": np.array(OPTIONS, object)}, ""),
        ({"options": OPTIONS[:2], "answer": "B"}, ""),
        ({"options": [f"{letter}. x" for letter in "ABCDEFG"], "answer": "G"}, ""),
        ({"options": OPTIONS[:2]}, "answer must be A or B, not 'C'"),
        ({"options": OPTIONS[:1]}, "1 options; a question needs at least 2"),
        ({"options": None}, "0 options; a question needs at least 2"),
        ({"options": "A. x"}, "0 options; a question needs at least 2"),
        ({"answer": ""}, "answer must be A, B, C or D, not ''"),
        ({"answer": "AB"}, "answer must be A, B, C or D, not 'AB'"),
        ({"question": float("nan")}, "question must be a text, not nan"),
        ({"shown_frames": 0}, "shown_frames is 0"),
        ({"shown_frames": float("nan")}, ""),
    ],
)
def test_a_row_of_any_benchmark_says_on_one_line_what_is_wrong(change: dict[str, Any], problem: str) -> None:
    row = ROW | change
    assert row_problem(row) == problem
    assert read_row(row).qa_id == "q"


def test_four_options_of_a_known_type_are_asked_of_published_tables_alone() -> None:
    assert row_problem(ROW | {"type": "anything"}) == ""
    assert row_problem(ROW | {"type": "anything"}, published=True).startswith("type 'anything' is unknown")


def test_published_prompts_to_the_letter() -> None:
    assert (
        prompt("How?", OPTIONS, "published") == "\nHow?\nOptions:\nA grows\nB shrinks\nC stays\nD grows, then shrinks"
    )
    assert prompt("How?", OPTIONS, "vlmevalkit").splitlines()[2:] == ["Question: How?", *OPTIONS, "Answer: "]


def test_a_parameter_names_every_prompt() -> None:
    assert get_args(PromptName) == ("", *mcq.PROMPTS)


def test_training_endpoint_and_exports_ask_with_one_text(tmp_path: Path) -> None:
    question = Exported(**vars(read_row(ROW)), source_video="s", quartet_id="q", video="videos/clip.mp4")
    text = "How?\nOptions:\nA. grows\nB. shrinks\nC. stays\nD. grows, then shrinks\nAnswer with the letter."
    assert prompt("How?", OPTIONS) == text
    (path,) = conversations.write_qwen([question], tmp_path, "sft")
    assert json.loads(path.read_text())[0]["conversations"][0]["value"] == f"<video>\n{text}"
    task, data, _ = lmms_eval.write([question], tmp_path, "lmms")
    assert json.loads(data.read_text())["prompt"] + mcq.INSTRUCTION == text
    assert f"post_prompt: {mcq.INSTRUCTION}\n" in task.read_text()
    table, _ = vlmevalkit.write([question], tmp_path, "vlm")
    assert pd.read_csv(table, sep="\t")["prompt"].tolist() == [text]
