"""Runs that are complete already: shown again without loading a model."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from rich.console import Console

from statsmerging.records.errors import UserError, printable
from statsmerging.records.inputs import changed_files
from statsmerging.records.manifest import code_version
from statsmerging.records.received import ReceivedError
from statsmerging.records.run_directory import RunDirectory
from statsmerging.runs.finished import read_finished_run
from statsmerging.runs.results import RunResults

log = logging.getLogger(__name__)

#: Columns of a table that goes to a file or a pipe, where nothing wraps it.
FILE_WIDTH = 200


def show_finished(directory: RunDirectory, loggers: Iterable[str] = ()) -> None:
    """Show the table of a complete run, and say so if its code or its inputs have changed.

    Args:
        loggers: names of those the config chooses; what keeps its numbers elsewhere gets none.

    Raises:
        UserError: its record is damaged.
    """
    log.info("this run is complete already (rerun=true runs it again): %s", directory.path)
    elsewhere = [name for name in loggers if name != "csv"]  # csv stands in the run directory
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
    show_table(run.results)


def show_table(results: RunResults) -> None:
    """Print the accuracy table to standard output."""
    # These import pandas, which --help does not need.
    from statsmerging.report.tables.accuracy import accuracy_content
    from statsmerging.report.tables.text import terminal_table

    wide_console().print(terminal_table(accuracy_content([results])))


def wide_console() -> Console:
    """Standard output, as wide as the terminal, or wide enough for any table without one."""
    console = Console(emoji=False)  # no name of a task is one
    return console if console.is_terminal else Console(emoji=False, width=FILE_WIDTH)
