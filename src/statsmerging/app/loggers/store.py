"""What every logger is told of a run, and what it must be able to do."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.loggers import Logger

from statsmerging.app.config import Config
from statsmerging.runs.directory import PRESENTATION, RunDirectory
from statsmerging.runs.results import RunResults
from statsmerging.store.secrets import redacted


@dataclass(frozen=True)
class LoggedRun:
    """A run by the names under which it is logged."""

    config: Config
    directory: RunDirectory

    @property
    def run_hash(self) -> str:
        """By this a job that was killed finds its run again."""
        return self.directory.run_hash

    @property
    def group(self) -> str:
        """The experiment, else the suite: runs that are looked at together."""
        choices = (override.partition("=") for override in self._overrides)
        experiments = [value.strip("[]") for key, _, value in choices if key == "experiment"]
        return experiments[-1] if experiments else self.config.suite.name

    @property
    def name(self) -> str:
        """What the command changed: the overrides of the job, else its hash."""
        return str(redacted(",".join(self._overrides))) or self.run_hash

    @property
    def recorded_config(self) -> dict[str, Any]:
        """The config as a logger may keep it: without credentials."""
        recorded: dict[str, Any] = redacted(self.config.model_dump(mode="json"))
        return recorded

    @property
    def _overrides(self) -> list[str]:
        """Of the command and the sweep, without what only concerns presentation.

        There are none where the config was composed by other means than a command.
        """
        given = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
        return [text for text in given if re.split(r"[.=]", text)[0] not in PRESENTATION]


class Store(AbstractContextManager["Store"], ABC):
    """Takes the curves and results of one run; left, it knows how the run ended."""

    @abstractmethod
    def curves(self, method: str) -> Logger:
        """Where Lightning sends the metrics of one method's learning steps."""

    @abstractmethod
    def results(self, results: RunResults) -> None:
        """Take the results, and the files beside them."""
