"""``job=report``: the tables of many finished runs, mean ± deviation over seeds."""

from __future__ import annotations

import logging

from statsmerging.jobs.finished import wide_console
from statsmerging.jobs.schema import Config
from statsmerging.records.errors import UserError
from statsmerging.records.files import write_text
from statsmerging.records.run_directory import RunDirectory
from statsmerging.report.runs import runs_by_setting
from statsmerging.report.table import accuracy_table, markdown_table

log = logging.getLogger(__name__)


def run(config: Config, directory: RunDirectory) -> None:
    """Print one table per setting and write all of them to ``report.md``."""
    if config.job.runs is None:
        raise UserError("job.runs: a folder with run directories is needed")
    groups = runs_by_setting(config.job.runs)
    console = wide_console()
    for group in groups:
        console.print(accuracy_table(group.runs, group.setting))
    path = directory.path / "report.md"
    write_text(path, "\n".join(markdown_table(group.runs, group.setting) for group in groups))
    log.info("tables: %s", path)
