"""Published benchmarks as tables of questions: a reader a format.

A reader never drops a row: one that cannot be used is in the table with its `problem`, and is counted as missing.
Nothing is downloaded; a folder that lacks the questions is an error that says where they are published.
"""

import difflib
from pathlib import Path

import pandas as pd

from dsr.console import StageError
from dsr.evaluation.benchmarks import dsi_bench, dsr_bench, sti_bench, video_mme, vlm4d
from dsr.evaluation.benchmarks.rows import Benchmark, FindClips, read_table

BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        dsr_bench.BENCH,
        dsr_bench.TRAIN,
        vlm4d.BENCHMARK,
        sti_bench.BENCHMARK,
        dsi_bench.BENCHMARK,
        video_mme.BENCHMARK,
    )
}


def read_benchmark(name: str, folder: Path, variant: str = "", find_clips: FindClips | None = None) -> pd.DataFrame:
    """The questions of a benchmark.

    Args:
        folder: where it was downloaded to, or its file of questions.
        variant: one of the benchmark's, "" for all.
        find_clips: where clips of Koala-36M are that the folder does not hold; None: nowhere.

    Returns:
        One row a question, in the files' order: qa_id, videoID, question, options ("A. …"), answer, type,
        source_video, quartet_id, category, file (of the video), start and end (of the clip in it), problem ("" for a
        usable row).

    Raises:
        StageError: no such benchmark or variant, no file of questions, or one that cannot be read.
    """
    if name not in BENCHMARKS:
        near = difflib.get_close_matches(name, BENCHMARKS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(BENCHMARKS)}"
        raise StageError(f"unknown benchmark {name!r}; {hint}")
    return read_table(BENCHMARKS[name], folder, variant, find_clips)
