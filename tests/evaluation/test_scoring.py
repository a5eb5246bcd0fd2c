"""Scoring by a small checkpoint on hand-made clips."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

torch = pytest.importorskip("torch")

from dsr.console import StageError  # noqa: E402
from dsr.cues.schema import write_cues  # noqa: E402
from dsr.evaluation.evaluate import run  # noqa: E402
from dsr.evaluation.predictions import ControlError, predict  # noqa: E402
from dsr.evaluation.scoring import CheckpointScorer  # noqa: E402
from dsr.files import write_parquet  # noqa: E402
from dsr.model.presets import make_model  # noqa: E402
from dsr.params import GSM, Evaluate, Model, Params  # noqa: E402
from dsr.splits.split import read_questions  # noqa: E402
from dsr.training.records import ClipStore  # noqa: E402
from tests.scenes import looking, make_cues  # noqa: E402
from tests.videos import make_video  # noqa: E402

NUM_FRAMES = 8
CLIPS = ("filmed_0", "filmed_1", "drawn_0")
"""Two clips with a video, from one source video, and one that is a trajectory alone."""


def write_clip(root: Path, clip_id: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    path = np.linspace(rng.normal((4, 0, 0), 1), rng.normal((8, 0, 0), 1), NUM_FRAMES)
    cues = make_cues(looking(np.array([0, 0, 1.0]), path), {"ball": (path, None)}, clip_id=clip_id)
    point_map = rng.normal(0, 1, (NUM_FRAMES, 4, 4, 3)).astype(np.float32) + np.array([0, 0, 5], np.float32)
    confidence = np.ones((NUM_FRAMES, 4, 4), np.float32)
    write_cues(root / f"data/cues/{clip_id}.npz", replace(cues, point_map=point_map, confidence=confidence))


def benchmark() -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "videoID": clip,
                "question": f"From 0.0 s to 4.0 s, how does the distance to the ball change? ({clip})",
                "options": ["A. It grows.", "B. It shrinks.", "C. It grows, then shrinks.", "D. It stays the same."],
                "answer": letter,
                "type": "rel_dis",
                "qa_id": f"{clip}-{letter}",
                "quartet_id": f"{clip}-q",
                "source_video": clip.split("_")[0],
                "shown_frames": 6 if letter == "A" else NUM_FRAMES,
            }
            for clip in CLIPS
            for letter in "ABCD"
        ]
    )


def build(root: Path, gsm: GSM) -> Path:
    """A project folder with clips, cues, a benchmark and a model that was drawn, not trained."""
    catalog = pd.DataFrame({"clip_id": CLIPS, "status": "ok", "file": ""})
    for row, clip in enumerate(CLIPS):
        write_clip(root, clip, seed=row)
        if clip.startswith("filmed"):
            catalog.loc[row, "file"] = f"data/raw/own/{clip}.mp4"
            make_video(root / catalog.loc[row, "file"], num_frames=NUM_FRAMES + row, seed=row)
    write_parquet(root / "data/clips/catalog.parquet", catalog)
    questions = benchmark()
    write_parquet(root / "data/qa/bench.parquet", questions)
    texts = [*questions["question"], *questions["options"].explode()]
    model, processor = make_model(Model(max_pixels=1568), gsm, root, texts)
    model.save_pretrained(root / "models/gsm")
    processor.save_pretrained(root / "models/gsm")
    return root


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    return build(tmp_path_factory.mktemp("project"), GSM(num_tokens=4))


def scorer_of(root: Path, questions: pd.DataFrame | None = None, batch_size: int = 5) -> CheckpointScorer:
    if questions is None:
        questions = read_questions(root / "data/qa/bench.parquet")
    return CheckpointScorer(root / "models/gsm", root, questions, batch_size, seed=1, workers=1)


def test_scores_are_log_probabilities_that_no_batch_changes(root: Path) -> None:
    ids = benchmark()["qa_id"].tolist()
    scores = scorer_of(root)(ids, "score")
    assert scores.shape == (12, 4)
    assert (scores < 0).all()
    assert (np.exp(scores).sum(axis=1) <= 1).all()
    alone = scorer_of(root, batch_size=1)(ids[::-1], "score")[::-1]
    np.testing.assert_allclose(scores, alone, atol=2e-4)


def test_each_control_takes_away_what_it_says(root: Path) -> None:
    scorer = scorer_of(root)
    ids = benchmark()["qa_id"].tolist()
    score, blind, shuffled = (scorer(ids, control) for control in ("score", "blind", "shuffled_geometry"))
    assert not np.isclose(score, blind, atol=1e-5).all(axis=1).any()
    assert not np.isclose(score, shuffled, atol=1e-5).all(axis=1).any()
    for clip, seed in zip(CLIPS, (7, 8, 9), strict=True):
        write_clip(root, clip, seed)
    other = scorer_of(root)
    np.testing.assert_allclose(other(ids, "blind"), blind, atol=1e-6)
    assert not np.isclose(other(ids, "score"), score, atol=1e-5).all(axis=1).any()
    for row, clip in enumerate(CLIPS):
        write_clip(root, clip, row)


def test_a_model_without_geometry_has_no_geometry_to_shuffle(tmp_path: Path) -> None:
    scorer = scorer_of(build(tmp_path, GSM(fusion="none")))
    with pytest.raises(ControlError, match="takes no geometry"):
        scorer(benchmark()["qa_id"].tolist(), "shuffled_geometry")


def test_questions_of_clips_that_are_not_there_are_missing_with_a_reason(root: Path) -> None:
    questions = pd.concat([benchmark(), benchmark().iloc[:1].assign(videoID="gone", qa_id="gone-A")])
    scorer = scorer_of(root, questions)
    table = predict(questions, scorer)
    assert table.loc[12, ["status", "reason"]].tolist() == ["missing", "not in the catalogue"]
    assert (table["status"].iloc[:12] == "scored").all()


def test_a_video_that_fails_after_it_was_accepted_costs_its_questions_alone(root: Path) -> None:
    scorer = scorer_of(root)
    # As when the cache is too small to hold what was decoded at first, and the file was damaged.
    scorer.store = ClipStore(root, scorer.processor, cache_bytes=1)
    scorer.store.files["filmed_1"] = "data/qa/bench.parquet"
    table = predict(benchmark(), scorer)
    assert table.groupby("videoID")["status"].unique().map(list).to_dict() == {
        "drawn_0": ["scored"],
        "filmed_0": ["scored"],
        "filmed_1": ["missing"],
    }
    assert "not a readable video" in table.loc[4, "reason"]
    blind = predict(benchmark(), scorer, "blind")
    assert blind["status"].tolist() == table["status"].tolist()


def test_the_stage_scores_a_checkpoint_with_its_controls(root: Path) -> None:
    run(Params(evaluate=Evaluate(bootstrap=100, batch_size=6)), root, workers=1)
    predictions = pd.read_parquet(root / "data/predictions/bench.parquet")
    assert predictions.groupby("control").size().to_dict() == {"score": 12, "blind": 12, "shuffled_geometry": 12}
    first = (root / "metrics/eval.json").read_bytes()
    run(Params(evaluate=Evaluate(bootstrap=100, batch_size=6)), root, workers=1)
    assert (root / "metrics/eval.json").read_bytes() == first


def test_without_a_checkpoint_the_stage_says_what_to_run(tmp_path: Path) -> None:
    write_parquet(tmp_path / "data/qa/bench.parquet", benchmark())
    with pytest.raises(StageError, match="dsr train"):
        run(Params(), tmp_path)
