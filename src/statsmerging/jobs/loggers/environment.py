"""Variables by which the loggers' packages keep to the run directory and report to nobody."""

from __future__ import annotations

import os
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
