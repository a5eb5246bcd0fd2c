"""The command line: help that teaches, errors in one line."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from dsr.cli import main

PROJECT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def dsr(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Run `dsr` with arguments, in this process: imports take longer than these commands."""

    def run(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["dsr", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return Done(int(ended.value.code or 0), *capsys.readouterr())

    return run


def test_it_is_a_program():
    done = subprocess.run([sys.executable, "-m", "dsr", "--help"], capture_output=True, text=True, check=True)
    assert "Stages of the pipeline" in done.stdout


def test_help_names_every_stage_of_the_flow(dsr: Callable[..., Done]):
    text = dsr("--help").stdout
    for name in ("dvc.yaml", "data/raw/dvc.yaml"):
        for stage, content in yaml.safe_load((PROJECT / name).read_text())["stages"].items():
            assert content["cmd"] == f"env PYTHONPATH=src python -m dsr {stage}"
            assert stage in text


@pytest.mark.parametrize(
    ("command", "remedy"),
    [("catalog", "data/raw/simulated"), ("curate", "catalog"), ("cues", "curate"), ("qa", "curate"), ("split", "qa")],
)
def test_a_stage_without_its_input_says_so_in_one_line(
    dsr: Callable[..., Done], tmp_path: Path, command: str, remedy: str
):
    (tmp_path / "params.yaml").write_text("")
    done = dsr(command, "--root", str(tmp_path))
    assert done.returncode == 1
    lines = done.stderr.strip().splitlines()
    assert lines[-1].startswith("error:")
    assert remedy in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("evaluate",), "data/qa/bench.parquet does not exist"),
        (("evaluate", "--benchmark", "vlm4d"), "--benchmark-root"),
        (("evaluate", "--variant", "real"), "go with --benchmark"),
        (("evaluate", "--benchmark", "vlm4d", "--benchmark-root", "nowhere"), "published at https://"),
        (("compare", "nothing.parquet", "nothing.parquet"), "no file of predictions"),
        (("export", "tfrecord", "out"), "known: vlmevalkit, lmms-eval, qwen-sft, sharegpt"),
        (("export", "sharegpt", "out"), "data/qa/bench.parquet does not exist"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_tool_without_its_input_says_so_in_one_line(
    dsr: Callable[..., Done], tmp_path: Path, arguments: tuple[str, ...], said: str
):
    (tmp_path / "params.yaml").write_text("")
    done = dsr(*arguments, "--root", str(tmp_path))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert said in " ".join(done.stderr.split())


def test_doctor_tells_what_the_machine_has(dsr: Callable[..., Done], tmp_path: Path):
    (tmp_path / "params.yaml").write_text("model: {backbone: ''}")
    done = dsr("doctor", "--root", str(tmp_path))
    assert done.returncode == 0, done.stderr
    for word in ("python", "torch", "GiB", "Qwen2.5-VL"):
        assert word.lower() in (done.stdout + done.stderr).lower()


@pytest.mark.parametrize("threads", ["", "2"])
def test_numpy_computes_on_one_thread_whatever_the_machine_and_the_environment_have(threads: str):
    code = """
import sys
from dsr.cli import main
assert "numpy" not in sys.modules  # it reads the number of threads when it is loaded
sys.argv = ["dsr", "--help"]
try:
    main()
except SystemExit:
    pass
import numpy, threadpoolctl
print({pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["internal_api"] == "openblas"})
"""
    env = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    env |= {"OPENBLAS_NUM_THREADS": threads} if threads else {}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "{1}"
