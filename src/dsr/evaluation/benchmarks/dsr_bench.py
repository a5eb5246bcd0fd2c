"""DSR-Bench and DSR-Train (arXiv 2512.20557): videoID, question, options ["A. …", …], answer (a letter), type."""

from collections.abc import Mapping
from typing import Any

from dsr.evaluation.benchmarks.rows import Benchmark, Entry, letter_of, options_of, text_of

_PUBLISHED = "https://huggingface.co/datasets/TencentARC/DSR_Suite-Data"


def _read(record: Mapping[str, Any], place: int, variant: str) -> Entry:
    video = text_of(record, "videoID")
    options = options_of(record["options"])
    folders = ("videos", "video", "clips", ".")
    return Entry(
        id=str(record.get("qa_id") or f"{video}-{place:06d}"),
        video=tuple(f"{folder}/{video}.mp4" for folder in folders),
        question=text_of(record, "question"),
        options=tuple(options.values()),
        answer=letter_of(record["answer"], options),
        type=text_of(record, "type"),
    )


def _patterns(word: str) -> tuple[str, ...]:
    ends = ("parquet", "json", "jsonl")
    return tuple(f"{folder}*{word}*.{end}" for folder in ("", "*/") for end in ends)


BENCH = Benchmark("dsr-bench", {"": _patterns("[bB]ench")}, _read, _PUBLISHED)
TRAIN = Benchmark("dsr-train", {"": _patterns("[tT]rain")}, _read, _PUBLISHED)
