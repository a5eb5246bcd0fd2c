"""The pipeline from end to end in a temporary copy: `dvc repro`, what reruns after a change, and experiments."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

PROJECT = Path(__file__).parents[1]
MINIMAL = {
    "simulate": {"num_clips": 16, "size": [160, 120], "duration": [4.0, 5.0]},
    # A type has a handful of these questions: too few to judge it by.
    "qa": {"candidates": 24000, "num_blocks": 3, "max_questions": 48, "audit": {"max_type_blind_accuracy": 1.0}},
    "split": {"bench_fraction": 0.3},
    "model": {"max_pixels": 1568},
    "train": {"geometry_steps": 2, "steps": 4, "batch_size": 4, "save_steps": 2},
    "evaluate": {"bootstrap": 100},
}

pytestmark = pytest.mark.pipeline


def shell(project: Path, *command: str) -> str:
    """Run a command as a user in an activated environment; returns what it printed."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command,
        cwd=project,
        env={**os.environ, "PATH": path, "NO_COLOR": "1", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def change_params(project: Path, changes: dict[str, dict[str, object]]) -> None:
    path = project / "params.yaml"
    params = yaml.safe_load(path.read_text())
    for section, values in changes.items():
        params.setdefault(section, {}).update(values)
    path.write_text(yaml.safe_dump(params, sort_keys=False))


def stages_run(output: str) -> set[str]:
    """Stages that a `dvc repro` or `dvc exp run` executed."""
    lines = [line for line in output.splitlines() if line.startswith("Running stage '")]
    return {line.split("'")[1].removeprefix("data/raw/dvc.yaml:") for line in lines}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project's tracked files with minimal parameters, reproduced once."""
    copy = tmp_path_factory.mktemp("pipeline") / "project"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=PROJECT, capture_output=True, check=True).stdout
    for name in filter(None, listed.decode().split("\0")):
        source = PROJECT / name
        # Results of the default run are not this run's.
        if source.exists() and not name.endswith("dvc.lock") and not name.startswith("metrics/"):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy / name)
    change_params(copy, MINIMAL)
    shell(copy, "git", "init", "-q")
    commit(copy, "Minimal parameters")
    shell(copy, "dvc", "repro")
    commit(copy, "First run")
    return copy


def commit(project: Path, message: str) -> None:
    shell(project, "git", "add", "-A")
    shell(project, "git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", message)


def test_a_run_goes_from_nothing_to_metrics(project: Path):
    catalog = pd.read_parquet(project / "data/clips/catalog.parquet")
    assert len(catalog) == MINIMAL["simulate"]["num_clips"]
    assert (catalog.status == "ok").all()
    manifest = json.loads((project / "data/cues/manifest.json").read_text())
    assert {clip["status"] for clip in manifest["clips"].values()} == {"ok"}
    pool, train, bench = (pd.read_parquet(project / f"data/qa/{name}.parquet") for name in ("pool", "train", "bench"))
    assert len(pool) == len(train) + len(bench)
    assert not set(train.source_video) & set(bench.source_video)
    assert (pool.groupby("quartet_id").size() == 4).all()
    metrics = json.loads((project / "metrics/eval.json").read_text())
    assert metrics["questions"]["asked"] == len(bench)
    predictions = pd.read_parquet(project / "data/predictions/bench.parquet")
    assert set(predictions[predictions.control == "score"].qa_id) == set(bench.qa_id)


def test_an_unchanged_project_runs_nothing(project: Path):
    assert stages_run(shell(project, "dvc", "repro")) == set()
    assert "up to date" in shell(project, "dvc", "status")


def test_outputs_are_dvcs_and_metrics_are_gits(project: Path):
    tracked = shell(project, "git", "ls-files").splitlines()
    assert {"dvc.lock", "data/raw/dvc.lock", "metrics/eval.json", "metrics/qa.json"} <= set(tracked)
    # The small backbone is source: it is made by hand, from experiments/pretrain.
    outputs = [name for name in tracked if not name.startswith(("tests/", "models/tiny/"))]
    assert not [name for name in outputs if name.endswith((".mp4", ".npz", ".parquet", ".safetensors"))]


def test_metrics_and_experiments_can_be_read(project: Path):
    metrics = shell(project, "dvc", "metrics", "show")
    assert "accuracy" in metrics
    assert "failed" not in metrics
    shell(project, "dvc", "plots", "show", "-o", "plots_page")
    assert (project / "plots_page/index.html").exists()
    shutil.rmtree(project / "plots_page")


def test_a_model_parameter_reruns_training_and_evaluation_only(project: Path):
    output = shell(project, "dvc", "exp", "run", "-S", "gsm.num_tokens=4")
    assert stages_run(output) == {"train", "evaluate"}
    assert "gsm.num_tokens" in shell(project, "dvc", "exp", "show", "--no-pager", "--md")
    shell(project, "dvc", "metrics", "diff")
    shell(project, "git", "checkout", "-q", ".")
    shell(project, "dvc", "checkout", "-q")


def test_a_question_parameter_reruns_from_questions_on_without_touching_the_workspace(project: Path):
    before = (project / "data/qa/pool.parquet").read_bytes()
    output = shell(project, "dvc", "exp", "run", "--temp", "-S", "qa.seed=3")
    assert {"qa", "split"} <= stages_run(output)
    assert not {"simulate", "catalog", "curate", "cues"} & stages_run(output)
    assert (project / "data/qa/pool.parquet").read_bytes() == before


def test_one_more_clip_computes_one_clip_and_all_that_follows(project: Path):
    cues = project / "data/cues"
    before = {path.name: path.stat().st_mtime_ns for path in cues.glob("*.npz")}
    more = MINIMAL["simulate"]["num_clips"] + 1
    change_params(project, {"simulate": {"num_clips": more}})
    output = shell(project, "dvc", "repro")
    assert stages_run(output) >= {"simulate", "catalog", "curate", "cues", "qa", "split", "train", "evaluate"}
    after = {path.name: path.stat().st_mtime_ns for path in cues.glob("*.npz")}
    assert len(after) == more
    assert {name for name in after if after[name] != before.get(name)} == {f"sim_{more - 1:06d}.npz"}
    bench = pd.read_parquet(project / "data/qa/bench.parquet")
    predictions = pd.read_parquet(project / "data/predictions/bench.parquet")
    assert set(predictions.qa_id) == set(bench.qa_id)
    manifest = json.loads((cues / "manifest.json").read_text())
    assert set(pd.read_parquet(project / "data/qa/pool.parquet").videoID) <= set(manifest["clips"])
