"""The audit stage on a pool that the engine made."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dsr.audit import audit
from dsr.audit.attackers import HEURISTICS
from dsr.console import StageError
from dsr.cues.schema import write_cues
from dsr.params import QA, Audit, Cues, Params
from dsr.questions import generate
from tests.scenes import random_cues

CLIPS = 40
SMALL = Audit(bootstrap=100, max_clips=12, draws=2, max_blind_accuracy=1.0, max_type_blind_accuracy=1.0)
PARAMS = Params(
    cues=Cues(backend="annotated"),
    qa=QA(seed=1, candidates=3072, keep_per_clip_type=80, num_blocks=None, max_advantage=2.0, audit=SMALL),
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("project")
    rows = []
    for seed in range(CLIPS):
        cues = random_cues(seed)
        clip_id = cues.meta["clip_id"]
        write_cues(root / "data/cues" / f"{clip_id}.npz", cues)
        rows.append({"clip_id": clip_id, "status": "kept", "source_video": clip_id, "category": "indoor"})
    (root / "data/clips").mkdir(parents=True)
    pd.DataFrame(rows).to_parquet(root / "data/clips/curated.parquet")
    generate.run(PARAMS, root, workers=1)
    return root


@pytest.fixture
def project(made: Path, tmp_path: Path) -> Path:
    """A project of its own with the same pool and cues."""
    (tmp_path / "data/qa").mkdir(parents=True)
    (tmp_path / "data/cues").symlink_to(made / "data/cues")
    (tmp_path / "data/qa/pool.parquet").write_bytes((made / "data/qa/pool.parquet").read_bytes())
    return tmp_path


def read(root: Path) -> dict:
    return json.loads((root / "metrics/audit.json").read_text())


def table(root: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(root / f"metrics/audit/{name}.csv")


def with_audit(**changes: object) -> Params:
    return dataclasses.replace(PARAMS, qa=dataclasses.replace(PARAMS.qa, audit=dataclasses.replace(SMALL, **changes)))


@pytest.mark.slow
def test_report_of_a_sound_pool(project: Path) -> None:
    audit.run(PARAMS, project, workers=1)
    report, pool = read(project), pd.read_parquet(project / "data/qa/pool.parquet")
    assert report["blind"]["options"] == 0.25
    assert report["blind"]["question_low"] <= report["blind"]["question"] <= report["blind"]["question_high"]
    attackers = table(project, "attackers")
    assert (attackers[attackers["attacker"].isin(HEURISTICS)]["accuracy"] == 0.25).all()
    assert set(report["blind_by_type"]) == set(pool["type"])
    assert report["labels"]["same"] == 1.0
    assert report["labels"]["fresh"] > 0.95
    assert "exact" not in report["labels"]
    balance = report["balance"]
    assert set(balance["letters"].values()) == {len(pool) // 4}
    assert balance["quartets"] == pool["quartet_id"].nunique()
    unsound = ("quartets_broken", "quartets_across_blocks", "source_videos_across_blocks", "options_repeated")
    assert [balance[name] for name in unsound] == [0, 0, 0, 0]
    assert table(project, "answers")["questions"].sum() == len(pool)
    assert report["clips_not_checked"] == len(table(project, "clips_not_checked")) == 0
    plot = table(project, "blind")
    assert plot.columns.tolist() == ["run", "type", "accuracy", "low", "high", "chance"]
    assert set(plot["run"]) == {"options", "question"}


@pytest.mark.slow
def test_same_bytes_on_any_number_of_processes(project: Path) -> None:
    pool = pd.read_parquet(project / "data/qa/pool.parquet")
    pool[pool["type"].isin(["rel_dis", "abs_ori"])].to_parquet(project / "data/qa/pool.parquet")
    outputs = []
    for workers in (1, 2):
        audit.run(PARAMS, project, workers=workers)
        outputs.append([(project / name).read_bytes() for name in ("metrics/audit.json", "metrics/audit/blind.csv")])
    assert outputs[0] == outputs[1]


def test_a_leak_stops_the_stage_after_its_report(project: Path) -> None:
    pool = pd.read_parquet(project / "data/qa/pool.parquet")
    # Whoever writes the right option first and does not shuffle.
    pool["options"] = [
        sorted(options, key=lambda o, a=answer: o[0] != a)
        for options, answer in zip(pool["options"], pool["answer"], strict=True)
    ]
    pool["answer"] = "A"
    pool.to_parquet(project / "data/qa/pool.parquet")
    with pytest.raises(StageError, match=r"(9\d|100)\.\d% overall .* qa\.audit\.max_blind_accuracy is 0\.285"):
        audit.run(with_audit(max_blind_accuracy=0.285), project, workers=1)
    report = read(project)
    assert report["blind"]["options"] > 0.95
    attackers = table(project, "attackers").set_index(["attacker", "type"])
    assert attackers.loc[("letter", "all"), "accuracy"] > 0.95


def test_unsound_pools_are_counted(project: Path) -> None:
    pool = pd.read_parquet(project / "data/qa/pool.parquet")
    first = pool.index[0]
    pool.at[first, "block"] = pool["block"].max() + 1
    same = pool[pool["quartet_id"] == pool["quartet_id"].iloc[-1]].index
    pool.loc[same, "answer"] = "B"
    counts = audit.balance(pool)
    assert counts["quartets_broken"] == 1
    assert counts["quartets_across_blocks"] == 1
    assert counts["source_videos_across_blocks"] == 1


def test_one_block_gives_a_message(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool = pd.read_parquet(project / "data/qa/pool.parquet").assign(block=0)
    pool.to_parquet(project / "data/qa/pool.parquet")
    audit.run(PARAMS, project, workers=1)
    report = read(project)
    assert "one block" in capsys.readouterr().err
    assert table(project, "attackers").empty
    assert report["blind"] == {"chance": 0.25}
    assert report["labels"]["same"] == 1.0


def test_a_clip_that_cannot_be_checked_is_named(project: Path, made: Path) -> None:
    (project / "data/cues").unlink()
    (project / "data/cues").mkdir()
    for path in (made / "data/cues").glob("*.npz"):
        (project / "data/cues" / path.name).write_bytes(path.read_bytes())
    pool = pd.read_parquet(project / "data/qa/pool.parquet")
    lost, damaged = pool["videoID"].unique()[:2]
    (project / "data/cues" / f"{lost}.npz").unlink()
    (project / "data/cues" / f"{damaged}.npz").write_bytes(b"no cues")
    audit.run(with_audit(max_clips=1000), project, workers=1)
    problems = dict(table(project, "clips_not_checked").to_numpy().tolist())
    assert read(project)["clips_not_checked"] == 2
    assert set(problems) == {lost, damaged}
    assert all("run the cues stage again" in why and str(project) not in why for why in problems.values())


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda path: path.unlink(), "does not exist"),
        (lambda path: path.write_bytes(b"text"), "is not a parquet file"),
        (lambda path: pd.read_parquet(path).drop(columns="block").to_parquet(path), "has no column block"),
        (lambda path: pd.read_parquet(path).iloc[:0].to_parquet(path), "has no questions"),
    ],
)
def test_bad_pools_are_refused_in_one_line(project: Path, damage, problem: str) -> None:
    damage(project / "data/qa/pool.parquet")
    with pytest.raises(StageError, match=problem) as caught:
        audit.run(PARAMS, project, workers=1)
    assert "\n" not in str(caught.value)


def test_sampling_keeps_quartets_whole(project: Path) -> None:
    pool = pd.read_parquet(project / "data/qa/pool.parquet")
    sample = audit._sample(pool, "quartet_id", 100, seed=1)
    assert len(sample) == 100
    assert (sample["quartet_id"].value_counts() == 4).all()
    assert sample.index.is_monotonic_increasing


def test_interval_of_a_known_mean() -> None:
    rng = np.random.default_rng(0)
    values = (rng.random((4000, 2)) < [0.25, 0.6]).astype(float)
    low, high, deviation = audit.bootstrap(values, [f"v{i // 2}" for i in range(4000)], 1000, 0)
    assert (low < values.mean(axis=0)).all()
    assert (values.mean(axis=0) < high).all()
    assert deviation == pytest.approx(np.sqrt(values.var(axis=0) / 4000), rel=0.1)
    low, high, _ = audit.bootstrap(values, ["one"] * 4000, 1000, 0)
    assert (low.tolist(), high.tolist()) == ([0, 0], [1, 1])
