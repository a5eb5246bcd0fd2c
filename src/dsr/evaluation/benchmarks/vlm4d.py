"""VLM4D: QA/real_mc.json and QA/synthetic_mc.json, lists of id, video (an address, or a path), question_type, question,
choices {A … D}, and answer: the right option's value, not its letter, at times a number.
"""

from collections.abc import Mapping
from typing import Any

from dsr.evaluation.benchmarks.rows import Benchmark, Entry, letter_of_value, options_of, text_of

_ADDRESS = "/resolve/main/"


def _read(record: Mapping[str, Any], place: int, variant: str) -> Entry:
    video = text_of(record, "video")
    path = video.split(_ADDRESS, 1)[-1].split("?")[0].lstrip("/") if "://" in video else video
    letter, options = letter_of_value(record["answer"], options_of(record["choices"]))
    return Entry(
        id=f"{variant}-{record.get('id', place)}",
        video=(path,),
        question=text_of(record, "question"),
        options=tuple(options.values()),
        answer=letter,
        type=str(record.get("question_type") or "multiple-choice"),
        category=variant,
    )


BENCHMARK = Benchmark(
    "vlm4d",
    {
        "real": ("QA/real_mc.json", "*/real_mc.json", "real_mc.json"),
        "synthetic": ("QA/synthetic_mc.json", "*/synthetic_mc.json", "synthetic_mc.json"),
    },
    _read,
    "https://huggingface.co/datasets/shijiezhou/VLM4D",
)
