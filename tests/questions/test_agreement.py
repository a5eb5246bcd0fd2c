"""Agreement of reviewers, against values worked out by hand."""

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from dsr.mcq import read_row
from dsr.questions.agreement import cohens_kappa, kappa_with_interval, review_figures, share_with_interval
from dsr.questions.verdicts import VERDICTS
from tests.questions.reviewing import a_question, a_verdict
from tests.questions.test_verdicts import table


def test_kappa_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 3, 200), rng.integers(0, 3, 200)
    second[:90] = first[:90]
    shares = np.zeros((3, 3))
    np.add.at(shares, (first, second), 1 / 200)
    assert float(cohens_kappa(shares)) == pytest.approx(cohen_kappa_score(first, second))


def test_kappa_of_raters_with_one_category_is_not_defined() -> None:
    assert np.isnan(cohens_kappa(np.array([[1.0, 0], [0, 0]])))
    assert kappa_with_interval({("a", "b"): [("v", "accept", "accept")]}, VERDICTS, 0) == {}
    assert kappa_with_interval({}, VERDICTS, 0) == {}


def test_the_interval_is_over_source_videos() -> None:
    # One video's items all agree, the other's all differ: 95 % of the resamples reach from one to the other.
    agree = [("v", "accept", "accept"), ("v", "reject", "reject")] * 10
    differ = [("w", "accept", "reject"), ("w", "reject", "accept")] * 10
    found = kappa_with_interval({("a", "b"): [*agree, *differ]}, VERDICTS, 0)
    assert found == {"value": 0.0, "low": -1.0, "high": 1.0}
    assert kappa_with_interval({("a", "b"): agree}, VERDICTS, 0) == {"value": 1.0, "low": 1.0, "high": 1.0}


def test_more_than_two_raters_count_by_the_items_of_each_pair() -> None:
    agree = [("v", "accept", "accept"), ("v", "reject", "reject")]
    differ = [("v", "accept", "reject"), ("v", "reject", "accept")]
    pairs = {("a", "b"): agree * 3, ("a", "c"): differ}
    assert kappa_with_interval(pairs, VERDICTS, 0)["value"] == pytest.approx((6 * 1 + 2 * -1) / 8)


def test_share_is_of_items_and_its_interval_of_videos() -> None:
    items = [("v", True), ("v", True), ("v", True), ("w", False)]
    assert share_with_interval(items, 0) == {"value": 0.75, "low": 0.0, "high": 1.0}
    assert share_with_interval([], 0) == {}


def test_figures_of_a_review() -> None:
    pool = table().assign(source_video=["s"] * 4 + ["t"] * 4)
    asked = [read_row(row) for row in pool.to_dict("records")]
    verdicts = [
        a_verdict(asked[0], "reject", reason="wrong label"),
        *(a_verdict(question, reviewer=name) for question in asked[4:] for name in ("ann", "ben")),
        a_verdict(asked[5], "edit", "ben", 9, own_answer="B", edited_question="At 1.0 s, is it B?"),
        a_verdict(a_question("gone")),
    ]
    figures = review_figures(pool, pool[:0], pool[4:], verdicts, 0)
    assert figures["questions_reviewed"] == 5
    assert figures["bench_reviewed"] == 4
    assert figures["reviewers"] == 2
    assert figures["verdict"] == {"accept": 7, "edit": 1, "reject": 1}
    assert figures["reason"]["wrong_label"] == 1
    assert (figures["stale"], figures["edited"], figures["rejected"]) == (1, 1, 1)
    assert (figures["removed"], figures["removed_quartets"]) == (4, 1)
    assert figures["type_reviewed"] == {"rel_dis": 5}
    assert figures["type_rejected"] == {"rel_dis": 1}
    # Right: A to A's two questions (one of them twice) and B once; 9 answers.
    assert figures["own_is_derived"]["value"] == pytest.approx(4 / 9, abs=1e-4)
    assert figures["type_own_is_derived"] == {"rel_dis": pytest.approx(4 / 9, abs=1e-4)}
    both = figures["two_reviewers"]
    assert both["questions"] == 4
    # Ben edits one of four that Ann accepts: no more than chance, as Ann always accepts.
    assert both["verdict_kappa"]["value"] == 0.0
    assert figures["seconds_median"] == 4.0


def test_without_verdicts_nothing_is_measured() -> None:
    pool = table().assign(source_video="s")
    figures = review_figures(pool, pool[:4], pool[4:], [], 0)
    assert figures["questions_reviewed"] == figures["stale"] == figures["removed"] == 0
    assert figures["own_is_derived"] == figures["type_own_is_derived"] == {}
    assert figures["type_reviewed"] == figures["type_rejected"] == {}
