"""`dsr evaluate --benchmark`: the questions of a published benchmark, scored as the stage scores ours.

Writes data/predictions/<benchmark>.parquet, metrics/benchmarks/<benchmark>.json and the tables behind it in
metrics/benchmarks/<benchmark>/. Apart from the stage, which does not depend on what reads benchmarks.
"""

import math
from collections.abc import Mapping
from pathlib import Path

from dsr import console, project
from dsr.clips import koala
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
            Clips of Koala-36M that it lacks are looked for in `clips.koala.videos`.
        checkpoint: None: models/gsm.
        variant: of the benchmark, "" for its first or all (see the reader).

    Raises:
        StageError: no such benchmark, nothing readable in the folder, or not one question could be scored.
    """
    questions = read_benchmark(name, folder, variant, lambda clips: find_koala(params, root, clips, workers))
    model = checkpoint or root / project.MODEL
    scorer = make_scorer(questions, params.evaluate, root, model, workers, folder, params.model.max_pixels)
    metrics, predictions = evaluate(questions, scorer, params.evaluate, root)
    place = f"{name}-{variant}" if variant else name
    write_parquet(root / project.PREDICTIONS / f"{place}.parquet", predictions)
    write_metrics(root / project.BENCHMARK_METRICS / f"{place}.json", metrics.figures, metrics.tables)


def find_koala(
    params: Params, root: Path, clips: list[str], workers: int = 0
) -> Mapping[str, tuple[Path, float, float] | str]:
    """Files of clips of Koala-36M, cut or full, with the seconds of full videos, by videoID; or why there is none.

    Raises:
        StageError: there are full videos, and no CSV files that say which part of them is meant.
    """
    options = params.clips.koala
    files = koala.Files(project.locate(root, options.videos))
    found: dict[str, tuple[Path, float, float] | str] = {}
    full: dict[str, Path] = {}
    for clip in clips:
        try:
            path, cut = files.find(clip)
        except FileNotFoundError as error:
            found[clip] = f"in {options.videos}: {error}"
            continue
        if cut:
            found[clip] = path, math.nan, math.nan
        else:
            full[clip] = path
    if full:
        console.console.print(f"looking for {len(full):,} clips in Koala-36M's CSV files (minutes for all of them)")
        parts = koala.find_parts(options, root, workers, full)
        for clip, path in full.items():
            part = parts.get(clip)
            found[clip] = (path, *part) if part else f"no row of {options.csv} says which part of {path.name} it is"
    return found
