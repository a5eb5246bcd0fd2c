"""Experiments that DVC runs in copies of the project: each runs the source of its copy, in its worker processes too."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from dsr import project, source
from tests.videos import make_video

ROOT = source.PACKAGE.parents[1]

pytestmark = pytest.mark.pipeline


def shell(root: Path, *command: str) -> str:
    """Run a command as a user in an activated environment, whose `dsr` is not the one of `root`."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "GIT_AUTHOR_NAME": "t", "GIT_AUTHOR_EMAIL": "t@example.org"}
    environment |= {"GIT_COMMITTER_NAME": "t", "GIT_COMMITTER_EMAIL": "t@example.org"}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def edit(root: Path, reason: str) -> None:
    """Give clip `broken` a reason of its own, which a worker process finds."""
    path = root / "src/dsr/clips/video.py"
    original = (source.PACKAGE / "clips/video.py").read_text()
    path.write_text(
        f"{original}\n\n_probe = probe\n\n\ndef probe(path):\n"
        f"    if path.stem == 'broken':\n        raise VideoError({reason!r})\n    return _probe(path)\n"
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with the source and the catalog stage."""
    root = tmp_path / "project"
    shutil.copytree(source.PACKAGE, root / "src/dsr", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("params.yaml", ".gitignore", ".dvcignore"):
        shutil.copy(ROOT / name, root / name)
    stage = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["catalog"]
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"catalog": stage}}))
    folder = root / project.SIMULATED
    for name in ("whole", "broken"):
        make_video(folder / f"{name}.mp4", 40, (64, 48))
    (folder / "clips.csv").write_text("clip_id,caption\nwhole,A dog runs.\nbroken,A cat sleeps.\n")
    edit(root, "as it was committed")
    for command in ("git init -q", "dvc init -q", "git add -A", "git commit -qm first"):
        shell(root, *command.split())
    return root


def test_a_copy_runs_its_own_source(root: Path) -> None:
    shell(root, "dvc", "exp", "run", "--queue", "--name", "queued", "-S", "cues.num_frames=8")
    edit(root, "as it is in the workspace")
    assert "as it is in the workspace" in shell(root, "dvc", "exp", "run", "--temp")
    shell(root, "dvc", "exp", "run", "--run-all")
    assert "as it was committed" in shell(root, "dvc", "queue", "logs", "queued")
