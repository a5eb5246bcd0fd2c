"""The files of the flow, as paths from the project folder on; dvc.yaml names the stages' outputs alike.

data/raw/<source>/  ->  data/clips/  ->  data/cues/  ->  data/qa/  ->  models/gsm/  ->  data/predictions/, metrics/
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dsr.console import StageError

if TYPE_CHECKING:
    import pandas as pd

PARAMS = Path("params.yaml")
DEEPSPEED = Path("configs/deepspeed")

RAW = Path("data/raw")
"""A folder for each `clips.source`, with videos and their clips.csv."""
SIMULATED = RAW / "simulated"
KOALA = RAW / "koala"
"""CSV files of Koala-36M, and videos."""
CATALOG = Path("data/clips/catalog.parquet")
CURATED = Path("data/clips/curated.parquet")
LANGUAGE_MODEL_CACHE = Path("data/clips/language_model.sqlite")
"""Answers of language models about clips; neither git nor DVC keeps them."""
CUES = Path("data/cues")
CUES_MANIFEST = CUES / "manifest.json"

QA = Path("data/qa")
POOL = QA / "pool.parquet"
TRAIN = QA / "train.parquet"
BENCH = QA / "bench.parquet"
VERDICTS = QA / "review.csv"
"""Verdicts of people on questions; git's, since people write it."""

WEIGHTS = Path("models/weights")
"""Published checkpoints; neither git nor DVC keeps them."""
MODEL = Path("models/gsm")
CHECKPOINTS = Path("models/checkpoints")
"""Checkpoints of training runs that are not finished."""
TENSORBOARD = CHECKPOINTS / "tensorboard"

PREDICTIONS = Path("data/predictions")
BENCH_PREDICTIONS = PREDICTIONS / "bench.parquet"
PREDICTION_CACHE = PREDICTIONS / "cache.sqlite"

METRICS = Path("metrics")
"""Figures of a stage in a JSON file, and the tables behind them in the folder of the same name."""
CLIPS_METRICS = METRICS / "clips.json"
CURATION_METRICS = METRICS / "curation.json"
"""Of `dsr curate --compare`, which is no stage."""
QA_METRICS = METRICS / "qa.json"
AUDIT_METRICS = METRICS / "audit.json"
REVIEW_METRICS = METRICS / "review.json"
TRAIN_METRICS = METRICS / "train"
EVAL_METRICS = METRICS / "eval.json"
BENCHMARK_METRICS = METRICS / "benchmarks"
REPORT = METRICS / "report.html"


def locate(root: Path, path: Path | str) -> Path:
    """Path of what git and DVC do not keep, such as weights: in the project folder, or, where that is a copy in which
    DVC runs an experiment, in the one that it is a copy of."""
    place = root / path
    if not place.exists() and (there := original(root) / path).exists():
        return there
    return place


def original(root: Path) -> Path:
    """The project folder that `root` is a copy of, if DVC made it to run an experiment in; else `root`."""
    copies = (folder for folder in root.resolve().parents if folder.parts[-3:] == (".dvc", "tmp", "exps"))
    return next((folder.parents[2] for folder in copies), root)


def read_table(root: Path, path: Path, stage: str, columns: Sequence[str] = ()) -> "pd.DataFrame":
    """Read a table that a stage has written.

    Args:
        stage: name of the stage that makes the table again.
        columns: those that it must have.

    Raises:
        StageError: no such file, a damaged one, or one without a column.
    """
    import pandas as pd

    try:
        table = pd.read_parquet(root / path)
    except FileNotFoundError:
        raise StageError(f"{root / path} does not exist: run `dsr {stage}` first, or `dvc repro`") from None
    except (OSError, ValueError) as error:
        raise StageError(f"{root / path} is not a parquet file ({error}): run `dsr {stage}` again") from None
    absent = [name for name in columns if name not in table]
    if absent:
        raise StageError(f"{root / path} has no column {absent[0]}: run `dsr {stage}` again")
    return table
