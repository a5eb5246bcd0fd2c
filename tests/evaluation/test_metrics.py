"""Metrics on a toy benchmark whose numbers are worked out by hand."""

import numpy as np
import pandas as pd
import pytest

from dsr.evaluation.metrics import (
    breakdown,
    calibration,
    calibration_error,
    evaluation_metrics,
    letters,
    quartets,
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
    table["viewpoint"] = ["relative agent"] * 8 + ["none"] * 2
    table["category"] = ""
    table["num_options"] = 4
    table["control"] = control
    return table


def always_a(control: str = "blind") -> pd.DataFrame:
    """The toy benchmark answered by a model that says A to everything: 2 of 10."""
    table = toy(control)
    table["prediction"] = np.where(table["status"] == "scored", "A", "")
    return table.assign(correct=table["prediction"] == table["answer"])


def rows_of(*runs: pd.DataFrame, resamples: int = 300, seed: int = 1) -> pd.DataFrame:
    table = breakdown(pd.concat(runs, ignore_index=True), resamples, seed)
    return table.set_index(["run", "group"])


def test_accuracy_counts_a_missing_question_as_wrong() -> None:
    table = rows_of(toy()).loc["score"]
    assert list(table.index) == ["all", "macro", "rel_dis", "abs_dir", "none", "relative agent"]
    assert table["by"].tolist() == ["all", "all", "type", "type", "viewpoint", "viewpoint"]
    assert table["asked"].tolist() == [10, 10, 8, 2, 2, 8]
    assert table["scored"].tolist() == [9, 9, 7, 2, 2, 7]
    assert table["missing"].tolist() == [1, 1, 1, 0, 0, 1]
    assert table["correct"].tolist() == [7, 7, 6, 1, 1, 6]
    assert table["source_videos"].tolist() == [3, 3, 2, 1, 1, 2]
    assert table["accuracy"].tolist() == [7 / 10, (6 / 8 + 1 / 2) / 2, 6 / 8, 1 / 2, 1 / 2, 6 / 8]
    assert table["accuracy_scored"].tolist() == [7 / 9, (6 / 7 + 1 / 2) / 2, 6 / 7, 1 / 2, 1 / 2, 6 / 7]
    assert (table["chance"] == 0.25).all()


def test_counts_add_up_whatever_became_of_a_question() -> None:
    control = always_a("mirrored")
    control.loc[[0, 1], "status"] = "left_out"
    control.loc[[2], "status"] = "unparsed"
    table = rows_of(toy(), control)
    whole = table.loc["mirrored", "all"]
    assert whole[["asked", "scored", "unparsed", "missing", "left_out"]].tolist() == [8, 6, 1, 1, 2]
    assert (table["asked"] == table["scored"] + table["unparsed"] + table["missing"]).all()
    assert (table["asked"] + table["left_out"]).groupby("run").first().tolist() == [10, 10]


def test_a_missing_question_is_not_right_even_if_its_row_says_so() -> None:
    assert rows_of(toy().assign(correct=True)).loc[("score", "all"), "correct"] == 9


def test_a_type_of_which_nothing_was_scored_has_no_accuracy_over_the_scored() -> None:
    table = toy()
    table.loc[table["type"] == "abs_dir", "status"] = "missing"
    row = rows_of(table).loc[("score", "abs_dir")]
    assert (row["accuracy"], row["missing"]) == (0, 2)
    assert np.isnan(row["accuracy_scored"])


def test_chance_follows_the_number_of_options() -> None:
    table = toy()
    table.loc[table["type"] == "abs_dir", "num_options"] = 2
    rows = rows_of(table).loc["score"]
    assert rows.loc["abs_dir", "chance"] == 0.5
    assert rows.loc["all", "chance"] == pytest.approx((8 / 4 + 2 / 2) / 10)


def test_a_single_source_video_gives_no_interval() -> None:
    table = rows_of(toy()).loc["score"]
    assert np.isnan(table.loc["abs_dir", ["low", "high"]].to_numpy(float)).all()
    for group in ("all", "macro", "rel_dis"):
        assert np.isfinite(table.loc[group, ["low", "high"]].to_numpy(float)).all()


def test_the_macro_interval_is_that_of_the_mean_over_types() -> None:
    rng = np.random.default_rng(0)
    videos = rng.integers(0, 20, 300)
    table = pd.DataFrame(
        {
            "qa_id": np.arange(300).astype(str),
            "quartet_id": "",
            "source_video": [f"{video:02d}" for video in videos],
            "type": rng.choice(["rel_dis", "abs_dir"], 300, p=[0.9, 0.1]),
            "answer": "A",
            "prediction": "A",
            "status": "scored",
            "reason": "",
            "control": "score",
            "num_options": 4,
        }
    )
    table["correct"] = rng.random(300) < np.where(table["type"] == "abs_dir", 0.2, 0.7)
    row = rows_of(table, resamples=2000).loc[("score", "macro")]
    samples = []
    for _ in range(2000):
        chosen = np.concatenate([np.flatnonzero(videos == v) for v in rng.integers(0, 20, 20)])
        samples.append(table.iloc[chosen].groupby("type")["correct"].mean().mean())
    assert [row["low"], row["high"]] == pytest.approx(np.percentile(samples, [2.5, 97.5]), abs=0.02)


def test_resamples_follow_the_seed() -> None:
    first, again, other = (rows_of(toy(), seed=seed)[["low", "high"]].to_numpy() for seed in (1, 1, 2))
    assert np.array_equal(first, again, equal_nan=True)
    assert first.shape == other.shape


def quartet_rows(*runs: pd.DataFrame) -> pd.DataFrame:
    return evaluation_metrics(pd.concat(runs, ignore_index=True), 100, 1).tables["quartets"].set_index(["run", "type"])


def test_a_quartet_is_right_when_all_four_are() -> None:
    table = quartet_rows(toy(), always_a())
    assert table[["asked", "scored", "missing", "correct"]].to_dict("index") == {
        ("score", "all"): {"asked": 2, "scored": 1, "missing": 1, "correct": 1},
        ("score", "macro"): {"asked": 2, "scored": 1, "missing": 1, "correct": 1},
        ("score", "rel_dis"): {"asked": 2, "scored": 1, "missing": 1, "correct": 1},
        ("blind", "all"): {"asked": 2, "scored": 1, "missing": 1, "correct": 0},
        ("blind", "macro"): {"asked": 2, "scored": 1, "missing": 1, "correct": 0},
        ("blind", "rel_dis"): {"asked": 2, "scored": 1, "missing": 1, "correct": 0},
    }
    assert table.loc[("score", "all"), ["accuracy", "chance"]].tolist() == [0.5, 1 / 256]
    # One right and one wrong: resamples hold both, one twice, or the other twice.
    assert table.loc[("score", "all"), ["low", "high"]].tolist() == [0, 1]
    assert table.loc[("blind", "all"), "gain"] == 0.5


def test_a_torn_quartet_is_none_and_one_left_out_is_not_asked() -> None:
    assert len(quartets(toy().iloc[1:])) == 1
    assert "quartets" not in evaluation_metrics(toy().iloc[8:], 100, 1).tables
    control = always_a("mirrored")
    control.loc[0, "status"] = "left_out"
    row = quartet_rows(toy(), control).loc[("mirrored", "all")]
    assert row[["asked", "left_out"]].tolist() == [1, 1]


def test_answering_from_the_options_alone_gets_a_quarter_and_no_quartet() -> None:
    table = toy().iloc[:4]
    table = table.assign(prediction="C", correct=table["answer"] == "C")
    assert rows_of(table).loc[("score", "all"), "accuracy"] == 0.25
    assert quartets(table)["correct"].tolist() == [False]


def test_rotated_is_right_under_every_rotation() -> None:
    runs = [toy(), toy("rotation_1"), always_a("rotation_2"), toy("rotation_3")]
    metrics = evaluation_metrics(pd.concat(runs, ignore_index=True), 100, 1)
    row = metrics.tables["by_type"].set_index(["run", "type"]).loc[("rotated", "all")]
    # Right in all four: the questions whose answer is A and that are not missing.
    assert row[["asked", "correct", "accuracy", "gain"]].tolist() == [10, 2, 0.2, 0.5]
    assert metrics.figures["control"] == {"rotated": 0.2}
    assert metrics.tables["by_type"]["run"].unique().tolist() == ["score", "rotated"]


def test_letters_are_counted_over_the_scored() -> None:
    counts = letters(toy()).set_index("letter")[["answers", "predictions"]]
    assert counts.to_numpy().tolist() == [[2, 4], [3, 1], [2, 2], [2, 2]]


def test_calibration_by_hand() -> None:
    table = pd.DataFrame({"status": "scored", "correct": [True, False, True, False]}, index=range(4))
    # Softmax of (log 3, 0, 0, 0) is 1/2; of equal values 1/4. Letters beyond a question's options are NaN.
    table[["logp_A", "logp_B", "logp_C", "logp_D"]] = [[np.log(3), 0, 0, 0]] * 2 + [[0, 0, 0, 0], [0, 0, 0, np.nan]]
    bins = calibration(table)
    assert bins[["low", "questions", "accuracy"]].to_numpy().tolist() == [[0.2, 1, 1], [0.3, 1, 0], [0.5, 2, 0.5]]
    assert bins["confidence"].tolist() == pytest.approx([1 / 4, 1 / 3, 1 / 2])
    assert calibration_error(bins) == pytest.approx((3 / 4 + 1 / 3 + 0) / 4)
    assert calibration(toy()).empty


def test_gain_is_score_minus_control_on_the_same_questions() -> None:
    table = rows_of(toy(), always_a()).loc["blind"]
    assert table["gain"].tolist()[:4] == pytest.approx([0.5, (4 / 8 + 1 / 2) / 2, 4 / 8, 1 / 2])
    assert (table["gain_low"].iloc[:3] <= table["gain"].iloc[:3]).all()
    same = rows_of(toy(), toy("blind")).loc["blind"]
    assert same[["gain", "gain_low", "gain_high"]].iloc[:3].to_numpy().tolist() == [[0, 0, 0]] * 3
    with pytest.raises(ValueError, match="questions of the score"):
        rows_of(toy(), always_a().iloc[::-1])


def test_a_control_is_compared_on_the_questions_that_it_asks() -> None:
    control = always_a("mirrored")
    control.loc[range(8), "status"] = "left_out"
    row = rows_of(toy(), control).loc[("mirrored", "all")]
    # abs_dir alone: one of two right before, none after.
    assert (row["asked"], row["accuracy"], row["gain"]) == (2, 0, 0.5)


def test_the_figures_are_few_and_the_tables_hold_the_rest() -> None:
    metrics = evaluation_metrics(pd.concat([toy(), always_a()], ignore_index=True), resamples=200, seed=1)
    figures, by_type = dict(metrics.figures), metrics.tables["by_type"].set_index(["run", "type"])
    low, high = figures.pop("accuracy_low"), figures.pop("accuracy_high")
    assert low <= 0.7 <= high
    gain = figures.pop("gain")
    assert gain["blind"] == 0.5
    assert gain["blind_low"] <= 0.5 <= gain["blind_high"]
    assert figures == {
        "accuracy": 0.7,
        "accuracy_macro": 0.625,
        "accuracy_quartet": 0.5,
        "chance": 0.25,
        "control": {"blind": 0.2},
        "questions": {"asked": 10, "scored": 9, "unparsed": 0, "missing": 1, "quartets": 2},
        "type": {"rel_dis": 0.75, "abs_dir": 0.5},
    }
    assert len(by_type) == 8
    assert by_type["gain"].isna().tolist() == [True] * 4 + [False] * 4
    assert np.isnan(by_type.loc[("score", "abs_dir"), "low"])
    assert metrics.tables["by_group"]["group"].unique().tolist() == ["viewpoint: none", "viewpoint: relative agent"]
    assert metrics.tables["reasons"].to_dict("records") == [
        {"run": "score", "status": "missing", "reason": "no cues", "questions": 1}
    ]


def test_the_figures_are_scalars_that_dvc_reads_and_shows_first_things_first() -> None:
    figures = evaluation_metrics(pd.concat([toy(), always_a()], ignore_index=True), resamples=200, seed=1).figures

    def leaves(value: object, name: str) -> list[str]:
        if not isinstance(value, dict):
            assert isinstance(value, (int, float)), name
            return [name]
        # DVC takes a key of this name for a file that could not be loaded.
        assert "error" not in value
        return [leaf for key, item in value.items() for leaf in leaves(item, f"{name}.{key}" if name else key)]

    shown = sorted(leaves(figures, ""))
    assert shown[:3] == ["accuracy", "accuracy_high", "accuracy_low"]
    assert shown[-2:] == ["type.abs_dir", "type.rel_dis"]
