"""Agreement of reviewers with one another and with derived answers, with 95 % intervals over source videos."""

import itertools
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from dsr.intervals import interval, resampled_means
from dsr.mcq import LETTERS
from dsr.questions.verdicts import EDIT, REASONS, REJECT, UNSURE, VERDICTS, Verdict, in_force, outcomes

RESAMPLES = 2000
ANSWERS = (*LETTERS, UNSURE)
Rating = tuple[str, str, str]
"""Source video, and the categories of two raters."""


def cohens_kappa(shares: np.ndarray) -> np.ndarray:
    """Cohen's kappa: agreement beyond that of two raters who choose each category as often and at random.

    Args:
        shares: [..., K, K] of all items, by the first and the second rater's category.

    Returns:
        [...]; NaN where both always choose the same one category, or there is no item.

    Of 50 items both raters take 20, both refuse 15, and they differ on 15:

    >>> round(float(cohens_kappa(np.array([[20, 5], [10, 15]]) / 50)), 2)
    0.4
    """
    observed = np.trace(shares, axis1=-2, axis2=-1)
    expected = (shares.sum(axis=-1) * shares.sum(axis=-2)).sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(1 - expected > 1e-12, (observed - expected) / (1 - expected), np.nan)


def kappa_with_interval(
    pairs: Mapping[Hashable, Sequence[Rating]], categories: Sequence[str], seed: int
) -> dict[str, float]:
    """Kappa of two raters; of more, the mean over pairs weighted by their items (after Light, 1971).

    Args:
        pairs: ratings of the items that both raters of a pair have seen.

    Returns:
        `value`, `low`, `high`, those that are defined.
    """
    videos = sorted({video for ratings in pairs.values() for video, _, _ in ratings})
    size, place = len(categories), {name: i for i, name in enumerate(categories)}
    row = {video: i for i, video in enumerate(videos)}
    cells = np.zeros((len(videos), len(pairs), size, size))
    for column, ratings in enumerate(pairs.values()):
        for video, first, second in ratings:
            cells[row[video], column, place[first], place[second]] += 1
    weights = cells.sum(axis=(0, 2, 3))
    if not weights.sum():
        return {}
    point = _weighted(cohens_kappa(cells.sum(axis=0) / weights[:, None, None])[None], weights)
    counts = cells.sum(axis=(2, 3)).repeat(size * size, axis=1)
    means = resampled_means(cells.reshape(len(videos), -1), counts, RESAMPLES, seed)
    drawn = _weighted(cohens_kappa(means.reshape(RESAMPLES, len(pairs), size, size)), weights)
    return _rounded(value=point[0], ends=interval(drawn[:, None])[:, 0])


def _weighted(kappas: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """[R] mean over pairs [R, P] of those that are defined."""
    known = np.isfinite(kappas)
    total = (known * weights).sum(axis=1)
    sums = (np.where(known, kappas, 0) * weights).sum(axis=1)
    return np.divide(sums, total, out=np.full(len(kappas), np.nan), where=total > 0)


def share_with_interval(items: Sequence[tuple[str, bool]], seed: int) -> dict[str, float]:
    """Share of (source video, true or not) that is true: `value`, `low`, `high`; {} of nothing."""
    if not items:
        return {}
    table = pd.DataFrame(items, columns=["video", "true"]).groupby("video")["true"].agg(["sum", "count"])
    sums, counts = table["sum"].to_numpy()[:, None], table["count"].to_numpy()[:, None]
    ends = interval(resampled_means(sums, counts, RESAMPLES, seed))[:, 0]
    return _rounded(value=float(sums.sum() / counts.sum()), ends=ends)


def _rounded(value: float, ends: np.ndarray) -> dict[str, float]:
    named = {"value": float(value), "low": float(ends[0]), "high": float(ends[1])}
    return {name: round(number, 4) for name, number in named.items() if np.isfinite(number)}


def review_figures(
    pool: pd.DataFrame, train: pd.DataFrame, bench: pd.DataFrame, verdicts: Sequence[Verdict], seed: int
) -> dict[str, Any]:
    """The scalars of metrics/review.json; what is not defined is left out.

    Args:
        pool: every question; train and bench: those that are left.
        seed: of the bootstrap.
    """
    found = outcomes(pool, verdicts)
    about = pool.set_index("qa_id")
    current = [verdict for result in found.values() for verdict in result.current]
    gone = sum(len(rows) for qa_id, rows in in_force(verdicts).items() if qa_id not in found)
    status = pd.Series({qa_id: result.status for qa_id, result in found.items() if result.status}, dtype=object)
    removed = pool[~pool["qa_id"].isin([*train["qa_id"], *bench["qa_id"]])]
    right = [verdict.own_answer == about.answer[verdict.qa_id] for verdict in current]
    items = [(str(about.source_video[verdict.qa_id]), own) for verdict, own in zip(current, right, strict=True)]
    answered = pd.Series(right, [about.type[verdict.qa_id] for verdict in current], dtype=float)
    types = status.groupby(about.type.reindex(status.index))
    reviewed, rejected = types.size(), types.agg(lambda own: (own == REJECT).sum())
    figures: dict[str, Any] = {
        "questions_reviewed": len(status),
        "bench_reviewed": int(bench["qa_id"].isin(status.index).sum()),
        "reviewers": len({verdict.reviewer for verdict in current}),
        "verdict": {name: sum(verdict.verdict == name for verdict in current) for name in VERDICTS},
        "reason": {name.replace(" ", "_"): sum(verdict.reason == name for verdict in current) for name in REASONS},
        "stale": gone + sum(len(result.stale) for result in found.values()),
        "edited": int((status == EDIT).sum()),
        "rejected": int((status == REJECT).sum()),
        "removed": len(removed),
        "removed_quartets": int(removed["quartet_id"].nunique()),
        "type_reviewed": {name: int(count) for name, count in reviewed.items()},
        "type_rejected": {name: int(count) for name, count in rejected.items()},
        "type_own_is_derived": answered.groupby(level=0).mean().round(4).to_dict(),
        "own_is_derived": share_with_interval(items, seed),
        "two_reviewers": _two_reviewers(current, about.source_video.to_dict(), seed),
    }
    if current:
        figures["seconds_median"] = round(float(np.median([verdict.seconds for verdict in current])), 1)
    return figures


def _two_reviewers(current: Sequence[Verdict], videos: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Agreement on the wordings that several reviewers have seen."""
    seen: dict[tuple[str, str], list[Verdict]] = defaultdict(list)
    for verdict in current:
        seen[verdict.qa_id, verdict.question_hash].append(verdict)
    both: dict[str, dict[Hashable, list[Rating]]] = {"verdict": defaultdict(list), "own_answer": defaultdict(list)}
    for (qa_id, _), own in seen.items():
        for first, second in itertools.combinations(sorted(own, key=lambda verdict: verdict.reviewer), 2):
            for field, pairs in both.items():
                rating = (str(videos[qa_id]), getattr(first, field), getattr(second, field))
                pairs[first.reviewer, second.reviewer].append(rating)
    return {
        "questions": sum(len(own) > 1 for own in seen.values()),
        "verdict_kappa": kappa_with_interval(both["verdict"], VERDICTS, seed),
        "answer_kappa": kappa_with_interval(both["own_answer"], ANSWERS, seed),
    }
