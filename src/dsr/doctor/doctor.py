"""`dsr doctor`: packages, weights and devices of this machine, next to what the parameters need."""

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from dsr import console, project
from dsr.console import StageError
from dsr.doctor import weights
from dsr.params import Params

GIB = 2**30
SHOWN_PACKAGES = ("torch", "transformers", "tokenizers", "numpy", "pandas", "decord", "pybullet", "dvc", "dvclive")
LOW_DISK = 10 * GIB


def run(params: Params, root: Path) -> None:
    """Print versions, devices, weights, disk and the state of git and DVC.

    Raises:
        StageError: something that the parameters need is missing; all of it is named.
    """
    needs = [
        *_show_packages(root, _needed_packages(params)),
        *weights.show(params, root),
        *missing_source(params, root),
    ]
    _show_machine(root)
    if needs:
        raise StageError("the parameters need what is not here: " + "; ".join(needs))


def version_differences(constraints: str) -> tuple[list[tuple[str, str, str]], int]:
    """Compare what is installed with a constraints file.

    Args:
        constraints: text with lines `name==version`; comments and markers are left aside.

    Returns:
        (name, version seen working, version installed or "") of each package that differs, and how many
        agree.
    """
    different, same = [], 0
    for line in constraints.splitlines():
        name, separator, version = line.split("#")[0].split(";")[0].partition("==")
        name, version = name.split("[")[0].strip(), version.strip()
        if not separator or not name:
            continue
        installed = _version(name)
        # A build tag (torch 2.14.1+cpu) is the same release.
        if installed.split("+")[0] == version.split("+")[0]:
            same += 1
        else:
            different.append((name, version, installed))
    return different, same


def missing_source(params: Params, root: Path) -> list[str]:
    """The folder of clips, unless a stage makes it."""
    source = params.clips.source
    if source == "simulated" or (root / project.RAW / source).is_dir():
        return []
    table = "Koala-36M's CSV files" if source == project.KOALA.name else "their clips.csv"
    return [f"{project.RAW / source}/ (clips.source): put the videos and {table} there"]


def _needed_packages(params: Params) -> list[str]:
    packages = ["torch", "transformers", "tokenizers", "decord", "dvc"]
    if params.clips.source == "simulated":
        packages.append("pybullet")
    if params.cues.backend == "foundation":
        packages += ["sam2", "groundingdino-py"]
    return packages


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _show_packages(root: Path, needed: Sequence[str]) -> list[str]:
    table = Table(title="packages", title_justify="left")
    for heading in ("", "installed", "seen working"):
        table.add_column(heading)
    file = root / "constraints.txt"
    different, same = version_differences(file.read_text() if file.is_file() else "")
    seen = {name.lower(): version for name, version, _ in different}
    table.add_row("python", platform.python_version(), "3.11")
    for name in dict.fromkeys([*SHOWN_PACKAGES, *needed]):
        installed = _version(name)
        agrees = "same" if file.is_file() and installed and name.lower() not in seen else ""
        table.add_row(name, installed or "[red]missing[/]", seen.get(name.lower(), agrees))
    for name, version, installed in different:
        if installed and name.lower() not in SHOWN_PACKAGES:
            table.add_row(name, installed, version)
    console.console.print(table)
    absent = sum(not installed for *_, installed in different)
    console.console.print(
        f"constraints.txt: {same} as seen working, {len(different) - absent} of another version, "
        f"{absent} not installed (extras)"
        if file.is_file()
        else f"{escape(str(file))} not found: no versions to compare with"
    )
    return [f"package {name} (pip install -c constraints.txt {name})" for name in needed if not _version(name)]


def _show_machine(root: Path) -> None:
    disk = shutil.disk_usage(root)
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    console.summary(
        "machine",
        {
            "cores": len(os.sched_getaffinity(0)),
            "memory": f"{pages / GIB:.1f} GiB",
            "GPUs": ", ".join(_gpus()) or "none (the default run needs none)",
            "free disk": f"{disk.free / GIB:.1f} GiB" + (" (low)" if disk.free < LOW_DISK else ""),
            "git": _git_state(root),
            "dvc": _dvc_state(root),
        },
    )


def _gpus() -> list[str]:
    if not _version("torch"):
        return []
    import torch

    if not torch.cuda.is_available():
        return []
    devices = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return [f"{device.name} ({device.total_memory / GIB:.0f} GiB)" for device in devices]


def _git_state(root: Path) -> str:
    commit = _output(["git", "rev-parse", "--short", "HEAD"], root)
    if not commit:
        return "no commit here (dvc exp needs a git repository)"
    changed = len((_output(["git", "status", "--porcelain"], root) or "").splitlines())
    return f"commit {commit}, {f'{changed} files changed' if changed else 'clean'}"


def _dvc_state(root: Path) -> str:
    if not (root / ".dvc").is_dir():
        return "no .dvc folder here: dvc init"
    status = _output([sys.executable, "-m", "dvc", "status", "--json", "--no-updates"], root)
    try:
        stages = json.loads(status or "")
    except ValueError:
        return "status could not be read: run `dvc status`"
    return f"out of date: {', '.join(stages)}" if stages else "up to date"


def _output(command: Sequence[str], root: Path) -> str | None:
    """Standard output of a command, None if it failed."""
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
