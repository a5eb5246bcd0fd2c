"""DSI-Bench: metadatas/<variant>.csv with relative_path, question, options "A: …; B: …", GT (a letter), cate (0-5);
videos/<variant>/<relative_path>. Row k of all four variants is the same question about a video as it is, backwards,
mirrored, and both, each with its own answer: such four are a quartet.
"""

from collections.abc import Mapping
from typing import Any

from dsr.evaluation.benchmarks.rows import Benchmark, Entry, letter_of, options_of, text_of

VARIANTS = ("std", "reverse", "hflip", "reverse_hflip")
CATEGORIES = (
    "object, static camera",
    "object, moving camera",
    "camera, static scene",
    "camera, dynamic scene",
    "object-camera distance",
    "object-camera orientation",
)


def _read(record: Mapping[str, Any], place: int, variant: str) -> Entry:
    path = text_of(record, "relative_path")
    options = options_of(record["options"])
    category = text_of(record, "cate")
    known = category.isdigit() and int(category) < len(CATEGORIES)
    return Entry(
        id=f"{variant}-{place:06d}",
        video=(f"videos/{variant}/{path}", f"{variant}/{path}"),
        question=text_of(record, "question"),
        options=tuple(options.values()),
        answer=letter_of(record["GT"], options),
        type=CATEGORIES[int(category)] if known else category,
        category=variant,
        source_video=path,
        group=f"{place:06d}",
    )


BENCHMARK = Benchmark(
    "dsi-bench",
    {variant: (f"metadatas/{variant}.csv", f"*/{variant}.csv", f"{variant}.csv") for variant in VARIANTS},
    _read,
    "https://huggingface.co/datasets/Viglong/DSI-Bench",
)
