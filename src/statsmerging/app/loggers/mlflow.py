"""``logger=mlflow``: one MLflow run per job, all in one store."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from lightning.pytorch.loggers import Logger
from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException

from statsmerging.app.loggers.curves import MethodCurves
from statsmerging.app.loggers.numbers import flat_numbers
from statsmerging.app.loggers.settings import MlflowSettings
from statsmerging.app.loggers.store import LoggedRun, Store
from statsmerging.app.mistakes import INTERRUPTED, TERMINATED, exit_status
from statsmerging.errors import UserError, first_line
from statsmerging.report.figures.pictures import coefficient_heatmaps
from statsmerging.report.groups import flatten
from statsmerging.report.tables.accuracy import accuracy_content
from statsmerging.report.tables.text import markdown
from statsmerging.runs.directory import PRESENTATION
from statsmerging.runs.results import RunResults
from statsmerging.store.locks import waiting_lock

#: As many entries as MLflow takes at once.
BATCH = 100

SQLITE = "sqlite:///"

Item = TypeVar("Item")


class MlflowStore(Store):
    """One MLflow run.

    Args:
        identifier: MLflow's own, by which its client finds the run.
    """

    def __init__(self, run: LoggedRun, client: MlflowClient, identifier: str) -> None:
        self.run = run
        self.client = client
        self.identifier = identifier

    def curves(self, method: str) -> Logger:
        return MethodCurves(method, self._write)

    def results(self, results: RunResults) -> None:
        self.client.set_tag(self.identifier, "stamps", ", ".join(results.stamps))
        self._write(flat_numbers(results), 0)
        self.client.log_text(self.identifier, markdown(accuracy_content([results])), "results.md")
        for method, picture in coefficient_heatmaps(self.run.directory.coefficients).items():
            self.client.log_image(self.identifier, picture, f"coefficients/{method}.png")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        ends = {0: "FINISHED", INTERRUPTED: "KILLED", TERMINATED: "KILLED"}
        self.client.set_terminated(self.identifier, ends.get(exit_status(error), "FAILED"))

    def _write(self, metrics: dict[str, float], step: int) -> None:
        now = time.time_ns() // 1_000_000
        for batch in _batches([Metric(name, x, now, step) for name, x in metrics.items()]):
            self.client.log_batch(self.identifier, metrics=batch)


def open_store(settings: MlflowSettings, run: LoggedRun) -> Store:
    """Begin the MLflow run, or continue it: its tag ``run_hash`` tells.

    Raises:
        UserError: the store cannot be opened.
    """
    for name in ("alembic", "mlflow"):  # they report every step of making the store
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        with _making_store(settings):
            client = MlflowClient(settings.tracking_uri)
            place = _experiment(client, settings, run.group)
        return MlflowStore(run, client, _begin(client, place, run))
    except MlflowException as error:
        raise UserError(f"logger.mlflow: {first_line(error)}") from error


def _making_store(settings: MlflowSettings) -> AbstractContextManager[object]:
    """One job of a sweep makes a local store; the others wait, for MLflow does not."""
    if not settings.tracking_uri.startswith(SQLITE):
        return nullcontext()
    database = Path(settings.tracking_uri.removeprefix(SQLITE))
    database.parent.mkdir(parents=True, exist_ok=True)
    return waiting_lock(database.with_name(f".{database.name}.lock"), f"making {database}")


def _experiment(client: MlflowClient, settings: MlflowSettings, name: str) -> str:
    """MLflow's own name of the experiment; it is made if it is not there yet."""
    found = client.get_experiment_by_name(name)
    if found is None:
        folder = None if settings.artifacts is None else str(Path(settings.artifacts).resolve())
        try:
            return str(client.create_experiment(name, artifact_location=folder))
        except MlflowException:  # another job was faster, on a server
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    return str(found.experiment_id)


def _begin(client: MlflowClient, experiment: str, run: LoggedRun) -> str:
    found = client.search_runs([experiment], f"tags.run_hash = '{run.run_hash}'", max_results=1)
    if found and not run.config.rerun:
        identifier = str(found[0].info.run_id)
        client.update_run(identifier, status="RUNNING")
        return identifier
    config = run.config
    tags = {
        "run_hash": run.run_hash,
        "job": config.job.name,
        "suite": config.suite.name,
        "backbone": config.backbone.label,
    }
    identifier = str(client.create_run(experiment, tags=tags, run_name=run.name).info.run_id)
    recorded = run.recorded_config
    values = {key: recorded[key] for key in recorded if key not in PRESENTATION}
    for batch in _batches([Param(key, str(value)) for key, value in flatten(values)]):
        client.log_batch(identifier, params=batch)
    return identifier


def _batches(items: list[Item]) -> Iterator[list[Item]]:
    for start in range(0, len(items), BATCH):
        yield items[start : start + BATCH]
