"""Training in two processes that share a step, forked from one process that has made the imports.

torchrun starts each process anew, and importing torch, transformers and DeepSpeed takes longer than a small run.
Started as a program it reads a project folder a line, and a step after which the run is killed (0: none), trains, and
answers with the exit codes of both processes; what they print is in the project's `log.txt`.
"""

import os
import socket
import sys
import traceback
from pathlib import Path

PROCESSES = 2


def train_in_ranks(root: Path, kill_step: int) -> list[int]:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    log = os.open(root / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    children = []
    for rank in range(PROCESSES):
        child = os.fork()
        if not child:
            os.dup2(log, 1)
            os.dup2(log, 2)
            train_as(rank, port, root, kill_step)
        children.append(child)
    os.close(log)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def train_as(rank: int, port: int, root: Path, kill_step: int) -> None:
    """Train as torchrun's process of this rank would, and end the process."""
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(PROCESSES),
        "LOCAL_WORLD_SIZE": str(PROCESSES),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    code = 1
    try:
        if kill_step:
            kill_after(kill_step)
        train.run(load(root / "params.yaml"), root, workers=1)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    import deepspeed

    from dsr.params import load
    from dsr.training import train
    from tests.training.projects import kill_after

    # On the CPU DeepSpeed would compile an operator for its sums over processes, for minutes; gloo sums as well.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        folder, step = line.rstrip("\n").rsplit("\t", 1)
        print(*train_in_ranks(Path(folder), int(step)), file=answers, flush=True)
