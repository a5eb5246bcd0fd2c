"""The evaluate stage with scorers that need no model: files, controls, the closing table."""

import json
from pathlib import Path

import pandas as pd
import pytest

from dsr.console import StageError
from dsr.evaluation import evaluate as stage
from dsr.evaluation.prediction_cache import Reply
from dsr.files import write_parquet
from dsr.mcq import Question
from dsr.params import Evaluate, Params
from tests.evaluation.rule_scorers import RuleScorer, benchmark, says

OPTIONS = Evaluate(bootstrap=200)


def by_geometry(question: Question, control: str) -> Reply:
    """Right where it has the clip's own geometry; without it, B."""
    return says(question.qa_id[-1] if control == "score" else "B")


def run_with(scorer: RuleScorer, root: Path, monkeypatch: pytest.MonkeyPatch, options: Evaluate = OPTIONS) -> None:
    """The stage, with a scorer in the place of the checkpoint."""
    table = benchmark()
    write_parquet(root / "data/qa/bench.parquet", table.assign(question=table["question"] + " " + table["qa_id"]))
    monkeypatch.setattr(stage, "make_scorer", lambda *arguments: scorer)
    stage.run(Params(evaluate=options), root)


def read(root: Path) -> dict:
    return json.loads((root / "metrics/eval.json").read_text())


def test_a_model_that_reads_geometry_collapses_under_the_controls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_with(RuleScorer(by_geometry), tmp_path, monkeypatch)
    metrics = read(tmp_path)
    assert (metrics["accuracy"], metrics["accuracy_quartet"]) == (1, 1)
    assert metrics["control"] == {"blind": 0.25, "shuffled_geometry": 0.25}
    assert (metrics["gain"]["blind"], metrics["gain"]["shuffled_geometry"]) == (0.75, 0.75)


def test_every_question_is_in_the_predictions_once_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_with(RuleScorer(by_geometry, {"qa0A": "no cues", "qa0B": "no cues"}), tmp_path, monkeypatch)
    predictions = pd.read_parquet(tmp_path / "data/predictions/bench.parquet")
    assert predictions.groupby("control", sort=False).size().to_dict() == {
        "score": 16,
        "blind": 16,
        "shuffled_geometry": 16,
    }
    assert (predictions["status"] == "missing").sum() == 6
    assert read(tmp_path)["questions"] == {"asked": 16, "scored": 14, "unparsed": 0, "missing": 2, "quartets": 4}
    assert read(tmp_path)["accuracy"] == 14 / 16


def test_a_row_for_every_run_and_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "metrics/eval").mkdir(parents=True)
    (tmp_path / "metrics/eval/old.csv").write_text("of another version")
    run_with(RuleScorer(by_geometry), tmp_path, monkeypatch)
    rows = pd.read_csv(tmp_path / "metrics/eval/by_type.csv")
    kinds = ["all", "macro", "rel_dis", "abs_dir"]
    runs = ["score", "blind", "shuffled_geometry"]
    assert list(zip(rows["run"], rows["type"], strict=True)) == [(run, kind) for run in runs for kind in kinds]
    assert {path.stem for path in (tmp_path / "metrics/eval").iterdir()} == {
        *("by_type", "by_group", "quartets", "letters", "calibration", "reasons", "confusion", "data_size")
    }
    size = pd.read_csv(tmp_path / "metrics/eval/data_size.csv")
    assert size[["train_questions", "accuracy"]].to_numpy().tolist() == [[0, 1]]


def test_a_control_that_makes_no_sense_is_left_out_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_with(RuleScorer(by_geometry, refuses="shuffled_geometry"), tmp_path, monkeypatch)
    assert "shuffled_geometry" not in read(tmp_path)["control"]
    assert "control shuffled_geometry left out: the model takes no geometry" in capsys.readouterr().err


def test_the_closing_table_shows_score_controls_chance_and_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_with(RuleScorer(by_geometry, {"qa0A": "no cues of [clip0]"}), tmp_path, monkeypatch)
    shown = capsys.readouterr().err
    for text in ("chance", "blind", "shuffled", "93.8%", "25.0%", "+68.8", "quartets"):
        assert text in shown
    assert "1 questions missing, counted as wrong: no cues of [clip0]" in shown


def test_same_scores_give_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "ab":
        run_with(RuleScorer(by_geometry), tmp_path / name, monkeypatch)
    for file in ("metrics/eval.json", "data/predictions/bench.parquet", "metrics/eval/by_type.csv"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_a_second_run_asks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = RuleScorer(by_geometry)
    run_with(scorer, tmp_path, monkeypatch)
    assert len(scorer.asked) == 3 * 16
    run_with(scorer, tmp_path, monkeypatch)
    assert len(scorer.asked) == 3 * 16
    run_with(scorer, tmp_path, monkeypatch, Evaluate(bootstrap=200, cache=False))
    assert len(scorer.asked) == 6 * 16


def test_a_question_that_fails_on_the_way_is_missing_from_every_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rule(question: Question, control: str) -> Reply:
        lost = question.qa_id == "qa0A" and control == "shuffled_geometry"
        return Reply(problem="damaged") if lost else says("A")

    run_with(RuleScorer(rule), tmp_path, monkeypatch)
    predictions = pd.read_parquet(tmp_path / "data/predictions/bench.parquet")
    lost = predictions[predictions["qa_id"] == "qa0A"]
    assert lost["status"].tolist() == ["missing"] * 3
    assert lost["reason"].tolist() == ["damaged"] * 3
    assert read(tmp_path)["accuracy"] == 3 / 16


def test_confusion_of_states_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = benchmark().iloc[:8].assign(option_states=[["+", "-", "0", "+ -"]] * 4 + [["+0-", "00-", "-0+", "000"]] * 4)
    write_parquet(tmp_path / "data/qa/bench.parquet", table)
    monkeypatch.setattr(stage, "make_scorer", lambda *arguments: RuleScorer(lambda question, control: says("B")))
    stage.run(Params(evaluate=OPTIONS), tmp_path)
    rows = pd.read_csv(tmp_path / "metrics/eval/confusion.csv").to_dict("records")
    distance = {(r["right"], r["predicted"]): (r["states"], r["share"]) for r in rows if r["type"] == "rel_dis"}
    # Right: +, -, 0, and the first state of "+ -"; predicted: - every time.
    same = "stays about the same"
    assert distance == {("grows", "shrinks"): (2, 1.0), (same, "shrinks"): (1, 1.0), ("shrinks", "shrinks"): (1, 1.0)}
    sides = {(r["right"], r["predicted"]): r["states"] for r in rows if r["type"] == "abs_dir, above / below"}
    assert sides == {("below", "below"): 2, ("above", "below"): 1, ("neither", "below"): 1}


def test_nothing_to_score_is_an_error_and_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = dict.fromkeys(benchmark()["qa_id"], "no cues")
    with pytest.raises(StageError, match="none of the 16 questions can be scored; the first: no cues"):
        run_with(RuleScorer(by_geometry, missing), tmp_path, monkeypatch)
    assert not (tmp_path / "metrics").exists()
    write_parquet(tmp_path / "data/qa/bench.parquet", benchmark().iloc[:0])
    with pytest.raises(StageError, match="holds no question"):
        stage.run(Params(), tmp_path)
