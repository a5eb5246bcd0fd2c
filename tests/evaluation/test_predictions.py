"""Tables of predictions by scorers that need no model."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dsr.evaluation.controls import ControlError
from dsr.evaluation.prediction_cache import PredictionCache, Reply
from dsr.evaluation.predictions import FIXED_COLUMNS, predict
from tests.evaluation.rule_scorers import RuleScorer, benchmark, says


def questions(count: int = 8) -> pd.DataFrame:
    table = benchmark().iloc[:count].set_index(pd.RangeIndex(100, 100 + count))
    return table.assign(question=table["question"] + " " + table["qa_id"])


def test_the_highest_score_is_the_prediction_and_the_first_of_equals() -> None:
    scores = {"qa0A": [-1, -2, -3, -4], "qa0B": [-9, -2, -3, -4], "qa0C": [-5, -5, -5, -5], "qa0D": [-5, -4, -4, -6]}
    table = predict(questions(4), RuleScorer(lambda q, _: Reply(log_probs=tuple(scores[q.qa_id]))))
    assert tuple(table.columns) == (*FIXED_COLUMNS, "logp_A", "logp_B", "logp_C", "logp_D")
    assert table["prediction"].tolist() == ["A", "B", "A", "B"]
    assert table["correct"].tolist() == [True, True, False, False]
    assert table.loc[1, ["logp_A", "logp_B", "logp_C", "logp_D"]].tolist() == [-9, -2, -3, -4]
    assert (table["control"] == "score").all()


def test_every_question_has_a_row_with_a_status() -> None:
    replies = {
        "qa0A": Reply(text="The answer is B."),
        "qa0B": Reply(text="I cannot tell."),
        "qa0D": Reply(problem="damaged"),
    }
    table = predict(questions(4), RuleScorer(lambda q, _: replies[q.qa_id], {"qa0C": "no cues"}))
    assert table["status"].tolist() == ["scored", "unparsed", "missing", "missing"]
    assert table["prediction"].tolist() == ["B", "", "", ""]
    assert table["text"].tolist() == ["The answer is B.", "I cannot tell.", "", ""]
    assert table["reason"].tolist() == ["", "", "no cues", "damaged"]
    assert not table["correct"].any()
    assert np.isnan(table["logp_A"]).all()


def test_a_malformed_row_is_missing_with_its_reason() -> None:
    table = questions(4)
    table.at[100, "options"] = ["A. grows", "C. shrinks", "B. constant", "D. other"]
    table.at[101, "options"] = ["A. grows"]
    table.at[102, "answer"] = "E"
    predicted = predict(table.assign(problem=["", "", "", "no video"]), RuleScorer(lambda q, _: says("A")))
    assert (predicted["status"] == "missing").all()
    assert [reason.split(" ")[0] for reason in predicted["reason"]] == ["options", "1", "answer", "no"]


def test_a_control_without_counterpart_leaves_questions_out() -> None:
    table = predict(questions(4), RuleScorer(lambda q, _: says("A")), "mirrored")
    assert table["status"].tolist() == ["left_out"] * 4
    assert set(table["reason"]) == {"the question's text is no wording of the templates"}


def test_rotated_options_take_their_answer_along() -> None:
    table = predict(questions(4), RuleScorer(lambda q, _: says("A")), "rotation_1")
    assert table["answer"].tolist() == ["B", "C", "D", "A"]
    assert table["correct"].tolist() == [False, False, False, True]
    seen = {}
    predict(questions(1), RuleScorer(lambda q, _: seen.update(options=q.options) or says("A")), "rotation_1")
    assert seen["options"] == ("A. grows, then shrinks", "B. grows", "C. shrinks", "D. constant")


def test_more_letters_than_four_have_their_columns() -> None:
    table = questions(2)
    table.at[100, "options"] = [f"{letter}. {n}" for n, letter in enumerate("ABCDE")]
    replies = {"qa0A": Reply(log_probs=(-5, -5, -5, -5, -1)), "qa0B": Reply(log_probs=(-1, -2, -3, -4))}
    predicted = predict(table, RuleScorer(lambda q, _: replies[q.qa_id]))
    assert predicted["prediction"].tolist() == ["E", "A"]
    assert predicted["num_options"].tolist() == [5, 4]
    assert predicted["logp_E"].tolist()[0] == -1
    assert np.isnan(predicted["logp_E"].iloc[1])


def test_what_metrics_group_by_comes_from_the_questions() -> None:
    table = questions(2).assign(
        viewpoint_mode=["relative", "none"],
        viewpoint_kind=["agent", "none"],
        target_kinds=[["object", "agent", "agent"], ["camera"]],
        states=["+ 0 -", "+"],
        category=["sports", None],
        option_states=[["+", "-", "0", "+ -"]] * 2,
    )
    row, other = predict(table, RuleScorer(lambda q, _: says("D"))).to_dict("records")
    assert (row["viewpoint"], row["target"], row["answer_length"]) == ("relative agent", "agent + object", "3")
    assert (other["viewpoint"], other["target"], other["category"]) == ("none", "camera", "")
    assert (row["answer_states"], row["predicted_states"]) == ("+", "+ -")


def test_a_control_that_makes_no_sense_says_so() -> None:
    with pytest.raises(ControlError, match="takes no geometry"):
        predict(questions(), RuleScorer(lambda q, _: says("A"), refuses="blind"), "blind")


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def rule(question, control):
        if question.qa_id == "qa1B":
            raise Killed
        return says("A")

    with PredictionCache(tmp_path / "cache.sqlite") as cache, pytest.raises(Killed):
        predict(questions(), RuleScorer(rule), cache=cache)
    scorer = RuleScorer(lambda q, _: says("A"))
    with PredictionCache(tmp_path / "cache.sqlite") as cache:
        resumed = predict(questions(), scorer, cache=cache)
        # The batch that was under way is asked again.
        assert scorer.asked == ["qa0D", "qa1A", "qa1B", "qa1C", "qa1D"]
        predict(questions(), scorer, cache=cache)
        assert len(scorer.asked) == 5
    pd.testing.assert_frame_equal(resumed, predict(questions(), RuleScorer(lambda q, _: says("A"))))


def test_what_changes_an_answer_is_in_the_key(tmp_path: Path) -> None:
    with PredictionCache(tmp_path / "cache.sqlite") as cache:
        scorer = RuleScorer(lambda q, _: says("A"))
        predict(questions(4), scorer, cache=cache)
        predict(questions(4), scorer, "blind", cache=cache)
        assert len(scorer.asked) == 8
        predict(questions(4).assign(question="Another?"), scorer, cache=cache)
        assert len(scorer.asked) == 12
        scorer.identity = "other weights"
        predict(questions(4), scorer, cache=cache)
        assert len(scorer.asked) == 16
        scorer.clip_hash = lambda clip, control: "another video"  # type: ignore[method-assign]
        predict(questions(4), scorer, cache=cache)
        assert len(scorer.asked) == 20


def test_problems_are_not_kept() -> None:
    with PredictionCache() as cache:
        assert (
            predict(questions(1), RuleScorer(lambda q, _: Reply(problem="busy")), cache=cache)["status"][0] == "missing"
        )
        assert predict(questions(1), RuleScorer(lambda q, _: says("A")), cache=cache)["status"][0] == "scored"
