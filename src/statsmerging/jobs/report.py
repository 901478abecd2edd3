"""``job=report``: tables and figures of many finished runs, mean ± deviation over seeds."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from statsmerging.jobs.finished import wide_console
from statsmerging.jobs.schema import Config
from statsmerging.records.errors import UserError
from statsmerging.records.files import write_text
from statsmerging.records.run_directory import RunDirectory
from statsmerging.report.drawings import DETAILED, drawings
from statsmerging.report.files import page, write_figures, write_tables
from statsmerging.report.interactive import interactive_figures
from statsmerging.report.page.html import report_page
from statsmerging.report.runs import overruled_runs, runs_by_setting, unfinished_runs
from statsmerging.report.tables.accuracy import group_content
from statsmerging.report.tables.sweep import sweep_tables
from statsmerging.report.tables.terminal import terminal_table

log = logging.getLogger(__name__)

#: Runs that a warning names; of more it gives the number.
NAMED = 3


def run(config: Config, directory: RunDirectory) -> None:
    """Print the tables; write them to ``tables/``, the figures to ``figures/``, and all as a page.

    The page is ``report.html``, to explore in a browser, and ``report.md``, to read as text.
    A sweep has one table for each of its settings, and one that compares them.
    """
    if config.job.runs is None:
        raise UserError("job.runs: a folder with run directories is needed")
    groups = runs_by_setting(config.job.runs)
    _tell("unfinished run(s) left out", unfinished_runs(config.job.runs))
    overruled = [str(path.relative_to(config.job.runs)) for path in overruled_runs(groups)]
    _tell("run(s) repeat another's setting and seed with other numbers, not shown", overruled)
    tables = {
        "accuracy": [group_content(group) for group in groups],
        "sweep": sweep_tables(groups),
    }
    console = wide_console()
    for contents in tables.values():
        for content in contents:
            console.print(terminal_table(content))
    write_tables(tables, directory.path / "tables")
    if len(groups) > DETAILED:
        log.info("of %d settings, figures compare them; job.runs=RUN draws one run's", len(groups))
    planned = list(drawings(groups))
    figures = write_figures(planned, directory.path / "figures")
    write_text(directory.path / "report.md", page(tables, groups, figures))
    path = directory.path / "report.html"
    write_text(path, report_page(groups, config.job.runs, interactive_figures(planned)))
    log.info("tables and figures: %s", path)


def _tell(what: str, names: Sequence[str]) -> None:
    """Warn of runs that are not in the tables."""
    if names:
        further = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        named = ", ".join(names[:NAMED])
        log.warning("%d %s: %s%s", len(names), what, named, further)
