"""Metrics of a table of predictions; pure functions, nothing is read or written.

The table has one row a question and run, a run being the model as it is (`control` = "score") or with
something taken away (a control). What the numbers mean:

- Accuracy is over the questions *asked*: one that could not be put (clip or cues missing) counts as wrong, and so does
  a text without an answer, so that a model cannot gain by losing either. asked = scored + unparsed + missing.
- A question that has no counterpart under a control is `left_out` of it: it is not asked there, and the control is
  compared with the score on the rest.
- `all` weighs every question the same (micro average), `macro` every type that was asked. A row so broken that it has
  no type counts in `all` alone.
- Intervals are 95 % percentile intervals of a bootstrap over source videos (`dsr.intervals`). An accuracy of exactly 0
  or 1 gets an interval without width, and a group from a single source video gets none.
- A control is paired with the score: `gain` is score minus control on the same questions, resampled together.
- A quartet is right when all four of its questions are. Chance is 1/256 for four independent guesses. A model
  that goes by the options alone gives four questions with the same options the same answer, of which one is
  right: its accuracy is 1/4 and its quartet accuracy 0. Its questions come from several source videos, so that its
  intervals are over quartets.
- `rotated`: right with the options as they are and under every rotation; a run like a control.
- Calibration compares the probability that the model gives to its prediction, among the options, with how often it is
  right; its error is the mean distance of both over ten bins of probability, weighted by their questions.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from dsr.evaluation.controls import ROTATIONS, SCORE
from dsr.intervals import interval, resampled_means
from dsr.mcq import LETTERS, TYPES

QUARTET_SIZE = 4
ALL, MACRO, ROTATED = "all", "macro", "rotated"
OVERALL = [ALL, MACRO]
GROUPINGS = ("type", "viewpoint", "target", "answer_length", "category")
"""Columns of the predictions that accuracy is broken down by."""
STATUSES = ("scored", "unparsed", "missing", "left_out")
BINS = 10


@dataclass(frozen=True)
class Metrics:
    """An evaluation in numbers."""

    figures: dict[str, Any]
    """Few scalars, the content of metrics/eval.json: what `dvc metrics diff` compares."""
    tables: dict[str, pd.DataFrame]
    """Tables behind them, each a CSV file of metrics/eval/: `by_type`, `by_group` and `quartets` with the columns of
    `breakdown`; `letters`, `calibration` and `reasons` with those of the functions of these names."""


def evaluation_metrics(predictions: pd.DataFrame, resamples: int, seed: int) -> Metrics:
    """Figures and tables of an evaluation.

    Args:
        predictions: the columns of `dsr.evaluation.predictions`; at least one row whose control is "score".
        resamples: bootstrap resamples behind each interval.
    """
    runs = _with_rotated(predictions)
    table = breakdown(runs, resamples, seed)
    groups = table[~table["by"].isin([ALL, "type"])]
    named = groups["by"].str.replace("_", " ") + ": " + groups["group"]
    score = predictions[predictions["control"] == SCORE]
    tables = {
        "by_type": table[table["by"].isin([ALL, "type"])].drop(columns="by").rename(columns={"group": "type"}),
        "by_group": groups.assign(group=named).drop(columns="by"),
        "letters": letters(runs),
        "calibration": calibration(score),
        "reasons": reasons(runs),
    }
    whole = quartets(runs)
    if len(whole):
        # Each is its own unit of the bootstrap.
        table = breakdown(whole.assign(source_video=whole["qa_id"]), resamples, seed)
        tables["quartets"] = table.drop(columns=["by", "source_videos"]).rename(columns={"group": "type"})
    return Metrics(_figures(tables), {name: table.reset_index(drop=True) for name, table in tables.items()})


def _figures(tables: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    """The scalars of metrics/eval.json; DVC shows keys in the order of their letters. NaN is left out.

    No key is "error": `dvc metrics show` takes that for a failure to load.
    """
    by_type = tables["by_type"].set_index(["run", "type"])
    score = by_type.loc[SCORE]
    overall = by_type.xs(ALL, level="type")
    figures = {
        "accuracy": score["accuracy"][ALL],
        "accuracy_low": score["low"][ALL],
        "accuracy_high": score["high"][ALL],
        "accuracy_macro": score["accuracy"][MACRO],
        "chance": score["chance"][ALL],
        "control": overall["accuracy"].drop(SCORE).to_dict(),
        "gain": {
            f"{run}{end}": row[f"gain{end}"]
            for run, row in overall.drop(SCORE).iterrows()
            for end in ("", "_low", "_high")
        },
        "questions": {name: int(score[name][ALL]) for name in ("asked", *STATUSES[:3])},
        "type": score["accuracy"].drop(OVERALL).to_dict(),
    }
    if len(tables["calibration"]):
        figures["calibration_error"] = calibration_error(tables["calibration"])
    if "quartets" in tables:
        whole = tables["quartets"].set_index(["run", "type"]).loc[(SCORE, ALL)]
        figures["accuracy_quartet"] = whole["accuracy"]
        figures["questions"]["quartets"] = int(whole["asked"])
    return _rounded(figures)


def _rounded(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Figures to four places, without those that are not defined."""
    found: dict[str, Any] = {}
    for name, value in figures.items():
        if isinstance(value, Mapping):
            found[str(name)] = _rounded(value)
        elif not np.isnan(value):
            found[str(name)] = value if isinstance(value, int) else round(float(value), 4)
    return found


def breakdown(predictions: pd.DataFrame, resamples: int, seed: int) -> pd.DataFrame:
    """Counts, accuracy and intervals of every run, overall and by each of GROUPINGS that the table knows.

    Args:
        predictions: as `evaluation_metrics`.

    Returns:
        Columns run; by ("all", or one of GROUPINGS); group ("all" and "macro" for all; types in their published
        order); asked, scored, unparsed, missing, left_out, correct, source_videos, chance, accuracy, low, high,
        accuracy_scored; gain, gain_low, gain_high of the score over a control (NaN: not defined).

    Raises:
        ValueError: the runs are not about the same questions in the same order.
    """
    runs = dict(list(predictions.groupby("control", sort=False)))
    score = runs[SCORE]
    for name, run in runs.items():
        if list(run["qa_id"]) != list(score["qa_id"]):
            raise ValueError(f"{name} must be run on the questions of the score, in their order")
    groups, members = _groups(score)
    names, videos = np.unique(score["source_video"].astype(str), return_inverse=True)
    by_video = csr_array((np.ones(len(score)), (videos, np.arange(len(score)))), (len(names), len(score)))
    tables, sums, counts = [], [], []
    for name, run in runs.items():
        asked = members & (run["status"] != "left_out").to_numpy()[:, None]
        right = _right(run)
        sums += [by_video @ (asked * values[:, None]) for values in (right, _right(score) - right)]
        counts += [by_video @ asked.astype(float)] * 2
        # A malformed row may have no options.
        chance = 1 / run["num_options"].astype(float).where(run["num_options"] > 0).to_numpy()
        table = groups.assign(run=name, asked=asked.sum(axis=0))
        for status in STATUSES:
            table[status] = (members & (run["status"] == status).to_numpy()[:, None]).sum(axis=0)
        table["correct"] = (right @ asked).astype(int)
        table["source_videos"] = (counts[-1] > 0).sum(axis=0)
        table["chance"] = _divided(np.nan_to_num(chance) @ asked, np.isfinite(chance) @ asked.astype(float))
        tables.append(table)
    estimates = _estimates(np.stack(sums, axis=1), np.stack(counts, axis=1), groups["by"] == "type", resamples, seed)
    for table, accuracy, gain in zip(tables, estimates[::2], estimates[1::2], strict=True):
        table[["accuracy", "low", "high"]] = accuracy
        answered = table["correct"] / table["scored"].where(table["scored"] > 0)
        table["accuracy_scored"] = answered.where(table["group"] != MACRO, answered[table["by"] == "type"].mean())
        table[["gain", "gain_low", "gain_high"]] = np.nan if table["run"].iloc[0] == SCORE else gain
    table = pd.concat(tables, ignore_index=True)
    return table[["run", *(name for name in table if name != "run")]]


def _right(run: pd.DataFrame) -> np.ndarray:
    """[Q] float, 1 where an answer is right."""
    return (run["correct"].astype(bool) & (run["status"] == "scored")).to_numpy(float)


def _divided(values: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Quotients, NaN over 0."""
    return np.divide(values, by, out=np.full(values.shape, np.nan), where=by > 0)


def _groups(score: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray]:
    """Groups of questions (by, group), all of them twice first, for `all` and `macro`; and members [Q, G] bool."""
    groups, members = [(ALL, ALL), (ALL, MACRO)], [np.ones(len(score), bool)] * 2
    for by in GROUPINGS:
        if by not in score:
            continue
        values = score[by].to_numpy(object)
        present = set(values) - {""}
        order = [name for name in TYPES if name in present] if by == "type" else []
        for name in [*order, *sorted(present - set(order))]:
            groups.append((by, str(name)))
            members.append(values == name)
    return pd.DataFrame(groups, columns=["by", "group"]), np.stack(members, axis=1)


def _estimates(sums: np.ndarray, counts: np.ndarray, types: pd.Series, resamples: int, seed: int) -> np.ndarray:
    """Mean, low and high [C, G, 3] of sums and counts [V, C, G]; the second group is the mean over the types'.

    Letters: V source videos, C columns, G groups.
    """
    kinds = types.to_numpy()
    means = _divided(sums.sum(axis=0), counts.sum(axis=0))
    samples = resampled_means(sums.reshape(len(sums), -1), counts.reshape(len(sums), -1), resamples, seed)
    samples = samples.reshape(resamples, *means.shape)
    seen = counts > 0
    for values in (means, samples):
        # A resample may lack a type.
        known = ~np.isnan(values[..., kinds])
        values[..., 1] = _divided(np.nansum(values[..., kinds], axis=-1), known.sum(axis=-1))
    seen[..., 1] = seen[..., kinds].any(axis=-1)
    low, high = interval(samples.reshape(resamples, -1)).reshape(2, *means.shape)
    alone = seen.sum(axis=0) < 2
    return np.stack([means, np.where(alone, np.nan, low), np.where(alone, np.nan, high)], axis=-1)


def quartets(predictions: pd.DataFrame) -> pd.DataFrame:
    """Predictions of whole quartets, a row a run and quartet, with the columns that `breakdown` reads.

    A quartet is right if its four questions are; it is left out, missing or unparsed if one of them is.
    """
    members = predictions[predictions["quartet_id"] != ""]
    rows = pd.DataFrame(
        {
            "control": members["control"],
            "qa_id": members["quartet_id"],
            "type": members["type"],
            "correct": members["correct"].astype(bool),
            "status": members["status"].map(STATUSES.index),
            "num_options": members["num_options"].astype(float),
        }
    )
    grouped = rows.groupby(["control", "qa_id"], sort=False)
    table = grouped.agg({"type": "first", "correct": "all", "status": "max", "num_options": "prod"})
    table["status"] = table["status"].map(dict(enumerate(STATUSES)))
    return table[grouped.size() == QUARTET_SIZE].reset_index()


def _with_rotated(predictions: pd.DataFrame) -> pd.DataFrame:
    """The rotations' runs as one, `rotated`: right as it is and under every rotation that a question has."""
    turned = predictions["control"].isin(ROTATIONS)
    if not turned.any():
        return predictions
    rotations = predictions[turned]
    held = (rotations["correct"].astype(bool) | (rotations["status"] == "left_out")).groupby(rotations["qa_id"]).all()
    score = predictions[predictions["control"] == SCORE]
    rotated = score.assign(control=ROTATED, correct=score["correct"].astype(bool) & score["qa_id"].map(held))
    return pd.concat([predictions[~turned], rotated], ignore_index=True)


def letters(predictions: pd.DataFrame) -> pd.DataFrame:
    """Counts of each letter as answer and as prediction, over the questions scored: run, letter, answers,
    predictions."""
    rows = []
    for name, run in predictions[predictions["control"] != ROTATED].groupby("control", sort=False):
        scored = run[run["status"] == "scored"]
        for letter in sorted({*LETTERS, *scored["answer"], *scored["prediction"]}):
            counts = ((scored[column] == letter).sum() for column in ("answer", "prediction"))
            rows.append((name, letter, *counts))
    return pd.DataFrame(rows, columns=["run", "letter", "answers", "predictions"])


def calibration(run: pd.DataFrame) -> pd.DataFrame:
    """For each bin of confidence that holds questions: low, high, questions, mean confidence, accuracy.

    Confidence is the probability of the prediction among the options' letters; no row for a model that wrote texts.
    """
    scored = run[run["status"] == "scored"]
    values = scored[[name for name in run if str(name).startswith("logp_")]].to_numpy(float)
    known = np.isfinite(values).any(axis=1)
    values = np.where(np.isfinite(values[known]), values[known], -np.inf)
    best = values.max(axis=1, initial=-np.inf)
    confidence = 1 / np.exp(values - best[:, None]).sum(axis=1)
    place = np.minimum((confidence * BINS).astype(int), BINS - 1)
    table = pd.DataFrame({"confidence": confidence, "accuracy": scored["correct"].to_numpy(float)[known]})
    bins = table.groupby(place)
    return bins.mean().assign(low=lambda t: t.index / BINS, high=lambda t: (t.index + 1) / BINS, questions=bins.size())[
        ["low", "high", "questions", "confidence", "accuracy"]
    ]


def calibration_error(bins: pd.DataFrame) -> float:
    """Expected calibration error of the bins of `calibration`."""
    return float(np.average((bins["confidence"] - bins["accuracy"]).abs(), weights=bins["questions"]))


def reasons(predictions: pd.DataFrame) -> pd.DataFrame:
    """Reasons for which questions are missing (from every run alike) or left out of a control, with their number."""
    lost = predictions[
        ((predictions["control"] == SCORE) & (predictions["status"] == "missing"))
        | (predictions["status"] == "left_out") & (predictions["control"] != ROTATED)
    ]
    counts = lost.groupby(["control", "status", "reason"]).size()
    return counts.rename("questions").reset_index().rename(columns={"control": "run"})
