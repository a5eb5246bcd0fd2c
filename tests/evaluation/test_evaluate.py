"""The evaluate stage with scorers that need no model: files, controls, the closing table."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dsr.console import StageError
from dsr.evaluation.evaluate import evaluate, run
from dsr.evaluation.predictions import ControlError
from dsr.files import write_parquet
from dsr.params import Evaluate, Params

OPTIONS = Evaluate(bootstrap=200)


def benchmark() -> pd.DataFrame:
    """Four clips with a quartet each, two of every type."""
    return pd.DataFrame(
        [
            {
                "videoID": f"clip{clip}",
                "question": "How does the distance change?",
                "options": ["A. grows", "B. shrinks", "C. constant", "D. grows, then shrinks"],
                "answer": letter,
                "type": ["rel_dis", "abs_dir"][clip % 2],
                "qa_id": f"qa{clip}{letter}",
                "quartet_id": f"q{clip}",
                "source_video": f"clip{clip}",
                "block": clip % 2,
            }
            for clip in range(4)
            for letter in "ABCD"
        ]
    )


class GeometryReader:
    """Right where it has the clip's own geometry; without it, B."""

    def __init__(self, missing: dict[str, str] | None = None, refuses: str = "") -> None:
        self.missing = missing or {}
        self.refuses = refuses

    def __call__(self, qa_ids: Sequence[str], control: str) -> np.ndarray:
        if control == self.refuses:
            raise ControlError("the model takes no geometry (gsm.fusion: none)")
        scores = np.full((len(qa_ids), 4), -4.0)
        for row, qa_id in enumerate(qa_ids):
            scores[row, "ABCD".index(qa_id[-1] if control == "score" else "B")] = -0.1
        return scores


def read(root: Path) -> dict:
    return json.loads((root / "metrics/eval.json").read_text())


def test_a_model_that_reads_geometry_collapses_under_the_controls(tmp_path: Path) -> None:
    evaluate(benchmark(), GeometryReader(), OPTIONS, tmp_path)
    accuracy = read(tmp_path)["accuracy"]
    assert (accuracy["micro"], accuracy["quartet"]) == (1, 1)
    assert (accuracy["blind"], accuracy["shuffled_geometry"]) == (0.25, 0.25)


def test_every_question_is_in_the_predictions_once_a_run(tmp_path: Path) -> None:
    evaluate(benchmark(), GeometryReader({"qa0A": "no cues", "qa0B": "no cues"}), OPTIONS, tmp_path)
    predictions = pd.read_parquet(tmp_path / "data/predictions/bench.parquet")
    assert predictions.groupby("control", sort=False).size().to_dict() == {
        "score": 16,
        "blind": 16,
        "shuffled_geometry": 16,
    }
    assert (predictions["status"] == "missing").sum() == 6
    assert read(tmp_path)["questions"] == {"asked": 16, "scored": 14, "missing": 2}
    assert read(tmp_path)["accuracy"]["micro"] == 14 / 16


def test_a_plot_row_for_every_run_and_type(tmp_path: Path) -> None:
    evaluate(benchmark(), GeometryReader(), OPTIONS, tmp_path)
    rows = json.loads((tmp_path / "metrics/plots/accuracy_by_type.json").read_text())
    assert [(row["run"], row["type"]) for row in rows[:3]] == [("score", t) for t in ("all", "rel_dis", "abs_dir")]
    assert len(rows) == 9
    assert set(rows[0]) == {"type", "run", "accuracy", "low", "high", "asked", "chance"}


def test_a_control_that_makes_no_sense_is_left_out_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate(benchmark(), GeometryReader(refuses="shuffled_geometry"), OPTIONS, tmp_path)
    assert "shuffled_geometry" not in read(tmp_path)["accuracy"]
    assert "control shuffled_geometry left out: the model takes no geometry" in capsys.readouterr().err


def test_the_closing_table_shows_score_controls_chance_and_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate(benchmark(), GeometryReader({"qa0A": "no cues of [clip0]"}), OPTIONS, tmp_path)
    shown = capsys.readouterr().err
    for text in ("chance", "blind", "shuffled", "93.8%", "25.0%", "quartets"):
        assert text in shown
    assert "1 questions missing, counted as wrong: no cues of [clip0]" in shown


def test_same_scores_give_the_same_bytes(tmp_path: Path) -> None:
    for name in "ab":
        evaluate(benchmark(), GeometryReader(), OPTIONS, tmp_path / name)
    for file in ("metrics/eval.json", "data/predictions/bench.parquet", "metrics/plots/accuracy_by_type.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_nothing_to_score_is_an_error_and_writes_nothing(tmp_path: Path) -> None:
    missing = dict.fromkeys(benchmark()["qa_id"], "no cues")
    with pytest.raises(StageError, match="none of the 16 questions can be scored; the first: no cues"):
        evaluate(benchmark(), GeometryReader(missing), OPTIONS, tmp_path)
    assert not (tmp_path / "metrics").exists()
    write_parquet(tmp_path / "data/qa/bench.parquet", benchmark().iloc[:0])
    with pytest.raises(StageError, match="holds no question"):
        run(Params(), tmp_path)
