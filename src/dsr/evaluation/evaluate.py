"""The `evaluate` stage: the benchmark's questions, scored by the trained model and by its controls.

Reads data/qa/bench.parquet, models/gsm/, clips and cues; writes data/predictions/bench.parquet,
metrics/eval.json and metrics/plots/accuracy_by_type.json.
"""

import math
from pathlib import Path
from typing import Any

import pandas as pd
from rich.table import Table

from dsr import console
from dsr.console import StageError
from dsr.evaluation.metrics import CHANCE, SCORE, evaluation_metrics
from dsr.evaluation.predictions import ControlError, Scorer, predict
from dsr.files import write_json, write_parquet
from dsr.params import Evaluate, Params
from dsr.splits.split import read_questions

MOST_REASONS = 5
"""Reasons for missing questions that the closing table names."""


def run(params: Params, root: Path, workers: int = 0) -> None:
    """The `evaluate` stage.

    Raises:
        StageError: no benchmark or no question in it, no usable checkpoint, or not one question could be
        scored.
    """
    questions = read_questions(root / "data/qa/bench.parquet")
    if questions.empty:
        raise StageError("data/qa/bench.parquet holds no question: raise split.bench_fraction or use more clips")
    # The model's libraries take seconds to import: only when there is something to score.
    from dsr.evaluation.scoring import CheckpointScorer

    options = params.evaluate
    scorer = CheckpointScorer(root / "models/gsm", root, questions, options.batch_size, options.seed, workers)
    evaluate(questions, scorer, options, root)
    if blank := scorer.store.blank_clips:
        console.warn(f"{len(blank):,} clips have no video (trajectories alone): the model saw black frames of them")


def evaluate(questions: pd.DataFrame, scorer: Scorer, options: Evaluate, root: Path) -> None:
    """Score the questions, run the controls, write the files and print the closing table.

    A control that makes no sense for this model or these clips is left out with a warning.

    Raises:
        StageError: not one question can be scored.
    """
    runs = [predict(questions, scorer)]
    if (runs[0]["status"] == "missing").all():
        raise StageError(f"none of the {len(questions):,} questions can be scored; the first: {runs[0]['reason'][0]}")
    for control in options.controls:
        try:
            runs.append(predict(questions, scorer, control))
        except ControlError as error:
            console.warn(f"control {control} left out: {error}")
    predictions = pd.concat(runs, ignore_index=True)
    metrics = evaluation_metrics(predictions, options.bootstrap, options.seed)
    write_parquet(root / "data/predictions/bench.parquet", predictions)
    write_json(root / "metrics/eval.json", metrics)
    write_json(root / "metrics/plots/accuracy_by_type.json", plot_rows(metrics))
    _report(metrics)


def plot_rows(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """A row a group (all, then each type) and run, for the template `accuracy_by_type` of `dvc plots`."""
    return [
        {
            "type": "all" if row["group"] == "micro" else row["group"],
            "run": row["control"],
            **{name: row[name] for name in ("accuracy", "low", "high", "asked")},
            "chance": CHANCE,
        }
        for row in metrics["runs"]
        if row["group"] != "macro"
    ]


def _report(metrics: dict[str, Any]) -> None:
    rows = {(row["control"], row["group"]): row for row in metrics["runs"]}
    controls = [control for control in dict.fromkeys(control for control, _ in rows) if control != SCORE]
    table = Table(title="evaluate", title_justify="left")
    for heading in ("", "asked", "accuracy", "95 %", "chance", *controls):
        table.add_column(
            heading.replace("_", " "), justify="right" if heading else "left", no_wrap=heading not in controls
        )
    for group in (group for control, group in rows if control == SCORE):
        row = rows[SCORE, group]
        table.add_row(
            group,
            f"{row['asked']:,}",
            _percent(row["accuracy"]),
            f"{_percent(row['low'])}–{_percent(row['high'])}",
            _percent(CHANCE),
            *(_percent(rows[control, group]["accuracy"]) for control in controls),
        )
    quartets = {row["control"]: row for row in metrics["quartets"]}
    score = quartets[SCORE]
    table.add_row(
        "quartets",
        f"{score['asked']:,}",
        _percent(score["accuracy"]),
        "",
        _percent(score["chance"]),
        *(_percent(quartets[control]["accuracy"]) for control in controls),
    )
    console.console.print(table)
    missing = metrics["missing"]
    for row in missing[:MOST_REASONS]:
        console.warn(f"{row['questions']:,} questions missing, counted as wrong: {row['reason']}")
    if len(missing) > MOST_REASONS:
        questions = sum(row["questions"] for row in missing[MOST_REASONS:])
        console.warn(f"{questions:,} more for {len(missing) - MOST_REASONS} other reasons: see metrics/eval.json")
    letters = [row for row in metrics["letters"] if row["control"] == SCORE]
    total = sum(row["answers"] for row in letters)
    spread = ", ".join(f"{r['letter']} {r['answers'] / total:.0%} / {r['predictions'] / total:.0%}" for r in letters)
    console.console.print(f"answers / predictions: {spread}")


def _percent(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.1%}"
