"""The one place that opens a run's loggers, hands out their parts, and closes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib import import_module
from typing import cast

from lightning.pytorch.loggers import Logger

from statsmerging.app.config import Config
from statsmerging.app.loggers.environment import contained
from statsmerging.app.loggers.store import LoggedRun, Store
from statsmerging.errors import UserError
from statsmerging.runs.directory import RunDirectory
from statsmerging.runs.results import RunResults
from statsmerging.settings import Settings


class RunLog:
    """All loggers of one run as one."""

    def __init__(self, stores: Sequence[Store]) -> None:
        self.stores = stores

    def curves(self, method: str) -> list[Logger]:
        """For the Lightning trainer that learns this method."""
        return [store.curves(method) for store in self.stores]

    def results(self, results: RunResults) -> None:
        """Send the results, and the files beside them."""
        for store in self.stores:
            store.results(results)


@contextmanager
def open_run_log(config: Config, directory: RunDirectory) -> Iterator[RunLog]:
    """The loggers of one run, which leave nothing open and no variable set behind them.

    Raises:
        UserError: a package is missing, or a server cannot be reached.
    """
    run = LoggedRun(config, directory)
    with contained(directory.path), ExitStack() as stack:
        stores = [
            stack.enter_context(_open(name, settings, run))
            for name, settings in config.logger.chosen()
        ]
        yield RunLog(stores)


def _open(name: str, settings: Settings, run: LoggedRun) -> Store:
    try:
        store = import_module(f"{__package__}.{name}").open_store(settings, run)
    except ModuleNotFoundError as error:
        raise UserError(
            f"logger={name}: the package {error.name} is missing: "
            "pip install 'statsmerging[loggers]'"
        ) from error
    return cast("Store", store)
