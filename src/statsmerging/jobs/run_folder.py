"""What lay in the run directory before a command: a command that is refused leaves just that."""

from __future__ import annotations

import os
from collections.abc import Set
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException


class FoundFolder(Callback):
    """Looks for the run directory before Hydra makes it; named in ``hydra.callbacks``."""

    #: The directory that Hydra makes for the run of this process; none in a sweep, whose jobs
    #: leave their empty folders.
    made: Path | None = None

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Called once, before the job."""
        with suppress(OmegaConfBaseException):  # of a key without a value; the job will say so
            path = Path(os.path.abspath(config.hydra.run.dir))  # noqa: PTH100, as Hydra names it
            FoundFolder.made = None if path.exists() else path


def found_entries(path: Path) -> Set[str] | None:
    """Names of what lies in the run directory; ``None`` where this command has made it."""
    if FoundFolder.made == path:
        return None
    return frozenset(entry.name for entry in path.iterdir())
