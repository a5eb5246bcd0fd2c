"""The files of the flow have their names in one place."""

import ast
import re
from pathlib import Path

import pandas as pd
import pytest

import dsr
from dsr import project
from dsr.console import StageError

SOURCE = Path(dsr.__file__).parent
FLOW = re.compile(r"\b(data|metrics|models|configs)/\w|\bparams\.yaml$")
EXCEPTIONS = {
    "cli.py": "help texts",
    "params.py": "defaults, as users write them",
    "params_file.py": "docs/parameters.md, as users read it",
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


def test_weights_are_found_from_the_copy_in_which_an_experiment_runs(tmp_path: Path) -> None:
    copy = tmp_path / ".dvc/tmp/exps/tmp123"
    copy.mkdir(parents=True)
    weights = tmp_path / project.WEIGHTS / "pi3"
    assert project.locate(copy, project.WEIGHTS / "pi3") == copy / project.WEIGHTS / "pi3"
    weights.mkdir(parents=True)
    assert project.locate(copy, project.WEIGHTS / "pi3") == weights
    assert project.locate(tmp_path, project.WEIGHTS / "pi3") == weights
    assert project.locate(tmp_path / "elsewhere", project.WEIGHTS / "pi3") == tmp_path / "elsewhere/models/weights/pi3"
    # What the copy has itself is its own.
    (copy / project.WEIGHTS / "pi3").mkdir(parents=True)
    assert project.locate(copy, project.WEIGHTS / "pi3") == copy / project.WEIGHTS / "pi3"


def test_weights_are_found_for_a_project_in_a_folder_of_its_repository(tmp_path: Path) -> None:
    copy = tmp_path / "dsr/.dvc/tmp/exps/tmp123/dsr"
    copy.mkdir(parents=True)
    (tmp_path / "dsr" / project.WEIGHTS).mkdir(parents=True)
    assert project.locate(copy, project.WEIGHTS) == tmp_path / "dsr" / project.WEIGHTS


def test_a_table_that_cannot_be_used_names_what_makes_it_again(tmp_path: Path) -> None:
    path = tmp_path / project.CATALOG
    with pytest.raises(StageError, match=r"catalog\.parquet does not exist: run `dsr catalog` first"):
        project.read_table(tmp_path, project.CATALOG, "catalog")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"PAR1 and no more")
    with pytest.raises(StageError, match=r"catalog\.parquet is not a parquet file .*: run `dsr catalog` again"):
        project.read_table(tmp_path, project.CATALOG, "catalog")
    pd.DataFrame({"clip_id": ["a"]}).to_parquet(path)
    with pytest.raises(StageError, match="has no column status: run `dsr catalog` again"):
        project.read_table(tmp_path, project.CATALOG, "catalog", ("clip_id", "status"))
    assert project.read_table(tmp_path, project.CATALOG, "catalog")["clip_id"].tolist() == ["a"]
