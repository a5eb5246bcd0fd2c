"""Files and folders that are written whole or not at all: a temporary name beside the target, fsync, rename."""

import hashlib
import io
import json
import os
import shutil
import zipfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

PARTIAL = ".partial"
"""Suffix of a file that is being written; one that is found was left by a killed process and may be deleted."""


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path in `path`'s folder; on success it becomes `path`, on an error it is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; on success it becomes `path`, on an error it is removed."""
    partial = path.with_name(f".{path.name}{PARTIAL}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        shutil.rmtree(path, ignore_errors=True)
        partial.rename(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_bytes(path: Path, content: bytes) -> None:
    with whole_file(path) as partial:
        partial.write_bytes(content)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON with sorted keys, so that equal values are equal bytes; NaN is refused."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    write_bytes(path, (text + "\n").encode())


def write_metrics(path: Path, figures: Mapping[str, Any], tables: Mapping[str, "pd.DataFrame"]) -> None:
    """Write the metrics of a stage: few figures, that `dvc metrics` compares, and the tables behind them.

    Args:
        path: JSON file of the figures; a table goes to a CSV file of the folder of that name (see `metrics_table`),
            rounded to what a benchmark can resolve. Tables of an earlier run that are not made again are deleted.
    """
    write_json(path, figures)
    for name, table in tables.items():
        with whole_file(metrics_table(path, name)) as partial:
            table.round(4).to_csv(partial, index=False, lineterminator="\n")
    for old in path.with_suffix("").glob("*.csv"):
        if old.stem not in tables:
            old.unlink()


def metrics_table(path: Path, name: str) -> Path:
    """File of a table behind the figures of a metrics file: metrics/eval.json, by_type -> metrics/eval/by_type.csv."""
    return path.with_suffix("") / f"{name}.csv"


def write_parquet(path: Path, table: "pd.DataFrame") -> None:
    with whole_file(path) as partial:
        table.to_parquet(partial, index=False, compression="zstd")


def write_npz(path: Path, arrays: Mapping[str, np.ndarray], *, stored: Collection[str] = ()) -> None:
    """Write arrays as a .npz without object arrays; equal arrays are equal bytes.

    Args:
        stored: arrays that are not compressed, for speed.

    Raises:
        ValueError: an array holds Python objects (it would need pickle).
    """
    with whole_file(path) as partial, zipfile.ZipFile(partial, "w") as archive:
        for name, array in arrays.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, np.asarray(array), allow_pickle=False)
            # ZipInfo's fixed default date keeps the bytes independent of the clock.
            method = zipfile.ZIP_STORED if name in stored else zipfile.ZIP_DEFLATED
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), content.getbuffer(), method, compresslevel=1)


def sha256_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_json(value: Any) -> str:
    """Hash of a JSON value, independent of key order.

    >>> sha256_json({"a": 1, "b": 2}) == sha256_json({"b": 2, "a": 1})
    True
    """
    return hashlib.sha256(json.dumps(value, sort_keys=True, allow_nan=False).encode()).hexdigest()
