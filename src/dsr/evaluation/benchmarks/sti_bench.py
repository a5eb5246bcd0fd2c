"""STI-Bench: qa.parquet with Video, ID, time_start, time_end, Question, Candidates (a mapping A … E, or its JSON),
Answer (a letter), Task; videos in video/. As in its own evaluation, a question begins with the part of the video that
it is about.
"""

from collections.abc import Mapping
from typing import Any

from dsr.evaluation.benchmarks.rows import Benchmark, Entry, letter_of, options_of, text_of


def _read(record: Mapping[str, Any], place: int, variant: str) -> Entry:
    video = text_of(record, "Video")
    options = options_of(record["Candidates"])
    start, end = (record.get(name) for name in ("time_start", "time_end"))
    part = "" if start is None or end is None or start != start or end != end else f"From {start} s to {end} s. "
    return Entry(
        id=f"{video}-{record.get('ID', place)}",
        video=(f"video/{video}", f"videos/{video}", video),
        question=part + text_of(record, "Question"),
        options=tuple(options.values()),
        answer=letter_of(record["Answer"], options),
        type=text_of(record, "Task"),
        category=str(record.get("Scene") or record.get("scene") or ""),
    )


BENCHMARK = Benchmark(
    "sti-bench", {"": ("qa.parquet", "*/qa.parquet")}, _read, "https://huggingface.co/datasets/MINT-SJTU/STI-Bench"
)
