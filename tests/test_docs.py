"""README.md and docs/: links resolve, commands parse, and what is named exists."""

import re
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer.main
from dvc.cli.parser import get_main_parser

from dsr.cli import app
from dsr.params import Params

PROJECT = Path(__file__).parents[1]
PAGES = sorted([PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *(PROJECT / "docs").glob("*.md")])
SECTIONS = ("simulate", "clips", "curation", "cues", "qa", "split", "gsm", "model", "train", "evaluate")
FILES = (".csv", ".parquet", ".safetensors")
OTHERS = ("uv", ".")
"""Programs whose arguments are not looked at."""

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


@cache
def text_of(page: Path) -> str:
    return page.read_text()


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^ *```{language}\n(.*?)^ *```", text_of(page), re.DOTALL | re.MULTILINE)


def inline_code(page: Path) -> list[str]:
    prose = re.sub(r"^ *```.*?^ *```", "", text_of(page), flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"`([^`\n]+)`", prose)


def commands(page: Path) -> list[list[str]]:
    """Words of each command of the page's shell blocks, and of inline `dsr …`."""
    lines = [line for block in blocks(page, "sh") for line in block.splitlines()]
    lines += [code for code in inline_code(page) if code.startswith("dsr ") and "…" not in code]
    words = [shlex.split(part, comments=True) for line in lines for part in line.split(" && ")]
    # Variables that are set for one command.
    return [[*_without_assignments(line)] for line in words if line]


def _without_assignments(words: list[str]) -> list[str]:
    while re.match(r"[A-Z_]+=", words[0]):
        words = words[1:]
    return words


@cache
def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", text_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pages
def test_links_resolve(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


@pages
def test_commands_parse(page: Path) -> None:
    for words in commands(page):
        program, *arguments = words
        if program == "dsr":
            _parse_dsr(arguments)
        elif program == "dvc":
            get_main_parser().parse_args(arguments)
        elif program == "make":
            assert all(f"\n{target}:" in text_of(PROJECT / "Makefile") for target in arguments), words
        elif program.startswith("experiments/"):
            assert (PROJECT / program).is_file(), words
        else:
            assert program in OTHERS, words


def _parse_dsr(arguments: list[str]) -> None:
    """As the command line would, without running the command; prose names commands without their arguments."""
    name, *rest = arguments
    table: Any = typer.main.get_command(app)
    assert name == "--help" or name in table.commands, name
    command = table.commands.get(name)
    while rest and hasattr(command, "commands"):
        assert rest[0] in command.commands, arguments
        command, rest = command.commands[rest[0]], rest[1:]
    if rest:
        command.make_context(name, rest)


@pages
def test_parameters_that_are_named_exist(page: Path) -> None:
    overrides = [word for words in commands(page) for word in words if re.match(r"[a-z_.]+=", word)]
    named = re.findall(rf"`((?:{'|'.join(SECTIONS)})(?:\.\w+)+)(?=[:`])", text_of(page))
    named = [key for key in named if not key.endswith(FILES)]
    for key in [*named, *(override.split("=")[0] for override in overrides)]:
        value: Any = Params()
        for part in key.split("."):
            assert hasattr(value, part), key
            value = getattr(value, part)


@pages
def test_files_that_are_named_exist(page: Path) -> None:
    bases = [PROJECT / base for base in ("", "src/dsr", "src/dsr/questions", "data/raw")]
    for code in inline_code(page):
        if re.fullmatch(r"[\w.-]+(/[\w.-]+)+\.(py|sh|toml|yaml)", code):
            assert any((base / code).exists() for base in bases), code


def test_the_readme_is_short_and_its_tree_is_that_of_the_project() -> None:
    readme = text_of(PROJECT / "README.md")
    assert len(readme.split()) <= 900
    tree = readme.split("src/dsr/\n")[1].split("```")[0]
    listed = set(re.findall(r"\w+(?:/|\.py)", tree))
    rooms = {f"{path.name}/" for path in (PROJECT / "src/dsr").iterdir() if (path / "__init__.py").exists()}
    assert {name for name in listed if name.endswith("/")} == rooms
    modules = {path.name for path in (PROJECT / "src/dsr").glob("*.py") if not path.name.startswith("_")}
    assert {name for name in listed if name.endswith(".py")} == modules
