"""Training with DeepSpeed, as `dsr train` starts it: two processes on the CPU, ZeRO-2 and ZeRO-3.

Needs the extra `deepspeed`, ninja and a C++ compiler; the first run compiles an operator (one to two minutes).
"""

import json
import os
import shutil
import subprocess
import sys
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
    "train": {"steps": 4, "text_steps": 0, "batch_size": 2, "save_steps": 2, "shared_prefix": True},
}


def train(root: Path, processes: int, **settings: object) -> subprocess.CompletedProcess[str]:
    """Run the stage under torchrun in a project folder."""
    params = PARAMS | {"train": PARAMS["train"] | settings}
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    shutil.copytree(REPOSITORY / "configs", root / "configs", dirs_exist_ok=True)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    path = os.pathsep.join(map(str, (REPOSITORY, REPOSITORY / "src")))
    return subprocess.run(
        [*command, "-m", "dsr", "train", "--root", str(root), "--workers", "1"],
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )


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
@pytest.mark.parametrize("stage", ["zero2", "zero3"])
def test_zero_trains_to_the_weights_of_plain_training(stage: str, tmp_path: Path) -> None:
    pytest.importorskip("deepspeed")
    plain, zero = make_project(tmp_path / "plain", videos=1), make_project(tmp_path / stage, videos=1)
    for root, setting in ((plain, ""), (zero, stage)):
        done = train(root, 2, deepspeed=setting)
        assert done.returncode == 0, done.stderr[-3000:]
    expected, found = (load_file(root / "models/gsm/model.safetensors") for root in (plain, zero))
    assert found.keys() == expected.keys()
    # Adam turns a gradient of nearly zero, where rounding decides, into a whole step: most values agree, not all.
    # (With a warm-up on text none would: for Adam a parameter without a gradient rests, for ZeRO its gradient is zero.)
    for name, tensor in expected.items():
        apart = (found[name] - tensor).abs().flatten()
        assert apart.quantile(0.9) < 1e-4, name
    curves = [pd.read_csv(root / "metrics/train/plots/metrics/loss.tsv", sep="\t")["loss"] for root in (plain, zero)]
    assert curves[1].tolist() == pytest.approx(curves[0].tolist(), abs=1e-3)
