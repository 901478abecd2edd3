"""Runs that are complete already: shown again without loading a model."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from rich.console import Console

from statsmerging.records.files import read_json
from statsmerging.records.inputs import changed_files
from statsmerging.records.manifest import code_version
from statsmerging.records.run_directory import RunDirectory
from statsmerging.report.table import accuracy_table

log = logging.getLogger(__name__)

#: Columns of a table that goes to a file or a pipe, where nothing wraps it.
FILE_WIDTH = 200


def show_finished(directory: RunDirectory, loggers: Iterable[str] = ()) -> None:
    """Show the table of a complete run, and say so if its code or its inputs have changed.

    Args:
        loggers: names of those the config chooses; what keeps its numbers elsewhere gets none.
    """
    log.info("this run is complete already (rerun=true runs it again): %s", directory.path)
    elsewhere = [name for name in loggers if name != "csv"]  # csv stands in the run directory
    if elsewhere:
        log.info(
            "nothing new is sent to %s: rerun=true runs and logs it again", ", ".join(elsewhere)
        )
    manifest = read_json(directory.manifest)
    if manifest["code"] != code_version():
        log.warning("it was made by another version of the code")
    changed = changed_files(manifest["inputs"])
    if changed:
        log.warning("%d of its input files changed since, among them %s", len(changed), changed[0])
    show_table(read_json(directory.results))


def show_table(results: dict[str, Any]) -> None:
    """Print the accuracy table to standard output."""
    wide_console().print(accuracy_table([results]))


def wide_console() -> Console:
    """Standard output, as wide as the terminal, or wide enough for any table without one."""
    console = Console(emoji=False)  # no name of a task is one
    return console if console.is_terminal else Console(emoji=False, width=FILE_WIDTH)
