"""Metrics over 100,000 cached predictions: with a control each, all groupings and 2,000 resamples over source videos.

pytest benchmarks/test_evaluation_metrics.py --benchmark-enable
"""

import resource
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from dsr.evaluation.metrics import evaluation_metrics
from dsr.mcq import TYPES

QUESTIONS = 100_000
SECONDS, GIB = 10, 1


def predictions(runs: tuple[str, ...] = ("score",), questions: int = QUESTIONS) -> pd.DataFrame:
    """As `dsr.evaluation.predictions` makes them: 2.6 questions a clip and source video."""
    rng = np.random.default_rng(0)
    tables = []
    for run in runs:
        scores = rng.normal(-2, 1, (questions, 4))
        answers = np.array(list("ABCD"))[np.arange(questions) % 4]
        predicted = np.array(list("ABCD"))[scores.argmax(axis=1)]
        table = pd.DataFrame(
            {
                "control": run,
                "qa_id": np.arange(questions).astype(str),
                "quartet_id": (np.arange(questions) // 4).astype(str),
                "source_video": (np.arange(questions) * 5 // 13).astype(str),
                "type": np.resize(TYPES, questions),
                "viewpoint": np.resize(["relative camera", "relative agent", "absolute agent", "none"], questions),
                "target": np.resize(["agent", "object", "agent + object"], questions),
                "answer_length": np.resize(["1", "2", "3", "free-form"], questions),
                "category": np.resize(["sports", "driving", "indoor"], questions),
                "num_options": 4,
                "answer": answers,
                "prediction": predicted,
                "correct": answers == predicted,
                "status": "scored",
                "reason": "",
            }
        )
        table[["logp_A", "logp_B", "logp_C", "logp_D"]] = scores
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


@pytest.mark.benchmark(group="metrics of 100,000 predictions")
@pytest.mark.parametrize("runs", [("score",), ("score", "blind", "shuffled_geometry")], ids=["score", "two controls"])
def test_metrics(benchmark: BenchmarkFixture, runs: tuple[str, ...]) -> None:
    each = QUESTIONS // len(runs)
    table = predictions(runs, each)
    benchmark.pedantic(lambda: evaluation_metrics(table, resamples=2000, seed=1), rounds=3)
    if benchmark.stats:
        assert benchmark.stats.stats.median < SECONDS


def test_memory() -> None:
    """The peak of a process that reads nothing but these predictions."""
    code = "from benchmarks.test_evaluation_metrics import peak; print(peak())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < GIB << 20


def peak() -> int:
    """KiB that this process has taken at most."""
    evaluation_metrics(predictions(), resamples=2000, seed=1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
