"""The `evaluate` stage: the benchmark's questions, answered by the trained model and by its controls.

It reads data/qa/bench.parquet, models/gsm/, clips and cues; writes data/predictions/bench.parquet, metrics/eval.json
(the figures that `dvc metrics` shows) and metrics/eval/ (the tables behind them, that `dvc plots` and `dsr report`
show).
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
from rich.console import JustifyMethod
from rich.table import Table

from dsr import console, project
from dsr.console import StageError
from dsr.evaluation.confusion import confusion_table
from dsr.evaluation.controls import ROTATIONS, SCORE, ControlError
from dsr.evaluation.metrics import ALL, Metrics, evaluation_metrics
from dsr.evaluation.prediction_cache import PredictionCache
from dsr.evaluation.predictions import Scorer, predict
from dsr.evaluation.scorers import make_scorer
from dsr.files import write_metrics, write_parquet
from dsr.mcq import read_questions
from dsr.params import Evaluate, Params

MOST_REASONS = 5
"""Reasons for missing questions that the closing table names."""
MOST_CONTROLS = 3
"""Controls that have a column in the table by type; all are in the table below it."""


def run(params: Params, root: Path, workers: int = 0) -> None:
    """The `evaluate` stage.

    Raises:
        StageError: no benchmark or no question in it, no usable checkpoint, or not one question could be
        scored.
    """
    questions = read_questions(root / project.BENCH)
    if questions.empty:
        raise StageError(f"{project.BENCH} holds no question: raise split.bench_fraction or use more clips")
    scorer = make_scorer(questions, params.evaluate, root, root / project.MODEL, workers)
    metrics, predictions = evaluate(questions, scorer, params.evaluate, root)
    metrics.tables["confusion"] = confusion_table(predictions[predictions["control"] == SCORE])
    # A row a revision: the curve is over experiments.
    size = metrics.tables["by_type"].iloc[:1][["accuracy", "low", "high", "chance"]]
    metrics.tables["data_size"] = size.assign(train_questions=_train_questions(root))
    write_parquet(root / project.BENCH_PREDICTIONS, predictions)
    write_metrics(root / project.EVAL_METRICS, metrics.figures, metrics.tables)


def evaluate(questions: pd.DataFrame, scorer: Scorer, options: Evaluate, root: Path) -> tuple[Metrics, pd.DataFrame]:
    """Ask the questions, run the controls and print the closing table; returns metrics and predictions.

    A control that makes no sense for this model or these clips is left out with a warning.

    Raises:
        StageError: not one question can be scored.
    """
    controls = [*options.controls, *(ROTATIONS if options.rotations else ())]
    with ExitStack() as stack:
        cache = stack.enter_context(PredictionCache(root / project.PREDICTION_CACHE if options.cache else None))
        runs = [predict(questions, scorer, SCORE, options.parser, cache)]
        if (runs[0]["status"] == "missing").all():
            reason = runs[0]["reason"].iloc[0]
            raise StageError(f"none of the {len(questions):,} questions can be scored; the first: {reason}")
        for control in controls:
            try:
                runs.append(predict(questions, scorer, control, options.parser, cache))
            except ControlError as error:
                console.warn(f"control {control} left out: {error}")
    # Clips can turn out to be unreadable on the way; they are missing from every run.
    predictions = _missing_everywhere(pd.concat(runs, ignore_index=True))
    metrics = evaluation_metrics(predictions, options.bootstrap, options.seed)
    report(metrics)
    for note in scorer.notes:
        console.warn(note)
    return metrics, predictions


def _missing_everywhere(predictions: pd.DataFrame) -> pd.DataFrame:
    lost = predictions[predictions["status"] == "missing"].drop_duplicates("qa_id").set_index("qa_id")["reason"]
    gone = predictions["qa_id"].isin(lost.index) & (predictions["status"] != "missing")
    if gone.any():
        predictions.loc[gone, ["status", "prediction", "text", "correct"]] = ["missing", "", "", False]
        predictions.loc[gone, "reason"] = predictions.loc[gone, "qa_id"].map(lost)
        predictions.loc[gone, [name for name in predictions if name.startswith("logp_")]] = math.nan
    return predictions


def _train_questions(root: Path) -> int:
    path = root / project.TRAIN
    return int(pq.read_metadata(path).num_rows) if path.is_file() else 0


def report(metrics: Metrics) -> None:
    """Print the closing tables: accuracy next to chance and controls by type, and score minus each control."""
    by_type, letters = metrics.tables["by_type"], metrics.tables["letters"]
    controls = [name for name in by_type["run"].unique() if name != SCORE]
    console.console.print(_accuracies(metrics.tables, controls[:MOST_CONTROLS]))
    if controls:
        console.console.print(_gains(by_type[(by_type["type"] == ALL) & (by_type["run"] != SCORE)]))
    counts = metrics.figures["questions"]
    console.console.print(
        f"{counts['asked']:,} asked = {counts['scored']:,} scored + {counts['unparsed']:,} without an answer "
        f"+ {counts['missing']:,} missing"
    )
    missing = metrics.tables["reasons"].query("run == @SCORE")
    for row in missing.iloc[:MOST_REASONS].itertuples():
        console.warn(f"{row.questions:,} questions missing, counted as wrong: {row.reason}")
    if len(missing) > MOST_REASONS:
        rest = missing["questions"].iloc[MOST_REASONS:]
        console.warn(f"{rest.sum():,} more for {len(rest)} other reasons: see the table `reasons` of the metrics")
    own = letters[letters["run"] == SCORE]
    shares = own[["answers", "predictions"]] / max(own["answers"].sum(), 1)
    spread = zip(own["letter"], shares["answers"], shares["predictions"], strict=True)
    console.console.print("answers / predictions: " + ", ".join(f"{name} {a:.0%} / {p:.0%}" for name, a, p in spread))
    if "calibration_error" in metrics.figures:
        console.console.print(f"calibration error: {metrics.figures['calibration_error']:.3f}")


def _accuracies(tables: Mapping[str, pd.DataFrame], controls: Sequence[str]) -> Table:
    """Accuracy by type and of whole quartets, next to these controls'."""
    shown = Table(title="evaluate", title_justify="left")
    for heading in ("", "asked", "accuracy", "95 %", "chance", *controls):
        justify: JustifyMethod = "right" if heading else "left"
        shown.add_column(heading.replace("_", " "), justify=justify, no_wrap=heading not in controls)
    whole = tables["quartets"].query("type == @ALL").assign(type="quartets") if "quartets" in tables else None
    table = pd.concat([tables["by_type"], whole])
    beside = [table[table["run"] == name].set_index("type")["accuracy"] for name in controls]
    for row in table[table["run"] == SCORE].itertuples():
        shown.add_row(
            row.type,
            f"{row.asked:,}",
            _percent(row.accuracy),
            f"{_percent(row.low)}–{_percent(row.high)}",
            _percent(row.chance),
            *(_percent(accuracy[row.type]) for accuracy in beside),
        )
    return shown


def _gains(rows: pd.DataFrame) -> Table:
    """Score minus each control."""
    shown = Table(title="score minus control, in points", title_justify="left")
    for heading in ("control", "asked", "left out", "accuracy", "score minus control", "95 %"):
        shown.add_column(heading, justify="left" if heading == "control" else "right")
    for row in rows.itertuples():
        shown.add_row(
            row.run.replace("_", " "),
            f"{row.asked:,}",
            f"{row.left_out:,}",
            _percent(row.accuracy),
            "–" if math.isnan(row.gain) else f"{100 * row.gain:+.1f}",
            "" if math.isnan(row.gain_low) else f"{100 * row.gain_low:+.1f} to {100 * row.gain_high:+.1f}",
        )
    return shown


def _percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.1%}"
