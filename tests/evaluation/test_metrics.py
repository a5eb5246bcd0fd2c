"""Metrics on a toy benchmark whose numbers are worked out by hand."""

import numpy as np
import pandas as pd
import pytest

from dsr.evaluation.metrics import (
    accuracy_table,
    bootstrap_intervals,
    evaluation_metrics,
    gain_table,
    letter_counts,
    quartet_counts,
)


def toy(control: str = "score") -> pd.DataFrame:
    """Two quartets of rel_dis (videos u and v), 2 single questions of abs_dir (video w); 10 asked, 1 missing.

    Right: quartet q1 whole, quartet q2 two of four (one missing), abs_dir one of two; 7 of 10.
    """
    rows = [
        *(("q1", "u", "rel_dis", answer, answer) for answer in "ABCD"),
        ("q2", "v", "rel_dis", "A", "A"),
        ("q2", "v", "rel_dis", "B", "A"),
        ("q2", "v", "rel_dis", "C", "C"),
        ("q2", "v", "rel_dis", "D", ""),
        ("", "w", "abs_dir", "D", "D"),
        ("", "w", "abs_dir", "B", "A"),
    ]
    table = pd.DataFrame(rows, columns=["quartet_id", "source_video", "type", "answer", "prediction"])
    table["qa_id"] = [f"qa{row}" for row in range(len(rows))]
    table["correct"] = table["answer"] == table["prediction"]
    table["status"] = np.where(table["prediction"] == "", "missing", "scored")
    table["reason"] = np.where(table["prediction"] == "", "no cues", "")
    table["control"] = control
    return table


def always_a() -> pd.DataFrame:
    """The toy benchmark answered by a model that says A to everything: 2 of 10."""
    table = toy("blind")
    table["prediction"] = np.where(table["status"] == "scored", "A", "")
    return table.assign(correct=table["prediction"] == table["answer"])


def test_accuracy_counts_a_missing_question_as_wrong() -> None:
    table = accuracy_table(toy(), resamples=100, seed=1)
    assert list(table.index) == ["micro", "macro", "rel_dis", "abs_dir"]
    assert table["asked"].tolist() == [10, 10, 8, 2]
    assert table["scored"].tolist() == [9, 9, 7, 2]
    assert table["missing"].tolist() == [1, 1, 1, 0]
    assert table["correct"].tolist() == [7, 7, 6, 1]
    assert table["source_videos"].tolist() == [3, 3, 2, 1]
    assert table["accuracy"].tolist() == [7 / 10, (6 / 8 + 1 / 2) / 2, 6 / 8, 1 / 2]
    assert table["accuracy_scored"].tolist() == [7 / 9, (6 / 7 + 1 / 2) / 2, 6 / 7, 1 / 2]


def test_a_missing_question_is_not_right_even_if_its_row_says_so() -> None:
    table = toy().assign(correct=True)
    assert accuracy_table(table, 100, 1).loc["micro", "correct"] == 9


def test_a_type_of_which_nothing_was_scored_has_no_accuracy_over_the_scored() -> None:
    table = toy()
    table.loc[table["type"] == "abs_dir", "status"] = "missing"
    row = accuracy_table(table, 100, 1).loc["abs_dir"]
    assert (row["accuracy"], row["missing"]) == (0, 2)
    assert np.isnan(row["accuracy_scored"])


def test_intervals_are_those_of_resampled_source_videos() -> None:
    # Two videos: 4 of 4 right and 0 of 4. A resample has both (accuracy 1/2), or one of them twice (1 or 0).
    values, videos = np.repeat([1.0, 0.0], 4), np.repeat(["u", "v"], 4)
    low, high = bootstrap_intervals(values, np.zeros(8, int), videos, 2000, seed=1)
    assert (low == 0).all()
    assert (high == 1).all()
    # As questions, the same numbers would be far surer.
    low, high = bootstrap_intervals(values, np.zeros(8, int), np.arange(8), 2000, seed=1)
    assert low[0] > 0.1
    assert high[0] < 0.9


def test_intervals_agree_with_resampling_one_by_one() -> None:
    rng = np.random.default_rng(0)
    videos, groups = rng.integers(0, 30, 400), rng.integers(0, 3, 400)
    groups[:3] = [0, 1, 2]
    values = (rng.random(400) < 0.3 + 0.5 * (videos % 2)).astype(float)
    rows_of = [np.flatnonzero(videos == v) for v in range(30)]
    samples = []
    for _ in range(1500):
        rows = np.concatenate([rows_of[v] for v in rng.integers(0, 30, 30)])
        by_group = [values[rows][groups[rows] == k].mean() for k in range(3)]
        samples.append([values[rows].mean(), np.mean(by_group), *by_group])
    expected = np.percentile(samples, [2.5, 97.5], axis=0)
    assert bootstrap_intervals(values, groups, videos, 1500, seed=1) == pytest.approx(expected, abs=0.025)


def test_a_single_source_video_gives_no_interval() -> None:
    table = accuracy_table(toy(), 200, 1)
    assert np.isnan(table.loc["abs_dir", ["low", "high"]].to_numpy(float)).all()
    assert np.isfinite(table.loc["rel_dis", ["low", "high"]].to_numpy(float)).all()


def test_resamples_follow_the_seed() -> None:
    first, again, other = (accuracy_table(toy(), 300, seed)[["low", "high"]].to_numpy() for seed in (1, 1, 2))
    assert np.array_equal(first, again, equal_nan=True)
    assert first.shape == other.shape


def test_a_quartet_is_right_when_all_four_are() -> None:
    assert quartet_counts(toy()) == {"asked": 2, "right": 1, "accuracy": 0.5}
    # A torn quartet is not one, and questions without a quartet are none.
    assert quartet_counts(toy().iloc[1:])["asked"] == 1
    assert np.isnan(quartet_counts(toy().iloc[8:])["accuracy"])


def test_answering_from_the_options_alone_gets_a_quarter_and_no_quartet() -> None:
    table = toy().iloc[:4]
    table = table.assign(prediction="C", correct=table["answer"] == "C")
    assert accuracy_table(table, 100, 1).loc["micro", "accuracy"] == 0.25
    assert quartet_counts(table)["right"] == 0


def test_letters_are_counted_over_the_scored() -> None:
    counts = {row["letter"]: (row["answers"], row["predictions"]) for row in letter_counts(toy())}
    assert counts == {"A": (2, 4), "B": (3, 1), "C": (2, 2), "D": (2, 2)}


def test_gain_is_score_minus_control_on_the_same_questions() -> None:
    gain = gain_table(toy(), always_a(), 500, 1)
    assert gain["gain"].tolist() == pytest.approx([0.5, (4 / 8 + 1 / 2) / 2, 4 / 8, 1 / 2])
    assert (gain["gain_low"].iloc[:3] <= gain["gain"].iloc[:3]).all()
    same = gain_table(toy(), toy("blind"), 500, 1)
    assert same.iloc[:3].to_numpy().tolist() == [[0, 0, 0]] * 3
    with pytest.raises(ValueError, match="questions of the score"):
        gain_table(toy(), always_a().iloc[::-1], 500, 1)


def test_the_metrics_file_shows_few_numbers_and_lists_the_rest() -> None:
    metrics = evaluation_metrics(pd.concat([toy(), always_a()]), resamples=200, seed=1)
    accuracy = metrics["accuracy"]
    assert {name: accuracy[name] for name in ("micro", "macro", "quartet", "chance", "blind")} == {
        "micro": 0.7,
        "macro": 0.625,
        "quartet": 0.5,
        "chance": 0.25,
        "blind": 0.2,
    }
    assert accuracy["micro_low"] <= 0.7 <= accuracy["micro_high"]
    assert metrics["by_type"] == {"rel_dis": 0.75, "abs_dir": 0.5}
    assert metrics["questions"] == {"asked": 10, "scored": 9, "missing": 1}
    assert metrics["missing"] == [{"reason": "no cues", "questions": 1}]
    runs = {(row["control"], row["group"]): row for row in metrics["runs"]}
    assert len(runs) == 8
    assert runs["blind", "micro"]["gain"] == 0.5
    assert "gain" not in runs["score", "micro"]
    assert runs["score", "abs_dir"]["low"] is None
    assert metrics["quartets"][1] == {"control": "blind", "chance": 0.0039, "asked": 2, "right": 0, "accuracy": 0}


def test_a_hundred_thousand_predictions_take_seconds() -> None:
    rng = np.random.default_rng(0)
    count = 100_000
    table = pd.DataFrame(
        {
            "qa_id": np.arange(count).astype(str),
            "quartet_id": (np.arange(count) // 4).astype(str),
            "source_video": rng.integers(0, 8000, count).astype(str),
            "type": rng.choice(["rel_dis", "abs_dir", "rel_spd"], count),
            "answer": "A",
            "prediction": rng.choice(list("ABCD"), count),
            "status": "scored",
            "reason": "",
            "control": "score",
        }
    )
    table["correct"] = table["prediction"] == "A"
    metrics = evaluation_metrics(table, resamples=1000, seed=1)
    assert metrics["accuracy"]["micro"] == pytest.approx(0.25, abs=0.01)
    assert metrics["accuracy"]["micro_high"] - metrics["accuracy"]["micro_low"] == pytest.approx(0.0055, abs=0.001)
