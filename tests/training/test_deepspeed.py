"""Training with DeepSpeed, as `dsr train` starts it: two processes on the CPU, ZeRO-2, ZeRO-3 and offloading.

Needs the extra `deepspeed`, ninja and a C++ compiler; the first run compiles an operator (one to two minutes).
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file

from dsr.model import load_model
from dsr.params import Train
from dsr.training.launch import processes_to_start
from tests.training.projects import make_project

REPOSITORY = Path(__file__).parents[2]
PARAMS = {
    "gsm": {"num_tokens": 4},
    "model": {"max_pixels": 784},
    "train": {
        "steps": 4,
        "text_steps": 0,
        "geometry_steps": 0,
        "batch_size": 2,
        "save_steps": 2,
        "shared_prefix": True,
    },
}
KILLED = """
from dsr.cli import main
from tests.training.projects import kill_after

kill_after(3)
main()
"""


def train(
    root: Path, processes: int, *, program: Sequence[str] = ("-m", "dsr"), **settings: object
) -> subprocess.CompletedProcess[str]:
    """Run the stage under torchrun in a project folder."""
    params = PARAMS | {"train": PARAMS["train"] | settings}
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    shutil.copytree(REPOSITORY / "configs", root / "configs", dirs_exist_ok=True)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    path = os.pathsep.join(map(str, (REPOSITORY, REPOSITORY / "src")))
    return subprocess.run(
        [*command, *program, "train", "--root", str(root), "--workers", "1"],
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )


def trained(root: Path, stage: str) -> Path:
    done = train(make_project(root, videos=1), 2, deepspeed=stage)
    assert done.returncode == 0, done.stderr[-3000:]
    return root


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("plain"), "")


@pytest.fixture(scope="module", params=["zero2", "zero3", "zero3_offload"])
def zero(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that was trained with the configuration of which its folder has the name."""
    pytest.importorskip("deepspeed")
    return trained(tmp_path_factory.mktemp("project") / request.param, request.param)


def weights(root: Path) -> dict[str, torch.Tensor]:
    return load_file(root / "models/gsm/model.safetensors")


def losses(root: Path) -> list[float]:
    return pd.read_csv(root / "metrics/train/plots/metrics/loss.tsv", sep="\t")["loss"].tolist()


def test_how_many_processes_are_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    counts = {}
    for gpus in (0, 1, 8):
        monkeypatch.setattr(torch.cuda, "device_count", lambda gpus=gpus: gpus)
        counts[gpus] = processes_to_start(Train()), processes_to_start(Train(deepspeed="zero2"))
    assert counts == {0: (0, 1), 1: (0, 1), 8: (8, 8)}
    monkeypatch.setenv("RANK", "3")
    assert processes_to_start(Train(deepspeed="zero2")) == 0


@pytest.mark.pipeline
def test_two_processes_share_a_step(tmp_path: Path) -> None:
    done = train(make_project(tmp_path, videos=1), 2)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("parameter groups") == 1
    assert json.loads((tmp_path / "models/gsm/training_summary.json").read_text())["steps"] == 4
    assert load_model(tmp_path / "models/gsm", "cpu")[0].config.num_geometry_tokens == 4


@pytest.mark.pipeline
def test_zero_trains_to_the_weights_of_plain_training(zero: Path, plain: Path) -> None:
    expected, found = weights(plain), weights(zero)
    assert found.keys() == expected.keys()
    # Adam turns a gradient of nearly zero, where rounding decides, into a whole step: most values agree, not all.
    # (With a warm-up on text none would: for Adam a parameter without a gradient rests, for ZeRO its gradient is zero.)
    for name, tensor in expected.items():
        apart = (found[name] - tensor).abs().flatten()
        assert apart.quantile(0.9) < 1e-4, name
    assert losses(zero) == pytest.approx(losses(plain), abs=1e-3)


@pytest.mark.pipeline
def test_a_killed_run_goes_on_to_the_same_weights(zero: Path, tmp_path: Path) -> None:
    killed = tmp_path / "killed.py"
    killed.write_text(KILLED)
    root = make_project(tmp_path / "project", videos=1)
    assert train(root, 2, program=[str(killed)], deepspeed=zero.name).returncode != 0
    checkpoints = [path.parent.name for path in root.glob("models/checkpoints/*/checkpoint-*/complete")]
    assert checkpoints == ["checkpoint-2"]
    assert not (root / "models/gsm").exists()
    done = train(root, 2, deepspeed=zero.name)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "going on from checkpoint 2" in done.stderr
    expected, found = weights(zero), weights(root)
    assert found.keys() == expected.keys()
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []
    assert losses(root) == losses(zero)
