"""Floors: imports point downward, and the heart knows torch alone."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import statsmerging

PACKAGE = Path(statsmerging.__file__).parent

#: From the highest floor to the lowest; rooms of one floor do not know each other.
FLOORS = (
    {"app"},
    {"jobs"},
    {"learning"},
    {"scoring", "report"},
    {"zoo"},
    {"data"},
    {"runs"},
    {"store"},
    {"merging", "progress", "settings"},
    {"choices", "errors"},
)

HEIGHTS = {room: -depth for depth, rooms in enumerate(FLOORS) for room in rooms}

#: A job is given its run and its config by the command: it knows their types, which needs no import
#: at run time.
TYPES_ALONE = {("jobs", f"statsmerging.app.{name}") for name in ("config", "run", "setup")}


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def imports(source: str, module: str, *, is_package: bool = False) -> Iterator[tuple[str, bool]]:
    """Absolute names of all modules that a module imports, and whether for its types alone.

    Relative imports, imports inside of functions, ``import_module`` and names put together in
    f-strings (up to the first variable part) are among them.
    """
    parts = module.split(".")
    package = parts if is_package else parts[:-1]
    tree = ast.parse(source)
    types_alone = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        alone = id(node) in types_alone
        if isinstance(node, ast.Import):
            yield from ((alias.name, alone) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            # `from statsmerging import zoo` imports the room, not the top.
            names = [f"{origin}.{alias.name}" for alias in node.names]
            yield from ((name, alone) for name in (names if origin == "statsmerging" else [origin]))
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            name = node.args[0]
            if isinstance(name, ast.JoinedStr):
                name = name.values[0]
            if isinstance(name, ast.Constant):
                yield str(name.value).rstrip("."), alone


def modules() -> Iterator[tuple[str, Path]]:
    for file in sorted(PACKAGE.rglob("*.py")):
        names = file.relative_to(PACKAGE.parent).with_suffix("").parts
        yield ".".join(names[:-1] if names[-1] == "__init__" else names), file


def upward(source: str, module: str, *, is_package: bool = False) -> list[str]:
    """Modules of higher floors, or of another room of the same one, that a module imports."""
    room = room_of(module)
    found = []
    for name, alone in imports(source, module, is_package=is_package):
        other = room_of(name) if name.split(".")[0] == "statsmerging" else ""
        if other not in HEIGHTS or other == room or (alone and (room, name) in TYPES_ALONE):
            continue
        if HEIGHTS[other] >= HEIGHTS[room]:
            found.append(name)
    return found


def test_imports_point_downward() -> None:
    for module, file in modules():
        if room_of(module):
            source = file.read_text(encoding="utf-8")
            found = upward(source, module, is_package=file.name == "__init__.py")
            assert not found, f"{module} imports {', '.join(found)}"


@pytest.mark.parametrize(
    "source",
    [
        "from statsmerging.jobs.merge import merge",
        "import statsmerging.jobs.merge",
        "from statsmerging import jobs",
        "from ..jobs import merge",
        "from .. import jobs",
        "def later():\n    from statsmerging.jobs import merge",
        "import_module('statsmerging.jobs.merge')",
        "importlib.import_module(f'statsmerging.jobs.{name}')",
        "if TYPE_CHECKING:\n    from statsmerging.jobs.merge import merge",
    ],
)
def test_no_way_of_importing_is_overlooked(source: str) -> None:
    assert upward(source, "statsmerging.zoo.heads")
    assert not upward(source, "statsmerging.app.command_line")


def test_every_room_has_a_floor() -> None:
    rooms = {path.stem for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    rooms |= {path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__"}
    assert rooms <= set(HEIGHTS)


def test_the_heart_imports_torch_alone() -> None:
    for module, file in modules():
        if room_of(module) == "merging":
            source = file.read_text(encoding="utf-8")
            names = {name.split(".")[0] for name, _ in imports(source, module)}
            assert names - set(sys.stdlib_module_names) <= {"torch", "statsmerging"}, module


def test_there_is_one_file_for_every_job() -> None:
    from statsmerging.app.config import JobSettings

    (names,) = [
        field.annotation for name, field in JobSettings.model_fields.items() if name == "name"
    ]
    files = {path.stem for path in (PACKAGE / "jobs").glob("*.py") if path.stem != "__init__"}
    assert files == set(getattr(names, "__args__", ()))
