"""Sweeps: every job tells the journal what became of it, the driver sums up at the end.

The jobs may run in the driver's process, in other processes or on other machines; what they share
is the journal's folder, whose name they inherit in an environment variable.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from statsmerging.jobs.exit_status import MISTAKE
from statsmerging.jobs.terminal import complain
from statsmerging.jobs.worker import end_with
from statsmerging.records.errors import first_line
from statsmerging.records.files import write_text
from statsmerging.records.journal import Entry, Journal, State
from statsmerging.records.secrets import redacted

#: Where a job finds the journal of its sweep.
JOURNAL_VARIABLE = "STATSMERGING_SWEEP_JOURNAL"

#: Where a job finds the process that drives its sweep, on this machine.
DRIVER_VARIABLE = "STATSMERGING_SWEEP_DRIVER"

#: The folder below ``hydra.sweep.dir`` that holds the journals, one per sweep.
JOURNALS = "sweeps"


class SweepJournal(Callback):
    """Opens the journal when a sweep begins; named in ``hydra.callbacks``."""

    #: The journal of the sweep that this process drives.
    current: Journal | None = None

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Called once by the driver, before any job."""
        dropped = _sweeps_of_their_own(config)
        if dropped:
            # Hydra would turn an error into a warning, and go on.
            complain(f"error: {dropped}")
            raise SystemExit(MISTAKE)
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
        folder = (Path(config.hydra.sweep.dir) / JOURNALS / name).absolute()
        os.environ[JOURNAL_VARIABLE] = str(folder)
        os.environ[DRIVER_VARIABLE] = str(os.getpid())
        SweepJournal.current = Journal(folder)
        jobs = _planned_jobs(config)
        if jobs is not None:
            SweepJournal.current.plan(jobs)

    def on_job_start(self, config: DictConfig, **_: Any) -> None:
        """Called before every job: by now Hydra has written command and config of the sweep."""
        file = Path(config.hydra.runtime.cwd) / config.hydra.sweep.dir / "multirun.yaml"
        if config.hydra.mode == RunMode.MULTIRUN and file.is_file():
            text = file.read_text(encoding="utf-8")
            if redacted(text) != text:
                write_text(file, redacted(text))


def run_in_sweep(run: Callable[[], float | None], directory: Path) -> float | None:
    """Run one job of a sweep; whatever happens to it stands in the journal.

    Raises:
        Exception: whatever the job raised, to a sweeper that counts failures. Hydra's own would
            only end the sweep with a line about the first of them.
    """
    folder = os.environ.get(JOURNAL_VARIABLE)
    journal = Journal(Path(folder)) if folder else None
    job = HydraConfig.get()
    if SweepJournal.current is None and str(job.launcher._target_).endswith("JoblibLauncher"):
        end_with(int(os.environ[DRIVER_VARIABLE]))

    def note(state: State, message: str = "") -> None:
        if journal is not None:
            overrides = tuple(job.overrides.task)
            journal.write(Entry(int(job.job.num), overrides, str(directory), state, message))

    note("running")
    try:
        objective = run()
    except Exception as error:
        note("failed", first_line(error))
        # Not to the log: a job that was refused has no directory for it any more.
        complain(f"job {job.job.num} failed: {first_line(error)}")
        if _is_hydras_own(job.sweeper):
            return None
        raise
    except BaseException:  # Ctrl-C and SIGTERM
        note("stopped")
        raise
    note("done")
    return objective


def sum_up(journal: Journal) -> bool:
    """Print what became of every job and write it to the journal's folder as ``summary.md``.

    Returns:
        Whether all jobs are done.
    """
    from statsmerging.jobs.finished import wide_console
    from statsmerging.report.sweep_summary import SweepSummary

    summary = SweepSummary.of(journal)
    wide_console().print(summary.table())
    for line in summary.complaints():
        complain(f"error: {line}")
    write_text(journal.folder / "summary.md", summary.markdown())
    return summary.complete


def _sweeps_of_their_own(config: DictConfig) -> str | None:
    """Why experiments that are sweeps cannot be the values of another one; None if all is well.

    Hydra reads the sweep of an experiment from the config of the whole command, and in
    ``experiment=A,B`` it would read none, and run each once.
    """
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.types import RunMode

    given = OverridesParser.create().parse_overrides(config.hydra.overrides.task)
    loader = GlobalHydra.instance().config_loader()
    for override in given:
        if override.key_or_group != "experiment" or not override.is_sweep_override():
            continue
        values = list(override.sweep_string_iterator())
        sweeps = [
            value
            for value in values
            if loader.load_configuration(
                config.hydra.job.config_name, [f"experiment={value}"], RunMode.RUN
            ).hydra.sweeper.params
        ]
        if sweeps:
            return (
                f"experiment={','.join(values)}: {', '.join(sweeps)} sweep over values of their "
                "own; give each a command, experiment=NAME without -m"
            )
    return None


def _planned_jobs(config: DictConfig) -> list[list[str]] | None:
    """Overrides of every job, where the sweeper is Hydra's own: others decide as they go."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser

    sweeper = config.hydra.sweeper
    if not _is_hydras_own(sweeper):
        return None
    given = [f"{key}={value}" for key, value in (sweeper.params or {}).items()]
    overrides = OverridesParser.create().parse_overrides([*given, *config.hydra.overrides.task])
    return [list(job) for job in BasicSweeper.split_arguments(overrides, None)[0]]


def _is_hydras_own(sweeper: DictConfig) -> bool:
    return str(sweeper._target_).endswith("BasicSweeper")
