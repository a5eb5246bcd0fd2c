"""Training in two processes on the CPU, plainly and with DeepSpeed: ZeRO-2, ZeRO-3 and offloading."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
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
ENVIRONMENT = {
    "PYTHONPATH": os.pathsep.join(map(str, (REPOSITORY, REPOSITORY / "src"))),
    "OMP_NUM_THREADS": "1",
    "DS_ACCELERATOR": "cpu",
}
PARAMS = {
    "gsm": {"num_tokens": 4},
    "model": {"backbone": "", "max_pixels": 784},
    "train": {
        "steps": 4,
        "geometry_steps": 0,
        "batch_size": 2,
        "save_steps": 2,
        "shared_prefix": True,
    },
}
Ranks = Callable[[Path, int], list[int]]


def project(root: Path, deepspeed: str = "") -> Path:
    """A project folder whose training takes four steps."""
    make_project(root, videos=1)
    params = PARAMS | {"train": PARAMS["train"] | {"deepspeed": deepspeed}}
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    shutil.copytree(REPOSITORY / "configs", root / "configs", dirs_exist_ok=True)
    return root


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that was trained under torchrun, as `dsr train` starts it with two GPUs."""
    root = project(tmp_path_factory.mktemp("plain"))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*torchrun, "-m", "dsr", "train", "--root", str(root), "--workers", "1"],
        env=os.environ | ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    (root / "log.txt").write_text(done.stderr)
    assert done.returncode == 0, done.stderr[-3000:]
    return root


@pytest.fixture(scope="module")
def ranks() -> Iterator[Ranks]:
    """Train a project in two processes, to a step at which they are killed or to the end (0); their exit codes."""
    pytest.importorskip("deepspeed", reason="the deepspeed extra is not installed")
    with subprocess.Popen(
        [sys.executable, "-m", "tests.training.ranks"],
        env=os.environ | ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def train(root: Path, killed_at: int) -> list[int]:
            print(root, killed_at, sep="\t", file=process.stdin, flush=True)
            return [int(code) for code in process.stdout.readline().split()]

        yield train
        process.stdin.close()


@pytest.fixture(scope="module", params=["zero2", "zero3", "zero3_offload"])
def zero(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, ranks: Ranks) -> Path:
    """A project that was trained with the configuration of which its folder has the name."""
    root = project(tmp_path_factory.mktemp("project") / request.param, request.param)
    assert ranks(root, 0) == [0, 0], log(root)
    return root


def log(root: Path) -> str:
    return (root / "log.txt").read_text()


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
def test_two_processes_share_a_step(plain: Path) -> None:
    assert log(plain).count("parameter groups") == 1
    assert json.loads((plain / "models/gsm/training_summary.json").read_text())["steps"] == 4
    assert load_model(plain / "models/gsm", "cpu")[0].config.num_geometry_tokens == 4


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
def test_a_killed_run_goes_on_to_the_same_weights(zero: Path, ranks: Ranks, tmp_path: Path) -> None:
    root = project(tmp_path, zero.name)
    assert ranks(root, 3) == [-signal.SIGKILL] * 2, log(root)
    checkpoints = [path.parent.name for path in root.glob("models/checkpoints/*/checkpoint-*/complete")]
    assert checkpoints == ["checkpoint-2"]
    assert not (root / "models/gsm").exists()
    assert ranks(root, 0) == [0, 0], log(root)
    assert "going on from checkpoint 2" in log(root)
    expected, found = weights(zero), weights(root)
    assert found.keys() == expected.keys()
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []
    assert losses(root) == losses(zero)
