"""From the command line to a job, and from a user's mistake to one clear line."""

from __future__ import annotations

import logging
import os
import sys
import traceback
import warnings
from collections.abc import Iterable, Set
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from statsmerging.app.config import Config, check_tasks, parse_config, plain_values
from statsmerging.app.config_folder import config_folder
from statsmerging.app.mistakes import (
    INCOMPLETE,
    MISTAKE,
    STOPPED,
    exit_status,
    explain,
    storage_problem,
)
from statsmerging.app.plugins import chosen_methods, load_plugins
from statsmerging.app.run import Run
from statsmerging.app.sweep import SweepJournal, run_in_sweep, sum_up
from statsmerging.app.terminal import complain, leave_unread, settle_terminal, show_table
from statsmerging.errors import IncompleteError, UserError, first_line, printable
from statsmerging.merging.errors import MergingError
from statsmerging.runs.directory import (
    WITH_RESULTS,
    RunDirectory,
    remove_traces,
    report_name,
    run_hash,
)
from statsmerging.runs.finished import read_finished_run
from statsmerging.runs.manifest import changed_files, code_version, this_command
from statsmerging.runs.results import objective_of
from statsmerging.store.received import ReceivedError

log = logging.getLogger(__name__)


def command() -> None:
    """The command ``statsmerging`` and ``run.py``: compose the config, run the job it names.

    A mistake in the command ends in one line and status 2.
    """
    # Hydra then raises its errors instead of printing several lines and leaving with status 1.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    settle_terminal()
    from_config = hydra.main(
        version_base="1.3", config_path=str(config_folder()), config_name="config"
    )
    try:
        from_config(run_job)()
    except (KeyboardInterrupt, SystemExit) as stop:
        status = exit_status(stop)
        if status not in STOPPED:
            raise
        complain(f"stopped by {STOPPED[status]}: the same command continues")
        sys.exit(status)
    except BrokenPipeError:
        leave_unread()
    except Exception as error:
        if SweepJournal.current is not None and SweepJournal.current.entries():
            _end_sweep(error)
        _end_with_message(error)
    if SweepJournal.current is not None:
        _end_sweep()


def run_job(config: DictConfig) -> float | None:
    """Check the config and run the job it names, in Hydra's run directory.

    Returns:
        The agreement with the teachers of the last method, which a sweeper may maximise.
    """
    settle_terminal()  # workers of a launcher begin here
    path = Path(HydraConfig.get().runtime.output_dir)
    # Paths of the config are relative to the folder of the command, even with hydra.job.chdir.
    os.chdir(HydraConfig.get().runtime.cwd)
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        return run_in_sweep(lambda: _run_job(config, path), path)
    try:
        return _run_job(config, path)
    except Exception as error:  # caught here, because Hydra would print further lines first
        _end_with_message(error)


def _run_job(config: DictConfig, path: Path) -> float | None:
    """As ``run_job``; a job that is refused leaves the directory as it was found."""
    before = found_entries(path)
    try:
        try:
            values = plain_values(config)
        except OmegaConfBaseException as error:
            raise UserError(explain(error)) from error
        checked = parse_config(values)
        if checked.status or checked.delete_incomplete:
            raise UserError("status and delete_incomplete are of the whole command: one value each")
        directory = RunDirectory(path, values)
        try:
            run_checked(checked, directory)
        except (UserError, IncompleteError):
            raise
        except Exception:
            directory.note_error(traceback.format_exc())
            raise
    except UserError:
        remove_traces(path, before)
        raise
    directory.forget_error()
    return objective_of(directory.path)


def run_checked(config: Config, directory: RunDirectory) -> None:
    """Run the job, or show its results if the directory holds them already."""
    with directory.exclusive():
        if directory.finished and not config.rerun:
            show_finished(directory, [name for name, _ in config.logger.chosen()])
            return
        check_before(config)
        if config.rerun:
            directory.forget_checkpoints()
        job = import_module(f"statsmerging.jobs.{config.job.name}")
        run_job_on = getattr(job, config.job.name)
        try:
            if config.job.name not in WITH_RESULTS:
                run_job_on(Run(config, directory))
                return
            # Imported here: these need torch and Lightning, which take seconds.
            from statsmerging.app.loggers.run_log import open_run_log
            from statsmerging.app.setup import ScoredRun

            with open_run_log(config, directory) as run_log:
                run_job_on(ScoredRun(config, directory, run_log))
        except MergingError as error:
            raise UserError(str(error)) from error


def check_before(config: Config) -> None:
    """Check tasks, plugins and methods, before anything that takes longer than their import.

    Raises:
        UserError: names the key that is wrong, and the valid choices.
    """
    check_tasks(config)
    load_plugins(config.plugins)
    if config.job.name in WITH_RESULTS:
        chosen_methods(config)


def show_finished(directory: RunDirectory, loggers: Iterable[str] = ()) -> None:
    """Show the table of a complete run; warn if its code or its inputs have changed.

    Args:
        loggers: names of those the config chooses; they are sent nothing new.

    Raises:
        UserError: its record is damaged.
    """
    log.info("this run is complete already (rerun=true runs it again): %s", directory.path)
    elsewhere = [name for name in loggers if name != "csv"]  # its files are in the run directory
    if elsewhere:
        log.info(
            "nothing new is sent to %s: rerun=true runs and logs it again", ", ".join(elsewhere)
        )
    try:
        run = read_finished_run(directory.path)
    except ReceivedError as error:
        raise UserError(f"{error}; rerun=true makes it anew") from error
    if run.manifest.get("code") != code_version():
        log.warning("it was made by another version of the code")
    changed = changed_files(run.manifest.get("inputs", {}))
    if changed:
        log.warning(
            "%d of its input files changed since, among them %s",
            len(changed),
            printable(changed[0]),
        )
    show_table(run.results, directory.path)


def _end_sweep(error: Exception | None = None) -> NoReturn:
    """Show the outcome of every job, with its error, and leave with the status of the sweep."""
    assert SweepJournal.current is not None
    complete = sum_up(SweepJournal.current)
    if error is not None and complete:
        complain(f"error: {first_line(error)}")
    sys.exit(0 if complete and error is None else INCOMPLETE)


def _end_with_message(error: Exception) -> NoReturn:
    """Print one line for a mistake or a full disk; anything else keeps its traceback."""
    if isinstance(error, IncompleteError):
        complain(f"error: {error}")
        sys.exit(INCOMPLETE)
    storage = storage_problem(error)
    if isinstance(error, HydraException | OmegaConfBaseException):
        message = explain(error)
    elif isinstance(error, UserError):
        message = str(error)
    elif storage is not None:
        message = f"{storage}; the same command continues"
    elif isinstance(error, FileExistsError | NotADirectoryError):
        message = f"{error.filename} cannot be a folder: there is a file in its way"
    else:
        raise error
    complain(f"error: {message}")
    sys.exit(MISTAKE)


class FoundFolder(Callback):
    """Looks for the run directory before Hydra makes it; ``hydra.callbacks`` names this class.

    A command that is refused then leaves what lay there before, and nothing else.
    """

    #: The directory that Hydra makes for the run of this process; ``None`` in a sweep.
    made: Path | None = None

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Called once, before the job."""
        with suppress(OmegaConfBaseException):  # a key without a value: the job reports it
            path = Path(os.path.abspath(config.hydra.run.dir))  # noqa: PTH100, as Hydra names it
            FoundFolder.made = None if path.exists() else path


def found_entries(path: Path) -> Set[str] | None:
    """Names in the run directory before the run; ``None`` if this command has made it."""
    if FoundFolder.made == path:
        return None
    return frozenset(entry.name for entry in path.iterdir())


def _hash_of_root(_root_: DictConfig) -> str:
    config = OmegaConf.masked_copy(_root_, [str(key) for key in _root_ if key != "hydra"])
    return run_hash(plain_values(config, complete=False))


def _run_name(_root_: DictConfig) -> str:
    """Name of the run directory; the index of all reports lies in the folder of the reports."""
    job = _root_.job
    if job.name == "report":
        return "" if job.runs is None else report_name(Path(job.runs))
    return f"{_root_.suite.name}-{_root_.backbone.label}-{_hash_of_root(_root_)}"


def _wandb_mode() -> str:
    """The mode that W&B's own variables ask for; an empty variable counts as not set."""
    if os.environ.get("WANDB_DISABLED", "").lower() in ("true", "1"):
        return "disabled"
    return os.environ.get("WANDB_MODE") or "offline"


def _choices_of(group: str) -> str:
    """The choices of a config group, for ``--help``."""
    return ", ".join(GlobalHydra.instance().config_loader().get_group_options(group))


# The configs of the launchers have the names of the plugins' own on purpose: they document the
# keys and bring better defaults.
warnings.filterwarnings("ignore", message=r"\s+'hydra/launcher/.* is validated against")
# Registered on import: the workers of a launcher import this module and call nothing else of it
# before they compose the config of a job and need the name of its run directory.
OmegaConf.register_new_resolver("run_hash", _hash_of_root, replace=True)
OmegaConf.register_new_resolver("run_name", _run_name, replace=True)
OmegaConf.register_new_resolver("choices", _choices_of, replace=True)
OmegaConf.register_new_resolver("config_folder", lambda: str(config_folder()), replace=True)
OmegaConf.register_new_resolver("this_command", this_command, replace=True)
OmegaConf.register_new_resolver("wandb_mode", _wandb_mode, replace=True)
