"""From Koala-36M's rows to a reviewed benchmark: full videos, cut ones, and annotated, made-up scenes."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dsr import project as places
from dsr.clips import catalog, cutting
from dsr.cues import extract
from dsr.cues.schema import read_cues
from dsr.curation import curate
from dsr.mcq import read_questions
from dsr.params import QA, Clips, Cues, Koala, Params, Split
from dsr.questions import generate, split
from dsr.review.session import Session
from tests.koala_files import PASSED, awkward, timestamp, youtube_id
from tests.test_real_pipeline import annotation
from tests.videos import make_video

pytestmark = pytest.mark.slow

SECONDS, SIZE, FPS = 6.0, (320, 240), 8
VIDEOS = range(900, 905)
PARAMS = Params(
    clips=Clips(source="koala", koala=Koala(duration=(5.0, 120.0))),
    cues=Cues(backend="annotated"),
    qa=QA(candidates=1024, num_blocks=2),
    split=Split(bench_fraction=0.5),
)
STAGES = (catalog, curate, extract, generate, split)


def start_of(part: int) -> float:
    return 2.0 + 7.0 * part


def annotate(path: Path, video: int, part: int, start: float) -> None:
    path.write_text(json.dumps(annotation(2 * video + part, start, SIZE)))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test set, of which ten clips have a video, two of each full one."""
    root = tmp_path_factory.mktemp("koala")
    folder = root / places.KOALA
    rows = awkward()
    for video in VIDEOS:
        make_video(folder / f"{youtube_id(video)}.mp4", 16 * FPS, SIZE, fps=FPS, seed=video)
        for part in (0, 1):
            start = start_of(part)
            clip = rows.add(PASSED, video, videoID=f"{youtube_id(video)}_{part}", timestamp=timestamp(start, start + 6))
            annotate(folder / f"{clip}.annotation.json", video, part, start)
    rows.write(folder)
    for stage in STAGES:
        stage.run(PARAMS, root, 2)
    return root


def test_questions_follow_on_both_sides(project: Path) -> None:
    pool, train, bench = (pd.read_parquet(project / path) for path in (places.POOL, places.TRAIN, places.BENCH))
    assert len(train) + len(bench) == len(pool) >= 40
    assert set(pool["source_video"]) <= {youtube_id(video) for video in VIDEOS}
    assert not set(train["source_video"]) & set(bench["source_video"])
    # A clip has times of its own, wherever in the video it is.
    assert pool["end_time"].max() <= SECONDS


def test_a_review_shows_the_clip_and_its_verdicts_are_applied(project: Path) -> None:
    bench = read_questions(project / places.BENCH)
    late = bench[bench["videoID"].str.endswith("_1")].iloc[0]
    session = Session(PARAMS, project, bench, "ann")
    shown = session.question(late["qa_id"])
    about = shown["about"]
    assert about["origin"] == start_of(1)
    assert about["first"] <= about["start"] < about["end"] <= about["last"] <= start_of(1) + SECONDS
    assert about["start"] - about["origin"] == pytest.approx(late["start_time"])
    assert about["tracks"]["times"][0] == about["origin"]
    assert about["frames"][0] >= about["origin"]
    session.answer(late["qa_id"], "A")
    assert session.explanation(late["qa_id"]).png
    verdict = {"verdict": "reject", "reason": session.listing()["reasons"][0], "own_answer": "A", "seconds": 3}
    session.judge({"id": late["qa_id"], "hash": shown["hash"], "previous": "", **verdict})
    session.close()
    split.run(PARAMS, project, 1)
    left = pd.read_parquet(project / places.BENCH)
    assert late["quartet_id"] not in set(left["quartet_id"])
    assert 0 < len(left) < len(bench)
    (project / places.VERDICTS).unlink()
    split.run(PARAMS, project, 1)


def test_cues_of_a_cut_are_those_of_the_part(project: Path) -> None:
    clips = [f"{youtube_id(video)}_{part}" for video in VIDEOS for part in (0, 1)]
    before = [read_cues(project / places.CUES / f"{clip}.npz") for clip in clips]
    cutting.cut_koala(PARAMS, project, 2)
    folder = project / places.KOALA / cutting.FOLDER
    for video in VIDEOS:
        for part in (0, 1):
            annotate(folder / f"{youtube_id(video)}_{part}.annotation.json", video, part, 0.0)
    for stage in (catalog, curate, extract):
        stage.run(PARAMS, project, 2)
    table = pd.read_parquet(project / places.CATALOG).set_index("clip_id")
    assert sorted(table.index[table["status"] == "ok"]) == sorted(clips)
    assert table.loc[clips, "file"].str.contains(f"/{cutting.FOLDER}/").all()
    for clip, part in zip(clips, before, strict=True):
        cut = read_cues(project / places.CUES / f"{clip}.npz")
        assert cut.frame_index[0] == 0
        assert np.ptp(part.frame_index - cut.frame_index) == 0
        for name in ("timestamps", "camera_poses", "boxes", "visible", "centers", "orientations"):
            np.testing.assert_allclose(getattr(part, name), getattr(cut, name), atol=1e-4)
