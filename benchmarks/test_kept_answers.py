"""Clips a second that `dsr curate` takes from the file of kept answers, against the rules on the same captions, and
how many answers a second arrive from a server on this machine that answers at once.

`pytest benchmarks/test_kept_answers.py --benchmark-enable --benchmark-json=…`; the ratio is under `extra_info`.
"""

import json
import time
from pathlib import Path

from pytest_benchmark.fixture import BenchmarkFixture

from dsr.curation.curate import BACKENDS, usable_clips
from tests.curation.test_language_model import CAPTION, answer, params, write_catalogue
from tests.language_models.servers import serving

CLIPS = 1000
ABOUT = " The street is wet, the light is warm, and people pass by in the background." * 10
"""Captions of about 150 words."""


def test_kept_answers(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    write_catalogue(tmp_path, {f"clip{i:04}": f"{CAPTION} number {i}.{ABOUT}" for i in range(CLIPS)})
    clips = usable_clips(tmp_path)
    with serving(lambda body, number: json.dumps(answer())) as server:
        curation = params(server.url, concurrency=16).curation
        start = time.perf_counter()
        BACKENDS["llm"](clips, curation, tmp_path)
        asked = time.perf_counter() - start
        found = benchmark.pedantic(BACKENDS["llm"], (clips, curation, tmp_path), rounds=5, warmup_rounds=1)
        assert len(server.bodies) == CLIPS
    assert all(not clip.reason for clip in found)
    BACKENDS["rules"](clips, curation, tmp_path)  # reads the lexicon
    start = time.perf_counter()
    BACKENDS["rules"](clips, curation, tmp_path)
    rules = time.perf_counter() - start
    benchmark.extra_info["answers a second, asked"] = CLIPS / asked
    if benchmark.stats:
        kept = benchmark.stats.stats.median
        benchmark.extra_info["clips a second, kept"] = CLIPS / kept
        benchmark.extra_info["kept over rules, time"] = kept / rules
