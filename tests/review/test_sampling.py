"""Which questions are reviewed first."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dsr import project as places
from dsr.console import StageError
from dsr.cues.schema import read_cues
from dsr.explain.explanation import closest_margins, explain
from dsr.files import write_parquet
from dsr.mcq import read_questions
from dsr.review.review import choose, reviewer_name
from dsr.review.sampling import doubted_labels, draw_sample, margins_of
from tests.small_project import PARAMS


def questions(**types: int) -> pd.DataFrame:
    return pd.DataFrame(
        [(f"{kind}{n}", kind) for kind, count in types.items() for n in range(count)], columns=["qa_id", "type"]
    )


def test_close_calls_and_doubted_labels_take_turns() -> None:
    table = questions(x=5)
    margins = [0.5, 0.1, 0.4, -0.2, 0.3]
    assert draw_sample(table, 9, "all", margins, {}) == ["x3", "x1", "x4", "x2", "x0"]
    # The model is surer against x0 than against x2; x3 is in both lists.
    doubted = {"x2": 0.3, "x0": 0.01, "x3": 0.4}
    assert draw_sample(table, 9, "all", margins, doubted) == ["x0", "x3", "x2", "x1", "x4"]


def test_types_take_turns_the_rarest_first() -> None:
    table = questions(often=6, rare=1, some=2)
    drawn = draw_sample(table, 6, "type", [float(n) for n in range(9)], {})
    assert drawn == ["rare0", "some0", "often0", "some1", "often1", "often2"]
    assert len(draw_sample(table, 100, "type", [0.0] * 9, {})) == 9


def test_a_sample_does_not_depend_on_the_tables_order() -> None:
    table = questions(often=6, rare=2)
    margins = dict(zip(table.qa_id, [0.0, 0.0, 0.3, 0.1, 0.1, 0.2, 0.4, 0.4], strict=True))
    other = table.sample(frac=1, random_state=3)
    assert draw_sample(table, 5, "type", list(margins.values()), {}) == draw_sample(
        other, 5, "type", [margins[qa_id] for qa_id in other.qa_id], {}
    )


def test_margins_are_those_of_the_explanation(pristine: Path) -> None:
    pool = read_questions(pristine / places.POOL)
    own = pool[pool.videoID == "clip_01"].reset_index(drop=True)
    margins = margins_of(PARAMS, pristine, own, workers=1)
    for qa_id, margin in list(zip(own.qa_id, margins, strict=True))[:4]:
        condition, member = explain(PARAMS, pristine, qa_id)[0].by_closeness()[0]
        assert margin == condition.margins[member]


def test_a_question_that_does_not_follow_from_its_cues_is_the_closest_call(pristine: Path) -> None:
    pool = read_questions(pristine / places.POOL)
    own = pool[pool.videoID == "clip_01"].reset_index(drop=True)
    cues = read_cues(pristine / "data/cues/clip_01.npz")
    rows = own.to_dict("records")
    assert all(np.isfinite(closest_margins(rows, cues, PARAMS.qa)))
    backwards = {name: getattr(cues, name)[:, ::-1].copy() for name in ("centers", "visible", "boxes", "orientations")}
    uncertain = {name: getattr(cues, name)[:, ::-1].copy() for name in ("orientation_confidence", "center_uncertainty")}
    moved = dataclasses.replace(cues, **backwards, **uncertain)
    assert -np.inf in closest_margins(rows, moved, PARAMS.qa)
    assert closest_margins([{**rows[0], "form": "unknown"}], cues, PARAMS.qa) == [-np.inf]
    absent = own.assign(videoID="gone")
    assert set(margins_of(PARAMS, pristine, absent, workers=1)) == {-np.inf}


def test_doubted_labels_are_the_models_wrong_answers_without_a_control(tmp_path: Path) -> None:
    assert doubted_labels(tmp_path) == {}
    table = pd.DataFrame(
        {
            "control": ["score", "score", "blind", "score", "score"],
            "qa_id": ["wrong", "right", "wrong", "missing", "written"],
            "prediction": ["A", "B", "B", "", "C"],
            "answer": ["B", "B", "A", "A", "A"],
            "status": ["scored", "scored", "scored", "missing", "scored"],
            "logp_A": np.log([0.9, 0.1, 0.1, np.nan, np.nan]),
            "logp_B": np.log([0.1, 0.9, 0.9, np.nan, np.nan]),
        }
    )
    write_parquet(tmp_path / places.BENCH_PREDICTIONS, table)
    assert doubted_labels(tmp_path) == {"wrong": pytest.approx(0.1), "written": 0.0}


def test_what_is_reviewed_and_by_whom(pristine: Path) -> None:
    def ids(*given: str, sample: int = 0, table: Path = places.BENCH) -> list[str]:
        return choose(PARAMS, pristine, table, given, sample, "type", workers=1)["qa_id"].tolist()

    bench = read_questions(pristine / places.BENCH)
    assert ids() == bench.qa_id.tolist()
    assert ids(bench.qa_id[3], bench.qa_id[1], bench.qa_id[3]) == [bench.qa_id[3], bench.qa_id[1]]
    drawn = ids(sample=7)
    assert len(drawn) == len(set(drawn)) == 7
    assert drawn == ids(sample=7)
    rarest = bench.type.value_counts().min()
    assert bench.type.value_counts()[bench.set_index("qa_id").type[drawn[0]]] == rarest
    pool = read_questions(pristine / places.POOL)
    other = next(qa_id for qa_id in pool.qa_id if qa_id not in set(bench.qa_id))
    assert ids(other, table=places.POOL) == [other]
    with pytest.raises(StageError, match=r"bench\.parquet has no question .*: --pool looks among all"):
        ids(other)
    assert reviewer_name(" Ann ", pristine) == "Ann"
    assert reviewer_name("", pristine)
    with pytest.raises(StageError, match="at most 60 printable"):
        reviewer_name("a\nb", pristine)


def test_a_table_that_tells_no_times_cannot_be_reviewed(pristine: Path, tmp_path: Path) -> None:
    bench = read_questions(pristine / places.BENCH)
    write_parquet(tmp_path / places.BENCH, bench.drop(columns=["start_time"]))
    with pytest.raises(StageError, match="has no start_time and end_time"):
        choose(PARAMS, tmp_path, places.BENCH, (), 0, "type", workers=1)
