"""DSR-Bench and DSR-Train (arXiv 2512.20557): videoID, question, options ["A. …", …], answer (a letter), type.

Also as in lmms-lab-si/EASI-Leaderboard-Data: DSRBench.tsv, with `video` (the videoID and an ending) and `task_type`,
and the videos in raw_data/dsr-bench/. A videoID is that of a clip of Koala-36M.
"""

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from dsr.clips.folder import VIDEO_SUFFIXES
from dsr.clips.koala import VIDEO_ID
from dsr.evaluation.benchmarks.rows import Benchmark, Entry, letter_of, options_of, text_of

_PUBLISHED = "https://huggingface.co/datasets/TencentARC/DSR_Suite-Data"
_EASI = ("DSRBench.tsv", "*/DSRBench.tsv")
"""Beside it are other benchmarks' tables."""
_FOLDERS = ("videos", "video", "clips", "raw_data/dsr-bench", "dsr-bench", ".")


def _read(record: Mapping[str, Any], place: int, variant: str) -> Entry:
    video = text_of(record, "videoID", "video")
    if PurePosixPath(video).suffix.lower() not in VIDEO_SUFFIXES:
        video += ".mp4"
    options = options_of(record["options"])
    koala = VIDEO_ID.fullmatch(PurePosixPath(video).stem)
    return Entry(
        id=str(record.get("qa_id") or f"{video.removesuffix('.mp4')}-{place:06d}"),
        video=tuple(f"{folder}/{video}" for folder in _FOLDERS),
        question=text_of(record, "question"),
        options=tuple(options.values()),
        answer=letter_of(record["answer"], options),
        type=text_of(record, "type", "task_type"),
        source_video=koala[1] if koala else "",
        koala=koala[0] if koala else "",
    )


def _patterns(word: str) -> tuple[str, ...]:
    ends = ("parquet", "json", "jsonl")
    return tuple(f"{folder}*{word}*.{end}" for folder in ("", "*/") for end in ends)


BENCH = Benchmark("dsr-bench", {"": (*_EASI, *_patterns("[bB]ench"))}, _read, _PUBLISHED)
TRAIN = Benchmark("dsr-train", {"": _patterns("[tT]rain")}, _read, _PUBLISHED)
