"""Video-MME, to see that general ability is kept: test-*.parquet with videoID, question_id, task_type, duration,
question, options ["A. …", …], answer (a letter); videos <videoID>.mp4. Subtitles are not used.
"""

from collections.abc import Mapping
from typing import Any

from dsr.evaluation.benchmarks.rows import Benchmark, Entry, letter_of, options_of, text_of


def _read(record: Mapping[str, Any], place: int, variant: str) -> Entry:
    video = text_of(record, "videoID")
    options = options_of(record["options"])
    return Entry(
        id=str(record.get("question_id") or place),
        video=tuple(f"{folder}/{video}.mp4" for folder in ("videos", "data", "video", ".")),
        question=text_of(record, "question"),
        options=tuple(options.values()),
        answer=letter_of(record["answer"], options),
        type=text_of(record, "task_type"),
        category=str(record.get("duration") or ""),
    )


BENCHMARK = Benchmark(
    "video-mme",
    {"": ("videomme/test*.parquet", "test*.parquet", "*/test*.parquet")},
    _read,
    "https://huggingface.co/datasets/lmms-lab/Video-MME",
)
