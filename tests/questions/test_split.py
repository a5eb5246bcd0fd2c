"""Train and bench out of whole blocks."""

import itertools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dsr.console import StageError
from dsr.files import write_parquet
from dsr.mcq import PUBLISHED_COLUMNS, read_questions, read_row
from dsr.params import Params, Split
from dsr.questions.split import choose_blocks, run, split
from dsr.questions.verdicts import HEADER, append_verdict
from tests.questions.reviewing import a_question, a_verdict

OPTIONS = ["A. grows", "B. shrinks", "C. grows, then shrinks", "D. constant"]


def pool_of(blocks: dict[int, dict[str, int]]) -> pd.DataFrame:
    """A pool with {block: {type: quartets}}; each block has a source video of its own with two clips."""
    rows = []
    for block, types in blocks.items():
        for kind, quartets in types.items():
            for quartet, letter in itertools.product(range(quartets), "ABCD"):
                rows.append(
                    {
                        "category": "street",
                        "qa_id": f"{block:02d}-{kind}-{quartet:03d}-{letter}",
                        "quartet_id": f"{block:02d}-{kind}-{quartet:03d}",
                        "block": block,
                        "source_video": f"video{block}",
                        "videoID": f"video{block}_{quartet % 2}",
                        "question": "How does the distance change?",
                        "options": OPTIONS,
                        "answer": letter,
                        "type": kind,
                    }
                )
    return pd.DataFrame(rows)


def write_pool(root: Path, pool: pd.DataFrame) -> None:
    write_parquet(root / "data/qa/pool.parquet", pool)


def test_the_benchmark_is_the_set_of_blocks_nearest_to_what_was_asked() -> None:
    # 40 questions of each type; block 2 alone is 30 % of both, blocks 0 and 3 are 30 % of all but of one type each.
    counts = np.array([[12, 0], [16, 16], [12, 12], [0, 12]])
    assert choose_blocks(counts, 0.3, seed=1).tolist() == [False, False, True, False]


def test_the_search_finds_what_trying_every_set_finds() -> None:
    counts = np.random.default_rng(0).integers(0, 30, (9, 4))

    def cost(chosen: tuple[bool, ...]) -> float:
        share = counts[np.array(chosen)].sum(axis=0)
        overall = abs(share.sum() / counts.sum() - 0.3)
        return overall + float(np.abs(share / counts.sum(axis=0) - 0.3).mean())

    every = [c for c in itertools.product([False, True], repeat=9) if 0 < sum(c) < 9]
    assert cost(tuple(choose_blocks(counts, 0.3, seed=1))) == pytest.approx(min(map(cost, every)))


def test_equally_good_sets_are_drawn_by_the_seed() -> None:
    counts = np.full((8, 2), 10)
    drawn = {tuple(choose_blocks(counts, 0.25, seed)) for seed in range(20)}
    assert all(sum(chosen) == 2 for chosen in drawn)
    assert len(drawn) > 5
    assert (choose_blocks(counts, 0.25, 3) == choose_blocks(counts, 0.25, 3)).all()


def test_twenty_blocks_are_searched_and_more_are_refused() -> None:
    counts = np.random.default_rng(0).integers(20, 60, (20, 13))
    share = counts[choose_blocks(counts, 0.3, seed=1)].sum() / counts.sum()
    assert share == pytest.approx(0.3, abs=1e-3)
    with pytest.raises(StageError, match=r"qa\.num_blocks"):
        choose_blocks(np.ones((21, 1), int), 0.3, seed=1)


def test_nothing_is_on_both_sides_and_nothing_is_lost(tmp_path: Path) -> None:
    pool = pool_of({block: {"rel_dis": 3, "abs_dir": 2} for block in range(10)}).sample(frac=1, random_state=1)
    write_pool(tmp_path, pool)
    run(Params(split=Split(bench_fraction=0.3)), tmp_path)
    train, bench = (read_questions(tmp_path / f"data/qa/{side}.parquet") for side in ("train", "bench"))
    for column in ("qa_id", "quartet_id", "source_video", "videoID", "block"):
        assert not set(train[column]) & set(bench[column])
    assert sorted([*train["qa_id"], *bench["qa_id"]]) == sorted(pool["qa_id"])
    assert (len(train), len(bench)) == (140, 60)
    assert bench["type"].value_counts().to_dict() == {"rel_dis": 36, "abs_dir": 24}
    assert tuple(train.columns[:5]) == PUBLISHED_COLUMNS
    assert set(train.columns) == set(pool.columns)
    assert train["qa_id"].is_monotonic_increasing


def test_same_pool_and_seed_give_the_same_bytes(tmp_path: Path) -> None:
    pool = pool_of({block: {"rel_dis": 2} for block in range(6)})
    for root, order in ((tmp_path / "a", pool), (tmp_path / "b", pool.iloc[::-1])):
        write_pool(root, order)
        run(Params(), root)
    for side in ("train", "bench"):
        first, second = ((tmp_path / root / f"data/qa/{side}.parquet").read_bytes() for root in "ab")
        assert first == second


def test_verdicts_take_quartets_away_and_move_no_clip(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool = pool_of({block: {"rel_dis": 3} for block in range(6)})
    write_pool(tmp_path, pool)
    run(Params(), tmp_path)
    bench = read_questions(tmp_path / "data/qa/bench.parquet")
    first, second = (read_row(row) for row in bench.iloc[[0, 4]].to_dict("records"))
    path = tmp_path / "data/qa/review.csv"
    append_verdict(path, a_verdict(first, "reject"))
    append_verdict(path, a_verdict(second, "edit", edited_question="How does its distance change?"))
    append_verdict(path, a_verdict(a_question("gone")))
    capsys.readouterr()
    run(Params(), tmp_path)
    after = read_questions(tmp_path / "data/qa/bench.parquet")
    expected = bench[bench["quartet_id"] != bench["quartet_id"][0]].reset_index(drop=True)
    expected.loc[expected["qa_id"] == second.qa_id, "question"] = "How does its distance change?"
    pd.testing.assert_frame_equal(after, expected)
    assert (after.groupby("quartet_id")["answer"].agg("".join) == "ABCD").all()
    figures = json.loads((tmp_path / "metrics/review.json").read_text())
    assert (figures["rejected"], figures["removed"], figures["edited"], figures["stale"]) == (1, 4, 1, 1)
    assert "1 verdicts of data/qa/review.csv are stale" in " ".join(capsys.readouterr().err.split())


def test_verdicts_of_a_file_with_its_header_alone_change_no_byte(tmp_path: Path) -> None:
    for root, header in ((tmp_path / "a", ""), (tmp_path / "b", HEADER)):
        write_pool(root, pool_of({block: {"rel_dis": 2} for block in range(6)}))
        if header:
            (root / "data/qa/review.csv").write_text(header)
        run(Params(), root)
    for name in ("data/qa/train.parquet", "data/qa/bench.parquet", "metrics/review.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_verdicts_that_leave_no_benchmark_stop_the_stage(tmp_path: Path) -> None:
    write_pool(tmp_path, pool_of({block: {"rel_dis": 1} for block in range(2)}))
    for row in read_questions(tmp_path / "data/qa/pool.parquet").to_dict("records"):
        append_verdict(tmp_path / "data/qa/review.csv", a_verdict(read_row(row), "reject"))
    with pytest.raises(StageError, match="rejects every question of train"):
        run(Params(), tmp_path)
    assert not (tmp_path / "data/qa/bench.parquet").exists()


def test_a_type_that_only_one_side_has_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pool(tmp_path, pool_of({0: {"rel_dis": 2, "rel_ori": 1}, 1: {"rel_dis": 2}}))
    run(Params(), tmp_path)
    assert "no question of type rel_ori in" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("pool", "message"),
    [
        (pool_of({0: {"rel_dis": 1}}).iloc[:0], "holds no question"),
        (pool_of({0: {"rel_dis": 5}}), "all 20 questions are in one block"),
        (pool_of({0: {"rel_dis": 1}, 1: {"rel_dis": 1}}).drop(columns="block"), "no column `block`"),
        (pool_of({0: {"rel_dis": 1}, 1: {"rel_dis": 1}}).assign(source_video="one"), "'one' for one"),
        (pool_of({0: {"rel_dis": 1}, 1: {"rel_dis": 1}}).assign(quartet_id="torn"), "1 quartets are in several blocks"),
    ],
)
def test_a_pool_that_cannot_be_split_is_refused(pool: pd.DataFrame, message: str) -> None:
    with pytest.raises(StageError, match=message):
        split(pool, 0.3, seed=1)
