"""Rows of the plots that `dvc plots` draws of an evaluation; pure functions."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from dsr.evaluation.controls import ROTATIONS, SCORE
from dsr.evaluation.metrics import ALL, CHANCE

_WORDS: Mapping[str, Sequence[Mapping[str, str]]] = {
    "dis": [{"+": "grows", "0": "same", "-": "shrinks"}],
    "spd": [{"+": "speeds up", "0": "same", "-": "slows down"}],
    "spd_comp": [{"+": "faster", "0": "same", "-": "slower"}],
    "dir": [
        {"+": "in front", "0": "neither", "-": "behind"},
        {"+": "left", "0": "neither", "-": "right"},
        {"+": "above", "0": "neither", "-": "below"},
    ],
    **dict.fromkeys(
        ("ori", "dir_pred"),
        (
            {"+": "forward", "0": "neither", "-": "backward"},
            {"+": "left", "0": "neither", "-": "right"},
            {"+": "up", "0": "neither", "-": "down"},
        ),
    ),
}
_AXES = ("front / behind", "left / right", "above / below")


def accuracy_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """A row a group (all, then each type) and run, for the template `accuracy_by_type`."""
    shown = table[table["by"].isin((ALL, "type")) & (table["group"] != "macro") & ~table["control"].isin(ROTATIONS)]
    return [
        {
            "type": ALL if row["group"] == "micro" else row["group"],
            "run": row["control"],
            **{name: _rounded(row[name]) for name in ("accuracy", "low", "high")},
            "asked": int(row["asked"]),
            "chance": _rounded(row["chance"]) or CHANCE,
        }
        for row in shown.to_dict("records")
    ]


def group_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """As `accuracy_rows`, for the score's other groupings: viewpoint, target, answer length, category."""
    shown = table[~table["by"].isin((ALL, "type")) & (table["control"] == SCORE)]
    return [
        {
            "type": f"{row['by'].replace('_', ' ')}: {row['group']}",
            "run": SCORE,
            **{name: _rounded(row[name]) for name in ("accuracy", "low", "high")},
            **{name: int(row[name]) for name in ("asked", "scored", "unparsed", "missing")},
            "chance": _rounded(row["chance"]) or CHANCE,
        }
        for row in shown.to_dict("records")
    ]


def confusion_rows(score: pd.DataFrame) -> list[dict[str, Any]]:
    """Which states are predicted for which right ones, by type (and axis): right, predicted, states, share.

    The runs of states that the predicted and the right option tell are compared place by place, as far as both go; a
    direction's three axes each on their own. `share` is of a right state's places.
    """
    told = (score["answer_states"] != "") & score["type"].map(lambda kind: kind.split("_", 1)[-1] in _WORDS)
    answered = score[(score["status"] == "scored") & told]
    counts: Counter[tuple[str, int, str, str]] = Counter()
    for kind, right, predicted in zip(
        answered["type"], answered["answer_states"], answered["predicted_states"], strict=True
    ):
        for ours, theirs in zip(right.split(), predicted.split(), strict=False):
            counts.update((kind, axis, a, b) for axis, (a, b) in enumerate(zip(ours, theirs, strict=True)))
    totals: Counter[tuple[str, int, str]] = Counter()
    for (kind, axis, right, _), count in counts.items():
        totals[kind, axis, right] += count
    rows = []
    for (kind, axis, right, predicted), count in sorted(counts.items()):
        words = _WORDS[kind.split("_", 1)[1]]
        rows.append(
            {
                "type": kind if len(words) == 1 else f"{kind}, {_AXES[axis]}",
                "right": words[axis][right],
                "predicted": words[axis][predicted],
                "states": count,
                "share": _rounded(count / totals[kind, axis, right]),
            }
        )
    return rows


def calibration_rows(bins: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Bins of `metrics.calibration_bins`, rounded."""
    return [{name: v if isinstance(v, int) else _rounded(v) for name, v in row.items()} for row in bins]


def data_size_rows(table: pd.DataFrame, train_questions: int) -> list[dict[str, Any]]:
    """One row: accuracy at the number of questions that the model was trained on; the curve is over revisions."""
    row = table[(table["control"] == SCORE) & (table["group"] == "micro")].iloc[0]
    return [
        {"train_questions": train_questions, **{n: _rounded(row[n]) for n in ("accuracy", "low", "high", "chance")}}
    ]


def _rounded(value: float) -> float | None:
    return None if pd.isna(value) else round(float(value), 4)
