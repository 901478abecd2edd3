"""The run that a job is given: its config and its directory.

Importing this module imports neither torch nor Lightning; a job that scores models is given the
``ScoredRun`` of ``setup.py``, which does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from statsmerging.app.config import Config
from statsmerging.runs.directory import RunDirectory
from statsmerging.runs.finished import FinishedRun


@dataclass(frozen=True)
class Run:
    """One run of a job."""

    config: Config
    directory: RunDirectory

    def received_config(self, received: FinishedRun) -> tuple[Config, dict[str, Any]]:
        """The config of a received run as this command may run it, parsed and as plain values.

        Raises:
            UserError: the config asks for something that this command's user did not allow.
        """
        from statsmerging.app.received_config import received_config  # needs torch

        return received_config(received, self.config)

    def default_config(self) -> dict[str, Any]:
        """The config of a command without any choice of its own, as plain values."""
        from statsmerging.app.default_config import default_config  # needs Hydra's composition

        return default_config()

    def repeat(self, config: Config, directory: RunDirectory) -> None:
        """Run the job of another config in a directory of its own."""
        from statsmerging.app.command_line import run_checked  # that one imports this module

        run_checked(config, directory)
