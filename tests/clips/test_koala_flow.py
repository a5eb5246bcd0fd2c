"""From Koala-36M's rows to training and benchmark questions: full videos, cut ones, and annotated, made-up scenes."""

import json
from pathlib import Path

import pandas as pd
import pytest

from dsr.clips import catalog, cutting
from dsr.cues import extract
from dsr.cues.schema import read_cues
from dsr.curation import curate
from dsr.params import QA, Clips, Cues, Koala, Params, Split
from dsr.questions import generate, split
from tests.koala_files import PASSED, timestamp, youtube_id
from tests.koala_files import Koala as Rows
from tests.test_real_pipeline import annotation
from tests.videos import make_video

pytestmark = pytest.mark.slow

SECONDS, NUM_CLIPS, FPS = 6.0, 10, 8
PARAMS = Params(
    clips=Clips(source="koala", koala=Koala(duration=(5.0, 120.0))),
    cues=Cues(backend="annotated"),
    qa=QA(candidates=1024, num_blocks=2),
    split=Split(bench_fraction=0.5),
)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten clips, two of each full video; half of the videos are then cut."""
    root = tmp_path_factory.mktemp("koala")
    folder = root / "data/raw/koala"
    rows = Rows()
    for number in range(NUM_CLIPS):
        video, part = divmod(number, 2)
        start = 2.0 + 7.0 * part
        clip = rows.add(
            PASSED, video, videoID=f"{youtube_id(video)}_{part}", timestamp=timestamp(start, start + SECONDS)
        )
        make_video(folder / f"{youtube_id(video)}.mp4", 16 * FPS, (320, 240), fps=FPS, seed=video + 1)
        (folder / f"{clip}.annotation.json").write_text(json.dumps(annotation(number, start, (320, 240))))
    rows.write(folder)
    for stage in (catalog, curate, extract, generate, split):
        stage.run(PARAMS, root, 2)
    return root


def test_questions_follow_on_both_sides(project: Path) -> None:
    pool, train, bench = (pd.read_parquet(project / f"data/qa/{name}.parquet") for name in ("pool", "train", "bench"))
    assert len(train) + len(bench) == len(pool) >= 40
    assert set(pool["source_video"]) <= {youtube_id(video) for video in range(NUM_CLIPS // 2)}
    assert not set(train["source_video"]) & set(bench["source_video"])
    # A clip has times of its own, wherever in the video it is.
    assert pool["end_time"].max() <= SECONDS


def test_a_cut_changes_no_question(project: Path) -> None:
    before = pd.read_parquet(project / "data/qa/pool.parquet")
    cutting.cut_koala(PARAMS, project, 2)
    folder = project / "data/raw/koala"
    for path in folder.glob("*.annotation.json"):
        number = int(path.name[3:10]) * 2 + int(path.name.split(".")[0].rpartition("_")[2])
        (folder / "cut" / path.name).write_text(json.dumps(annotation(number, 0.0, (320, 240))))
    for stage in (catalog, curate, extract, generate, split):
        stage.run(PARAMS, project, 2)
    table = pd.read_parquet(project / "data/clips/catalog.parquet")
    assert table["file"].str.contains("/cut/").all()
    # Times that differ by 1e-15 s move interpolated centres as little, and may decide between two like candidates.
    after = pd.read_parquet(project / "data/qa/pool.parquet")
    both = before.merge(after, on=["videoID", "question", "answer", "type"])
    assert len(both) > 0.95 * max(len(before), len(after))
    assert read_cues(project / f"data/cues/{youtube_id(0)}_1.npz").frame_index[0] == 0
