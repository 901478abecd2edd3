"""Methods and backbones of the user's own: Python files that are imported before the job."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path

from statsmerging.records.errors import UserError


def load_plugins(files: Iterable[Path]) -> None:
    """Import each file once, under a name of its own.

    Raises:
        UserError: a file that cannot be imported, with the error it raised.
    """
    for file in files:
        name = f"statsmerging_plugins.{file.stem}"
        if name in sys.modules:
            continue
        spec = importlib.util.spec_from_file_location(name, file)
        if spec is None or spec.loader is None:
            raise UserError(f"plugins: {file} is no Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            del sys.modules[name]
            raise UserError(f"plugins: {file}: {type(error).__name__}: {error}") from error
