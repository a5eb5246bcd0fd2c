"""The source that a module runs; that dvc.yaml names it for every stage; that keys hold it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.repo import Repo
from typer.testing import CliRunner

from dsr import cli, source

ROOT = source.PACKAGE.parents[1]
STAGES = {
    name: stage
    for file in ("dvc.yaml", "data/raw/dvc.yaml")
    for name, stage in yaml.safe_load((ROOT / file).read_text())["stages"].items()
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package `small` in place of dsr, in which `small.stage` runs the modules a to f and no other."""
    texts = {
        "__init__.py": '"""No code."""\n',
        "stage.py": """
            from typing import TYPE_CHECKING
            import numpy as np
            import small.a
            from small import room
            from small.room.b import thing
            if TYPE_CHECKING:
                from small.unused import Type
            else:
                from small.c import Type
            TABLE = {"e": "small.e", "none": "small.no_such_module", "text": "small . f"}
            """,
        "a.py": """
            def late():
                from small import d
            """,
        "room/__init__.py": "VALUE = 1\n",
        "room/b.py": "thing = 1\n",
        "room/words/list.txt": "word\n",
        "room/unused.py": "x = 1\n",
        "c.py": "Type = int\n",
        "d.py": "from small.f.g import y\n",
        "e.py": "import small.a\n",
        "f/__init__.py": "",
        "f/g.py": "y = 1  # one\n",
        "unused.py": "Type = str\n",
    }
    for name, text in texts.items():
        path = tmp_path / "small" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(line.removeprefix(" " * 12) for line in text.splitlines()))
    monkeypatch.setattr(source, "PACKAGE", tmp_path / "small")
    return tmp_path / "small"


@pytest.fixture(autouse=True)
def _afresh() -> Iterator[None]:
    yield
    source._mentioned.cache_clear()
    source._content_hash.cache_clear()


def hash_after(path: Path, text: str) -> str:
    path.write_text(text)
    source._mentioned.cache_clear()
    source._content_hash.cache_clear()
    return source.code_hash("small.stage")


def test_closure_follows_imports_wherever_they_stand(package: Path) -> None:
    closed = source.closure("small.stage")
    files = {str(file.relative_to(package)) for found in closed.values() for file in found}
    modules = {"stage.py", "a.py", "room/b.py", "c.py", "d.py", "e.py", "f/g.py"}
    assert files == modules | {"room/__init__.py", "room/words/list.txt"}
    assert set(source.closure("small.e")) == {"small.e", "small.a", "small.d", "small.f.g"}


def test_relative_import_is_refused(package: Path) -> None:
    (package / "e.py").write_text("from . import a\n")
    with pytest.raises(ValueError, match=r"e\.py, line 1: a relative import"):
        source.closure("small.stage")


def test_hash_is_of_what_the_code_does(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = source.code_hash("small.stage")
    assert (
        hash_after(package / "f/g.py", '"""Better told."""\n\ny = (  # still one\n    1\n)\n"""The one."""\n') == before
    )
    assert hash_after(package / "unused.py", "Type = bytes\n") == before
    other = hash_after(package / "f/g.py", "y = 2\n")
    assert other != before
    assert hash_after(package / "room/words/list.txt", "words\n") not in (before, other)
    monkeypatch.setattr(source, "NO_RESULT", {"small.f.g": "tried", "small.room": "tried"})
    kept = source.code_hash("small.stage")
    assert hash_after(package / "f/g.py", "y = 3\n") == kept


def test_what_changes_nothing_is_a_module() -> None:
    assert all(source._is_module(name) for name in [*source.NO_OUTPUT, *source.NO_RESULT])


def module_of(stage: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The module that the command line runs for a stage."""
    run: list[str] = []
    monkeypatch.setattr(cli, "run_stage", lambda module, *_: run.append(module))
    assert CliRunner().invoke(cli.app, STAGES[stage]["cmd"].split("dsr ")[-1].split()).exit_code == 0
    return run[0]


def joined(folder: Path, files: set[Path]) -> list[Path]:
    """Files below a folder, or a folder in place of everything in it."""
    inside = {path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    if all(path in files or not source.has_content(path) for path in inside):
        return [folder] if inside & files else []
    paths = (joined(path, files) if path.is_dir() else [path] * (path in files) for path in folder.iterdir())
    return [path for found in paths for path in found]


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_the_source_that_it_runs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {file for found in source.closure(module_of(name, monkeypatch)).values() for file in found}
    wanted = sorted(str(path.relative_to(ROOT)) for path in joined(source.PACKAGE, files))
    assert [dep for dep in STAGES[name]["deps"] if dep.startswith("src/")] == wanted


def test_dvc_names_evaluate_when_a_module_that_it_uses_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage: dict[str, Any] = {**STAGES["evaluate"], "params": []}
    stage["deps"] = [dep.replace("${clips.source}", "simulated") for dep in stage["deps"]]
    outs = [next(iter(out)) if isinstance(out, dict) else out for out in stage["outs"]]
    for path in (tmp_path / name for name in [*stage["deps"], *outs] if not name.startswith("src/")):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    files = {file for found in source.closure(module_of("evaluate", monkeypatch)).values() for file in found}
    for file in files:
        copy = tmp_path / file.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes())
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"evaluate": stage}}))
    monkeypatch.chdir(tmp_path)
    with Repo.init(str(tmp_path), no_scm=True) as repo:
        repo.commit(force=True)
        assert repo.status() == {}
        for file in sorted(files)[::8]:
            copy = tmp_path / file.relative_to(ROOT)
            copy.write_bytes(file.read_bytes() + b"\n# Touched.\n")
            assert set(repo.status()) == {"evaluate"}, file
            copy.write_bytes(file.read_bytes())
        assert repo.status() == {}
