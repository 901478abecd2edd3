"""Variables by which the loggers' packages keep to the run directory and report to nobody."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def contained(directory: Path) -> Iterator[None]:
    """Set them for the length of the block."""
    changed = {
        "WANDB_DIR": str(directory),
        "WANDB_CACHE_DIR": str(directory / "wandb" / "cache"),
        "WANDB_DATA_DIR": str(directory / "wandb" / "data"),
        "WANDB_ERROR_REPORTING": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def temporary_folders() -> Iterator[list[Path]]:
    """Have the temporary folders that W&B makes when it is imported in the run directory.

    They live as long as the process; what a kill leaves of them is then removed with the run.

    Yields:
        A list that holds them when the block is left.
    """
    made: list[Path] = []
    folder = Path(os.environ.get("WANDB_DIR", tempfile.gettempdir()), "wandb", "tmp")
    folder.mkdir(parents=True, exist_ok=True)
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield made
    finally:
        tempfile.tempdir = before
        made += folder.iterdir()
