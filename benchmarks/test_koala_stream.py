"""A million rows as Koala-36M's, filtered and drawn: rows a second, and memory.

`pytest benchmarks/test_koala_stream.py --benchmark-enable`. The rows are made on the spot, 1.4 GB of them. What is
timed runs in one process of its own, by its processor time; its largest memory is compared with that for a tenth of the
rows, its speed with the csv module alone, which does nothing with what it reads.
"""

import csv
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from dsr.clips import koala
from tests.koala_files import COLUMNS, timestamp, youtube_id

ROWS = 1_000_000
_PROGRAM = """
import resource, sys, time
from pathlib import Path
from dsr.clips import koala
from dsr.params import Koala
started = time.process_time()
found = koala.find_rows(Koala(csv=sys.argv[1], min_clarity=0.5, words=("dog", "car", "man")), Path(), 1)
print(found.total, len(found.rows), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time() - started)
"""


def write_rows(path: Path, count: int) -> None:
    """Rows with captions of about 200 words and clips of 2 to 60 s, as published ones have."""
    rng = np.random.default_rng(1)
    words = ["man", "dog", "car", "street,", '"red"', "slowly", "towards", "the", "camera", "of", "a", "building."]
    captions = [" ".join(rng.choice(words[k % 5 :], 200)) + "\n" * (k % 7 == 0) for k in range(500)]
    scores = rng.random(997).tolist()
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for k in range(count):
            name, score, start = youtube_id(k // 20), scores[k % 997], (k % 20) * 60.0
            url = f"https://www.youtube.com/watch?v={name}"
            times = timestamp(start, start + 2 + 58 * scores[k % 991])
            writer.writerow([f"{name}_{k}", url, times, captions[k % 500], score, 4 + score, 100 * score, 3 + score])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("koala")
    write_rows(folder / "all.csv", ROWS)
    write_rows(folder / "tenth.csv", ROWS // 10)
    return folder


def scanned(path: Path) -> tuple[int, int, float, float]:
    """Rows, rows drawn, largest memory in MiB and processor time in seconds of a process that reads a file."""
    done = subprocess.run([sys.executable, "-c", _PROGRAM, str(path)], capture_output=True, text=True, check=True)
    total, drawn, kib, seconds = done.stdout.split()
    return int(total), int(drawn), int(kib) / 1024, float(seconds)


def test_a_million_rows(benchmark: BenchmarkFixture, folder: Path) -> None:
    started = time.process_time()
    with (folder / "all.csv").open(newline="", encoding="utf-8-sig", errors="replace") as file:
        csv.field_size_limit(koala.FIELD_LIMIT)
        assert sum(1 for _ in csv.reader(file)) == ROWS + 1
    alone = time.process_time() - started
    tenth = scanned(folder / "tenth.csv")[2]
    total, drawn, memory, seconds = benchmark.pedantic(scanned, (folder / "all.csv",), rounds=1)
    gigabytes = (folder / "all.csv").stat().st_size / 1e9
    benchmark.extra_info.update(
        rows_a_second=round(ROWS / seconds), of_csv_alone=round(seconds / alone, 2), mib=round(memory)
    )
    print(
        f"{total:,} rows, {gigabytes:.2f} GB, {drawn:,} drawn: {seconds:.1f} s, {ROWS / seconds:,.0f} rows/s, "
        f"{seconds / alone:.2f} x the csv module alone; {memory:.0f} MiB, for a tenth of the rows {tenth:.0f} MiB"
    )
    assert total == ROWS
    assert drawn == 10_000
    # Flat: what grows is the draw, which is full in both.
    assert memory < 1.1 * tenth
