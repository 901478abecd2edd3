"""What merging methods declare in their files, read without running them.

Running them imports torch, which takes seconds; a mistake in a command is answered before that.
"""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

_PACKAGE = Path(__file__).parents[1]

#: Classes a method may derive from without inheriting parameters.
_BASES = {"Method", "DataFreeMethod", "EvidenceMethod", "PerTaskMethod"}

_KINDS = {"float": float, "int": int, "bool": bool}


@dataclass(frozen=True)
class Declaration:
    """A method as its class declares it.

    Attributes:
        parameters: name → kind and limits.
        tunable: the parameter that may be tuned; ``None`` where there is none.
    """

    parameters: Mapping[str, tuple[type, Mapping[str, float]]]
    tunable: str | None

    def complaint(self, parameter: str, value: object) -> str | None:
        """What the value of a parameter must be and is not; ``None`` if all is well."""
        kind, limits = self.parameters[parameter]
        wanted: str | None = _rules().complaint(value, kind, limits)
        return wanted


def own_files() -> list[Path]:
    """Files of the methods that come with the package."""
    return [
        *sorted((_PACKAGE / "merging" / "methods").glob("*.py")),
        _PACKAGE / "scoring" / "regmean_plus_plus.py",
    ]


def declarations(files: Iterable[Path]) -> dict[str, Declaration]:
    """Name → declaration of the methods in these files.

    A method that cannot be read like this, because it computes what it declares, is left out:
    importing it will tell.
    """
    trees = [tree for file in files if (tree := _parsed(file)) is not None]
    grids = {name: grid for tree in trees for name, grid in _grids(tree)}
    classes = [node for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)]
    found: dict[str, Declaration] = {}
    for node in classes:
        values = _class_values(node)
        if isinstance(values.get("name"), ast.Constant) and _bases(node) <= _BASES:
            try:
                tunable = _tunable(values.get("tunable"), grids)
                found[ast.literal_eval(values["name"])] = Declaration(_parameters(node), tunable)
            except (KeyError, ValueError, TypeError):
                continue
    return found


def _parsed(file: Path) -> ast.Module | None:
    try:
        return ast.parse(file.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError):
        return None


def _grids(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Name of each grid that several methods share, and the parameter it is for."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and _is_call(node.value, "Grid"):
            yield ast.unparse(node.targets[0]), _tunable(node.value, {}) or ""


def _class_values(node: ast.ClassDef) -> dict[str, ast.expr]:
    assigned = [item for item in node.body if isinstance(item, ast.Assign)]
    return {ast.unparse(item.targets[0]): item.value for item in assigned}


def _bases(node: ast.ClassDef) -> set[str]:
    return {ast.unparse(base) for base in node.bases}


def _parameters(node: ast.ClassDef) -> dict[str, tuple[type, Mapping[str, float]]]:
    found = {}
    for item in node.body:
        if isinstance(item, ast.AnnAssign):
            found[ast.unparse(item.target)] = (
                _KINDS[ast.unparse(item.annotation)],
                _limits(item.value),
            )
    return found


def _limits(value: ast.expr | None) -> Mapping[str, float]:
    if not (isinstance(value, ast.Call) and _is_call(value, "parameter")):
        raise ValueError
    given: dict[str, Any] = {str(item.arg): ast.literal_eval(item.value) for item in value.keywords}
    limits: Mapping[str, float] = _rules().parameter(None, **given).metadata
    return limits


def _tunable(value: ast.expr | None, grids: Mapping[str, str]) -> str | None:
    if value is None:
        return None
    if isinstance(value, ast.Call) and _is_call(value, "Grid"):
        return str(ast.literal_eval(value.args[0]))
    return grids[ast.unparse(value)]


def _is_call(value: ast.expr, function: str) -> bool:
    return isinstance(value, ast.Call) and ast.unparse(value.func) == function


@cache
def _rules() -> ModuleType:
    """The module with the rules for parameters, past its package: that one imports torch."""
    name = f"{__name__}.rules"
    file = _PACKAGE / "merging" / "methods" / "parameters.py"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
