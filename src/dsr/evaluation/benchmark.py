"""`dsr evaluate --benchmark`: the questions of a published benchmark, scored as the stage scores ours.

Writes data/predictions/<benchmark>.parquet, metrics/benchmarks/<benchmark>.json and the tables behind it in
metrics/benchmarks/<benchmark>/. Apart from the stage, which does not depend on what reads benchmarks.
"""

from pathlib import Path

from dsr import project
from dsr.evaluation.benchmarks import read_benchmark
from dsr.evaluation.evaluate import evaluate
from dsr.evaluation.scorers import make_scorer
from dsr.files import write_metrics, write_parquet
from dsr.params import Params


def run(
    params: Params, root: Path, name: str, folder: Path, checkpoint: Path | None, variant: str, workers: int = 0
) -> None:
    """Score it, with the controls of the stage.

    Args:
        folder: where its questions and videos are, as published; cues of its clips in `cues/<clip>.npz` are used.
        checkpoint: None: models/gsm.
        variant: of the benchmark, "" for its first or all (see the reader).

    Raises:
        StageError: no such benchmark, nothing readable in the folder, or not one question could be scored.
    """
    questions = read_benchmark(name, folder, variant)
    model = checkpoint or root / project.MODEL
    scorer = make_scorer(questions, params.evaluate, root, model, workers, folder, params.model.max_pixels)
    metrics, predictions = evaluate(questions, scorer, params.evaluate, root)
    place = f"{name}-{variant}" if variant else name
    write_parquet(root / project.PREDICTIONS / f"{place}.parquet", predictions)
    write_metrics(root / project.BENCHMARK_METRICS / f"{place}.json", metrics.figures, metrics.tables)
