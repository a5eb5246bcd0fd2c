"""The `evaluate` stage: the benchmark's questions, answered by the trained model and by its controls; and the same for
published benchmarks (`dsr evaluate --benchmark`).

The stage reads data/qa/bench.parquet, models/gsm/, clips and cues; writes data/predictions/bench.parquet,
metrics/eval.json and metrics/plots/. A published benchmark's predictions and metrics go to
data/predictions/<benchmark>.parquet and metrics/benchmarks/<benchmark>.json.
"""

import math
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
from rich.table import Table

from dsr import console, project
from dsr.console import StageError
from dsr.evaluation import plots
from dsr.evaluation.benchmarks import read_benchmark
from dsr.evaluation.controls import ROTATIONS, SCORE, ControlError
from dsr.evaluation.metrics import breakdown, file_content
from dsr.evaluation.prediction_cache import PredictionCache
from dsr.evaluation.predictions import Scorer, predict
from dsr.files import write_json, write_parquet
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
    metrics, predictions, table = evaluate(questions, scorer, params.evaluate, root)
    write_parquet(root / project.BENCH_PREDICTIONS, predictions)
    write_json(root / project.EVAL_METRICS, metrics)
    score = predictions[predictions["control"] == SCORE]
    for name, rows in {
        "accuracy_by_type": plots.accuracy_rows(table),
        "accuracy_by_group": plots.group_rows(table),
        "confusion": plots.confusion_rows(score),
        "calibration": plots.calibration_rows(metrics["calibration_bins"]),
        "accuracy_by_data_size": plots.data_size_rows(table, _train_questions(root)),
    }.items():
        write_json(root / project.PLOTS / f"{name}.json", rows)


def run_benchmark(
    params: Params, root: Path, name: str, folder: Path, checkpoint: Path | None, variant: str, workers: int = 0
) -> None:
    """Score a published benchmark.

    Args:
        folder: where its questions and videos are, as published; cues of its clips in `cues/<clip>.npz` are used.
        checkpoint: None: models/gsm.
        variant: of the benchmark, "" for its first or all (see the reader).

    Raises:
        StageError: no such benchmark, nothing readable in the folder, or not one question could be scored.
    """
    questions = read_benchmark(name, folder, variant)
    scorer = make_scorer(questions, params.evaluate, root, checkpoint or root / project.MODEL, workers, folder)
    metrics, predictions, _ = evaluate(questions, scorer, params.evaluate, root)
    place = f"{name}-{variant}" if variant else name
    write_parquet(root / project.PREDICTIONS / f"{place}.parquet", predictions)
    write_json(root / project.BENCHMARK_METRICS / f"{place}.json", metrics)


def make_scorer(
    questions: pd.DataFrame, options: Evaluate, root: Path, checkpoint: Path, workers: int, folder: Path | None = None
) -> Scorer:
    """What answers the questions, by `evaluate.mode`.

    Args:
        folder: of a published benchmark, whose videos are named by the column `file`; None: the catalogue's clips.

    Raises:
        StageError: no usable checkpoint, no catalogue.
    """
    # The model's libraries take seconds to import: only when there is something to score.
    if options.mode == "endpoint":
        from dsr.evaluation.scorers.endpoint import EndpointScorer
        from dsr.examples.video_files import VideoFiles, catalog_files

        files = catalog_files(root) if folder is None else _benchmark_files(questions)
        cues = root / project.CUES if folder is None else folder / "cues"
        return EndpointScorer(options.endpoint, VideoFiles(files, cues), questions)
    from dsr.evaluation.scorers.checkpoint import load_scorer
    from dsr.examples.benchmark_clips import BenchmarkClips
    from dsr.examples.records import ClipStore

    def store_of(processor: Any) -> ClipStore:
        if folder is None:
            return ClipStore(root, processor)
        return BenchmarkClips(_benchmark_files(questions), folder / "cues", processor)

    return load_scorer(checkpoint, store_of, questions, options, workers)


def evaluate(
    questions: pd.DataFrame, scorer: Scorer, options: Evaluate, root: Path
) -> tuple[dict[str, Any], pd.DataFrame, pd.DataFrame]:
    """Ask the questions, run the controls and print the closing table.

    A control that makes no sense for this model or these clips is left out with a warning.

    Returns:
        Metrics, predictions, and their breakdown.

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
    table = breakdown(predictions, options.bootstrap, options.seed)
    metrics = file_content(predictions, table)
    report(metrics)
    for note in scorer.notes:
        console.warn(note)
    return metrics, predictions, table


def _missing_everywhere(predictions: pd.DataFrame) -> pd.DataFrame:
    lost = predictions[predictions["status"] == "missing"].drop_duplicates("qa_id").set_index("qa_id")["reason"]
    gone = predictions["qa_id"].isin(lost.index) & (predictions["status"] != "missing")
    if gone.any():
        predictions.loc[gone, ["status", "prediction", "text", "correct"]] = ["missing", "", "", False]
        predictions.loc[gone, "reason"] = predictions.loc[gone, "qa_id"].map(lost)
        predictions.loc[gone, [name for name in predictions if name.startswith("logp_")]] = math.nan
    return predictions


def _benchmark_files(questions: pd.DataFrame) -> dict[str, Path]:
    return {clip: Path(file) for clip, file in zip(questions["videoID"], questions["file"], strict=True) if file}


def _train_questions(root: Path) -> int:
    path = root / project.TRAIN
    return int(pq.read_metadata(path).num_rows) if path.is_file() else 0


def report(metrics: Mapping[str, Any]) -> None:
    """Print the closing tables: accuracy next to chance and controls by type, and score minus each control."""
    rows = {(row["control"], row["group"]): row for row in metrics["runs"] if row["control"] not in ROTATIONS}
    controls = [control for control in dict.fromkeys(control for control, _ in rows) if control != SCORE]
    table = Table(title="evaluate", title_justify="left")
    beside = controls[:MOST_CONTROLS]
    for heading in ("", "asked", "accuracy", "95 %", "chance", *beside):
        table.add_column(
            heading.replace("_", " "), justify="right" if heading else "left", no_wrap=heading not in beside
        )
    for group in (group for control, group in rows if control == SCORE):
        row = rows[SCORE, group]
        table.add_row(
            group,
            f"{row['asked']:,}",
            _percent(row["accuracy"]),
            f"{_percent(row['low'])}–{_percent(row['high'])}",
            _percent(row["chance"]),
            *(_percent(rows[control, group]["accuracy"]) for control in beside),
        )
    quartets = {row["control"]: row for row in metrics["quartets"]}
    score = quartets[SCORE]
    if score["asked"]:
        table.add_row(
            "quartets",
            f"{score['asked']:,}",
            _percent(score["accuracy"]),
            "",
            _percent(score["chance"]),
            *(_percent(quartets[control]["accuracy"]) for control in beside),
        )
    for row in metrics["rotated"]:
        table.add_row("every rotation", f"{row['asked']:,}", _percent(row["accuracy"]), *[""] * (2 + len(beside)))
    console.console.print(table)
    if controls:
        console.console.print(_gains({control: rows[control, "micro"] for control in controls}))
    counts = metrics["questions"]
    console.console.print(
        f"{counts['asked']:,} asked = {counts['scored']:,} scored + {counts['unparsed']:,} without an answer "
        f"+ {counts['missing']:,} missing"
    )
    missing = metrics["missing"]
    for row in missing[:MOST_REASONS]:
        console.warn(f"{row['questions']:,} questions missing, counted as wrong: {row['reason']}")
    if len(missing) > MOST_REASONS:
        questions = sum(row["questions"] for row in missing[MOST_REASONS:])
        console.warn(f"{questions:,} more for {len(missing) - MOST_REASONS} other reasons: see the metrics file")
    letters = [row for row in metrics["letters"] if row["control"] == SCORE]
    total = max(sum(row["answers"] for row in letters), 1)
    spread = ", ".join(f"{r['letter']} {r['answers'] / total:.0%} / {r['predictions'] / total:.0%}" for r in letters)
    console.console.print(f"answers / predictions: {spread}")
    if metrics["calibration"]:
        console.console.print(f"calibration error: {metrics['calibration']['error']:.3f}")


def _gains(rows: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table(title="score minus control, in points", title_justify="left")
    for heading in ("control", "asked", "left out", "accuracy", "score minus control", "95 %"):
        table.add_column(heading, justify="left" if heading == "control" else "right")
    for control, row in rows.items():
        low, high = row["gain_low"], row["gain_high"]
        table.add_row(
            control.replace("_", " "),
            f"{row['asked']:,}",
            f"{row['left_out']:,}",
            _percent(row["accuracy"]),
            "–" if row["gain"] is None else f"{100 * row['gain']:+.1f}",
            "" if low is None or high is None else f"{100 * low:+.1f} to {100 * high:+.1f}",
        )
    return table


def _percent(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.1%}"
