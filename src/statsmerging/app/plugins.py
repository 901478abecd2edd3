"""Methods and backbones of the user's own: Python files that are imported before the job."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from statsmerging.errors import UserError, first_line
from statsmerging.store.hashing import SHORT

if TYPE_CHECKING:
    from statsmerging.app.config import Config
    from statsmerging.learning.chosen_methods import FixedMethod, LearnedMethod
    from statsmerging.merging.methods import Method

#: Attribute of a plugin's module: sha256 of its code.
_SHA256 = "__sha256__"


def load_plugins(files: Iterable[Path]) -> None:
    """Import each file that is not imported already.

    Raises:
        UserError: a file that cannot be imported, with the error it raised.
    """
    for file in files:
        source = file.read_bytes()
        sha256 = hashlib.sha256(source).hexdigest()
        name = _module_name(file)
        # The file may have been edited between two jobs of one process.
        if name in sys.modules and vars(sys.modules[name])[_SHA256] == sha256:
            continue
        spec = importlib.util.spec_from_file_location(name, file)
        if spec is None or spec.loader is None:
            raise UserError(f"plugins: {file} is no Python file")
        module = importlib.util.module_from_spec(spec)
        vars(module)[_SHA256] = sha256
        sys.modules[name] = module
        try:
            # The hashed bytes: Python's own loader may use a compiled file of an earlier version.
            exec(compile(source, str(file), "exec"), vars(module))
        except Exception as error:
            del sys.modules[name]
            reason = f"{type(error).__name__}: {first_line(error)}"
            raise UserError(f"plugins: {file}: {reason}") from error


def chosen_methods(config: Config) -> list[LearnedMethod | FixedMethod]:
    """The methods that the config names, and with ``plugin_methods=all`` all that its plugins have.

    The latter have the defaults of their parameters, and their grids.

    Raises:
        UserError: as ``parse_methods``; or plugins without a method.
    """
    # Imported here, because it needs torch, which takes seconds.
    from statsmerging.learning.chosen_methods import FixedMethod, parse_methods

    if config.plugin_methods == "named":
        return parse_methods(config.method)
    defined = methods_of(config.plugins)
    if not defined:
        raise UserError(
            "plugin_methods=all: no file of `plugins` has a method, a class with `name` and `title`"
        )
    others = [method for method in defined if method.name not in config.method]
    named = parse_methods(config.method) if config.method or not others else []
    return [*named, *(FixedMethod.with_defaults(method) for method in others)]


def methods_of(files: Iterable[Path]) -> list[type[Method]]:
    """The methods that imported files define, in the order of their names."""
    from statsmerging.merging.methods import methods

    modules = {_module_name(file) for file in files}
    return [method for _, method in sorted(methods().items()) if method.__module__ in modules]


def plugin_records(files: Iterable[Path]) -> dict[str, dict[str, str]]:
    """Name of each imported file → its path and the sha256 of the code that runs.

    A further file of the same name is ``NAME, 2``, and so on.
    """
    records: dict[str, dict[str, str]] = {}
    for number, file in enumerate(files, start=1):
        name = file.name if file.name not in records else f"{file.name}, {number}"
        loaded = vars(sys.modules[_module_name(file)])
        records[name] = {"path": str(file), "sha256": loaded[_SHA256]}
    return records


def _module_name(file: Path) -> str:
    """Name of the file's module: with a hash of its path, because names of files may repeat."""
    place = hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:SHORT]
    return f"statsmerging_plugins.{file.stem}_{place}"
