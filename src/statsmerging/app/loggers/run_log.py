"""The loggers of one run: opened together, told the same, closed with the status of the job.

Lightning's loggers write the learning curves. Here is the rest: one run per job, its names, its
results, its end.
"""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, cast

from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.loggers import CSVLogger, Logger

from statsmerging.app.config import Config
from statsmerging.app.mistakes import exit_status
from statsmerging.errors import UserError
from statsmerging.runs.directory import PRESENTATION, RunDirectory
from statsmerging.runs.results import RunResults
from statsmerging.settings import Settings
from statsmerging.store.secrets import redacted


@dataclass(frozen=True)
class LoggedRun:
    """The names under which a run is logged."""

    config: Config
    directory: RunDirectory

    @property
    def run_hash(self) -> str:
        """Identifies the run in every logger, also when a killed job starts again."""
        return self.directory.run_hash

    @property
    def group(self) -> str:
        """The experiment, or the suite if there is none: runs that are compared."""
        choices = (override.partition("=") for override in self._overrides)
        experiments = [value.strip("[]") for key, _, value in choices if key == "experiment"]
        return experiments[-1] if experiments else self.config.suite.name

    @property
    def name(self) -> str:
        """The overrides of the job without credentials, or its hash if there are none."""
        return str(redacted(",".join(self._overrides))) or self.run_hash

    @property
    def recorded_config(self) -> dict[str, Any]:
        """The config without credentials."""
        recorded: dict[str, Any] = redacted(self.config.model_dump(mode="json"))
        return recorded

    @property
    def _overrides(self) -> list[str]:
        """Overrides of the command and the sweep, except those that only concern presentation.

        Empty if the config was not composed by a command.
        """
        given = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
        return [text for text in given if re.split(r"[.=]", text)[0] not in PRESENTATION]


class RunLogger(AbstractContextManager["RunLogger"], ABC):
    """One logger of one run. On leaving the context it is closed with the job's exit status."""

    def __init__(self, run: LoggedRun) -> None:
        self.run = run

    @abstractmethod
    def curves(self, method: str) -> Logger:
        """The Lightning logger of one method's learning curves, named ``METHOD/metric``."""

    def results(self, results: RunResults) -> None:
        """Log the numbers, the table and the heatmaps."""

    def finish(self, status: int) -> None:
        """Close the logger; ``status`` is the exit status of the job."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.finish(exit_status(error))


class CsvRunLogger(RunLogger):
    """``learning_curves/METHOD/version_N/metrics.csv``; a killed job that restarts adds a version.

    Results need no logging: they are in the run directory already.
    """

    def curves(self, method: str) -> Logger:
        folder = self.run.directory.path / "learning_curves"
        # Each step is written at once, so that a killed job keeps its curve.
        return CSVLogger(folder, name=method, flush_logs_every_n_steps=1)


class RunLog:
    """All loggers of one run."""

    def __init__(self, loggers: Sequence[RunLogger]) -> None:
        self.loggers = loggers

    def curves(self, method: str) -> list[Logger]:
        """Loggers for the Lightning trainer that learns this method."""
        return [logger.curves(method) for logger in self.loggers]

    def results(self, results: RunResults) -> None:
        """Log the numbers, the table and the heatmaps."""
        for logger in self.loggers:
            logger.results(results)


@contextmanager
def open_run_log(config: Config, directory: RunDirectory) -> Iterator[RunLog]:
    """Open the chosen loggers of one run, and close them at the end of the block.

    Raises:
        UserError: a package is missing, or a server cannot be reached.
    """
    run = LoggedRun(config, directory)
    with _contained(directory.path), ExitStack() as stack:
        loggers = [
            stack.enter_context(_open(name, settings, run))
            for name, settings in config.logger.chosen()
        ]
        yield RunLog(loggers)


def _open(name: str, settings: Settings, run: LoggedRun) -> RunLogger:
    if name == "csv":
        return CsvRunLogger(run)
    try:  # here, because these packages are optional and slow to import
        logger = import_module(f"{__package__}.{name}").open_logger(settings, run)
    except ModuleNotFoundError as error:
        raise UserError(
            f"logger={name}: the package {error.name} is missing: "
            "pip install 'statsmerging[loggers]'"
        ) from error
    return cast("RunLogger", logger)


@contextmanager
def _contained(directory: Path) -> Iterator[None]:
    """Keep the loggers' packages inside the run directory and their telemetry off."""
    changed = {
        "WANDB_DIR": str(directory),
        "WANDB_CACHE_DIR": str(directory / "wandb" / "cache"),
        "WANDB_DATA_DIR": str(directory / "wandb" / "data"),
        "WANDB_ERROR_REPORTING": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    # MLflow sets MLFLOW_TRACKING_URI itself; it must not reach the next run of a sweep.
    before = {name: os.environ.get(name) for name in (*changed, "MLFLOW_TRACKING_URI")}
    os.environ.update(changed)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def flat_numbers(results: RunResults) -> dict[str, float]:
    """All numbers of ``results.json`` by flat name, e.g. ``teachers/mnist/label_agreement``.

    Of a tuned row it is the chosen value, not what else was tried. The quantity stands before the
    method (``accuracy/ties/mnist``), so that loggers show the values of all methods together.
    """
    found = {}
    for path, value in _numbers(results.as_json(), ()):
        if path[0] == "methods":
            _, method, quantity, *rest = path
            if quantity == "choice" and "tried" in rest:
                continue
            path = (quantity, method, *rest)
        found["/".join(path)] = value
    return found


def _numbers(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], float]]:
    if isinstance(value, dict):
        for key, entry in value.items():
            yield from _numbers(entry, (*path, key))
    elif isinstance(value, list | tuple):
        for index, entry in enumerate(value):
            yield from _numbers(entry, (*path, str(index)))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path, value
