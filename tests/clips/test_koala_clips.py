"""Clips of Koala-36M from rows to cues: cut or not, the same frames at the same times."""

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dsr import project
from dsr.clips import catalog, cutting, fetching
from dsr.clips.video import frames_between, probe, read_frames, uniform_frames
from dsr.console import StageError
from dsr.params import Clips, Cues, Koala, Params
from tests.clips.test_catalog import _map_here
from tests.koala_files import PARAMETERS, PASSED, SOUND, awkward, timestamp, youtube_id
from tests.koala_files import Koala as Rows
from tests.videos import make_video

PARAMS = Params(clips=Clips(source="koala", koala=Koala(duration=(1.0, 120.0))), cues=Cues(num_frames=8))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """data/raw/koala/ of a project folder."""
    folder = tmp_path / project.KOALA
    folder.mkdir(parents=True)
    return folder


@pytest.fixture(autouse=True)
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "map_isolated", _map_here)
    monkeypatch.setattr(cutting, "map_isolated", _map_here)


def catalogue(folder: Path, params: Params = PARAMS) -> pd.DataFrame:
    root = folder.parents[2]
    catalog.run(params, root, 1)
    return pd.read_parquet(root / project.CATALOG).set_index("clip_id")


def fates(folder: Path) -> dict[str, Any]:
    return json.loads((folder.parents[2] / project.CLIPS_METRICS).read_text())


def variable(count: int) -> list[float]:
    """Times of frames at a variable rate, in milliseconds."""
    steps = np.random.default_rng(3).choice([0.02, 0.033, 0.1, 0.25], count - 1)
    return [0.0, *np.round(np.cumsum(steps), 3).tolist()]


KINDS: dict[str, Callable[[Path], Path]] = {
    "plain": lambda path: make_video(path.with_suffix(".mp4"), 100),
    "variable rate": lambda path: make_video(path.with_suffix(".mp4"), 140, timestamps=variable(140)),
    "variable rate, matroska": lambda path: make_video(path.with_suffix(".mkv"), 140, timestamps=variable(140)),
    "rotated": lambda path: make_video(path.with_suffix(".mp4"), 100, rotation=90),
    "upside down": lambda path: make_video(path.with_suffix(".mp4"), 100, rotation=180),
    "with sound": lambda path: make_video(path.with_suffix(".mp4"), 100, audio=True),
    "10 bits": lambda path: make_video(path.with_suffix(".mp4"), 100, pix_fmt="yuv420p10le"),
    "odd size": lambda path: make_video(path.with_suffix(".mp4"), 100, (63, 47), pix_fmt="yuv444p"),
    "transport stream": lambda path: make_video(path.with_suffix(".ts"), 100),
    "NTSC": lambda path: make_video(path.with_suffix(".mp4"), 300, fps=30000 / 1001),
}


@pytest.mark.parametrize("kind", KINDS)
def test_cut_or_not_the_frames_are_the_same(folder: Path, kind: str) -> None:
    name = youtube_id(1)
    full = KINDS[kind](folder / "videos" / name)
    rows = Rows()
    clip = rows.add(PASSED, 1, timestamp=timestamp(2.05, 8.9))
    rows.write(folder, files=1)
    uncut = catalogue(folder).loc[clip]
    cutting.cut_koala(PARAMS, folder.parents[2], 1)
    cut = catalogue(folder).loc[clip]
    root = folder.parents[2]
    assert (root / uncut["file"], root / cut["file"]) == (full, folder / "cut" / f"{clip}.mp4")
    assert (uncut["start"], uncut["end"], cut["start"]) == (2.05, 8.9, 0)
    assert (uncut["num_frames"], uncut["width"], uncut["height"]) == (cut["num_frames"], cut["width"], cut["height"])
    assert {uncut["source_video"], cut["source_video"]} == {name}
    shown = []
    for row in (uncut, cut):
        times = probe(root / row["file"]).timestamps
        first, count = frames_between(times, row["start"], row["end"])
        index = uniform_frames(count, 32, first)
        shown.append((times[index] - times[first], read_frames(root / row["file"], index).astype(int)))
    (times, frames), (cut_times, cut_frames) = shown
    np.testing.assert_allclose(times, cut_times, atol=1e-5)
    # Neighbouring frames differ by 37 levels of grey; what encoding changes is far below.
    assert np.abs(frames - cut_frames).mean(axis=(1, 2, 3)).max() < 3
    small = read_frames(root / cut["file"], uniform_frames(cut["num_frames"], 32), 32 * 40)
    assert np.abs(small.mean(axis=(1, 2, 3)) - frames.mean(axis=(1, 2, 3))).max() < 6


def test_every_row_of_the_test_set_has_one_fate(folder: Path) -> None:
    rows = awkward()
    rows.write(folder)
    for number in (0, 2, 4):
        make_video(folder / f"{youtube_id(number)}.mp4", 200, fps=2, seed=number + 1)
    make_video(folder / "cut" / f"{youtube_id(6)}_6.mp4", 60, fps=2, seed=9)
    make_video(folder / f"{youtube_id(8)}.mp4", 100, fps=2, seed=10)
    make_video(folder / "cut" / f"{youtube_id(10)}_10.mp4", 180, fps=2, seed=11)
    (folder / f"{youtube_id(12)}.mp4").write_bytes(b"no video")
    make_video(folder / "never drawn.mp4", 10)
    params = replace(PARAMS, clips=Clips(source="koala", koala=Koala(**PARAMETERS)))
    table = catalogue(folder, params)
    expected = rows.fates()
    passed = expected.pop(PASSED)
    found = fates(folder)
    left_out = {fate: count for fate, count in found["left_out"].items() if count}
    assert found["rows"] == found["used"] + sum(left_out.values()) == len(rows.rows)
    # One more duplicate: the same seconds of one video under two numbers.
    expected["duplicate"] += 1
    files = {"no file": passed - 7 - 1, "not this clip": 1, "trim outside the video": 1, "not a readable video": 1}
    assert left_out == {**expected, **files}
    used = table[table["status"] == "ok"]
    assert sorted(used.index) == sorted(f"{youtube_id(k)}_{k}" for k in (0, 2, 4, 6))
    assert used.loc[f"{youtube_id(0)}_0", ["start", "end"]].tolist() == [60.5, 90.5]
    assert used.loc[f"{youtube_id(6)}_6", ["start", "end"]].tolist() == [0, 30]
    assert used.loc[f"{youtube_id(6)}_6", "timestamp"] == SOUND["timestamp"]
    assert used["clarity_score"].tolist() == [SOUND["clarity_score"]] * 4
    assert table.loc[f"{youtube_id(10)}_10", "reason"] == (
        "not this clip: the video has 90.0 s, the clip's row 30.0 s; name a full video by its YouTube id"
    )
    assert len(table) == passed
    assert "never drawn" not in table.index
    before = (folder.parents[2] / project.CATALOG).read_bytes()
    catalogue(folder, params)
    assert (folder.parents[2] / project.CATALOG).read_bytes() == before


def test_missing_clips_as_a_list_for_other_tools(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = folder.parents[2]
    rows = Rows()
    for number in range(4):
        rows.add(PASSED, number)
    second = rows.add(PASSED, 1, videoID=f"{youtube_id(1)}_2", timestamp=timestamp(100, 130.25))
    rows.write(folder)
    (folder / f"{youtube_id(3)}.mp4").write_bytes(b"cut off")
    with pytest.raises(
        StageError, match=r"none of 5 clips can be used; .*`dsr koala missing` lists the videos to put into"
    ):
        catalogue(folder)
    fetching.run(root, None, None)
    listed = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [row["videoID"] for row in listed] == sorted([second, *(f"{youtube_id(k)}_{k}" for k in range(4))])
    row = next(row for row in listed if row["videoID"] == second)
    assert (row["id"], row["start"], row["end"]) == (youtube_id(1), "100.0", "130.25")
    assert row["url"] == f"https://www.youtube.com/watch?v={youtube_id(1)}"
    assert row["reason"].startswith(f"no file: no video is named {second} (cut) or {youtube_id(1)} (full)")
    assert Counter(row["reason"].split(":")[0] for row in listed) == {"no file": 4, "not a readable video": 1}
    fetching.run(root, root / "missing.csv", root / "urls.txt")
    assert len(pd.read_csv(root / "missing.csv")) == 5
    addresses = (root / "urls.txt").read_text().splitlines()
    assert sorted(addresses) == sorted(f"https://www.youtube.com/watch?v={youtube_id(k)}" for k in range(4))
    assert capsys.readouterr().out == ""


def test_what_another_file_would_not_change_is_not_missing(folder: Path) -> None:
    name = youtube_id(1)
    make_video(folder / f"{name}.mp4", 300)
    rows = Rows()
    first = rows.add(PASSED, 1, videoID=f"{name}_1", timestamp=timestamp(1, 20))
    second = rows.add(PASSED, 1, videoID=f"{name}_2", timestamp=timestamp(1.05, 20.1))
    rows.write(folder)
    table = catalogue(folder)
    assert sorted(table["status"]) == ["failed", "ok"]
    kept, copy = (first, second) if table.loc[first, "status"] == "ok" else (second, first)
    assert table.loc[copy, "reason"] == f"duplicate: the same seconds of the same video as {kept}"
    assert fetching.missing(folder.parents[2]).empty


def test_a_full_video_is_read_once_for_all_its_clips(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = Rows()
    for number in (1, 2):
        make_video(folder / f"{youtube_id(number)}.mp4", 100, seed=number)
        for part in range(4):
            name = f"{youtube_id(number)}_{part}"
            rows.add(PASSED, number, videoID=name, timestamp=timestamp(2 * part, 2 * part + 1.5))
    rows.write(folder)
    read: list[Path] = []
    for name in ("probe", "sha256_file"):
        real = getattr(catalog, name)
        monkeypatch.setattr(catalog, name, lambda path, real=real: read.append(path) or real(path))
    table = catalogue(folder)
    assert len(table) == 8
    assert table["sha256"].nunique() == 2
    assert Counter(read) == {folder / f"{youtube_id(number)}.mp4": 2 for number in (1, 2)}
    # Another file of that name is another file.
    make_video(folder / f"{youtube_id(1)}.mp4", 90, seed=7)
    assert set(catalogue(folder)["sha256"]) != set(table["sha256"])


def test_tools_need_a_catalogue_of_koala(folder: Path) -> None:
    root = folder.parents[2]
    with pytest.raises(StageError, match="run `dsr catalog` first"):
        fetching.run(root, None, None)
    make_video(root / "data/raw/street/a.mp4")
    (root / "data/raw/street/clips.csv").write_text("clip_id,caption\na,A\n")
    catalog.run(Params(clips=Clips(source="street")), root, 1)
    for tool in (lambda: fetching.run(root, None, None), lambda: cutting.cut_koala(PARAMS, root, 1)):
        with pytest.raises(StageError, match=r"clips\.source"):
            tool()


def test_folders_elsewhere_and_links(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = tmp_path_factory.mktemp("disk")
    rows = Rows()
    clips = [rows.add(PASSED, number, timestamp=timestamp(1, 5)) for number in (1, 2)]
    rows.write(elsewhere)
    for number in (1, 2):
        make_video(elsewhere / "full" / f"{youtube_id(number)}.mp4", 60, seed=number)
    # By a link in the place of the files, or by the parameters.
    (folder / "full").symlink_to(elsewhere / "full")
    for path in elsewhere.glob("*.csv"):
        (folder / path.name).symlink_to(path)
    linked = catalogue(folder)
    assert f"DVC does not see what changes in {folder / 'full'}: " in capsys.readouterr().err
    assert linked.loc[clips, "file"].tolist() == [f"data/raw/koala/full/{youtube_id(k)}.mp4" for k in (1, 2)]
    for path in folder.iterdir():
        path.unlink()
    options = Koala(duration=(1.0, 120.0), csv=f"{elsewhere}/*.csv", videos=str(elsewhere / "full"))
    named = catalogue(folder, replace(PARAMS, clips=Clips(source="koala", koala=options)))
    assert f"what changes in {elsewhere}, {elsewhere / 'full'}: " in capsys.readouterr().err
    assert named.loc[clips, "file"].tolist() == [str(elsewhere / f"full/{youtube_id(k)}.mp4") for k in (1, 2)]
    assert linked["sha256"].tolist() == named["sha256"].tolist()
    # The whole folder as a link, into which DVC looks.
    for path in (elsewhere / "full").iterdir():
        path.rename(elsewhere / path.name)
    folder.rmdir()
    folder.symlink_to(elsewhere)
    whole = catalogue(folder)
    assert whole.loc[clips, "file"].tolist() == [f"data/raw/koala/{youtube_id(k)}.mp4" for k in (1, 2)]
    assert "DVC does not see" not in capsys.readouterr().err


def test_a_killed_cut_leaves_nothing_and_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = folder.parents[2]
    make_video(folder / f"{youtube_id(1)}.mp4", 100)
    rows = Rows()
    clips = [rows.add(PASSED, 1, videoID=f"{youtube_id(1)}_{k}", timestamp=timestamp(k, k + 5)) for k in (1, 2)]
    rows.write(folder)
    catalogue(folder)
    real, calls = cutting.stream_frames, iter([False, True, False])

    def killed(*arguments: Any) -> Iterator[np.ndarray]:
        frames = real(*arguments)
        yield next(frames)
        if next(calls):
            raise KeyboardInterrupt
        yield from frames

    monkeypatch.setattr(cutting, "stream_frames", killed)
    with pytest.raises(KeyboardInterrupt):
        cutting.cut_koala(PARAMS, root, 1)
    done = [path.name for path in (folder / "cut").iterdir()]
    assert len(done) == 1
    written = (folder / "cut" / done[0]).stat().st_mtime_ns
    cutting.cut_koala(PARAMS, root, 1)
    assert sorted(path.stem for path in (folder / "cut").iterdir()) == sorted(clips)
    assert (folder / "cut" / done[0]).stat().st_mtime_ns == written
