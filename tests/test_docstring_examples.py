"""The examples in docstrings hold."""

import doctest
from importlib import import_module
from pathlib import Path

import pytest

import dsr

SOURCE = Path(dsr.__file__).parent
MODULES = [path.relative_to(SOURCE.parent) for path in sorted(SOURCE.rglob("*.py")) if ">>> " in path.read_text()]


@pytest.mark.parametrize("module", [".".join(path.with_suffix("").parts) for path in MODULES])
def test_examples_give_what_they_say(module: str) -> None:
    results = doctest.testmod(import_module(module))
    assert results.attempted
    assert not results.failed


def test_geometry_cues_and_questions_have_examples() -> None:
    assert {"geometry", "cues", "questions"} <= {path.parts[1] for path in MODULES}
