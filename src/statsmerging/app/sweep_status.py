"""``status=true`` and ``delete_incomplete=true``: questions about the runs of a command.

They are added to the command of a sweep or of a single run, are answered before anything
starts, and end the command.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from statsmerging.app.config import Questions
from statsmerging.app.delete_incomplete import delete_incomplete
from statsmerging.app.mistakes import INCOMPLETE, MISTAKE, explain
from statsmerging.app.planned_runs import (
    PlannedRun,
    keys_of_sweep,
    runs_of_sweep,
    single_run,
    sweeps_of,
)
from statsmerging.app.terminal import complain, leave_unread
from statsmerging.errors import UserError, printable
from statsmerging.progress import wide_console
from statsmerging.report.sweep_status import RunStatus, SweepStatus
from statsmerging.runs.journal import last_tries
from statsmerging.runs.state import state_of
from statsmerging.settings import describe
from statsmerging.store.secrets import redacted


class AnswerFirst(Callback):
    """Answers questions before Hydra starts a job; ``hydra.callbacks`` names this class."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Called once by the driver of a sweep, before its sweeper and launcher are made."""
        _answer(config, lambda: sweeps_of(config), runs_of_sweep)

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Called before the job of a command that is no sweep."""
        _answer(config, lambda: [config], lambda run: [single_run(run)])


def _answer(
    config: DictConfig,
    sweeps: Callable[[], Sequence[DictConfig]],
    planned: Callable[[DictConfig], list[PlannedRun] | None],
) -> None:
    """Answer the question of a command and end it, if it has one.

    Raises:
        SystemExit: the status of the command. Hydra turns any other exception of a callback into
            a warning and starts the jobs.
    """
    try:
        asked = _questions(config)
        if asked.status and asked.delete_incomplete:
            raise UserError("status and delete_incomplete: one at a time")
        if asked.status:
            for sweep in sweeps():
                _show(sweep, planned(sweep))
        elif asked.delete_incomplete:
            for sweep in sweeps():
                runs = planned(sweep)
                if runs is None:
                    raise UserError("delete_incomplete: this sweeper plans no runs to look for")
                states = _states(runs, _folder(sweep))
                delete_incomplete(runs, states, asks=asked.delete_incomplete != "confirmed")
        else:
            return
        sys.stdout.flush()
    except BrokenPipeError:
        leave_unread()
    except (UserError, HydraException, OmegaConfBaseException) as error:
        complain(f"error: {error if isinstance(error, UserError) else explain(error)}")
        raise SystemExit(MISTAKE) from error
    except Exception as error:
        traceback.print_exc()
        raise SystemExit(INCOMPLETE) from error
    raise SystemExit(0)


def _questions(config: DictConfig) -> Questions:
    try:
        return Questions(**{key: config[key] for key in Questions.model_fields if key in config})
    except ValidationError as error:
        raise UserError(describe(error)) from error


def _show(config: DictConfig, planned: list[PlannedRun] | None) -> None:
    """Print what became of each run of a sweep."""
    sweep = _folder(config)
    runs = _states_of_begun(config, sweep) if planned is None else _states(planned, sweep)
    status = SweepStatus(runs, time.time())
    if runs:
        wide_console().print(status.table())
    for line in status.failures():
        print(printable(line))
    experiment = config.hydra.runtime.choices.get("experiment")
    name = f"experiment={experiment}: " if experiment else ""
    unknown = "; the sweeper decides on others while it runs" if planned is None else ""
    print(f"{printable(name)}{status.totals()}{unknown}")


def _folder(config: DictConfig) -> Path:
    """The folder of the sweep, which also holds the journals of earlier ones."""
    return Path(os.path.abspath(config.hydra.sweep.dir))  # noqa: PTH100, as Hydra names it


def _states(planned: Sequence[PlannedRun], sweep: Path) -> list[RunStatus]:
    tries = last_tries(sweep)
    return [
        RunStatus(
            run.number,
            tuple(redacted(list(run.overrides))),
            state_of(run.directory.path, tries.get(str(run.directory.path))),
            run.mistake,
        )
        for run in planned
    ]


def _states_of_begun(config: DictConfig, sweep: Path) -> list[RunStatus]:
    """The runs that earlier sweeps of this command have begun, if its sweeper plans none."""
    keys, fixed = keys_of_sweep(config)
    found: list[RunStatus] = []
    for directory, last in last_tries(sweep).items():
        given = set(last.entry.overrides)
        set_here = {override.partition("=")[0].lstrip("+") for override in given}
        # A journal may come from anybody: only run directories of this sweep are looked at.
        if set_here == keys and set(redacted(fixed)) <= given and Path(directory).parent == sweep:
            state = state_of(Path(directory), last)
            found.append(RunStatus(len(found), last.entry.overrides, state))
    return found
