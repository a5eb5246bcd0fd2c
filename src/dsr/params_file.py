"""params.yaml as a file, for `dsr params`: described, completed, changed by a recipe.

A recipe is a part of params.yaml with a name, such as configs/qwen2.5-vl-7b.yaml. Its values are written into
params.yaml, which stays the one record of a run: what changes is shown, and `dvc exp run -S` goes on from there.
"""

import io
import json
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from dsr.console import StageError, summary
from dsr.files import write_bytes
from dsr.params import ABSENT, json_schema, keys, parameters, read_tree, type_and_range, validate, value_at

COLUMNS = ("key", "type", "range", "default", "meaning")


def apply(recipe: Path, path: Path) -> None:
    """Write a recipe's values into params.yaml; its comments and all other values stay.

    Raises:
        StageError: an unknown key or a wrong value, in the recipe or in what both make together.
    """
    tree = read_tree(recipe)
    validate(tree, recipe)
    _write(path, {key: value for key in parameters() if (value := value_at(tree, key)) is not ABSENT})


def complete(path: Path) -> None:
    """Write the parameters that params.yaml lacks into it, with their defaults.

    Raises:
        StageError: an unknown key or a wrong value.
    """
    tree = read_tree(path)
    lacking = {key: schema["default"] for key, schema in parameters().items() if value_at(tree, key) is ABSENT}
    _write(path, lacking)


def show(prefix: str = "") -> None:
    """Print the parameters whose keys begin with `prefix` as a table.

    Raises:
        StageError: there are none.
    """
    rows = [row for row in map(_row, parameters()) if row[0].startswith(prefix)]
    if not rows:
        raise StageError(f"no parameter begins with {prefix!r}; `dsr params` lists all")
    table = Table(Column(COLUMNS[0], no_wrap=True), *COLUMNS[1:], box=SIMPLE)
    for row in rows:
        table.add_row(*map(escape, row))
    Console().print(table)


def markdown() -> str:
    """docs/parameters.md: a table for each section."""
    parts = [
        "# Parameters",
        "Every key of [`params.yaml`](../params.yaml), the record of a run; its defaults are the code's.",
        "- `dvc exp run -S gsm.num_tokens=16` runs an experiment with another value.\n"
        "- `dsr params --apply configs/qwen2.5-vl-7b.yaml` writes a recipe's values into params.yaml and shows what "
        "changes; a recipe is any part of params.yaml.\n"
        "- `dsr params --complete` writes what a shorter params.yaml lacks into it.\n"
        "- `dsr params qa.audit` lists a part of what follows, which `dsr params --as markdown` makes.",
    ]
    for section in (key for key, schema in keys().items() if "properties" in schema):
        parts.append(f"## {section}\n\n{_line(keys()[section])}")
        names = [key for key in parameters() if key.rpartition(".")[0] == section]
        rows = [[cell.replace("|", "\\|") for cell in _row(name)] for name in names]
        lines = [COLUMNS, ["---"] * len(COLUMNS), *([f"`{key}`", *rest] for key, *rest in rows)]
        parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines) if rows else "")
    return "\n\n".join(filter(None, parts)) + "\n"


def schema() -> str:
    """configs/params.schema.json."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def _row(key: str) -> list[str]:
    """Cells of a parameter, one a column."""
    entry = parameters()[key]
    return [key, *type_and_range(entry), _text(entry["default"]), _line(entry)]


def _line(entry: dict[str, Any]) -> str:
    return " ".join(entry["description"].split())


def _text(value: Any) -> str:
    """A value as params.yaml spells it."""
    if isinstance(value, list):
        return f"[{', '.join(map(_text, value))}]"
    return value or "''" if isinstance(value, str) else json.dumps(value)


def _write(path: Path, values: dict[str, Any]) -> None:
    """Set values in params.yaml, a missing one where its key belongs, and show what changed."""
    yaml = YAML()
    yaml.preserve_quotes, yaml.width = True, 120
    read_tree(path)
    document = yaml.load(path.read_text(encoding="utf-8")) or CommentedMap()
    changed = {}
    for key, value in values.items():
        *sections, name = key.split(".")
        node, place = document, ""
        for section in sections:
            if section not in node:
                node.insert(_position(node, place, section), section, CommentedMap())
            node, place = node[section], f"{place}{section}."
        before = node.get(name, ABSENT)
        if before == value:
            continue
        changed[key] = _text(value) if before is ABSENT else f"{_text(before)} -> {_text(value)}"
        if isinstance(before, list) and isinstance(value, list):
            before[:] = value
        elif before is not ABSENT:
            node[name] = value
        else:
            new = CommentedSeq(value) if isinstance(value, list) else value
            if isinstance(new, CommentedSeq):
                new.fa.set_flow_style()
            node.insert(_position(node, place, name), name, new)
    validate(document, path)
    if changed:
        stream = io.StringIO()
        yaml.dump(document, stream)
        write_bytes(path, stream.getvalue().encode())
    summary(f"{path}: {len(changed)} changed", changed)


def _position(node: CommentedMap, place: str, name: str) -> int:
    """Index at which a new key stands after those that precede it in the order of the parameters."""
    order = list(keys())
    before = order[: order.index(f"{place}{name}")]
    return max((index for index, present in enumerate(node, 1) if f"{place}{present}" in before), default=0)
