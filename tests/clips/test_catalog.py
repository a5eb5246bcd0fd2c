"""The catalogue: every row and every file is accounted for, with a reason where it cannot be used."""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsr import project
from dsr.clips import catalog
from dsr.console import StageError
from dsr.files import sha256_file, write_npz
from dsr.params import Clips, Params
from dsr.workers import Failure, ended_after, reason
from tests.videos import make_video

PARAMS = Params(clips=Clips(source="street"))
SAFE = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """data/raw/street/ of a project folder `root`."""
    folder = tmp_path / "data" / "raw" / "street"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def processes() -> None:
    """Asked for by a test that is about the worker processes."""


@pytest.fixture(autouse=True)
def in_process(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Probe in this process, which saves a second a test, unless the test is about the processes."""
    if "processes" not in request.fixturenames:
        monkeypatch.setattr(catalog, "map_isolated", _map_here)


def _map_here(function: Callable[[object], object], items: list[object], workers: int) -> Iterator[object]:
    for i, item in enumerate(items):
        try:
            yield i, function(item)
        except (ValueError, OSError) as error:
            yield i, Failure(reason(error))


def catalogue(folder: Path, *lines: str, params: Params = PARAMS, workers: int = 1) -> pd.DataFrame:
    """The catalogue of clips.csv with these lines, by clip_id."""
    if lines:
        (folder / "clips.csv").write_text("\n".join(lines) + "\n")
    root = folder.parents[2]
    catalog.run(params, root, workers)
    return pd.read_parquet(root / project.CATALOG)


def reasons(table: pd.DataFrame) -> dict[str, str]:
    return dict(zip(table["clip_id"], table["reason"], strict=True))


def write_truth(path: Path, num_frames: int = 50, *, rendered: bool = False, shift: float = 0.0) -> Path:
    times = np.arange(num_frames) / 10 + shift
    write_npz(path, {"timestamps": times, "size": np.array([240, 320]), "rendered": np.array(rendered)})
    return path


def test_a_good_clip_is_measured(folder: Path) -> None:
    path = make_video(folder / "a.mp4", 40, (64, 48))
    row = catalogue(folder, "clip_id,caption,weather", 'a,"A dog runs, fast",rain').iloc[0]
    assert list(row.index) == [*catalog.COLUMNS, "weather"]
    assert row.to_dict() == {
        "clip_id": "a",
        "status": "ok",
        "reason": "",
        "source": "street",
        "file": "data/raw/street/a.mp4",
        "truth": "",
        "annotation": "",
        "sha256": sha256_file(path),
        "source_video": "a",
        "caption": "A dog runs, fast",
        "start": 0.0,
        "end": pytest.approx(4.0),
        "duration": pytest.approx(4.0),
        "fps": pytest.approx(10.0),
        "num_frames": 40,
        "width": 64,
        "height": 48,
        "weather": "rain",
    }


def test_bad_files_are_rows_with_a_reason(folder: Path) -> None:
    good = make_video(folder / "good.mkv", 100).read_bytes()
    make_video(folder / "brief.mp4", 31)
    make_video(folder / "sound.mp4", video=False, audio=True)
    (folder / "zero.mp4").write_bytes(b"")
    (folder / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(4000))
    (folder / "cut.mkv").write_bytes(good[: len(good) // 2])
    (folder / "head.mkv").write_bytes(good[:700])
    (folder / "unnamed.mp4").write_bytes(good)
    (folder / "folder.mp4").mkdir()
    names = ["brief", "cut", "folder", "good", "head", "missing", "noise", "sound", "zero"]
    table = catalogue(folder, "videoID,caption", *(f"{name},A dog" for name in names))
    assert table["clip_id"].tolist() == sorted([*names, "unnamed"])
    expected = {
        "brief": "too few frames: 31, cues.num_frames is 32",
        "cut": "truncated: ",
        "folder": "no video: ",
        "good": "",
        "head": "no frames: ",
        "missing": "no video: ",
        "noise": "not a readable video: ",
        "sound": "no video stream: audio only",
        "zero": "empty file: zero bytes",
        "unnamed": "no row in clips.csv: ",
    }
    for clip_id, why in reasons(table).items():
        assert why.startswith(expected[clip_id]), (clip_id, why)
    assert table.set_index("clip_id")["status"].eq("ok").to_dict() == {k: not v for k, v in expected.items()}


HOSTILE = ["../x", ".hidden", "", " ", "a/b", "/etc/passwd", "a\\b", "a\0b", "a\nb", "x" * 201, "аbc", "ａ", "[/red]"]


def test_hostile_ids_are_shown_and_never_used(folder: Path) -> None:
    make_video(folder / "good.mp4")
    lines = ["clip_id,caption", *(f'"{clip_id}",A dog' for clip_id in HOSTILE), "good,A dog"]
    table = catalogue(folder, *lines)
    assert len(table) == len(HOSTILE) + 1
    bad = table[table["clip_id"] != "good"]
    assert bad["reason"].str.startswith("unsafe clip_id: ").all()
    assert (bad["status"] == "failed").all()
    assert (bad["file"] == "").all()
    for shown in bad["clip_id"]:
        assert shown.isprintable()
        assert shown.isascii()
        assert len(shown) <= 80


@given(st.one_of(st.text(max_size=300), st.text(SAFE, min_size=1, max_size=210)))
def test_an_id_is_itself_only_if_it_is_safe_as_a_file_name(clip_id: str) -> None:
    shown = catalog._shown_id(clip_id)
    safe = bool(clip_id) and set(clip_id) <= set(SAFE) and clip_id[0] != "." and len(clip_id) <= 200
    assert (shown == clip_id) == safe
    assert safe or (shown[0] in "'\"" and shown.isascii() and shown.isprintable())


def test_ids_and_content_that_repeat(folder: Path) -> None:
    content = make_video(folder / "b.mp4", seed=1).read_bytes()
    (folder / "a.mp4").write_bytes(content)
    (folder / "c.mp4").write_bytes(content)
    make_video(folder / "d.mp4", seed=2)
    table = catalogue(folder, "clip_id,caption", "c,A", "b,A", "a,A", "d,first", "d,second")
    assert reasons(table.iloc[:3]) == {
        "a": "",
        "b": "duplicate: the same content as a",
        "c": "duplicate: the same content as a",
    }
    assert table.iloc[3:][["status", "caption"]].to_numpy().tolist() == [["ok", "first"], ["failed", "second"]]
    assert table.iloc[4]["reason"] == "clip_id used before: in row 5 of clips.csv"


def test_ids_that_differ_by_case_alone_are_the_same_id(folder: Path) -> None:
    for k, name in enumerate(("a.mp4", "A.mp4")):
        make_video(folder / name, seed=k)
    table = catalogue(folder, "clip_id,caption", "a,first", "A,second").set_index("clip_id")
    assert table["status"].to_dict() == {"A": "failed", "a": "ok"}
    assert table.loc["A", "reason"].startswith("clip_id used before: in row 2 of clips.csv, as 'a'")


def test_clips_cut_from_one_file_are_clips_of_one_source_video(folder: Path) -> None:
    make_video(folder / "long.mp4", 100)
    lines = ["early,A,long.mp4,0,4", "late,A,long.mp4,4.05,", "past,A,long.mp4,4,30", "turned,A,long.mp4,5,4"]
    table = catalogue(folder, "clip_id,caption,file,start,end", *lines, "odd,A,long.mp4,nan,4", "word,A,long.mp4,x,")
    by_id = table.set_index("clip_id")
    assert by_id.loc[["early", "late"], "num_frames"].tolist() == [41, 59]
    assert by_id.loc["late", "end"] == pytest.approx(10.0)
    assert by_id.loc[["early", "late"], "source_video"].tolist() == ["early", "early"]
    kinds = by_id["reason"].str.split(":").str[0].to_dict()
    assert kinds == {
        "early": "",
        "late": "",
        "odd": "trim not understood",
        "past": "trim outside the video",
        "turned": "trim outside the video",
        "word": "trim not understood",
    }


def test_source_videos_by_pattern_and_by_column(folder: Path) -> None:
    for i, name in enumerate(["yt_0", "yt_1", "other"]):
        make_video(folder / f"{name}.mp4", seed=i + 1)
    lines = ["clip_id,caption,source_video", "yt_0,A,one", "yt_1,A,two", "other,A,"]
    assert catalogue(folder, *lines)["source_video"].tolist() == ["other", "one", "two"]
    params = replace(PARAMS, clips=Clips(source="street", source_video_pattern=r"^(.+)_\d+$"))
    assert catalogue(folder, params=params)["source_video"].tolist() == ["other", "yt", "yt"]


def test_paths_stay_in_the_source_folder(folder: Path) -> None:
    outside = make_video(folder.parents[2] / "secret.mp4")
    make_video(folder / "sub" / "inside.mp4", seed=1)
    (folder / "link.mp4").symlink_to(outside)
    (folder / "loop.mp4").symlink_to(folder / "loop.mp4")
    (folder / "dead.mp4").symlink_to(folder / "nothing.mp4")
    cached = folder.parents[2] / "cache" / "files" / "md5" / "ab" / ("c" * 30)
    make_video(cached.with_suffix(".mp4"), seed=2).rename(cached)
    (folder / "cached.mp4").symlink_to(cached)
    lines = ["up,A,../../../secret.mp4", f"absolute,A,{outside}", "sub,A,sub/inside.mp4", 'nul,A,"a\0.mp4"']
    lines += ["link,A,", "loop,A,", "dead,A,", "cached,A,", "folder,A,sub", f"long,A,{'x' * 300}.mp4"]
    table = catalogue(folder, "clip_id,caption,file", *lines)
    kinds = {clip_id: reason.split(":")[0] for clip_id, reason in reasons(table).items()}
    assert kinds == {
        "absolute": "path outside the source folder",
        "cached": "",
        "dead": "file missing",
        "folder": "file missing",
        "link": "path outside the source folder",
        "long": "file cannot be read",
        "loop": "file cannot be read",
        "nul": "file missing",
        "sub": "",
        "up": "path outside the source folder",
    }


def test_a_trajectory_alone_is_a_clip(folder: Path) -> None:
    truth = write_truth(folder / "truth" / "a.npz")
    write_truth(folder / "rendered.npz", rendered=True)
    write_truth(folder / "few.npz", 8)
    (folder / "bad.npz").write_bytes(b"PK\x03\x04 no archive")
    np.savez(folder / "objects.npz", timestamps=np.array([{"a": 1}], dtype=object), size=np.zeros(2))
    lines = [f"{name},A,{name}.npz" for name in ("rendered", "few", "bad", "objects", "none")]
    table = catalogue(folder, "clip_id,caption,truth", "a,A robot turns,truth/a.npz", *lines)
    row = table.iloc[0]
    assert (row["file"], row["truth"], row["sha256"]) == ("", "data/raw/street/truth/a.npz", sha256_file(truth))
    assert (row["num_frames"], row["fps"], row["width"], row["height"]) == (50, pytest.approx(10), 320, 240)
    assert (row["status"], row["end"]) == ("ok", pytest.approx(5))
    assert {clip_id: reason.split(":")[0] for clip_id, reason in reasons(table).items()} == {
        "a": "",
        "bad": "truth unreadable",
        "few": "too few frames",
        "none": "truth missing",
        "objects": "truth unreadable",
        "rendered": "file missing",
    }


def test_truth_must_be_of_its_video(folder: Path) -> None:
    make_video(folder / "a.mp4", 40)
    write_truth(folder / "a.npz", 41, rendered=True)
    with pytest.raises(StageError, match="truth does not match: 41 frames, the video has 40"):
        catalogue(folder, "clip_id,caption,truth", "a,A,a.npz")


def test_other_files_are_no_videos(folder: Path) -> None:
    make_video(folder / "a.mp4")
    for name in ("a.mp4.dvc", ".gitignore", "notes.txt", "a.json", ".hidden.mp4"):
        (folder / name).write_text("x")
    (folder / "a.json").write_text("{}")
    row = catalogue(folder, "clip_id,caption,annotation", "a,A,a.json").iloc[0]
    assert (row["status"], row["annotation"]) == ("ok", "data/raw/street/a.json")
    assert len(catalogue(folder)) == 1


def test_two_videos_of_one_name_must_be_told_apart(folder: Path) -> None:
    make_video(folder / "a.mp4")
    make_video(folder / "a.mkv")
    make_video(folder / "b.mp4", seed=3)
    table = catalogue(folder, "clip_id,caption", "a,A", "b,A")
    assert reasons(table) == {"a": "several videos: a.mkv, a.mp4; name one in a column `file`", "b": ""}
    table = catalogue(folder, "clip_id,caption,file", "a,A,a.mp4", "b,A,")
    assert table[["clip_id", "status"]].to_numpy().tolist() == [["a", "ok"], ["a", "failed"], ["b", "ok"]]


def test_tables_as_spreadsheets_write_them(folder: Path) -> None:
    make_video(folder / "a.mp4")
    make_video(folder / "b.mp4", seed=1)
    lines = [
        "\ufeffclip_id , caption,status,category",
        'a,"Ein ""Hund""',
        'läuft 狗",new,pets',
        "b,short",
        "c,A,x,y,z",
        "",
    ]
    (folder / "clips.csv").write_bytes("\r\n".join(lines).encode())
    table = catalogue(folder)
    assert table["status"].tolist() == ["ok", "failed", "failed"]
    assert table["caption"].iloc[0] == 'Ein "Hund"\r\nläuft 狗'
    assert (table["given_status"].iloc[0], table["given_category"].iloc[0]) == ("new", "pets")
    assert table["reason"].iloc[1] == "ragged row: row 3 has 2 fields, the header 4"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "clips.csv does not exist"),
        (b"", "has no column clip_id"),
        (b"id,caption\n", r"has no column clip_id \(or videoID\)"),
        (b"clip_id;caption\na;A\n", "commas"),
        (b"clip_id\na\n", "has no column caption"),
        (b"clip_id,caption,caption\n", "column 'caption' twice"),
        (b"clip_id,caption\n", "none of 0 clips"),
        ("clip_id,caption\na,é".encode("latin-1"), "not UTF-8"),
        ("clip_id,caption\n".encode("utf-16"), "not UTF-8"),
        (b'clip_id,caption\na,"never closed\n', "cannot be read as CSV"),
        (b"clip_id,caption\na,A\n", "none of 1 clips can be used; the first: a: no video"),
    ],
)
def test_a_table_that_cannot_be_read_says_why(folder: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (folder / "clips.csv").write_bytes(content)
    with pytest.raises(StageError, match=message) as caught:
        catalogue(folder)
    assert "\n" not in str(caught.value)


def test_a_missing_source_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="street does not exist"):
        catalog.run(PARAMS, tmp_path, 1)


@pytest.mark.slow
def test_a_decoder_that_crashes_or_hangs_costs_one_clip(
    folder: Path, processes: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Spawned processes import the module anew, so the clips themselves are given a probe that misbehaves."""
    for i, name in enumerate(["crash", "fine", "hang"]):
        make_video(folder / f"{name}.mp4", seed=i + 1)
    monkeypatch.setattr(catalog, "_probe_clip", _misbehave)
    monkeypatch.setattr(catalog, "TIME_LIMIT", 3)
    table = catalogue(folder, "clip_id,caption", "crash,A", "fine,A", "hang,A", workers=2)
    assert table["status"].tolist() == ["failed", "ok", "failed"]
    assert table["reason"].iloc[0].startswith("decoder crashes: its worker process died of SIGSEGV")
    assert table["reason"].iloc[2] == "decoder hangs: no answer in 3 s"


def _misbehave(job: object, time_limit: int) -> object:
    name = job.video.stem  # type: ignore[attr-defined]
    if name == "crash":
        os.kill(os.getpid(), 11)
    if name == "hang":
        with ended_after(time_limit):
            time.sleep(60)
    return catalog._probe_clip(job, time_limit)  # type: ignore[arg-type]


@pytest.mark.slow
def test_same_clips_same_bytes_on_one_process_or_two(folder: Path, processes: None) -> None:
    for i in range(6):
        make_video(folder / f"clip_{i}.mp4", seed=i + 1)
    lines = ["clip_id,caption,note", *(f"clip_{i},A dog,{i}" for i in (3, 1, 0, 5, 4, 2))]
    catalogue(folder, *lines, workers=1)
    path = folder.parents[2] / project.CATALOG
    before = path.read_bytes()
    catalogue(folder, *lines, workers=2)
    assert path.read_bytes() == before


@pytest.mark.slow
def test_thousands_of_clips(folder: Path, processes: None) -> None:
    template = write_truth(folder / "template.npz").read_bytes()
    lines = ["clip_id,caption,truth"]
    for i in range(2000):
        (folder / f"t{i}.npz").write_bytes(template if i % 2 else b"")
        lines.append(f"c{i},A robot drives past a cube,t{i}.npz")
    table = catalogue(folder, *lines, workers=2)
    assert table["reason"].str.split(":").str[0].value_counts().to_dict() == {
        "truth unreadable": 1000,
        "duplicate": 999,
        "": 1,
    }
