"""From the command line to a job, and from a user's mistake to one clear line."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn, cast

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import Container, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from statsmerging.jobs.early_checks import check_early
from statsmerging.jobs.exit_status import INCOMPLETE, MISTAKE, STOPPED, UNREAD, exit_status
from statsmerging.jobs.finished import show_finished
from statsmerging.jobs.messages import explain, storage_problem
from statsmerging.jobs.plugins import load_plugins
from statsmerging.jobs.run_folder import found_entries
from statsmerging.jobs.schema import Config, parse_config
from statsmerging.jobs.sweep import SweepJournal, run_in_sweep, sum_up
from statsmerging.jobs.terminal import complain, settle_terminal
from statsmerging.records.errors import IncompleteError, UserError, first_line
from statsmerging.records.run_directory import RunDirectory, remove_traces, run_hash
from statsmerging.runs.results import objective_of


def main(run: Callable[[], object]) -> None:
    """Run the Hydra entry point; a mistake in the command ends in one line and status 2."""
    # Hydra then raises its errors instead of printing several lines and leaving with status 1.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    settle_terminal()
    try:
        run()
    except (KeyboardInterrupt, SystemExit) as stop:
        status = exit_status(stop)
        if status not in STOPPED:
            raise
        complain(f"stopped by {STOPPED[status]}: the same command continues")
        sys.exit(status)
    except BrokenPipeError:  # `run.py --help | head`: nobody reads any further
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes at its end
        sys.exit(UNREAD)
    except Exception as error:
        if SweepJournal.current is not None and SweepJournal.current.entries():
            _end_sweep(error)
        _refuse(error)
    if SweepJournal.current is not None:
        _end_sweep()


def run_job(config: DictConfig) -> float | None:
    """Check the config and run the job it names, in Hydra's run directory.

    Returns:
        The agreement with the teachers of the last method, which a sweeper may maximise.
    """
    settle_terminal()  # workers of a launcher begin here
    path = Path(HydraConfig.get().runtime.output_dir)
    # Paths of the config start where the command was given, whatever hydra.job.chdir says.
    os.chdir(HydraConfig.get().runtime.cwd)
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        return run_in_sweep(lambda: _run_job(config, path), path)
    try:
        return _run_job(config, path)
    except Exception as error:  # here, because Hydra would print lines of its own before ours
        _refuse(error)


def run_checked(config: Config, directory: RunDirectory) -> None:
    """Run the job, or show its results if the directory holds them already."""
    with directory.exclusive():
        if directory.finished and not config.rerun:
            show_finished(directory, [name for name, _ in config.logger.chosen()])
            return
        check_early(config)
        if config.rerun:
            directory.forget_checkpoints()
        load_plugins(config.plugins)
        job = import_module(f"statsmerging.jobs.{config.job.name}")
        from statsmerging.merging.errors import MergingError  # needs torch, which the job has

        try:
            job.run(config, directory)
        except MergingError as error:
            raise UserError(str(error)) from error


def _run_job(config: DictConfig, path: Path) -> float | None:
    before = found_entries(path)
    try:
        values = _container(config)
        checked = parse_config(values)
        directory = RunDirectory(path, values)
    except UserError:
        remove_traces(path, before)
        raise
    except OmegaConfBaseException as error:
        remove_traces(path, before)
        raise UserError(explain(error)) from error
    try:
        run_checked(checked, directory)
    except UserError:
        remove_traces(path, before)
        raise
    except IncompleteError:
        raise
    except Exception:
        directory.note_error(traceback.format_exc())
        raise
    directory.forget_error()
    return objective_of(directory.path)


def _end_sweep(error: Exception | None = None) -> NoReturn:
    """Show what became of the jobs; the errors of single jobs are among it."""
    assert SweepJournal.current is not None
    complete = sum_up(SweepJournal.current)
    if error is not None and complete:
        complain(f"error: {first_line(error)}")
    sys.exit(0 if complete and error is None else INCOMPLETE)


def _refuse(error: Exception) -> NoReturn:
    """One line for a mistake or a full disk; anything else keeps its traceback."""
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


def _container(config: Container, *, complete: bool = True) -> dict[str, Any]:
    values = OmegaConf.to_container(config, resolve=True, throw_on_missing=complete)
    return cast("dict[str, Any]", _at_home(values))


def _at_home(value: Any) -> Any:
    """The same values with ``~/`` replaced, which no shell does behind ``KEY=``."""
    if isinstance(value, dict):
        return {key: _at_home(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_at_home(entry) for entry in value]
    return str(Path(value).expanduser()) if str(value).startswith("~/") else value


def _hash_of_root(_root_: DictConfig) -> str:
    config = OmegaConf.masked_copy(_root_, [str(key) for key in _root_ if key != "hydra"])
    return run_hash(_container(config, complete=False))


def _wandb_mode() -> str:
    """As W&B's own variables say; one that is set to nothing counts as not set."""
    if os.environ.get("WANDB_DISABLED", "").lower() in ("true", "1"):
        return "disabled"
    return os.environ.get("WANDB_MODE") or "offline"


def _choices_of(group: str) -> str:
    """For ``--help``, where Hydra has a list of its own groups but only a long one of all."""
    return ", ".join(GlobalHydra.instance().config_loader().get_group_options(group))


# On import, because the workers of a launcher import this module and call nothing else of it
# before they compose the config of a job and need the name of its run directory.
#
# The launchers' configs have the names of their plugins' own on purpose: they document the keys and
# bring better defaults.
warnings.filterwarnings("ignore", message=r"\s+'hydra/launcher/.* is validated against")
OmegaConf.register_new_resolver("run_hash", _hash_of_root, replace=True)
OmegaConf.register_new_resolver("choices", _choices_of, replace=True)
OmegaConf.register_new_resolver("wandb_mode", _wandb_mode, replace=True)
