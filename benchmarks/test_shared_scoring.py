"""Questions a second of a checkpoint with one prefix for the questions of a clip, against a sequence each, in padded
batches (as without `evaluate.shared_prefix`) and one by one: 13 questions about 5 clips (2.6 a clip, as in the
published DSR-Bench), 4,096 vision tokens a clip, the default run's GSM, width 128, one core. All that `dsr evaluate`
does after decoding is timed, in CPU seconds: tokens, patches, geometry, forward pass.

`pytest benchmarks/test_shared_scoring.py --benchmark-enable --benchmark-json=…`; the ratios are under `extra_info`.
"""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from dsr.cues.schema import write_cues
from dsr.evaluation.scorers.checkpoint import CheckpointScorer
from dsr.examples.clips import ClipStore
from dsr.examples.inputs import ClipInputs
from dsr.files import write_parquet
from dsr.mcq import Question, read_row
from dsr.model import presets
from dsr.model.qwen2_5_vl_gsm import Qwen2_5_VLGSMForConditionalGeneration
from dsr.params import GSM, Evaluate
from tests.scenes import looking, make_cues
from tests.videos import make_video

QUESTIONS_OF_CLIPS = (1, 2, 3, 3, 4)
FRAMES, SIDE = 32, 448
VISION = FRAMES // 2 * (SIDE // 28) ** 2
MOVES = ("It stays, then grows.", "It grows, then shrinks.", "It shrinks, then grows.", "It shrinks, then stays.")
PAIRS = (
    ("the robot (box 102, 88, 160, 240 at 1.0 s)", "the ball (box 300, 210, 342, 250 at 1.0 s)"),
    ("the ball (box 300, 210, 342, 250 at 1.0 s)", "the chair (box 12, 180, 96, 301 at 1.0 s)"),
    ("the chair (box 12, 180, 96, 301 at 1.0 s)", "the robot (box 102, 88, 160, 240 at 1.0 s)"),
)


def make_questions() -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "videoID": f"clip_{clip}",
                "question": f"Imagine that you stand where {viewer} is at 1.0 s and stay there. "
                f"From 1.0 s to {end}.0 s, how does the distance from you to {target} change?",
                "options": [f"{letter}. {move}" for letter, move in zip("ABCD", MOVES, strict=True)],
                "answer": "A",
                "type": "abs_dis",
                "qa_id": f"{clip}-{end}",
                "quartet_id": "",
                "source_video": f"clip_{clip}",
                "shown_frames": FRAMES,
            }
            for clip, count in enumerate(QUESTIONS_OF_CLIPS)
            for end, (viewer, target) in zip(range(2, 2 + count), PAIRS * 2, strict=False)
        ]
    )


def write_clip(root: Path, clip: str, seed: int) -> str:
    """A clip's cues and video; returns the video's place."""
    rng = np.random.default_rng(seed)
    path = np.linspace((-1, 2, 0), (1, 6, 0), FRAMES)
    cues = make_cues(looking(np.array([0, -8, 1.5]), path), {"robot": (path, None), "ball": (path + 1, None)})
    points = rng.normal(0, 1, (FRAMES, 24, 32, 3)).astype(np.float32) + np.array([0, 0, 8], np.float32)
    cues = replace(cues, point_map=points, confidence=np.ones(points.shape[:3], np.float32))
    cues = replace(cues, meta={**cues.meta, "clip_id": clip, "width": SIDE, "height": SIDE})
    write_cues(root / f"data/cues/{clip}.npz", cues)
    file = f"data/raw/own/{clip}.mp4"
    make_video(root / file, num_frames=FRAMES, size=(SIDE, SIDE), seed=seed)
    return file


def make_scorer(root: Path, questions: pd.DataFrame) -> CheckpointScorer:
    torch.manual_seed(0)
    small, processor = presets.tiny(GSM(), [*questions["question"], *MOVES], SIDE * SIDE)
    config = small.config
    config.text_config.update({"hidden_size": 128, "intermediate_size": 384, "max_position_embeddings": 2 * VISION})
    config.text_config.rope_scaling["mrope_section"] = [8, 4, 4]
    config.vision_config.out_hidden_size = 128
    model = Qwen2_5_VLGSMForConditionalGeneration(config).eval()
    return CheckpointScorer(
        model, ClipInputs(ClipStore.of_project(root), processor), questions, Evaluate(), "random", workers=1
    )


def ask(scorer: CheckpointScorer, options: Evaluate, questions: list[Question], control: str) -> np.ndarray:
    """[n, 4] log-probabilities."""
    scorer.options = options
    replies = {place: reply for batch in scorer(questions, control) for place, reply in batch.items()}
    return np.array([replies[place].log_probs for place in range(len(questions))])


@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize("control", ["score", "black_video"])
def test_a_shared_prefix_pays_in_scoring(control: str, tmp_path: Path, benchmark: BenchmarkFixture) -> None:
    torch.set_num_threads(1)
    table = make_questions()
    files = {clip: write_clip(tmp_path, clip, seed) for seed, clip in enumerate(dict.fromkeys(table["videoID"]))}
    catalog = pd.DataFrame({"clip_id": files.keys(), "status": "ok", "file": files.values()})
    write_parquet(tmp_path / "data/clips/catalog.parquet", catalog)
    questions = [read_row(row) for row in table.to_dict("records")]
    scorer = make_scorer(tmp_path, table)
    shared = Evaluate(shared_prefix=True)
    scores = benchmark.pedantic(ask, (scorer, shared, questions, control), rounds=1, iterations=1, warmup_rounds=1)
    seconds = {}
    for name, size in (("padded", shared.batch_size), ("one_by_one", 1)):
        start = time.process_time()
        expected = ask(scorer, Evaluate(batch_size=size), questions, control)
        seconds[name] = time.process_time() - start
        np.testing.assert_allclose(scores, expected, atol=2e-4)
    if benchmark.stats:  # none where benchmarks are disabled
        ratios = {f"ratio_{name}": each / benchmark.stats.stats.min for name, each in seconds.items()}
        benchmark.extra_info |= {"questions": len(questions), **seconds, **ratios}
