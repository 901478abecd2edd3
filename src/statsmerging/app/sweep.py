"""Sweeps: every job writes its outcome to the journal, the driver sums up at the end.

The jobs may run in the driver's process, in other processes or on other machines. They share the
journal's folder, whose name they inherit in an environment variable.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from statsmerging.app.mistakes import MISTAKE
from statsmerging.app.planned_runs import (
    experiments_with_sweeps,
    is_hydras_own,
    planned_jobs,
)
from statsmerging.app.terminal import complain
from statsmerging.errors import UserError, first_line
from statsmerging.runs.journal import JOURNALS, Entry, JobState, Journal
from statsmerging.store.files import write_text
from statsmerging.store.secrets import redacted

#: Environment variable: folder of the sweep's journal.
JOURNAL_VARIABLE = "STATSMERGING_SWEEP_JOURNAL"

#: Environment variable: process id of the sweep's driver, on the same machine.
DRIVER_VARIABLE = "STATSMERGING_SWEEP_DRIVER"


class SweepJournal(Callback):
    """Opens the journal when a sweep begins; ``hydra.callbacks`` names this class."""

    #: The journal of the sweep that this process drives.
    current: Journal | None = None

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Called once by the driver, before any job."""
        values = experiments_with_sweeps(config)
        if values:
            # Hydra would turn an error into a warning, and go on.
            complain(
                f"error: experiment={','.join(values)}: {', '.join(filter(values.get, values))} "
                "sweep over values of their own; give each a command, experiment=NAME without -m"
            )
            raise SystemExit(MISTAKE)
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
        folder = (Path(config.hydra.sweep.dir) / JOURNALS / name).absolute()
        os.environ[JOURNAL_VARIABLE] = str(folder)
        os.environ[DRIVER_VARIABLE] = str(os.getpid())
        SweepJournal.current = Journal(folder)
        jobs = planned_jobs(config)
        if jobs is not None:
            SweepJournal.current.plan(jobs)

    def on_job_start(self, config: DictConfig, **_: Any) -> None:
        """Called before every job; removes credentials from what Hydra has written by now."""
        file = Path(config.hydra.runtime.cwd) / config.hydra.sweep.dir / "multirun.yaml"
        if config.hydra.mode == RunMode.MULTIRUN and file.is_file():
            text = file.read_text(encoding="utf-8")
            if redacted(text) != text:
                write_text(file, redacted(text))


def run_in_sweep(run: Callable[[], float | None], directory: Path) -> float | None:
    """Run one job of a sweep and write its outcome to the journal.

    Raises:
        Exception: the error of the job, for a sweeper that counts failures. Hydra's own sweeper
            would end the sweep with a line about the first error.
    """
    folder = os.environ.get(JOURNAL_VARIABLE)
    journal = Journal(Path(folder)) if folder else None
    job = HydraConfig.get()
    if SweepJournal.current is None and str(job.launcher._target_).endswith("JoblibLauncher"):
        end_with(int(os.environ[DRIVER_VARIABLE]))

    def note(state: JobState, message: str = "", *, refused: bool = False) -> None:
        if journal is not None:
            number, overrides = int(job.job.num), tuple(job.overrides.task)
            journal.write(Entry(number, overrides, str(directory), state, message, refused))

    note("running")
    try:
        objective = run()
    except Exception as error:
        note("failed", first_line(error), refused=isinstance(error, UserError))
        # Not to the log: the directory of a refused job is gone, with its log.
        complain(f"job {job.job.num} failed: {first_line(error)}")
        if is_hydras_own(job.sweeper):
            return None
        raise
    except BaseException:  # Ctrl-C and SIGTERM
        note("stopped")
        raise
    note("done")
    return objective


def sum_up(journal: Journal) -> bool:
    """Print the outcome of every job and write it to the journal's folder as ``summary.md``.

    Returns:
        Whether all jobs are done.
    """
    from statsmerging.progress import wide_console
    from statsmerging.report.sweep_summary import SweepSummary

    summary = SweepSummary.of(journal)
    wide_console().print(summary.table())
    for line in summary.complaints():
        complain(f"error: {line}")
    write_text(journal.folder / "summary.md", summary.markdown())
    return summary.complete


#: Of Linux' prctl.h.
_PR_SET_PDEATHSIG = 1


def end_with(parent: int) -> None:
    """Have the system kill this process when its parent ends.

    A gentler signal would end only the job; the worker would wait for the next one.

    Args:
        parent: process id; the parent may have ended already.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
