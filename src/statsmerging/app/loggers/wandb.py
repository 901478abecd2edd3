"""``logger=wandb``: one Weights & Biases run per job; docs/wandb.md tells how to look at them."""

from __future__ import annotations

import logging
import socket
from types import TracebackType
from typing import Any

from lightning.pytorch.loggers import Logger

from statsmerging.app.loggers.curves import MethodCurves
from statsmerging.app.loggers.environment import temporary_folders
from statsmerging.app.loggers.numbers import flat_numbers
from statsmerging.app.loggers.settings import WandbSettings
from statsmerging.app.loggers.store import LoggedRun, Store
from statsmerging.app.mistakes import exit_status
from statsmerging.errors import UserError, first_line
from statsmerging.report.figures.pictures import coefficient_heatmaps
from statsmerging.report.tables.accuracy import accuracy_content
from statsmerging.report.tables.text import plain_table
from statsmerging.runs.results import RunResults
from statsmerging.store.hashing import key_of

with temporary_folders() as _temporary:
    import wandb


log = logging.getLogger(__name__)

#: Longest name and longest tag that W&B takes, in characters.
NAME, TAG = 128, 64


class WandbStore(Store):
    """One W&B run, with its files in ``wandb/`` of the run directory.

    Args:
        upload_model: whether ``merged.safetensors`` becomes an artifact.
    """

    def __init__(self, run: LoggedRun, session: Any, *, upload_model: bool) -> None:
        self.run = run
        self.session = session
        self.upload_model = upload_model

    def curves(self, method: str) -> Logger:
        self.session.define_metric(f"{method}/*", step_metric="learning_step")
        return MethodCurves(method, self._write)

    def results(self, results: RunResults) -> None:
        self.session.tags = (*self.session.tags, *(stamp[:TAG] for stamp in results.stamps))
        table = accuracy_content([results])
        headings = [*table.labels, *table.columns]
        rows = plain_table(table, order=results.methods)
        heatmaps = coefficient_heatmaps(self.run.directory.coefficients)
        pictures = {f"coefficients/{name}": wandb.Image(image) for name, image in heatmaps.items()}
        self.session.log(
            {"results": wandb.Table(columns=list(headings), data=list(rows)), **pictures}
        )
        self.session.summary.update(flat_numbers(results))
        if self.upload_model and self.run.directory.merged.exists():
            self._upload()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.session.finish(exit_code=exit_status(error))
        # Ends W&B's own process too: the next run of a sweep must not inherit its folders.
        wandb.teardown()

    def _write(self, metrics: dict[str, float], step: int) -> None:
        self.session.log({**metrics, "learning_step": step})

    def _upload(self) -> None:
        artifact = wandb.Artifact(f"merged-{self.run.run_hash}", type="model")
        # Nobody changes the file any more, so it is not copied.
        artifact.add_file(str(self.run.directory.merged), policy="immutable", skip_cache=True)
        self.session.log_artifact(artifact)


def open_store(settings: WandbSettings, run: LoggedRun) -> Store:
    """Begin the W&B run, or continue it online: its id is the run's hash.

    Raises:
        UserError: mode=online, and no server answers or no key is known.
    """
    config = run.config
    for folder in _temporary:  # the run that they were made in may have been removed since
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
                # Tells jobs of different hosts apart and says no more.
                host=key_of([socket.gethostname()]),
                # It holds the command line, where passwords may stand; the manifest has the rest.
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
    return WandbStore(run, session, upload_model=settings.upload_model)
