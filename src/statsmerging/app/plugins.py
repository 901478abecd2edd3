"""Methods and backbones of the user's own: Python files that are imported before the job."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path

from statsmerging.errors import UserError, first_line
from statsmerging.store.hashing import SHORT

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
