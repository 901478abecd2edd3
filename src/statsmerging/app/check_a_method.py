"""After a sweep: the methods of its plugins beside all others, as a table with intervals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from statsmerging.app.config import JobSettings
from statsmerging.app.plugins import load_plugins, methods_of
from statsmerging.app.terminal import complain
from statsmerging.errors import UserError


class CompareAtEnd(Callback):
    """Compares the finished runs of a sweep's folder; ``hydra.callbacks`` names this class.

    The files of the comparison are written to that folder, those of several methods to a folder of
    each.
    """

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Called once by the driver, after all jobs."""
        from statsmerging.jobs.compare import compare_runs

        files = [Path(file).expanduser() for file in config.plugins]
        runs = Path(config.hydra.sweep.dir)
        try:
            load_plugins(files)  # the jobs may have run in other processes
            names = [method.name for method in methods_of(files)]
            for name in names:
                job = JobSettings(name="compare", runs=runs, against=name)
                compare_runs(job, runs / "comparisons" / name)
        except UserError as error:
            # Hydra would turn it into a warning, and go on.
            complain(f"error: no comparison: {error}")
