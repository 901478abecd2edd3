"""Files on disk: written atomically, and overwritten only where this project wrote them."""

from __future__ import annotations

import filecmp
import glob
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from statsmerging.errors import UserError


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary sibling of ``path`` to write to; it replaces ``path`` if the block succeeds.

    The content is on disk before the name changes, so a crash leaves either version whole.

    Raises:
        UserError: the folder cannot be made, because a file is in its way.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise UserError(f"{path.parent} cannot be a folder: there is a file in its way") from error
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
    os.close(handle)
    partial = Path(name)
    try:
        yield partial
        with partial.open("rb") as stream:
            os.fsync(stream.fileno())
        # mkstemp makes private files; results are for everybody to read.
        partial.chmod(0o644)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def remove_partials(path: Path) -> None:
    """Remove partial files of killed writers of ``path``, or of all files in a folder."""
    folder, name = (path, "*") if path.is_dir() else (path.parent, glob.escape(path.name))
    for partial in folder.glob(f".{name}.*.partial"):
        partial.unlink(missing_ok=True)


def set_aside(path: Path) -> Path:
    """Move a damaged file, or a folder in its place, out of the way; nothing is lost or replaced.

    Returns:
        Where it is now, in a new folder beside its place.
    """
    folder = tempfile.mkdtemp(dir=path.parent, prefix=f"{path.name}.", suffix=".damaged")
    return path.rename(Path(folder, path.name))


@contextmanager
def new_path(path: Path) -> Iterator[Path]:
    """Like ``atomic_path``, but a file with another content is never replaced.

    Raises:
        UserError: the file exists and differs from what was written.
    """
    with atomic_path(path) as partial:
        yield partial
        if path.exists() and not filecmp.cmp(partial, path, shallow=False):
            raise UserError(f"{path} already holds something else; nothing was overwritten")


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically, indented, keys in the given order."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))
