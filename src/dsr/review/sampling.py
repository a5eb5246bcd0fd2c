"""Order in which questions are to be reviewed: those first that are most likely to be wrong, rare types as early as
frequent ones.

Two lists take turns: questions that the model answers otherwise than derived, the surest of its answers first, and all
questions by how close their closest call was. With `by="type"` the types take turns as well, the rarest first. No
verdict enters, so that a sample stays the same while it is reviewed, for every reviewer.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from dsr import project
from dsr.console import num_workers, track
from dsr.cues.schema import PIXELWISE, CuesError, cue_path, read_cues
from dsr.explain.explanation import closest_margins
from dsr.params import QA, Params
from dsr.workers import map_all

By = Literal["type", "all"]
SCORE = "score"
"""Run of the predictions without a control."""


def draw_sample(
    questions: pd.DataFrame, size: int, by: By, margins: Sequence[float], right_share: Mapping[str, float]
) -> list[str]:
    """Ids of the questions to review, in their order.

    Args:
        questions: qa_id and type.
        margins: of each question's closest call (`closest_margins`).
        right_share: qa_id -> probability that a model gives the derived answer, for questions that it answers
            otherwise.
    """
    table = questions[["qa_id", "type"]].assign(margin=list(margins), right=questions["qa_id"].map(right_share))
    if by == "all":
        return list(itertools.islice(_by_urgency(table), size))
    rarest_first = table["type"].value_counts(ascending=True, sort=True).sort_index().sort_values(kind="stable").index
    lists = [_by_urgency(table[table["type"] == name]) for name in rarest_first]
    return list(itertools.islice(_in_turn(lists), size))


def _by_urgency(table: pd.DataFrame) -> Iterator[str]:
    """Ids, from the doubted and the close ones in turn."""
    doubted = table[table["right"].notna()].sort_values(["right", "qa_id"])["qa_id"]
    close = table.sort_values(["margin", "qa_id"])["qa_id"]
    return iter(dict.fromkeys(_in_turn([iter(doubted), iter(close)])))


def _in_turn(lists: Sequence[Iterator[str]]) -> Iterator[str]:
    waiting = list(lists)
    while waiting:
        for own in list(waiting):
            if (qa_id := next(own, None)) is None:
                waiting.remove(own)
            else:
                yield qa_id


@dataclass(frozen=True)
class _ClipMargins:
    """Margins of a clip's questions; picklable, so that a worker process has it once."""

    root: Path
    qa: QA

    def __call__(self, task: tuple[str, list[dict[str, Any]]]) -> list[float]:
        clip_id, rows = task
        try:
            cues = read_cues(cue_path(self.root / project.CUES, clip_id), skip=PIXELWISE)
        except (CuesError, ValueError):
            return [-np.inf] * len(rows)
        return closest_margins(rows, cues, self.qa)


_ROW = ("qa_id", "form", "viewpoint", "targets", "frames", "states", "options", "answer", "start_time", "end_time")


def margins_of(params: Params, root: Path, questions: pd.DataFrame, workers: int) -> list[float]:
    """Margin of each question's closest call, in the table's order; -inf where it does not follow from its cues."""
    columns = [name for name in _ROW if name in questions]
    groups = list(questions.groupby("videoID", sort=True).indices.items())
    tasks = [(str(clip_id), questions.iloc[own][columns].to_dict("records")) for clip_id, own in groups]
    margins = np.full(len(questions), -np.inf)
    processes = min(num_workers(workers), max(len(tasks), 1))
    results = map_all(_ClipMargins(root, params.qa), tasks, processes, "closest calls")
    for index, own in track(results, "review: closest calls", len(tasks), unit="clips"):
        margins[groups[index][1]] = own
    return margins.tolist()


def doubted_labels(root: Path) -> dict[str, float]:
    """Questions that the model of data/predictions/bench.parquet answers otherwise -> its probability of the derived
    answer; {} without that table."""
    try:
        table = pd.read_parquet(root / project.BENCH_PREDICTIONS)
    except (OSError, ValueError):
        return {}
    if not {"control", "qa_id", "prediction", "answer", "status"} <= set(table):
        return {}
    wrong = table[(table.control == SCORE) & (table.status == "scored") & (table.prediction != table.answer)]
    # A model that wrote its answer gives no probabilities: all its answers are as sure.
    log_shares = [row.get(f"logp_{row['answer']}", -np.inf) for row in wrong.to_dict("records")]
    return dict(zip(wrong["qa_id"], np.nan_to_num(np.exp(np.array(log_shares, float))).tolist(), strict=True))
