"""Readers on hand-made files of each published format, sound and broken: no row is ever lost."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsr.console import StageError
from dsr.cues.schema import write_cues
from dsr.evaluation.benchmarks import BENCHMARKS, read_benchmark
from dsr.evaluation.benchmarks.rows import COLUMNS, clip_name, letter_of, letter_of_value, options_of
from dsr.examples.clips import ClipStore
from dsr.examples.views import bare_cues
from tests.videos import make_video


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"video")


def write(path: Path, records: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pd.DataFrame(records).to_parquet(path)
    elif path.suffix == ".csv":
        pd.DataFrame(records).to_csv(path, index=False)
    else:
        path.write_text(json.dumps(records, ensure_ascii=False))


DSR = {
    "videoID": "abc_001",
    "question": "How does it change?",
    "options": ["A. grows", "B. shrinks", "C. stays", "D. turns"],
    "answer": "C",
    "type": "rel_dis",
}


@pytest.mark.parametrize("name", ["benchmark.parquet", "DSR-Bench.json"])
def test_dsr_bench(tmp_path: Path, name: str) -> None:
    touch(tmp_path / "videos/abc_001.mp4")
    write(tmp_path / name, [DSR, {**DSR, "videoID": "gone"}])
    table = read_benchmark("dsr-bench", tmp_path)
    assert tuple(table.columns) == COLUMNS
    row, missing = table.to_dict("records")
    assert row["options"] == DSR["options"]
    assert (row["answer"], row["type"], row["problem"]) == ("C", "rel_dis", "")
    assert row["file"] == str(tmp_path / "videos/abc_001.mp4")
    assert (missing["file"], missing["problem"]) == ("", "no video: videos/gone.mp4 does not exist")
    assert table["qa_id"].is_unique


def test_dsr_train_and_a_file_named_directly(tmp_path: Path) -> None:
    write(tmp_path / "train.json", [DSR])
    assert len(read_benchmark("dsr-train", tmp_path)) == 1
    assert len(read_benchmark("dsr-bench", tmp_path / "train.json")) == 1


def vlm4d(**changes: Any) -> dict[str, Any]:
    return {
        "id": "validation_1",
        "video": "https://huggingface.co/datasets/shijiezhou/VLM4D/resolve/main/videos_real/davis/bear.mp4",
        "question_type": "multiple-choice",
        "question": "Which way does the bear walk?",
        "choices": {"A": "left", "B": "right", "C": "forward", "D": "not moving"},
        "answer": "right",
        **changes,
    }


def test_vlm4d(tmp_path: Path) -> None:
    touch(tmp_path / "videos_real/davis/bear.mp4")
    touch(tmp_path / "videos_synthetic/synth_1.mp4")
    write(
        tmp_path / "QA/real_mc.json",
        [
            vlm4d(),
            vlm4d(id="validation_2", answer=2, choices={"A": "1", "B": 2, "C": "3", "D": "4"}),
            # Two options are the right one: they become one.
            vlm4d(id="validation_3", answer="left", choices={"A": "left", "B": "right", "C": "Left ", "D": "up"}),
            vlm4d(id="validation_4", answer="up"),
        ],
    )
    write(tmp_path / "QA/synthetic_mc.json", [vlm4d(video="videos_synthetic/synth_1.mp4", answer="left")])
    table = read_benchmark("vlm4d", tmp_path)
    assert table["answer"].tolist() == ["B", "B", "A", "", "A"]
    assert table["options"][2] == ["A. left", "B. right", "C. up"]
    assert table["problem"].tolist() == ["", "", "", "answer 'up' is the value of no option", ""]
    assert table["category"].tolist()[:3] == ["real"] * 3
    assert table["videoID"][0] == "videos_real--davis--bear"
    assert table["file"][4].endswith("videos_synthetic/synth_1.mp4")
    assert len(read_benchmark("vlm4d", tmp_path, "synthetic")) == 1
    with pytest.raises(StageError, match="no variant 'std'; known: real, synthetic"):
        read_benchmark("vlm4d", tmp_path, "std")


def sti(**changes: Any) -> dict[str, Any]:
    return {
        "Video": "scene_1.mp4",
        "ID": 3,
        "time_start": 1.5,
        "time_end": 4.0,
        "Question": "How far does it go?",
        "Candidates": json.dumps({"A": "1 m", "B": "2 m", "C": "3 m", "D": "4 m", "E": "5 m"}),
        "Answer": "E",
        "Task": "Displacement and Path Length",
        **changes,
    }


def test_sti_bench(tmp_path: Path) -> None:
    touch(tmp_path / "video/scene_1.mp4")
    write(tmp_path / "qa.parquet", [sti(), sti(ID=4, Candidates="{broken", Answer="A"), sti(ID=5, time_start=None)])
    row, broken, untimed = read_benchmark("sti-bench", tmp_path).to_dict("records")
    assert row["question"] == "From 1.5 s to 4.0 s. How far does it go?"
    assert (row["options"][4], row["answer"], row["type"]) == ("E. 5 m", "E", "Displacement and Path Length")
    assert broken["problem"] == "options are not two or more, from A on: none"
    assert untimed["question"] == "How far does it go?"
    # As parquet structs, where a row without an E has a null.
    write(
        tmp_path / "qa.parquet",
        [sti(Candidates={"A": "x", "B": "y", "E": None}, Answer="B"), sti(Candidates={"A": "x", "B": "y", "E": "z"})],
    )
    first, gap = read_benchmark("sti-bench", tmp_path).to_dict("records")
    assert first["options"] == ["A. x", "B. y"]
    assert gap["problem"] == "options are not two or more, from A on: A, B, E"


def dsi(**changes: Any) -> dict[str, Any]:
    return {
        "cate": 1,
        "relative_path": "CameraBench/x.mp4",
        "video_type": 0,
        "question": "How does the car move?",
        "options": "A: Forward; then left; B: Backward; C: Left: a lot; D: It does not move",
        "GT": "A",
        "others": "",
        **changes,
    }


def test_dsi_bench(tmp_path: Path) -> None:
    for variant, right in (("std", "A"), ("reverse", "B"), ("hflip", "A"), ("reverse_hflip", "b")):
        write(tmp_path / f"metadatas/{variant}.csv", [dsi(GT=right), dsi(cate=9, GT="Z")])
        touch(tmp_path / f"videos/{variant}/CameraBench/x.mp4")
    table = read_benchmark("dsi-bench", tmp_path)
    assert len(table) == 8
    sound = table[table["problem"] == ""]
    assert sound["answer"].tolist() == ["A", "B", "A", "B"]
    assert sound["options"].iloc[0] == ["A. Forward; then left", "B. Backward", "C. Left: a lot", "D. It does not move"]
    assert set(sound["type"]) == {"object, moving camera"}
    # One question in four videos of one scene: a quartet of one source video.
    assert (sound["quartet_id"].nunique(), sound["source_video"].nunique(), sound["videoID"].nunique()) == (1, 1, 4)
    assert set(table.loc[table["problem"] != "", "problem"]) == {"answer 'Z' is none of A, B, C, D"}
    assert len(read_benchmark("dsi-bench", tmp_path, "hflip")) == 2


def test_video_mme(tmp_path: Path) -> None:
    record = {
        "video_id": "001",
        "duration": "short",
        "domain": "Knowledge",
        "sub_category": "Humanity & History",
        "url": "https://www.youtube.com/watch?v=fFjv93ACGo8",
        "videoID": "fFjv93ACGo8",
        "question_id": "001-1",
        "task_type": "Counting Problem",
        "question": "How many?",
        "options": ["A. Apples.", "B. Candles.", "C. Berries.", "D. The three kinds are of the same number."],
        "answer": "C",
    }
    touch(tmp_path / "data/fFjv93ACGo8.mp4")
    write(tmp_path / "videomme/test-00000-of-00001.parquet", [record])
    row = read_benchmark("video-mme", tmp_path).to_dict("records")[0]
    assert (row["qa_id"], row["type"], row["category"], row["answer"]) == ("001-1", "Counting Problem", "short", "C")
    assert row["options"][0] == "A. Apples."
    assert row["file"].endswith("data/fFjv93ACGo8.mp4")


@pytest.mark.parametrize("name", list(BENCHMARKS))
def test_broken_records_are_rows_with_a_problem(tmp_path: Path, name: str) -> None:
    path = tmp_path / "questions.json"
    write(path, [{}, [], None, "text", {"question": None, "options": [], "answer": 7}])
    table = read_benchmark(name, path)
    assert len(table) >= 5
    assert (table["problem"] != "").all()
    assert table["qa_id"].is_unique


@pytest.mark.parametrize("content", ["", "{", "[1, 2", '"text"', '{"a": 1}'])
def test_a_broken_file_is_one_clear_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "benchmark.json").write_text(content)
    with pytest.raises(StageError, match=r"benchmark\.json"):
        read_benchmark("dsr-bench", tmp_path)
    (tmp_path / "benchmark.json").unlink()
    (tmp_path / "benchmark.parquet").write_text(content)
    with pytest.raises(StageError, match="cannot be read as parquet"):
        read_benchmark("dsr-bench", tmp_path)


def test_nothing_there_says_where_it_is_published(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"looked for qa\.parquet.*published at https"):
        read_benchmark("sti-bench", tmp_path)
    with pytest.raises(StageError, match="did you mean 'vlm4d'"):
        read_benchmark("vlm4", tmp_path)


def test_a_video_outside_the_folder_is_refused(tmp_path: Path) -> None:
    touch(tmp_path / "secret.mp4")
    write(tmp_path / "root/benchmark.json", [{**DSR, "videoID": "../../secret"}])
    row = read_benchmark("dsr-bench", tmp_path / "root").to_dict("records")[0]
    assert row["file"] == ""
    assert "outside" in row["problem"]


ALIKE = (
    *(
        "视频1.mp4",
        "视频2.mp4",
        "a b.mp4",
        "a_b.mp4",
        "(a).mp4",
        "[a].mp4",
        "a.mp4",
        "a.mkv",
        "a..mp4",
        "A.mp4",
        "a.mp4.mp4",
    ),
    *(
        "x/y.mp4",
        "x_y.mp4",
        "x--y.mp4",
        "x-/y.mp4",
        "x/-y.mp4",
        "x/y",
        "other/y.mp4",
        ".x.mp4",
        "e\u0301.mp4",
        "\u00e9.mp4",
    ),
    *("x/0123456789ab.mp4", "A", "a/.mp4", f"{'n' * 180}.mp4", f"{'n' * 181}.mp4"),
)
"""Names of videos that a careless rule takes for one another."""


def test_different_videos_never_share_an_id() -> None:
    ids = [clip_name(name) for name in ALIKE]
    assert len(set(ids)) == len(ALIKE)
    assert all(re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}", clip) for clip in ids)
    # What can be read stays readable.
    for name, clip in {"a.mp4": "a", "x/y.mp4": "x--y", "a_b.mp4": "a_b", "-aB3_x.mp4": "-aB3_x"}.items():
        assert clip_name(name) == clip
    # A file's name may look like what another is called.
    assert clip_name(f"{clip_name('x_y')}.mp4") != clip_name("x_y")
    assert clip_name(f"{clip_name('a b.mp4').replace('--', '/')}.mp4") != clip_name("a b.mp4")


@given(st.lists(st.text("aA_-./é 1", min_size=1, max_size=6), min_size=2, max_size=2, unique=True))
def test_any_two_paths_have_two_ids(paths: list[str]) -> None:
    assert clip_name(paths[0]) != clip_name(paths[1])
    assert clip_name(f"{paths[0]}.mp4") != clip_name(f"{paths[1]}.mp4")


def test_each_question_is_shown_its_own_video(tmp_path: Path) -> None:
    """Every video has a size of its own, and cues of its own where it has any."""
    names = [name for name in ALIKE if name.endswith((".mp4", ".mkv")) and len(name) < 100]
    for k, name in enumerate(names):
        make_video(tmp_path / name, num_frames=8, size=(64 + 2 * k, 48))
    write(tmp_path / "QA/real_mc.json", [vlm4d(video=name, id=k) for k, name in enumerate(names)])
    table = read_benchmark("vlm4d", tmp_path)
    assert (table["problem"] == "").all()
    # On systems that take a.npz and A.npz for one file, too.
    assert table["videoID"].str.casefold().is_unique
    for k, clip in enumerate(table["videoID"][:3]):
        index = np.arange(4)
        write_cues(tmp_path / f"cues/{clip}.npz", bare_cues(index / 10 + k, index, 64 + 2 * k, 48))
    store = ClipStore.of_benchmark(table, tmp_path)
    for k, clip in enumerate(table["videoID"]):
        assert store.problem(clip) == ""
        assert store.frames(clip, np.array([0]), 10**6).shape == (1, 48, 64 + 2 * k, 3)
        assert store.cues(clip).meta["width"] == 64 + 2 * k
        assert store.cues(clip).num_frames == (4 if k < 3 else 8)


def test_two_videos_of_one_id_are_refused(tmp_path: Path) -> None:
    table = pd.DataFrame({"videoID": ["a", "a"], "file": ["x/a.mp4", "y/a.mp4"]})
    with pytest.raises(StageError, match=r"two videos have the id a: x/a\.mp4 and y/a\.mp4"):
        ClipStore.of_benchmark(table, tmp_path)


def test_a_repeated_id_is_two_rows(tmp_path: Path) -> None:
    write(tmp_path / "bench.json", [{**DSR, "qa_id": "same"}, {**DSR, "qa_id": "same"}])
    assert read_benchmark("dsr-bench", tmp_path)["qa_id"].tolist() == ["same", "same#1"]


def test_spellings_of_options_and_answers() -> None:
    expected = {"A": "one", "B": "two"}
    for value in (
        ["one", "two"],
        {"B": "two", "A": "one"},
        '{"A": "one", "B": "two"}',
        "A: one; B: two",
        "A. one\nB. two",
    ):
        assert options_of(value) == expected
    assert options_of(["A. one", "(B) two"]) == expected
    assert [letter_of(answer, expected) for answer in ("A", "b", "(B)", "B. two", " a ")] == ["A", "B", "B", "B", "A"]
    for answer in ("C", "", None, 1, "two", "AB"):
        with pytest.raises(ValueError, match="none of A, B"):
            letter_of(answer, expected)
    assert letter_of_value(3.0, {"A": "2", "B": "3"})[0] == "B"
    assert letter_of_value("Three.", {"A": "three", "B": "four"})[0] == "A"
