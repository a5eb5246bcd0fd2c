"""Training set and benchmark out of whole blocks: no source video and no quartet is on both sides.

Reads data/qa/pool.parquet and the verdicts of people in data/qa/review.csv, where there are any; writes
data/qa/train.parquet, data/qa/bench.parquet and metrics/review.json. Blocks are chosen by the whole pool, before any
verdict is applied: a rejection takes a quartet away and moves no clip from one side to the other.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.table import Table

from dsr import console, project
from dsr.console import StageError
from dsr.files import write_metrics, write_parquet
from dsr.mcq import TYPES, published_first, read_questions
from dsr.params import Params
from dsr.questions.agreement import review_figures
from dsr.questions.quartets.blocks import MAX_BLOCKS
from dsr.questions.verdicts import apply_outcomes, outcomes, read_verdicts


def run(params: Params, root: Path, workers: int = 0) -> None:
    """The `split` stage; one process.

    Raises:
        StageError: no questions, all of them in one block, a bad row of a question or a verdict, a pool whose blocks
            part a source video or a quartet, or verdicts that leave nothing.
    """
    pool = read_questions(root / project.POOL)
    verdicts = read_verdicts(root / project.VERDICTS)
    found = outcomes(pool, verdicts)
    sides = split(pool, params.split.bench_fraction, params.split.seed)
    train, bench = (apply_outcomes(side, found) for side in sides)
    if train.empty or bench.empty:
        raise StageError(f"{project.VERDICTS} rejects every question of {'train' if train.empty else 'bench'}")
    figures = review_figures(pool, train, bench, verdicts, params.split.seed)
    write_parquet(root / project.TRAIN, train)
    write_parquet(root / project.BENCH, bench)
    write_metrics(root / project.REVIEW_METRICS, figures, {})
    _report(train, bench, params.split.bench_fraction, figures)


def split(pool: pd.DataFrame, bench_fraction: float, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Part the pool into train and bench, each sorted by `qa_id`.

    Raises:
        StageError: see `run`.
    """
    if pool.empty:
        raise StageError(
            f"{project.POOL} holds no question: the qa stage's closing table says why candidates went "
            "unused; more clips (simulate.num_clips, or your own) make more quartets"
        )
    if "block" not in pool:
        raise StageError(f"{project.POOL} has no column `block`: only a pool made by the qa stage can be split")
    counts = pd.crosstab(pool["block"], pool["type"])
    if len(counts) < 2:
        raise StageError(
            f"all {len(pool):,} questions are in one block, so there is nothing to keep apart: use clips of "
            "more source videos, or raise qa.num_blocks"
        )
    chosen = choose_blocks(counts.to_numpy(), bench_fraction, seed)
    in_bench = pool["block"].isin(counts.index[chosen])
    train, bench = (
        published_first(side.sort_values("qa_id", ignore_index=True)) for side in (pool[~in_bench], pool[in_bench])
    )
    for column, what in (("source_video", "source video"), ("videoID", "clip"), ("quartet_id", "quartet")):
        shared = sorted((set(train[column]) & set(bench[column])) - {""})
        if shared:
            raise StageError(
                f"{project.POOL}: {len(shared)} {what}s are in several blocks, {shared[0]!r} for one: "
                "run the qa stage again"
            )
    return train, bench


def choose_blocks(counts: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """The set of blocks that makes the best benchmark, by exact search.

    The best set has the smallest sum of two distances from `fraction`: that of its share of all questions,
    and the mean over types of that of its share of the type's questions (so a rare type weighs as much as a
    frequent one, and one that is absent from a side weighs heavily). Equally good sets are drawn from by
    `seed`.

    Args:
        counts: [B, K] questions of each block and type; 2 <= B <= 20, no type without questions.

    Returns:
        [B] bool, True for the benchmark; at least one True and one False.

    Raises:
        StageError: more than 20 blocks.
    """
    if len(counts) > MAX_BLOCKS:
        raise StageError(f"{len(counts)} blocks are too many to search: set qa.num_blocks to at most {MAX_BLOCKS}")

    def distance(questions: np.ndarray) -> np.ndarray:
        """[2**B] distance of each subset's share of `questions` [B]; bit b of a subset's index is block b."""
        sums = np.zeros(1, np.int64)
        for count in questions:
            sums = np.concatenate([sums, sums + count])
        return np.abs(sums / sums[-1] - fraction)

    cost = distance(counts.sum(axis=1))
    for questions in counts.T:
        cost += distance(questions) / counts.shape[1]
    cost[[0, -1]] = np.inf
    best = np.flatnonzero(cost <= cost.min() + 1e-12)
    subset = int(np.random.default_rng(seed).choice(best))
    return (subset >> np.arange(len(counts)) & 1).astype(bool)


def _report(train: pd.DataFrame, bench: pd.DataFrame, asked: float, review: dict[str, Any]) -> None:
    sides = {"train": train, "bench": bench}
    table = Table(title="split", title_justify="left")
    for heading in ("", *sides, "share of bench"):
        table.add_column(heading, justify="right" if heading else "left")

    def add(name: str, counts: list[int], share: str = "") -> None:
        table.add_row(name, *(f"{count:,}" for count in counts), share or f"{counts[1] / max(sum(counts), 1):.1%}")

    present = set(train["type"]) | set(bench["type"])
    for kind in (kind for kind in TYPES if kind in present):
        counts = [int((side["type"] == kind).sum()) for side in sides.values()]
        add(kind, counts)
        for name, count in zip(sides, counts, strict=True):
            if count == 0:
                console.warn(f"no question of type {kind} in {name}: too few blocks hold it")
    add("questions", [len(side) for side in sides.values()])
    add("asked for", [0, 0], f"{asked:.1%}")
    for column, name in (("quartet_id", "quartets"), ("videoID", "clips"), ("source_video", "source videos")):
        add(name, [side[column].nunique() for side in sides.values()])
    add("blocks", [side["block"].nunique() for side in sides.values()])
    console.console.print(table)
    if not review["questions_reviewed"] and not review["stale"]:
        return
    said = ("questions_reviewed", "bench_reviewed", "edited", "rejected", "removed", "removed_quartets")
    console.summary("review", {name.replace("_", " "): review[name] for name in said})
    if review["stale"]:
        console.warn(
            f"{review['stale']:,} verdicts of {project.VERDICTS} are stale, without effect: their questions have "
            "another text or answer now, or are gone; `dsr review` shows which"
        )
