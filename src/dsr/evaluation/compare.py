"""`dsr compare A B`: is B better than A? Both on the same questions, paired.

The difference of accuracies has a 95 % interval by bootstrap over source videos; McNemar's exact test asks how likely
as uneven a split of the questions that only one of the two answers would be if both were equally good. The interval
knows that questions about one video go together, the test does not: where they disagree, believe the interval.

A question is the same if its id, text, options and right answer are; others are counted and left out.
"""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table
from scipy.stats import binomtest

from dsr import console, project
from dsr.console import StageError
from dsr.evaluation.controls import SCORE
from dsr.evaluation.metrics import ALL, MACRO, breakdown
from dsr.files import write_json
from dsr.mcq import LETTERS

_NEEDED = ("control", "qa_id", "asked", "type", "source_video", "correct", "status")


def run(root: Path, first: str, second: str, control: str, resamples: int, seed: int, output: Path | None) -> None:
    """Print the comparison of two runs, and write it where an output is named.

    Args:
        first: A: a file of predictions, a project folder, or a git revision or DVC experiment of this project.
        second: B, likewise.
        control: which run of each.

    Raises:
        StageError: one cannot be read, or they share no question.
    """
    tables = [read_predictions(root, name, control) for name in (first, second)]
    result = compare(tables[0], tables[1], resamples, seed)
    if output:
        write_json(output, {"a": first, "b": second, "control": control, **result})
    _show(first, second, result)


def read_predictions(root: Path, name: str, control: str = SCORE) -> pd.DataFrame:
    """One run of a file of predictions; see `run`.

    Raises:
        StageError: it cannot be read, or has no such run.
    """
    table = _read(root, name)
    absent = [column for column in _NEEDED if column not in table]
    if absent:
        raise StageError(
            f"{name}: no column {absent[0]}: these predictions were made by an older version; evaluate again"
        )
    chosen = table[table["control"] == control]
    if chosen.empty:
        raise StageError(f"{name} has no run {control!r}; it has {', '.join(dict.fromkeys(table['control']))}")
    return chosen.reset_index(drop=True)


def compare(first: pd.DataFrame, second: pd.DataFrame, resamples: int, seed: int) -> dict[str, Any]:
    """The paired comparison.

    Returns:
        `questions`: shared, in the first alone, in the second alone, changed (same id, another question); `groups`:
        for all questions and each type asked, questions, accuracy of both, difference (second minus first) with low
        and high, only_first and only_second (questions that only one has right), p (McNemar's exact test).

    Raises:
        StageError: no question is shared.
    """
    both = first.merge(second[["qa_id", "asked", "correct", "status"]], on="qa_id", suffixes=("_a", "_b"))
    same = both[both["asked_a"] == both["asked_b"]]
    questions = {
        "shared": len(same),
        "first_alone": int((~first["qa_id"].isin(second["qa_id"])).sum()),
        "second_alone": int((~second["qa_id"].isin(first["qa_id"])).sum()),
        "changed": len(both) - len(same),
    }
    same = same[(same["status_a"] != "left_out") & (same["status_b"] != "left_out")]
    if same.empty:
        raise StageError(f"no question is the same in both: {questions}")
    # B minus A is what a score gains over a control.
    table = breakdown(pd.concat([_run(same, "b", SCORE), _run(same, "a", "a")]), resamples, seed)
    table = table[table["by"].isin([ALL, "type"]) & (table["group"] != MACRO)]
    right_a, right_b = (same[f"correct_{run}"].astype(bool) & (same[f"status_{run}"] == "scored") for run in "ab")
    accuracies = table[table["run"] == SCORE].set_index("group")["accuracy"]
    groups = []
    for row in table[table["run"] == "a"].to_dict("records"):
        own = (same["type"] == row["group"]) | (row["by"] == ALL)
        only_a, only_b = int((own & right_a & ~right_b).sum()), int((own & right_b & ~right_a).sum())
        ends = {end: None if np.isnan(row[f"gain_{end}"]) else round(row[f"gain_{end}"], 4) for end in ("low", "high")}
        groups.append(
            {
                "group": row["group"],
                "questions": row["asked"],
                "source_videos": row["source_videos"],
                "accuracy_a": round(row["accuracy"], 4),
                "accuracy_b": round(accuracies[row["group"]], 4),
                "difference": round(row["gain"], 4),
                **ends,
                "only_a": only_a,
                "only_b": only_b,
                "p": round(mcnemar(only_a, only_b), 6),
            }
        )
    return {"questions": questions, "groups": groups}


def _run(same: pd.DataFrame, run: str, control: str) -> pd.DataFrame:
    """Answers of one of two runs to their shared questions, as `breakdown` reads them."""
    answers = {"correct": same[f"correct_{run}"], "status": same[f"status_{run}"]}
    return same[["qa_id", "type", "source_video"]].assign(control=control, num_options=len(LETTERS), **answers)


def mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided exact p-value: how likely so uneven a split is if each of the two were equally likely; 1 for none."""
    total = only_first + only_second
    return float(binomtest(only_first, total, 0.5).pvalue) if total else 1.0


def _read(root: Path, name: str) -> pd.DataFrame:
    own = project.BENCH_PREDICTIONS
    # The project's files come before those of the current folder, which may be another project's.
    places = (root / own,) if name == "workspace" else (root / name, root / name / own, Path(name), Path(name) / own)
    for path in places:
        if path.is_file():
            try:
                return pd.read_parquet(path)
            except (OSError, ValueError) as error:
                raise StageError(f"{path} is not a parquet file: {error}") from None
    import dvc.api
    from dvc.exceptions import DvcException
    from scmrepo.exceptions import SCMError

    try:
        return pd.read_parquet(BytesIO(dvc.api.read(str(own), repo=str(root), rev=name, mode="rb")))
    except (DvcException, SCMError, OSError, ValueError) as error:
        raise StageError(
            f"{name!r} is no file of predictions, no project folder, and no revision or experiment that has "
            f"{own} ({error}); `dvc pull` or `dvc exp show` may help"
        ) from None


def _show(first: str, second: str, result: dict[str, Any]) -> None:
    title = escape(f"B minus A, in points (A: {first}, B: {second})")
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for heading in ("", "asked", "A", "B", "B - A", "95 %", "one right", "p"):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    for row in result["groups"]:
        ends = "" if row["low"] is None else f"{100 * row['low']:+.1f} to {100 * row['high']:+.1f}"
        table.add_row(
            row["group"],
            f"{row['questions']:,}",
            f"{row['accuracy_a']:.1%}",
            f"{row['accuracy_b']:.1%}",
            f"{100 * row['difference']:+.1f}",
            ends,
            f"{row['only_a']:,} / {row['only_b']:,}",
            f"{row['p']:.3f}",
        )
    table.caption = "one right: questions that only A / only B has right; p: McNemar's exact test on them"
    console.console.print(table)
    counts = result["questions"]
    if counts["first_alone"] or counts["second_alone"] or counts["changed"]:
        console.warn(
            f"left out: {counts['first_alone']:,} questions that only A was asked, {counts['second_alone']:,} that "
            f"only B was, {counts['changed']:,} that changed"
        )
