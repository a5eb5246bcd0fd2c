"""Paired comparison: figures by hand, sources that are files, folders and revisions."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dsr.console import StageError
from dsr.evaluation.compare import compare, mcnemar, read_predictions, run
from dsr.files import write_parquet


def predictions(right: str, *, kinds: str = "", asked: str = "") -> pd.DataFrame:
    """One question a character: 1 right, 0 wrong, - missing. Types by letter, two questions a video."""
    count = len(right)
    return pd.DataFrame(
        {
            "control": "score",
            "qa_id": [f"q{k}" for k in range(count)],
            "asked": list(asked or "x" * count),
            "type": [{"d": "rel_dis", "a": "abs_dir"}[k] for k in kinds or "d" * count],
            "source_video": [f"v{k // 2}" for k in range(count)],
            "correct": [c == "1" for c in right],
            "status": ["missing" if c == "-" else "scored" for c in right],
        }
    )


def test_figures_by_hand() -> None:
    first = predictions("1100110-", kinds="ddddaaaa")
    second = predictions("1111100-", kinds="ddddaaaa")
    result = compare(first, second, 500, 1)
    assert result["questions"] == {"shared": 8, "first_alone": 0, "second_alone": 0, "changed": 0}
    everything, distance, direction = result["groups"]
    assert [row["group"] for row in result["groups"]] == ["all", "rel_dis", "abs_dir"]
    assert (everything["accuracy_a"], everything["accuracy_b"]) == (0.5, 0.625)
    assert (everything["only_a"], everything["only_b"], everything["difference"]) == (1, 2, 0.125)
    assert everything["p"] == 1  # 1 of 3: P(<= 1) + P(>= 2)
    # Two videos: both right before or after, so a resample's difference is 0, 0.5 or 1.
    assert (distance["difference"], distance["low"], distance["high"]) == (0.5, 0, 1)
    assert (direction["accuracy_a"], direction["accuracy_b"]) == (0.5, 0.25)


def test_mcnemar_by_hand() -> None:
    assert mcnemar(0, 0) == 1
    assert mcnemar(0, 5) == pytest.approx(2 / 2**5)
    assert mcnemar(1, 9) == pytest.approx(2 * (1 + 10) / 2**10)
    assert mcnemar(4, 4) == 1


def test_only_the_same_questions_count() -> None:
    first = predictions("1111", asked="abcd")
    second = predictions("00000", asked="abXde").iloc[1:]
    result = compare(first, second, 200, 1)
    assert result["questions"] == {"shared": 2, "first_alone": 1, "second_alone": 1, "changed": 1}
    assert result["groups"][0]["questions"] == 2
    with pytest.raises(StageError, match="no question is the same"):
        compare(predictions("1", asked="a"), predictions("1", asked="b"), 200, 1)


def test_a_run_against_itself_differs_by_nothing() -> None:
    table = predictions("1010-110")
    row = compare(table, table, 200, 1)["groups"][0]
    assert (row["difference"], row["low"], row["high"], row["p"]) == (0, 0, 0, 1)


def test_intervals_know_that_questions_of_a_video_go_together() -> None:
    rng = np.random.default_rng(0)
    videos = np.repeat([f"v{k:02d}" for k in range(20)], 10)
    better = np.repeat(rng.random(20) < 0.5, 10)
    base = predictions("0" * 200).assign(source_video=videos)
    other = base.assign(correct=better)
    together = compare(base, other, 1000, 1)["groups"][0]
    apart = compare(base.assign(source_video=base["qa_id"]), other.assign(source_video=base["qa_id"]), 1000, 1)[
        "groups"
    ][0]
    assert together["high"] - together["low"] > 2 * (apart["high"] - apart["low"])


@pytest.mark.slow
def test_files_folders_and_revisions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "project"
    place = root / "data/predictions/bench.parquet"
    write_parquet(place, predictions("1100"))
    for command in (
        ["git", "init", "-q"],
        ["git", "config", "user.email", "a@b"],
        ["git", "config", "user.name", "a"],
        ["dvc", "init", "-q"],
        ["dvc", "add", "-q", str(place)],
        ["git", "add", "-A"],
        ["git", "commit", "-qm", "first"],
    ):
        subprocess.run(command, cwd=root, check=True, capture_output=True)
    place.unlink()  # a link to DVC's cache, which must stay as it is
    write_parquet(place, predictions("1111"))
    # Another project's predictions, in the current folder.
    write_parquet(tmp_path / "other/data/predictions/bench.parquet", predictions("0000"))
    monkeypatch.chdir(tmp_path / "other")
    output = tmp_path / "comparison.json"
    run(root, "HEAD", "workspace", "score", 200, 1, output)
    assert json.loads(output.read_text())["groups"][0]["difference"] == 0.5
    assert "+50.0" in capsys.readouterr().err
    assert len(read_predictions(root, str(root))) == len(read_predictions(root, str(place))) == 4
    with pytest.raises(StageError, match="no revision or experiment"):
        run(root, "nowhere", "workspace", "score", 200, 1, None)
    with pytest.raises(StageError, match="has no run 'blind'; it has score"):
        run(root, "workspace", "workspace", "blind", 200, 1, None)
    place.write_text("broken")
    with pytest.raises(StageError, match="not a parquet file"):
        run(root, "workspace", "workspace", "score", 200, 1, None)
    write_parquet(place, predictions("1").drop(columns="asked"))
    with pytest.raises(StageError, match="older version"):
        run(root, "workspace", "workspace", "score", 200, 1, None)
