"""``logger=csv``: learning curves as files in the run directory."""

from __future__ import annotations

from lightning.pytorch.loggers import CSVLogger, Logger

from statsmerging.app.loggers.settings import CsvSettings
from statsmerging.app.loggers.store import LoggedRun, Store
from statsmerging.runs.results import RunResults


class CsvStore(Store):
    """``learning_curves/METHOD/version_N/metrics.csv``.

    Each life of a run that was killed gets a version of its own.
    """

    def __init__(self, run: LoggedRun) -> None:
        self.run = run

    def curves(self, method: str) -> Logger:
        # Every step is written at once: a run that is killed keeps its curve.
        folder = self.run.directory.path / "learning_curves"
        return CSVLogger(folder, name=method, flush_logs_every_n_steps=1)

    def results(self, results: RunResults) -> None:
        """Nothing to do: they lie there already."""

    def __exit__(self, *_: object) -> None:
        """Lightning has closed the files."""


def open_store(settings: CsvSettings, run: LoggedRun) -> Store:
    return CsvStore(run)
