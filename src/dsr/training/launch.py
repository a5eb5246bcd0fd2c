"""Training on several GPUs, or with DeepSpeed: the `train` stage starts itself again under torchrun.

A process a GPU, or one.
"""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from dsr import project
from dsr.console import StageError

if TYPE_CHECKING:
    from dsr.params import Train


def processes_to_start(train: "Train") -> int:
    """Number of processes to start training in; 0: this one is enough, or one of them already."""
    if "RANK" in os.environ:
        return 0
    gpus = torch.cuda.device_count()
    return max(gpus, 1) if gpus > 1 or train.deepspeed else 0


def start(processes: int, root: Path, workers: int) -> None:
    """Run `dsr train` in as many processes and wait for them.

    Raises:
        StageError: one of them failed.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    stage = ["-m", "dsr", "train", "--root", str(root), "--workers", str(workers)]
    code = subprocess.run([*command, *stage], check=False).returncode
    if code:
        raise StageError(f"train: {processes} processes were started and ended with exit code {code}; see above")


def world_size() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """True in the process that writes the files and the output."""
    return os.environ.get("RANK", "0") == "0"


def wait_for_all() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.barrier()


def deepspeed_config(train: "Train", root: Path) -> str | None:
    """The configuration's file; None without DeepSpeed.

    Raises:
        StageError: DeepSpeed is not installed, or there is no such file.
    """
    if not train.deepspeed:
        return None
    if find_spec("deepspeed") is None:
        raise StageError(
            f"train.deepspeed is {train.deepspeed!r}, but DeepSpeed is not installed: pip install 'dsr[deepspeed]'"
        )
    path = root / project.DEEPSPEED / f"{train.deepspeed}.json"
    if not path.is_file():
        raise StageError(f"train.deepspeed: {path} does not exist")
    return str(path)
