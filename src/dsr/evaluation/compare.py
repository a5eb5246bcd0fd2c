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
from dsr.evaluation.metrics import ALL
from dsr.files import write_json
from dsr.intervals import interval, resampled_means
from dsr.mcq import TYPES

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
    both = first.merge(second, on="qa_id", suffixes=("_a", "_b"))
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
    right = [(same[f"correct_{run}"] & (same[f"status_{run}"] == "scored")).to_numpy(bool) for run in "ab"]
    kinds = same["type_a"].to_numpy(object)
    present = set(kinds) - {""}
    names = [ALL, *(t for t in TYPES if t in present), *sorted(present - set(TYPES))]
    members = np.stack([np.ones(len(same), bool), *(kinds == name for name in names[1:])], axis=1)
    video_names, videos = np.unique(same["source_video_a"].astype(str), return_inverse=True)
    sums, counts = (np.zeros((len(video_names), len(names))) for _ in range(2))
    np.add.at(sums, videos, members * (right[1].astype(float) - right[0])[:, None])
    np.add.at(counts, videos, members)
    low, high = interval(resampled_means(sums, counts, resamples, seed))
    alone = (counts > 0).sum(axis=0) < 2
    groups = []
    for k, name in enumerate(names):
        own = members[:, k]
        a, b = (r[own] for r in right)
        only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
        groups.append(
            {
                "group": name,
                "questions": int(own.sum()),
                "source_videos": int((counts[:, k] > 0).sum()),
                "accuracy_a": _rounded(a.mean()),
                "accuracy_b": _rounded(b.mean()),
                "difference": _rounded(b.mean() - a.mean()),
                "low": None if alone[k] else _rounded(low[k]),
                "high": None if alone[k] else _rounded(high[k]),
                "only_a": only_a,
                "only_b": only_b,
                "p": _rounded(mcnemar(only_a, only_b), 6),
            }
        )
    return {"questions": questions, "groups": groups}


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


def _rounded(value: float, digits: int = 4) -> float:
    return round(float(value), digits)
