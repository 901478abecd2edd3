"""``logger=wandb``: one Weights & Biases run per job; docs/wandb.md describes its use."""

from __future__ import annotations

import logging
import os
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from statsmerging.app.loggers.run_log import LoggedRun, RunLogger, flat_numbers
from statsmerging.app.loggers.settings import WandbSettings
from statsmerging.errors import UserError, first_line
from statsmerging.report.figures.pictures import coefficient_pictures
from statsmerging.report.tables.accuracy import accuracy_content
from statsmerging.report.tables.text import plain_table
from statsmerging.runs.results import RunResults
from statsmerging.store.hashing import key_of


@contextmanager
def _temporary_folders() -> Iterator[list[Path]]:
    """Place the temporary folders that W&B makes on import in the run directory.

    They live as long as the process; those left by a kill are removed with the run.

    Yields:
        A list that holds the folders after the block.
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


with _temporary_folders() as _temporary:
    import wandb


log = logging.getLogger(__name__)

#: Longest name and longest tag that W&B accepts, in characters.
NAME, TAG = 128, 64


class MethodCurves(WandbLogger):
    """Learning curves of one method as ``METHOD/metric`` over ``learning_step``."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log the metrics of one learning step, counted from 0.

        Lightning calls the axis ``trainer/global_step``; the curves of existing runs do not.
        """
        named = {f"{self._prefix}/{name}": value for name, value in metrics.items()}
        self.experiment.log({**named, "learning_step": step or 0})


class WandbRunLogger(RunLogger):
    """One W&B run, with its files in ``wandb/`` of the run directory.

    Args:
        session: the run that ``wandb.init`` has begun.
        upload_model: whether ``merged.safetensors`` becomes an artifact.
    """

    def __init__(self, run: LoggedRun, session: wandb.Run, *, upload_model: bool) -> None:
        super().__init__(run)
        self.session = session
        self.upload_model = upload_model

    def curves(self, method: str) -> Logger:
        self.session.define_metric(f"{method}/*", step_metric="learning_step")
        place = self.run.directory.path
        # A spawned process attaches to the session, or with mode=disabled begins one of its own.
        mode = self.session.settings.mode
        return MethodCurves(save_dir=place, experiment=self.session, prefix=method, mode=mode)

    def results(self, results: RunResults) -> None:
        stamps = [stamp[:TAG] for stamp in results.stamps]
        self.session.tags = (*(self.session.tags or ()), *stamps)
        table = accuracy_content([results])
        headings: list[str | int] = [*table.labels, *table.columns]
        rows = plain_table(table, order=results.methods)
        drawn = coefficient_pictures(self.run.directory.coefficients)
        pictures = {name: wandb.Image(image) for name, image in drawn.items()}
        self.session.log(
            {"results": wandb.Table(columns=list(headings), data=list(rows)), **pictures}
        )
        self.session.summary.update(flat_numbers(results))
        merged = self.run.directory.merged
        if self.upload_model and merged.exists():
            artifact = wandb.Artifact(f"merged-{self.run.run_hash}", type="model")
            # The file is final, so W&B need not copy it.
            artifact.add_file(str(merged), policy="immutable", skip_cache=True)
            self.session.log_artifact(artifact)

    def finish(self, status: int) -> None:
        self.session.finish(exit_code=status)
        # Ends W&B's own process too: the next run of a sweep must not inherit its folders.
        wandb.teardown()


def open_logger(settings: WandbSettings, run: LoggedRun) -> RunLogger:
    """Begin the W&B run, or continue it online; its id is the run's hash.

    Raises:
        UserError: mode=online, and no server answers or no key is known.
    """
    config = run.config
    for folder in _temporary:  # the run directory of the import may have been removed since
        folder.mkdir(parents=True, exist_ok=True)
    try:
        session = wandb.init(
            project=settings.project,
            entity=settings.entity,
            mode=settings.mode,
            id=run.run_hash,
            resume=None if config.rerun else "allow",
            group=run.group,
            name=run.name[-NAME:],  # a sweep's own choices stand last
            job_type=config.job.name,
            tags=[text[:TAG] for text in (config.suite.name, config.backbone.label)],
            config=run.recorded_config,
            settings=wandb.Settings(
                init_timeout=settings.init_timeout,
                silent=settings.mode != "online",
                # Distinguishes jobs of different hosts without naming the hosts.
                host=key_of([socket.gethostname()]),
                # Metadata include the command line, which may hold passwords. The manifest
                # records the rest.
                x_disable_meta=True,
            ),
        )
    except wandb.Error as error:
        wandb.teardown()
        cause = first_line(error).rstrip(".")
        raise UserError(
            f"logger.wandb.mode=online: {cause}; mode=offline needs no server"
        ) from error
    if settings.mode == "offline":
        log.info("to upload this run: wandb sync %s", session.settings.sync_dir)
    return WandbRunLogger(run, session, upload_model=settings.upload_model)
