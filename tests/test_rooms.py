"""Data flows down the rooms that docs/design.md lists: a module imports from those above it."""

import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from dsr.source import PACKAGE, closure

DESIGN = Path(__file__).parents[1] / "docs/design.md"


def rooms() -> list[list[str]]:
    """Rooms in their order; those of the first row, single modules, are one."""
    table = DESIGN.read_text().split("| room | subject |\n| --- | --- |\n")[1].split("\n\n")[0]
    first, *rows = [re.findall(r"`(\w+)`", row.split("|")[1]) for row in table.splitlines()]
    return [first, *([name] for row in rows for name in row), ["cli"]]


def imported(path: Path) -> set[str]:
    names = re.findall(
        r"^\s*(?:from dsr\.(\w+)|import dsr\.(\w+)|from dsr import (.+))", path.read_text(), re.MULTILINE
    )
    return {part.strip() for name in names for part in ",".join(name).split(",") if part.strip()}


def test_every_room_is_listed() -> None:
    found = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert {name for row in rooms() for name in row} == {name for name in found if not name.startswith("_")}


def test_a_module_imports_from_rooms_above_it() -> None:
    rank = {name: place for place, row in enumerate(rooms()) for name in row}
    upward = [
        f"{path.relative_to(PACKAGE)} imports {name}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for name in imported(path)
        if rank[name] > rank.get(path.relative_to(PACKAGE).with_suffix("").parts[0], len(rank))
    ]
    assert upward == []


def test_no_modules_import_one_another_in_a_circle() -> None:
    paths = {
        ".".join(["dsr", *path.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(".__init__"): path
        for path in PACKAGE.rglob("*.py")
    }
    graph = {}
    for name, path in paths.items():
        lines = re.findall(r"^\s*from (dsr[\w.]*) import (.+)", path.read_text(), re.MULTILINE)
        found = {module for module, _ in lines} | {
            f"{module}.{part}" for module, rest in lines for part in re.findall(r"\w+", rest)
        }
        graph[name] = found & paths.keys() - {name}
    assert set(TopologicalSorter(graph).static_order()) == paths.keys()


@pytest.mark.parametrize("module", ["dsr.geometry.signals", "dsr.questions.generate", "dsr.questions.split"])
def test_questions_are_made_without_torch(module: str) -> None:
    files = [file for files in closure(module).values() for file in files if file.suffix == ".py"]
    assert [file for file in files if re.search(r"^\s*(import|from) torch\b", file.read_text(), re.MULTILINE)] == []
