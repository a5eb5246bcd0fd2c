"""DSR-Bench names clips of Koala-36M: they are found cut, as parts of full videos, or where EASI puts them."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dsr.clips.cutting import write_part
from dsr.clips.video import frames_between, probe
from dsr.console import StageError
from dsr.evaluation.benchmark import find_koala
from dsr.evaluation.benchmarks import read_benchmark
from dsr.evaluation.benchmarks.rows import options_of
from dsr.examples.clips import ClipStore
from dsr.params import Params
from tests.evaluation.benchmarks.test_readers import DSR, touch
from tests.koala_files import PASSED, Koala, timestamp, youtube_id
from tests.videos import make_video

PARAMS = Params()
OPTIONS = ["A. It's near, then far", 'B. "far"', "C. a, b", "D. none"]


def easi(folder: Path, records: list[dict[str, Any]]) -> Path:
    """DSRBench.tsv beside other tables, as in EASI-Leaderboard-Data."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "AnotherBench.tsv").write_text("index\tquestion\n0\tNo\n")
    with (folder / "DSRBench.tsv").open("w", newline="") as file:
        writer = csv.DictWriter(
            file, ["index", "video", "question", "options", "answer", "task_type"], dialect="excel-tab"
        )
        writer.writeheader()
        for index, record in enumerate(records):
            row = {"question": "How far?", "options": OPTIONS, "answer": "A", "task_type": "rel_dis", **record}
            writer.writerow({"index": index, **row})
    return folder


def test_the_layout_of_easi(tmp_path: Path) -> None:
    name = f"{youtube_id(1)}_7"
    other = f"{youtube_id(1)}_8"
    as_json = json.dumps(OPTIONS)
    records = [{"video": f"{name}.mp4"}, {"video": f"{other}.mp4", "options": as_json}, {"video": "x/y.webm"}]
    folder = easi(tmp_path / "easi", [*records, {"video": f"{name}.mp4", "options": "[__import__('os')]"}])
    touch(folder / f"raw_data/dsr-bench/{name}.mp4")
    touch(folder / "raw_data/dsr-bench/x/y.webm")
    table = read_benchmark("dsr-bench", folder)
    assert table["videoID"].tolist() == [name, other, table["videoID"][2], "dsr-bench-000003"]
    assert table["options"].tolist()[:2] == [OPTIONS, OPTIONS]
    assert table["type"].tolist()[:2] == ["rel_dis"] * 2
    # Clips of one video are of one source.
    assert table["source_video"].tolist()[:2] == [youtube_id(1)] * 2
    assert table["problem"].tolist()[:3] == ["", f"no video: videos/{other}.mp4 does not exist", ""]
    assert table["problem"][3].startswith("options are not two or more")
    assert table["start"].isna().all()


@pytest.mark.parametrize("text", ["[" * 5000, "['a'", "['a', 3]", "{'a'}", "[" + "'a'," * 60_000 + "]"])
def test_options_that_are_no_list_of_texts(text: str) -> None:
    with pytest.raises(ValueError, match="options are not"):
        options_of(text)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project with Koala-36M's rows of videos 1 to 4, the first two full, the second cut as well."""
    rows = Koala()
    for number in (1, 2, 3, 4):
        # Too long for the filters of the catalogue, which do not count here.
        rows.add(PASSED, number, timestamp=timestamp(2, 9) if number < 3 else timestamp(0, 600))
    rows.write(tmp_path / "data/raw/koala")
    for number in (1, 2, 5):
        make_video(tmp_path / f"data/raw/koala/full/{youtube_id(number)}.mp4", 100, seed=number)
    folder = tmp_path / "data/raw/koala"
    write_part(folder / f"full/{youtube_id(2)}.mp4", folder / f"clips/{youtube_id(2)}_2.mp4", 20, 90)
    return tmp_path


def ids(*numbers: int) -> list[str]:
    return [f"{youtube_id(number)}_{number}" for number in numbers]


def test_clips_in_koalas_folder(root: Path) -> None:
    found = find_koala(PARAMS, root, ids(1, 2, 3, 5), workers=1)
    folder = root / "data/raw/koala"
    full, cut, missing, unknown = (found[clip] for clip in ids(1, 2, 3, 5))
    assert full == (folder / f"full/{youtube_id(1)}.mp4", 2.0, 9.0)
    assert cut[0] == folder / f"clips/{youtube_id(2)}_2.mp4"
    assert np.isnan(cut[1:]).all()
    assert str(missing).startswith("in data/raw/koala: no file: ")
    assert str(unknown).startswith("no row of data/raw/koala/Koala_36M_*.csv says which part of")


def test_cut_clips_need_no_rows(root: Path) -> None:
    for path in (root / "data/raw/koala").glob("*.csv"):
        path.unlink()
    assert len(find_koala(PARAMS, root, ids(2), workers=1)) == 1
    with pytest.raises(StageError, match=r"no CSV file .*clips\.koala\.csv"):
        find_koala(PARAMS, root, ids(1), workers=1)


def test_a_question_is_shown_the_part_of_the_full_video_that_is_its_clip(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bench"
    records = [{**DSR, "videoID": clip} for clip in ids(1, 2, 3)]
    folder.mkdir()
    (folder / "benchmark.json").write_text(json.dumps(records))
    table = read_benchmark("dsr-bench", folder, "", lambda clips: find_koala(PARAMS, root, clips, 1))
    assert table["problem"].tolist()[:2] == ["", ""]
    assert table["problem"][2].startswith(
        f"no video: videos/{ids(3)[0]}.mp4 does not exist; in data/raw/koala: no file"
    )
    store = ClipStore.of_benchmark(table, folder)
    part, cut = (store.cues(clip) for clip in ids(1, 2))
    times = probe(Path(table["file"][0])).timestamps
    first, count = frames_between(times, 2, 9)
    assert (part.frame_index[0], part.frame_index[-1]) == (first, first + count - 1) == (20, 90)
    assert cut.frame_index[0] == 0
    np.testing.assert_allclose(part.timestamps, cut.timestamps, atol=1e-4)
    shown = [store.frames(clip, store.cues(clip).frame_index, 10**6).astype(int) for clip in ids(1, 2)]
    # The videos differ in a corner alone.
    assert np.abs(shown[0] - shown[1])[:, :30, :40].mean() < 3
    assert store.hash(ids(1)[0]) != store.hash(ids(2)[0])


def test_a_part_that_the_video_does_not_have_is_missing(root: Path) -> None:
    file = root / f"data/raw/koala/full/{youtube_id(1)}.mp4"
    table = pd.DataFrame({"videoID": ["a"], "file": [str(file)], "start": [500.0], "end": [530.0]})
    assert ClipStore.of_benchmark(table, root).problem("a") == "no frames between 500 s and 530 s: the video has 10.0 s"
