"""Scorers of questions: a checkpoint, or a server."""

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from dsr.evaluation.predictions import Scorer
from dsr.examples.clips import ClipStore

if TYPE_CHECKING:
    from dsr.params import Evaluate


def make_scorer(
    questions: pd.DataFrame,
    options: "Evaluate",
    root: Path,
    checkpoint: Path,
    workers: int,
    folder: Path | None = None,
    max_pixels: int = 0,
) -> Scorer:
    """Scorer for questions, by `evaluate.mode`.

    Args:
        folder: of a published benchmark, whose videos are named by the column `file`; None: the catalogue's clips.
        max_pixels: of a frame, for a checkpoint that this project did not train; 0 leaves it to its processor.

    Raises:
        StageError: no usable checkpoint, no catalogue.
    """
    serves = options.mode == "endpoint"
    clips = ClipStore.of_benchmark(questions, folder) if folder else ClipStore.of_project(root, needs_cues=not serves)
    # The model's libraries take seconds to import: only when there is something to score.
    if serves:
        from dsr.evaluation.scorers.endpoint import EndpointScorer

        return EndpointScorer(options.endpoint, clips, questions, workers, options.prompt)
    from dsr.evaluation.scorers.checkpoint import load_scorer

    return load_scorer(checkpoint, clips, questions, options, workers, max_pixels)
