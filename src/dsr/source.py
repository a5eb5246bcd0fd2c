"""The source that a module runs, found by reading its imports: which files they are, and a hash of what they do.

A stage's deps in dvc.yaml are the files, which a test holds it to. The keys of cues, of predictions and of a resumable
run of training hold the hash, so that nothing is taken up again that other code made.
"""

import ast
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dsr.files import sha256_file, sha256_json

PACKAGE = Path(__file__).parent
NO_OUTPUT = {
    "dsr.console": "what a person sees",
    "dsr.params": "its values are in params.yaml (it warns of those that are not); dvc.yaml and the keys name them",
    "dsr.project": "names of files, which are in dvc.yaml as well",
    "dsr.source": "this module",
}
"""Modules that change no output, and why."""
NO_RESULT = {
    "dsr.weights": "places and hashes of weights; the hashes are in the keys",
    "dsr.workers": "processes, and the words for their failures; no failure is kept under a key",
}
"""Modules that change no result kept under a key, beside those of NO_OUTPUT, and why."""


def closure(*modules: str) -> dict[str, list[Path]]:
    """Modules of dsr that modules run, with their files, but for those of `NO_OUTPUT`.

    An import counts wherever it stands, but under TYPE_CHECKING. A string that is a module's name counts as an import
    (tables of modules that are imported by name). A module brings the packages that it is in, and a package its files
    of data. A file without code, or a file of data without content, is left out.

    Args:
        modules: dotted names; of one outside dsr, what it imports from dsr counts.
    """
    found, waiting = set(modules), list(modules)
    while waiting:
        name = waiting.pop()
        parents = {".".join(name.split(".")[:depth]) for depth in range(1, name.count(".") + 1)}
        new = {module for module in _mentioned(_path(name)) | parents if _is_module(module)} - found - NO_OUTPUT.keys()
        found |= new
        waiting += new
    return {name: files for name in sorted(found) if (files := _files(name))}


def code_hash(*modules: str) -> str:
    """Hash of what the code of a closure does, but for `NO_RESULT`.

    Comments, docstrings and layout do not count: it is of the syntax trees, as this version of Python has them.
    """
    closed = {name: files for name, files in closure(*modules).items() if name not in NO_RESULT}
    return sha256_json({name: [[file.name, _content_hash(file)] for file in files] for name, files in closed.items()})


def has_content(path: Path) -> bool:
    """True for a file that holds code, or data."""
    return any(not _is_text(node) for node in _tree(path).body) if path.suffix == ".py" else path.stat().st_size > 0


@cache
def _mentioned(path: Path) -> frozenset[str]:
    """Names that a module imports, or may import."""
    found: set[str] = set()
    for node in _nodes(_tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(f"{path}, line {node.lineno}: a relative import: write the module's whole name")
            found |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)
    return frozenset(found)


def _nodes(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a tree, without those for type checkers alone."""
    yield node
    children: Iterable[ast.AST] = ast.iter_child_nodes(node)
    if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
        children = node.orelse
    for child in children:
        yield from _nodes(child)


def _is_module(name: str) -> bool:
    parts = name.split(".")
    return parts[0] == PACKAGE.name and all(map(str.isidentifier, parts)) and _path(name).is_file()


def _path(name: str) -> Path:
    package, *parts = name.split(".")
    if package != PACKAGE.name:
        spec = find_spec(name)
        if spec is None or spec.origin is None:
            raise ModuleNotFoundError(f"no module {name}")
        return Path(spec.origin)
    path = PACKAGE.joinpath(*parts)
    return init if (init := path / "__init__.py").is_file() else path.with_suffix(".py")


def _files(name: str) -> list[Path]:
    path = _path(name)
    files = [path, *(_data(path.parent) if path.name == "__init__.py" else [])]
    return [file for file in files if has_content(file)]


def _data(folder: Path) -> Iterator[Path]:
    """A package's files that are no modules, also in folders that are no packages."""
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.suffix != ".py":
            yield path
        elif path.is_dir() and path.name != "__pycache__" and not (path / "__init__.py").exists():
            yield from _data(path)


@cache
def _content_hash(path: Path) -> str:
    return sha256_json(ast.dump(_WithoutTexts().visit(_tree(path)))) if path.suffix == ".py" else sha256_file(path)


class _WithoutTexts(ast.NodeTransformer):
    def visit_Expr(self, node: ast.Expr) -> Any:
        return None if _is_text(node) else node


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_bytes(), str(path))


def _is_text(node: ast.AST) -> bool:
    """A docstring, or the string under an attribute."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
