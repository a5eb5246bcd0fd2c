"""Metrics of a table of predictions; pure functions, nothing is read or written.

The table has one row a question and run, a run being the model as it is (`control` = "score") or with
something taken away (a control). What the numbers mean:

- Accuracy is over the questions *asked*: one that could not be put (clip or cues missing) counts as wrong, and so does
  a text without an answer, so that a model cannot gain by losing either. asked = scored + unparsed + missing.
- A question that has no counterpart under a control is `left_out` of it: it is not asked there, and the control is
  compared with the score on the rest.
- Micro weighs every question the same, macro every type that was asked. A row so broken that it has no type counts in
  micro alone.
- Intervals are 95 % percentile intervals of a bootstrap over source videos (`dsr.intervals`). An accuracy of exactly 0
  or 1 gets an interval without width, and a group from a single source video gets none.
- A control is paired with the score: `gain` is score minus control on the same questions, resampled together.
- A quartet is right when all four of its questions are. Chance is 1/256 for four independent guesses. A model
  that goes by the options alone gives four questions with the same options the same answer, of which one is
  right: its accuracy is 1/4 and its quartet accuracy 0.
- `rotated`: right with the options as they are and under every rotation.
- Calibration compares the probability that the model gives to its prediction, among the options, with how often it is
  right; its error is the mean distance of both over ten bins of probability, weighted by their questions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from dsr.evaluation.controls import ROTATIONS, SCORE
from dsr.intervals import interval, resampled_means
from dsr.mcq import LETTERS, TYPES

OPTIONS = 4
"""Of a question whose table does not say how many."""
CHANCE = 1 / OPTIONS
QUARTET_SIZE = 4
QUARTET_CHANCE = CHANCE**QUARTET_SIZE
ALL = "all"
GROUPINGS = ("type", "viewpoint", "target", "answer_length", "category")
"""Columns of the predictions that accuracy is broken down by."""
COUNTS = ("asked", "scored", "unparsed", "missing")
BINS = 10


def evaluation_metrics(predictions: pd.DataFrame, resamples: int, seed: int) -> dict[str, Any]:
    """The content of metrics/eval.json: `file_content` of a breakdown."""
    return file_content(predictions, breakdown(predictions, resamples, seed))


def file_content(predictions: pd.DataFrame, table: pd.DataFrame) -> dict[str, Any]:
    """The content of metrics/eval.json.

    The mappings of metrics/eval.json hold the few numbers that `dvc metrics` shows. DVC leaves lists alone, so the
    lists hold the rest: `runs` (every run, overall and by type, with counts and intervals), `quartets`, `letters`,
    `calibration_bins`, `missing`, `left_out`.

    Args:
        predictions: the columns of `dsr.evaluation.predictions`; at least one row whose control is "score".
        table: their `breakdown`.
    """
    runs = dict(list(predictions.groupby("control", sort=False)))
    score = runs[SCORE]
    by_type = table[table["by"].isin((ALL, "type"))]
    rows = {(row["control"], row["group"]): row for row in by_type.to_dict("records")}
    micro = rows[SCORE, "micro"]
    shown = [name for name in runs if name not in ROTATIONS]
    quartets = {name: quartet_counts(runs[name]) for name in shown}
    accuracy = {
        "micro": micro["accuracy"],
        "micro_low": micro["low"],
        "micro_high": micro["high"],
        "macro": rows[SCORE, "macro"]["accuracy"],
        "quartet": quartets[SCORE]["accuracy"],
        "chance": micro["chance"],
    }
    rotated = rotated_counts(runs)
    if rotated:
        accuracy["rotated"] = rotated["accuracy"]
    accuracy |= {name: rows[name, "micro"]["accuracy"] for name in shown if name != SCORE}
    bins = calibration_bins(score)
    return {
        "accuracy": _plain(accuracy),
        "by_type": _plain({g: row["accuracy"] for (c, g), row in rows.items() if c == SCORE and row["by"] == "type"}),
        "questions": {name: int(micro[name]) for name in COUNTS},
        "calibration": _plain({"error": calibration_error(bins)} if bins else {}),
        "runs": [_plain(_run_row(row)) for row in rows.values()],
        "quartets": [_plain({"control": name, "chance": QUARTET_CHANCE, **row}) for name, row in quartets.items()],
        "rotated": [_plain(rotated)] if rotated else [],
        "letters": [{"control": name, **row} for name in shown for row in letter_counts(runs[name])],
        "calibration_bins": [_plain(row) for row in bins],
        "missing": _reasons(score, "missing"),
        "left_out": [{"control": name, **row} for name in runs for row in _reasons(runs[name], "left_out")],
    }


def breakdown(predictions: pd.DataFrame, resamples: int, seed: int) -> pd.DataFrame:
    """Counts, accuracy and intervals of every run, overall and by each of GROUPINGS that the table knows.

    Args:
        predictions: as `file_content`.
        resamples: bootstrap resamples behind each interval.

    Returns:
        Columns control; by ("all", or one of GROUPINGS); group ("micro" and "macro" for all; types in their published
        order); asked, scored, unparsed, missing, left_out, correct, source_videos, chance, accuracy, low, high,
        accuracy_scored; for controls gain, gain_low, gain_high (NaN: not defined).

    Raises:
        ValueError: the runs are not about the same questions in the same order.
    """
    runs = dict(list(predictions.groupby("control", sort=False)))
    score = runs[SCORE]
    for name, run in runs.items():
        if list(run["qa_id"]) != list(score["qa_id"]):
            raise ValueError(f"{name} must be run on the questions of the score, in their order")
    groups = _groups(score)
    video_names, videos = np.unique(score["source_video"].astype(str), return_inverse=True)
    score_right = (score["correct"].to_numpy(bool) & (score["status"] == "scored").to_numpy()).astype(float)
    columns: list[_Column] = []
    rows = []
    for name, run in runs.items():
        status = run["status"].to_numpy()
        asked = status != "left_out"
        right = (run["correct"].to_numpy(bool) & (status == "scored")).astype(float)
        lost = score_right - right
        # A malformed row may have no options.
        options = run["num_options"] if "num_options" in run else pd.Series(OPTIONS, index=run.index)
        chance = 1 / options.astype(float).where(options > 0).to_numpy()
        for by, group, members in groups:
            own = members & asked
            rows.append(
                {
                    "control": name,
                    "by": by,
                    "group": group,
                    "asked": int(own.sum()),
                    **{s: int((members & (status == s)).sum()) for s in ("scored", "unparsed", "missing", "left_out")},
                    "correct": int(right[own].sum()),
                    "source_videos": len(np.unique(videos[own])),
                    "chance": _mean(chance[own]),
                }
            )
            columns += [_Column(by, group, right, own), _Column(by, group, lost, own)]
    means, low, high = _estimates(columns, videos, len(video_names), resamples, seed)
    table = pd.DataFrame(rows)
    table["accuracy"], table["low"], table["high"] = means[::2], low[::2], high[::2]
    answered = table["correct"] / table["scored"].where(table["scored"] > 0)
    macro = table["group"].eq("macro") & table["by"].eq(ALL)
    for place in np.flatnonzero(macro):
        kinds = (table["by"] == "type") & (table["control"] == table["control"].iloc[place])
        answered.iloc[place] = answered[kinds].mean()
    table["accuracy_scored"] = answered
    gains = table["control"] != SCORE
    for column, values in (("gain", means), ("gain_low", low), ("gain_high", high)):
        table[column] = np.where(gains, values[1::2], np.nan)
    return table


def _mean(values: np.ndarray) -> float:
    """NaN where all are."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else np.nan


@dataclass(frozen=True)
class _Column:
    """A mean to estimate: of values [Q] over members [Q]. A group's accuracy stands before its gain."""

    by: str
    group: str
    values: np.ndarray
    members: np.ndarray


def _estimates(
    columns: Sequence[_Column], videos: np.ndarray, num_videos: int, resamples: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, low and high of every column; `macro` is the mean over the types that follow it."""
    sums = np.zeros((num_videos, len(columns)))
    counts = np.zeros((num_videos, len(columns)))
    for place, column in enumerate(columns):
        if column.group != "macro" or column.by != ALL:
            own = column.members
            sums[:, place] = np.bincount(videos[own], weights=column.values[own], minlength=num_videos)
            counts[:, place] = np.bincount(videos[own], minlength=num_videos)
    total = counts.sum(axis=0)
    means = np.divide(sums.sum(axis=0), total, out=np.full(len(columns), np.nan), where=total > 0)
    samples = resampled_means(sums, counts, resamples, seed)
    behind = (counts > 0).sum(axis=0)
    for place, column in enumerate(columns):
        if column.group == "macro" and column.by == ALL:
            kinds = _types_after(columns, place)
            known = [k for k in kinds if total[k] > 0]
            if known:
                means[place] = means[known].mean()
                # A resample may lack a type.
                present = ~np.isnan(samples[:, known])
                sum_of_means = np.where(present, samples[:, known], 0).sum(axis=1)
                samples[:, place] = sum_of_means / np.maximum(present.sum(axis=1), 1)
                behind[place] = int((counts[:, known].sum(axis=1) > 0).sum())
    ends = interval(samples)
    ends[:, behind < 2] = np.nan
    return means, ends[0], ends[1]


def _types_after(columns: Sequence[_Column], place: int) -> list[int]:
    """The type columns of the same run and kind as a macro column."""
    places = []
    for k in range(place + 2, len(columns), 2):
        if columns[k].by == ALL:
            break
        if columns[k].by == "type":
            places.append(k)
    return places


def _groups(score: pd.DataFrame) -> list[tuple[str, str, np.ndarray]]:
    """(by, group, [Q] members) of every group of questions: all of them first, then the types."""
    everything = np.ones(len(score), bool)
    groups = [(ALL, "micro", everything), (ALL, "macro", everything)]
    for by in GROUPINGS:
        if by not in score:
            continue
        values = score[by].to_numpy(object)
        present = set(values) - {""}
        order = [name for name in TYPES if name in present] if by == "type" else []
        groups += [(by, str(name), values == name) for name in [*order, *sorted(present - set(order))]]
    return groups


def quartet_counts(run: pd.DataFrame) -> dict[str, float]:
    """Whole quartets asked and right, and their share; a quartet with a missing question is wrong.

    Returns:
        `asked`, `right`, `accuracy` (NaN without quartets).
    """
    members = run[(run["quartet_id"] != "") & (run["status"] != "left_out")]
    correct = (members["correct"].astype(bool) & (members["status"] == "scored")).groupby(members["quartet_id"])
    whole = correct.all()[correct.size() == QUARTET_SIZE]
    return {
        "asked": len(whole),
        "right": int(whole.sum()),
        "accuracy": float(whole.mean()) if len(whole) else np.nan,
    }


def rotated_counts(runs: Mapping[str, pd.DataFrame]) -> dict[str, float]:
    """Questions right as they are and under every rotation that they have; {} where no rotation was run."""
    rotations = [runs[name] for name in ROTATIONS if name in runs]
    if not rotations:
        return {}
    right = (runs[SCORE]["correct"].astype(bool) & (runs[SCORE]["status"] == "scored")).to_numpy()
    for run in rotations:
        right = right & (run["correct"].to_numpy(bool) | (run["status"] == "left_out").to_numpy())
    return {"asked": len(right), "right": int(right.sum()), "accuracy": float(right.mean())}


def letter_counts(run: pd.DataFrame) -> list[dict[str, Any]]:
    """How often each letter is the answer and how often it is predicted, over the questions scored."""
    scored = run[run["status"] == "scored"]
    letters = sorted({*LETTERS, *scored["answer"], *scored["prediction"]})
    return [
        {
            "letter": letter,
            "answers": int((scored["answer"] == letter).sum()),
            "predictions": int((scored["prediction"] == letter).sum()),
        }
        for letter in letters
    ]


def calibration_bins(run: pd.DataFrame) -> list[dict[str, Any]]:
    """For each bin of confidence that holds questions: low, high, questions, mean confidence, accuracy.

    Confidence is the probability of the prediction among the options' letters; [] for a model that wrote texts.
    """
    columns = [name for name in run if str(name).startswith("logp_")]
    scored = run[run["status"] == "scored"]
    values = scored[columns].to_numpy(float)
    known = np.isfinite(values).any(axis=1) if len(columns) else np.zeros(len(scored), bool)
    if not known.any():
        return []
    values = np.where(np.isfinite(values[known]), values[known], -np.inf)
    best = values.max(axis=1)
    confidence = 1 / np.exp(values - best[:, None]).sum(axis=1)
    correct = scored["correct"].to_numpy(bool)[known]
    place = np.minimum((confidence * BINS).astype(int), BINS - 1)
    return [
        {
            "low": k / BINS,
            "high": (k + 1) / BINS,
            "questions": int((place == k).sum()),
            "confidence": confidence[place == k].mean(),
            "accuracy": correct[place == k].mean(),
        }
        for k in range(BINS)
        if (place == k).any()
    ]


def calibration_error(bins: Sequence[Mapping[str, Any]]) -> float:
    """Expected calibration error of `calibration_bins`."""
    total = sum(row["questions"] for row in bins)
    return sum(row["questions"] * abs(row["confidence"] - row["accuracy"]) for row in bins) / total


def _reasons(run: pd.DataFrame, status: str) -> list[dict[str, Any]]:
    counts = run.loc[run["status"] == status, "reason"].value_counts().sort_index()
    return [{"reason": str(reason), "questions": int(count)} for reason, count in counts.items()]


def _run_row(row: Mapping[str, Any]) -> dict[str, Any]:
    gains = ("gain", "gain_low", "gain_high")
    return {
        name: value for name, value in row.items() if name != "by" and not (name in gains and row["control"] == SCORE)
    }


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """JSON values: whole numbers as int, others rounded to what a benchmark can resolve, NaN as null."""
    return {str(name): _plain_value(value) for name, value in row.items()}


def _plain_value(value: Any) -> Any:
    if isinstance(value, str):
        return value
    if np.isnan(value):
        return None
    return int(value) if isinstance(value, int | np.integer) else round(float(value), 4)
