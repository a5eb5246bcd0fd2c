"""Metrics of a table of predictions; pure functions, nothing is read or written.

The table has one row a question and run, a run being the model as it is (`control` = "score") or with
something taken away (a control). What the numbers mean:

- Accuracy is over the questions *asked*: one that could not be scored (clip or cues missing) counts as wrong,
  so that a model cannot gain by losing clips. `accuracy_scored` leaves those out; asked = scored + missing.
- Micro weighs every question the same, macro every type that was asked.
- Intervals are 95 % percentile intervals of a bootstrap over source videos, not over questions: questions
  about one video share its scene and are right or wrong together. An accuracy of exactly 0 or 1 gets an
  interval without width, and a group from a single source video gets none.
- A control is paired with the score: `gain` is score minus control on the same questions, resampled together.
- A quartet is right when all four of its questions are. Chance is 1/256 for four independent guesses. A model
  that goes by the options alone gives four questions with the same options the same answer, of which one is
  right: its accuracy is 1/4 and its quartet accuracy 0.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from dsr.qa.templates import TYPES
from dsr.splits.split import LETTERS

CHANCE = 1 / len(LETTERS)
QUARTET_SIZE = 4
QUARTET_CHANCE = CHANCE**QUARTET_SIZE
SCORE = "score"
"""Value of `control` of the run from which nothing is taken away."""
RESAMPLES_AT_ONCE = 256


def evaluation_metrics(predictions: pd.DataFrame, resamples: int, seed: int) -> dict[str, Any]:
    """The content of metrics/eval.json.

    Its mappings hold the few numbers that `dvc metrics` shows. DVC leaves lists alone, so the lists hold the
    rest: `runs` (every run and group with counts and intervals), `quartets`, `letters`, `missing`.

    Args:
        predictions: the columns of `dsr.evaluation.predictions.COLUMNS`; at least one row whose control is
        "score".
        resamples: bootstrap resamples behind each interval.
    """
    runs = dict(list(predictions.groupby("control", sort=False)))
    score = runs[SCORE]
    tables = {name: accuracy_table(run, resamples, seed) for name, run in runs.items()}
    for name in runs.keys() - {SCORE}:
        tables[name] = tables[name].join(gain_table(score, runs[name], resamples, seed))
    quartets = {name: quartet_counts(run) for name, run in runs.items()}
    micro, macro = tables[SCORE].loc["micro"], tables[SCORE].loc["macro"]
    accuracy = {
        "micro": micro["accuracy"],
        "micro_low": micro["low"],
        "micro_high": micro["high"],
        "macro": macro["accuracy"],
        "quartet": quartets[SCORE]["accuracy"],
        "chance": CHANCE,
    }
    accuracy |= {name: table.loc["micro", "accuracy"] for name, table in tables.items() if name != SCORE}
    missing = score.loc[score["status"] == "missing", "reason"].value_counts().sort_index()
    return {
        "accuracy": _plain(accuracy),
        "by_type": _plain(tables[SCORE]["accuracy"].drop(index=["micro", "macro"]).to_dict()),
        "questions": {name: int(micro[name]) for name in ("asked", "scored", "missing")},
        "runs": [
            _plain({"control": name, "group": group, **row})
            for name, table in tables.items()
            for group, row in table.to_dict("index").items()
        ],
        "quartets": [_plain({"control": name, "chance": QUARTET_CHANCE, **row}) for name, row in quartets.items()],
        "letters": [{"control": name, **row} for name, run in runs.items() for row in letter_counts(run)],
        "missing": [{"reason": str(reason), "questions": int(count)} for reason, count in missing.items()],
    }


def accuracy_table(run: pd.DataFrame, resamples: int, seed: int, by: str = "type") -> pd.DataFrame:
    """Counts, accuracy and interval of one run's questions.

    `micro` is all of them, `macro` the mean over the groups of the column `by`; then each group.

    Returns:
        Index `micro`, `macro`, then the groups (types in the published order); columns `asked`, `scored`,
        `missing`, `correct`, `source_videos`, `accuracy`, `low`, `high`, `accuracy_scored` (NaN: not
        defined).
    """
    groups, codes = _groups(run[by])
    scored = (run["status"] == "scored").to_numpy()
    correct = run["correct"].to_numpy(bool) & scored
    videos = run["source_video"].to_numpy()
    members = [np.ones(len(run), bool)] * 2 + [codes == k for k in range(len(groups))]
    table = pd.DataFrame(
        {
            "asked": [int(m.sum()) for m in members],
            "scored": [int(scored[m].sum()) for m in members],
            "missing": [int((~scored[m]).sum()) for m in members],
            "correct": [int(correct[m].sum()) for m in members],
            "source_videos": [len(set(videos[m])) for m in members],
        },
        index=["micro", "macro", *groups],
    )
    for name, count in (("accuracy", "asked"), ("accuracy_scored", "scored")):
        table[name] = table["correct"] / table[count].where(table[count] > 0)
        table.loc["macro", name] = table[name].iloc[2:].mean()
    table["low"], table["high"] = bootstrap_intervals(correct, codes, videos, resamples, seed)
    return table


def gain_table(score: pd.DataFrame, control: pd.DataFrame, resamples: int, seed: int, by: str = "type") -> pd.DataFrame:
    """Score minus control, paired by question, with intervals.

    Returns:
        Index as in `accuracy_table`; columns `gain`, `gain_low`, `gain_high`.

    Raises:
        ValueError: the two runs are not about the same questions.
    """
    if list(score["qa_id"]) != list(control["qa_id"]):
        raise ValueError("a control must be run on the questions of the score, in their order")
    right = [(run["correct"].to_numpy(bool) & (run["status"] == "scored").to_numpy()) for run in (score, control)]
    difference = right[0].astype(float) - right[1]
    groups, codes = _groups(score[by])
    means = [difference[codes == k].mean() for k in range(len(groups))]
    table = pd.DataFrame({"gain": [difference.mean(), np.mean(means), *means]}, index=["micro", "macro", *groups])
    videos = score["source_video"].to_numpy()
    table["gain_low"], table["gain_high"] = bootstrap_intervals(difference, codes, videos, resamples, seed)
    return table


def bootstrap_intervals(
    values: np.ndarray, groups: np.ndarray, source_videos: np.ndarray, resamples: int, seed: int
) -> np.ndarray:
    """95 % percentile intervals of means, by drawing source videos with replacement.

    Args:
        values: [Q] one number a question.
        groups: [Q] int, the group of each question, 0 … G-1, none empty.
        source_videos: [Q] the source video of each question.

    Returns:
        [2, 2 + G] float64, low and high of the mean over questions, of the mean over groups (those that a
        resample holds), and of each group; NaN for what comes from a single source video.
    """
    videos, rows = np.unique(source_videos, return_inverse=True)
    num_videos, num_groups = len(videos), int(groups.max()) + 1
    cells = rows * num_groups + groups
    shape = (num_videos, num_groups)
    sums = np.bincount(cells, weights=values, minlength=num_videos * num_groups).reshape(shape)
    counts = np.bincount(cells, minlength=num_videos * num_groups).reshape(shape).astype(float)
    rng = np.random.default_rng(seed)
    samples = np.empty((resamples, 2 + num_groups))
    for start in range(0, resamples, RESAMPLES_AT_ONCE):
        stop = min(start + RESAMPLES_AT_ONCE, resamples)
        # How often each video is drawn; a sum over drawn videos is then a matrix product.
        drawn = rng.multinomial(num_videos, np.full(num_videos, 1 / num_videos), size=stop - start).astype(float)
        group_sums, group_counts = drawn @ sums, drawn @ counts
        means = np.full_like(group_sums, np.nan)
        np.divide(group_sums, group_counts, out=means, where=group_counts > 0)
        samples[start:stop, 0] = group_sums.sum(axis=1) / group_counts.sum(axis=1)
        samples[start:stop, 1] = np.nanmean(means, axis=1)
        samples[start:stop, 2:] = means
    intervals = np.nanpercentile(samples, [2.5, 97.5], axis=0)
    videos_behind = np.concatenate([[num_videos] * 2, (counts > 0).sum(axis=0)])
    intervals[:, videos_behind < 2] = np.nan
    return intervals


def quartet_counts(run: pd.DataFrame) -> dict[str, float]:
    """Whole quartets asked and right, and their share; a quartet with a missing question is wrong.

    Returns:
        `asked`, `right`, `accuracy` (NaN without quartets).
    """
    members = run[run["quartet_id"] != ""]
    correct = (members["correct"].astype(bool) & (members["status"] == "scored")).groupby(members["quartet_id"])
    whole = correct.all()[correct.size() == QUARTET_SIZE]
    return {
        "asked": len(whole),
        "right": int(whole.sum()),
        "accuracy": float(whole.mean()) if len(whole) else np.nan,
    }


def letter_counts(run: pd.DataFrame) -> list[dict[str, Any]]:
    """How often each letter is the answer and how often it is predicted, over the questions scored."""
    scored = run[run["status"] == "scored"]
    return [
        {
            "letter": letter,
            "answers": int((scored["answer"] == letter).sum()),
            "predictions": int((scored["prediction"] == letter).sum()),
        }
        for letter in LETTERS
    ]


def _groups(column: pd.Series) -> tuple[Sequence[str], np.ndarray]:
    """The distinct values (question types in their published order, others sorted), and [Q] each row's index."""
    present = set(column)
    groups = [name for name in TYPES if name in present] + sorted(present - set(TYPES))
    position = {name: k for k, name in enumerate(groups)}
    return groups, column.map(position).to_numpy(np.int64)


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """JSON values: whole numbers as int, others rounded to what a benchmark can resolve, NaN as null."""
    return {str(name): _plain_value(value) for name, value in row.items()}


def _plain_value(value: Any) -> Any:
    if isinstance(value, str):
        return value
    if np.isnan(value):
        return None
    return int(value) if isinstance(value, int | np.integer) else round(float(value), 4)
