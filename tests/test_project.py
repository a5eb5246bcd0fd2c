"""The files of the flow have their names in one place."""

import ast
import re
from pathlib import Path

import dsr

SOURCE = Path(dsr.__file__).parent
FLOW = re.compile(r"\b(data|metrics|models|configs)/\w|\bparams\.yaml$")
EXCEPTIONS = {
    "cli.py": "help texts",
    "params.py": "defaults, as users write them",
    "project.py": "their home",
    "perception/segmentation.py": "a configuration inside the SAM 2 package",
}


def literals(module: Path) -> list[str]:
    """The string constants of a module, without docstrings."""
    tree = ast.parse(module.read_text())
    told = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    constants = (node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str))
    return [str(node.value) for node in constants if id(node) not in told]


def test_no_other_module_spells_a_file_of_the_flow() -> None:
    found = {
        str(module.relative_to(SOURCE)): paths
        for module in SOURCE.rglob("*.py")
        if (paths := [text for text in literals(module) if FLOW.search(text)])
    }
    assert {name: paths for name, paths in found.items() if name not in EXCEPTIONS} == {}
