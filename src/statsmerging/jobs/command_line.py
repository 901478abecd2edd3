"""From the command line to a job, and from a user's mistake to one clear line."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn, cast

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException
from omegaconf import Container, DictConfig, OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)

from statsmerging.jobs.finished import show_finished
from statsmerging.jobs.schema import Config, parse_config
from statsmerging.records.errors import UserError
from statsmerging.records.run_directory import RunDirectory, remove_traces, run_hash

#: Exit status after a user's mistake, after Ctrl-C and after SIGTERM (128 + signal, as in shells).
MISTAKE = 2
INTERRUPTED = 130
TERMINATED = 143


def main(run: Callable[[], None]) -> None:
    """Run the Hydra entry point; a mistake in the command ends in one line and status 2."""
    register_resolvers()
    # Hydra then raises its errors instead of printing several lines and leaving with status 1.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    try:
        run()
    except (HydraException, OmegaConfBaseException) as error:
        refuse(explain(error))
    except KeyboardInterrupt:
        _stop("Ctrl-C", INTERRUPTED)
    except SystemExit as stop:
        # Lightning turns SIGTERM into a SystemExit without a status, which would read as success,
        # and Ctrl-C into one with status 1, which would read as a failure.
        if type(stop).__name__ == "SIGTERMException":
            _stop("SIGTERM", TERMINATED)
        if isinstance(stop.__context__, KeyboardInterrupt):
            _stop("Ctrl-C", INTERRUPTED)
        raise


def register_resolvers() -> None:
    """Make ``${run_hash:}`` known to the config."""
    OmegaConf.register_new_resolver("run_hash", _hash_of_root, replace=True)


def run_job(config: DictConfig) -> None:
    """Check the config and run the job it names, in Hydra's run directory."""
    path = Path(HydraConfig.get().runtime.output_dir)
    try:
        values = _container(config)
        checked = parse_config(values)
        run_checked(checked, RunDirectory(path, values))
    except (UserError, OmegaConfBaseException) as error:
        remove_traces(path)
        refuse(explain(error) if isinstance(error, OmegaConfBaseException) else str(error))


def run_checked(config: Config, directory: RunDirectory) -> None:
    """Run the job, or show its results if the directory holds them already."""
    if directory.finished and not config.rerun:
        show_finished(directory)
        return
    if config.rerun:
        directory.forget_checkpoints()
    job = import_module(f"statsmerging.jobs.{config.job.name}")
    from statsmerging.merging.errors import MergingError  # needs torch, which the job has loaded

    try:
        job.run(config, directory)
    except MergingError as error:
        raise UserError(str(error)) from error


def _stop(cause: str, status: int) -> NoReturn:
    print(f"stopped by {cause}: the same command continues", file=sys.stderr)
    sys.exit(status)


def refuse(message: str) -> None:
    """Print one line to standard error and leave with status 2."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(MISTAKE)


def explain(error: BaseException) -> str:
    """One line for an error of Hydra or OmegaConf, with the valid choices where there are any."""
    for cause in _causes(error):
        if isinstance(cause, MissingConfigException) and cause.options is not None:
            group, _, choice = str(cause.missing_cfg_file).rpartition("/")
            return f"{group}={choice}: choose one of {', '.join(sorted(cause.options))}"
        if isinstance(cause, MissingMandatoryValue):
            return f"{cause.full_key}: a value is needed"
        if isinstance(cause, ConfigKeyError | ConfigAttributeError):
            known = sorted(str(key) for key in cause.parent_node or () if key != "hydra")
            return f"{cause.full_key}: no such key; choose one of {', '.join(known)}"
    return (str(error).splitlines() or [type(error).__name__])[0]


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _container(config: Container) -> dict[str, Any]:
    values = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    return cast("dict[str, Any]", values)


def _hash_of_root(_root_: DictConfig) -> str:
    config = OmegaConf.masked_copy(_root_, [str(key) for key in _root_ if key != "hydra"])
    return run_hash(cast("dict[str, Any]", OmegaConf.to_container(config, resolve=True)))
