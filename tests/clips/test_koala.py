"""Koala-36M's rows: each has one fate, and the draw depends on nothing but the rows and the seed."""

import csv
import os
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsr.clips import koala
from dsr.console import StageError
from dsr.params import Koala
from tests.koala_files import COLUMNS, PARAMETERS, PASSED, SOUND, awkward, caption_of, timestamp, youtube_id
from tests.koala_files import Koala as Rows

FOLDER = "data/raw/koala"
OPTIONS = Koala(**PARAMETERS)


def row(number: int, video_id: str = "", start: float = 60.5, end: float = 90.5, caption: str = "A dog") -> koala.Row:
    video_id = video_id or f"{youtube_id(number)}_{number}"
    times = video_id.rpartition("_")[0], start, end
    return koala.Row(video_id, *times, caption, timestamp(start, end), ("", "", "", ""), "a.csv", number)


def rows_of(*rows: dict[str, str], columns: Sequence[str] = COLUMNS, root: Path, name: str = "Koala_36M_1.csv") -> None:
    """Write a CSV file of rows, what they do not name being sound."""
    path = root / FOLDER / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(columns), extrasaction="ignore")
        writer.writeheader()
        for number, given_row in enumerate(rows):
            writer.writerow({"videoID": f"{youtube_id(number)}_{number}", "url": "", **SOUND, **given_row})


def found(root: Path, **options: Any) -> koala.Found:
    return koala.find_rows(replace(Koala(), **options), root, 1)


def test_every_row_has_one_fate(tmp_path: Path) -> None:
    rows = awkward()
    rows.write(tmp_path / FOLDER)
    result = koala.find_rows(OPTIONS, tmp_path, 1)
    expected = rows.fates()
    passed = expected.pop(PASSED)
    assert 280 <= result.total <= 320
    assert result.total == len(rows.rows) == len(result.rows) + sum(result.left_out.values())
    assert {fate: count for fate, count in result.left_out.items() if count} == expected
    assert len(result.rows) == passed
    # The same part of one video under two numbers: the second one drawn is a copy of the first.
    name = youtube_id(600)
    assert [{first, second} for first, second in result.copies.items()] == [{f"{name}_600", f"{name}_603"}]


def test_captions_and_times_are_as_written(tmp_path: Path) -> None:
    awkward().write(tmp_path / FOLDER)
    by_id = {found_row.video_id: found_row for found_row in koala.find_rows(OPTIONS, tmp_path, 1).rows}
    for number in range(120):
        assert by_id[f"{youtube_id(number)}_{number}"].caption == caption_of(number)
    seconds = [(by_id[f"{youtube_id(n)}_{n}"].start, by_id[f"{youtube_id(n)}_{n}"].end) for n in range(250, 258)]
    assert seconds == [
        (5, 30),
        (5.1, 30.25),
        (5, 30),
        (5, 30),
        (36005.999, 36065.999),
        (5, 30),
        (10, 30),
        (10.007, 130.007),
    ]
    # What is not UTF-8 is replaced, not lost.
    assert by_id[f"{youtube_id(600)}_603"].caption == "A d\ufffd\ufffdg runs"
    ids = {name.rpartition("_")[0]: found_row.youtube_id for name, found_row in by_id.items()}
    assert all(name == own and len(own) == 11 for name, own in ids.items())


@pytest.mark.parametrize("max_clips", [1, 40, 1000])
def test_the_draw_knows_neither_files_nor_their_order(tmp_path: Path, max_clips: int) -> None:
    rows = awkward()
    options = replace(OPTIONS, max_clips=max_clips)
    rows.write(tmp_path / "one" / FOLDER, files=1)
    first = koala.find_rows(options, tmp_path / "one", 1)
    # From the end, but for the quote that is not closed: what follows it must begin as a row does.
    rows.rows.reverse()
    rows.write(tmp_path / "many" / FOLDER, files=7)
    second = koala.find_rows(options, tmp_path / "many", 1)
    place = {"csv": "", "number": 0}
    assert [r._replace(**place) for r in first.rows] == [r._replace(**place) for r in second.rows]
    assert (first.left_out, first.total) == (second.left_out, second.total)
    assert first.total == len(first.rows) + sum(first.left_out.values())


def test_a_larger_draw_holds_the_smaller(tmp_path: Path) -> None:
    awkward().write(tmp_path / FOLDER)
    draws = [koala.find_rows(replace(OPTIONS, max_clips=size), tmp_path, 1).rows for size in (1, 10, 50, 10_000)]
    for small, large in pairwise(draws):
        assert large[: len(small)] == small
    other = koala.find_rows(replace(OPTIONS, max_clips=50, seed=2), tmp_path, 1).rows
    assert len({r.video_id for r in other} & {r.video_id for r in draws[2]}) < 30


@given(st.lists(st.integers(0, 30), max_size=60), st.integers(1, 12), st.integers(1, 4), st.randoms())
def test_draws_of_parts_make_the_draw_of_all(numbers: list[int], size: int, parts: int, random: Any) -> None:
    rows = [row(number, end=90.5 + place % 3) for place, number in enumerate(numbers)]
    draws = [koala.Draw(size, 5) for _ in range(parts)]
    for each in rows:
        random.choice(draws).offer(each)
    whole = koala.Draw(size, 5)
    for part in draws:
        whole.merge(part)
    smallest = sorted({r.video_id for r in rows}, key=whole.hash)[:size]
    assert [r.video_id for r in whole.in_order()] == smallest
    assert whole.seen == {name: sum(r.video_id == name for r in rows) for name in smallest}
    assert all(whole.rows[name] == min(r for r in rows if r.video_id == name) for name in smallest)


@pytest.mark.slow
def test_one_process_or_three(tmp_path: Path) -> None:
    awkward().write(tmp_path / FOLDER, files=5)
    options = replace(OPTIONS, max_clips=60)
    assert koala.find_rows(options, tmp_path, 1) == koala.find_rows(options, tmp_path, 3)


def test_columns_in_any_order_with_others_and_without_a_bom(tmp_path: Path) -> None:
    rows_of({}, {"clarity_score": "0.1"}, columns=[*COLUMNS[::-1], "extra"], root=tmp_path)
    rows_of(
        {"videoID": "cC-Q5kcc3R8_27"},
        columns=["caption", "videoID", "timestamp"],
        root=tmp_path,
        name="Koala_36M_2.csv",
    )
    assert len(found(tmp_path).rows) == 3
    with pytest.raises(
        StageError, match=r"Koala_36M_2\.csv has no column clarity_score, which clips\.koala\.min_clarity"
    ):
        found(tmp_path, min_clarity=0.5)
    (tmp_path / FOLDER / "Koala_36M_2.csv").unlink()
    assert found(tmp_path, min_clarity=0.5).left_out["filtered, clarity"] == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"has no column videoID; its columns: none\. Is it a CSV file of Koala-36M\?"),
        ("videoID,timestamp,caption\n".encode("utf-16"), "has no column videoID"),
        (b"videoID\ttimestamp\tcaption\n", "has no column videoID"),
        (b"videoID,timestamp,caption,videoID\n", "has column videoID twice"),
        (b"videoID,timestamp\n", "has no column caption"),
        (b'"' + b"x" * 2_000_000 + b"\n", "cannot be read: field larger than"),
    ],
)
def test_a_file_that_is_none_of_koalas_stops_the_stage(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / FOLDER / "Koala_36M_1.csv"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(StageError, match=message) as caught:
        found(tmp_path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_no_file_says_where_to_put_them(tmp_path: Path) -> None:
    with pytest.raises(
        StageError, match=r"no CSV file data/raw/koala/Koala_36M_\*\.csv: put .* or set clips\.koala\.csv"
    ):
        found(tmp_path)


def test_a_folder_in_place_of_a_file_stops_the_stage(tmp_path: Path) -> None:
    (tmp_path / FOLDER / "Koala_36M_1.csv").mkdir(parents=True)
    with pytest.raises(StageError, match="Is a directory"):
        found(tmp_path)


def test_a_quote_that_is_never_closed_costs_its_row(tmp_path: Path) -> None:
    rows = Rows()
    rows.add(PASSED, 0)
    rows.add_raw("malformed, fields", f'{youtube_id(1)}_1,https://youtu.be/{youtube_id(1)},"\n'.encode())
    rows.add(PASSED, 2, caption=f"One line,\n{youtube_id(3)}_3, not a row: it has no address\n")
    rows.add(PASSED, 3)
    rows.add_raw("malformed, fields", f'{youtube_id(4)}_4,https://youtu.be/{youtube_id(4)},"\nto the end'.encode())
    rows.write(tmp_path / FOLDER, files=1)
    result = found(tmp_path)
    assert sorted(r.video_id for r in result.rows) == sorted(f"{youtube_id(k)}_{k}" for k in (0, 2, 3))
    assert result.left_out["malformed, fields"] == 2
    numbers = {r.video_id: r.number for r in result.rows}
    assert (numbers[f"{youtube_id(0)}_0"], numbers[f"{youtube_id(3)}_3"]) == (2, 5)


def test_a_line_without_an_end_is_read_in_flat_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(koala, "_LINE_LIMIT", 1000)
    rows = Rows()
    rows.add(PASSED, 0)
    rows.add_raw("malformed, fields", b"x," * 5000 + b"\n")
    rows.add(PASSED, 1)
    rows.write(tmp_path / FOLDER, files=1)
    result = found(tmp_path)
    assert (len(result.rows), result.left_out["malformed, fields"]) == (2, 1)


def test_words_are_whole_and_in_any_case(tmp_path: Path) -> None:
    captions = ["A dog runs", "HOT DOG", "Dogs run", "a fire\n truck", "a firetruck", "狗 dog狗", "C++ code (dog)"]
    rows_of(*({"caption": text} for text in captions), root=tmp_path)

    def kept(**options: Any) -> list[str]:
        return sorted(r.caption for r in found(tmp_path, **options).rows)

    assert kept(words=("dog", "fire truck")) == sorted([captions[k] for k in (0, 1, 3, 6)])
    assert kept(words=("c++",)) == [captions[6]]
    assert kept(words=("dog",), without_words=("hot", "code")) == [captions[0]]


@pytest.mark.parametrize("name", ["ids.parquet", "ids.csv", "ids.tsv", "ids.txt", "DSRBench.tsv"])
def test_ids_of_a_table(tmp_path: Path, name: str) -> None:
    rows_of(*({} for _ in range(9)), root=tmp_path)
    ids = [f"{youtube_id(k)}_{k}" for k in (2, 5, 5, 77)]
    table = pd.DataFrame({"question": "?", "videoID": [*ids, "no id"]})
    match name:
        case "ids.parquet":
            table.to_parquet(tmp_path / name)
        case "DSRBench.tsv":
            table["video"] = table.pop("videoID") + ".mp4"
            table.to_csv(tmp_path / name, index=False, sep="\t")
        case "ids.txt":
            (tmp_path / name).write_text("\n".join(ids))
        case _:
            table.to_csv(tmp_path / name, index=False, sep="\t" if name.endswith("tsv") else ",")
    result = found(tmp_path, ids=name)
    assert {r.video_id for r in result.rows} == {ids[0], ids[1]}
    assert result.left_out["filtered, ids"] == 7
    parts = koala.find_parts(Koala(), tmp_path, 1, ids)
    assert parts == {ids[0]: (60.5, 90.5), ids[1]: (60.5, 90.5)}


@pytest.mark.parametrize(
    ("name", "content"), [("a.txt", "no ids"), ("a.csv", "id\nx\n"), ("a.parquet", "x"), ("no.txt", None)]
)
def test_ids_that_cannot_be_read(tmp_path: Path, name: str, content: str | None) -> None:
    rows_of({}, root=tmp_path)
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(StageError, match=rf"clips\.koala\.ids: .*{name}"):
        found(tmp_path, ids=name)


def test_near_copies_by_the_order_of_the_draw() -> None:
    name = youtube_id(1)
    rows = [row(k, f"{name}_{k}", start=10 + shift, end=40 + shift) for k, shift in enumerate([0, 0.1, 0.25, 0.3])]
    assert koala._copies(rows) == {f"{name}_1": f"{name}_0", f"{name}_3": f"{name}_2"}
    assert koala._copies([row(1, start=10), row(2, start=10)]) == {}


def test_files_by_name(tmp_path: Path) -> None:
    one, two, three, four = (youtube_id(k) for k in (1, 2, 3, 4))
    outside = tmp_path / "elsewhere"
    folder = tmp_path / "videos"
    for path in (
        folder / f"{one}.mp4",
        folder / "cut" / f"{one}_7.mp4",
        outside / f"A title [{two}].webm",
        folder / f"{three}.mp4",
        folder / "b" / f"{three}.mkv",
        folder / f"{four}.mp4.part",
        folder / f".{four}.mp4",
        folder / f"{four}.f137.mp4",
        folder / f"{four}.jpg",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    (folder / "link").symlink_to(outside)
    (outside / "back").symlink_to(folder)
    (folder / f"{youtube_id(5)}.mp4").symlink_to("nowhere.mp4")
    files = koala.Files(folder)
    assert files.find(f"{one}_7") == (folder / "cut" / f"{one}_7.mp4", True)
    assert files.find(f"{one}_8") == (folder / f"{one}.mp4", False)
    assert files.find(f"{two}_1") == (folder / "link" / f"A title [{two}].webm", False)
    for number, message in ((3, "several videos: .*; keep one"), (4, "no file: no video is named"), (5, "broken link")):
        with pytest.raises(FileNotFoundError, match=message):
            files.find(f"{youtube_id(number)}_1")
    assert os.fspath(koala.Files(tmp_path / "none").folder).endswith("none")


def test_draw_among_clips_with_a_file(tmp_path: Path) -> None:
    rows_of(*({} for _ in range(9)), root=tmp_path)
    for name in (youtube_id(3), f"{youtube_id(5)}_5", f"{youtube_id(6)}_7"):
        (tmp_path / FOLDER / f"{name}.mp4").write_bytes(b"x")
    options = Koala(only_with_file=True)
    result = koala.find_rows(options, tmp_path, 1, koala.Files(tmp_path / FOLDER))
    assert {r.number - 2 for r in result.rows} == {3, 5}
    assert result.left_out["filtered, only_with_file"] == 7


@given(st.floats(0, 3.5e6).map(lambda s: round(s, 3)), st.floats(0.001, 500).map(lambda s: round(s, 3)))
def test_timestamps_round_trip(start: float, seconds: float) -> None:
    parsed = koala.parse_timestamp(timestamp(start, start + seconds))
    # 59.9996 is written as 60.000, which is no time.
    assert parsed is None or parsed == pytest.approx((start, start + seconds), abs=1.1e-3)
    assert koala.parse_timestamp(timestamp(round(start), round(start) + 1)) == (round(start), round(start) + 1)


@given(st.text())
def test_no_text_is_too_odd_for_a_timestamp(text: str) -> None:
    parsed = koala.parse_timestamp(text)
    assert parsed is None or parsed[0] < parsed[1]
