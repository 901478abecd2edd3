"""``logger=mlflow``: one MLflow run per job, in one store for all jobs."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TypeVar

from lightning.pytorch.loggers import Logger, MLFlowLogger
from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException

from statsmerging.app.loggers.run_log import LoggedRun, RunLogger, flat_numbers
from statsmerging.app.loggers.settings import MlflowSettings
from statsmerging.app.mistakes import INTERRUPTED, TERMINATED
from statsmerging.errors import UserError, first_line
from statsmerging.report.figures.pictures import coefficient_pictures
from statsmerging.report.groups import flatten
from statsmerging.report.tables.accuracy import accuracy_content
from statsmerging.report.tables.text import markdown
from statsmerging.runs.directory import PRESENTATION
from statsmerging.runs.results import RunResults
from statsmerging.store.locks import waiting_lock

#: Largest number of parameters in one request to MLflow; used for metrics too.
BATCH = 100

SQLITE = "sqlite:///"

Item = TypeVar("Item")


class MethodCurves(MLFlowLogger):
    """Learning curves of one method as ``METHOD/metric`` in the MLflow run of the job."""

    LOGGER_JOIN_CHAR = "/"

    def finalize(self, status: str = "success") -> None:
        """Nothing to do: the MLflow run ends with the job, not with this method."""


class MlflowRunLogger(RunLogger):
    """One MLflow run.

    Args:
        run_id: the run's id in MLflow, which is not the run's hash.
    """

    def __init__(self, run: LoggedRun, client: MlflowClient, run_id: str) -> None:
        super().__init__(run)
        self.client = client
        self.run_id = run_id

    def curves(self, method: str) -> Logger:
        uri = self.client.tracking_uri
        return MethodCurves(tracking_uri=uri, run_id=self.run_id, prefix=method)

    def results(self, results: RunResults) -> None:
        self.client.set_tag(self.run_id, "stamps", ", ".join(results.stamps))
        now = time.time_ns() // 1_000_000  # milliseconds
        numbers = [Metric(name, x, now, 0) for name, x in flat_numbers(results).items()]
        for batch in _batches(numbers):
            self.client.log_batch(self.run_id, metrics=batch)
        self.client.log_text(self.run_id, markdown(accuracy_content([results])), "results.md")
        for name, picture in coefficient_pictures(self.run.directory.coefficients).items():
            self.client.log_image(self.run_id, picture, f"{name}.png")

    def finish(self, status: int) -> None:
        ends = {0: "FINISHED", INTERRUPTED: "KILLED", TERMINATED: "KILLED"}
        self.client.set_terminated(self.run_id, ends.get(status, "FAILED"))


def open_logger(settings: MlflowSettings, run: LoggedRun) -> RunLogger:
    """Begin the MLflow run, or continue the one whose tag ``run_hash`` is this run's hash.

    Raises:
        UserError: the store cannot be opened.
    """
    for name in ("alembic", "mlflow"):  # they report each step of creating the store
        logging.getLogger(name).setLevel(logging.WARNING)
    # MLflow cannot create a local store from several processes: jobs of a sweep take turns.
    lock: Any = nullcontext()
    if settings.tracking_uri.startswith(SQLITE):
        database = Path(settings.tracking_uri.removeprefix(SQLITE))
        database.parent.mkdir(parents=True, exist_ok=True)
        lock = waiting_lock(database.with_name(f".{database.name}.lock"), f"making {database}")
    try:
        with lock:
            client = MlflowClient(settings.tracking_uri)
            experiment = _experiment(client, settings, run.group)
        return MlflowRunLogger(run, client, _begin(client, experiment, run))
    except MlflowException as error:
        raise UserError(f"logger.mlflow: {first_line(error)}") from error


def _experiment(client: MlflowClient, settings: MlflowSettings, name: str) -> str:
    """Id of the MLflow experiment of this name, which is created if there is none."""
    found = client.get_experiment_by_name(name)
    if found is None:
        folder = None if settings.artifacts is None else str(Path(settings.artifacts).resolve())
        try:
            return str(client.create_experiment(name, artifact_location=folder))
        except MlflowException:  # another job has created it meanwhile, on a server
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    return str(found.experiment_id)


def _begin(client: MlflowClient, experiment: str, run: LoggedRun) -> str:
    """Id of the MLflow run that is begun or continued."""
    found = client.search_runs([experiment], f"tags.run_hash = '{run.run_hash}'", max_results=1)
    if found and not run.config.rerun:
        run_id = str(found[0].info.run_id)
        client.update_run(run_id, status="RUNNING")
        return run_id
    config = run.config
    tags = {
        "run_hash": run.run_hash,
        "job": config.job.name,
        "suite": config.suite.name,
        "backbone": config.backbone.label,
    }
    run_id = str(client.create_run(experiment, tags=tags, run_name=run.name).info.run_id)
    recorded = run.recorded_config
    values = {key: recorded[key] for key in recorded if key not in PRESENTATION}
    for batch in _batches([Param(key, str(value)) for key, value in flatten(values)]):
        client.log_batch(run_id, params=batch)
    return run_id


def _batches(items: list[Item]) -> Iterator[list[Item]]:
    for start in range(0, len(items), BATCH):
        yield items[start : start + BATCH]
