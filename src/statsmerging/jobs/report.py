"""``job=report``: tables and figures of many finished runs, or the index of all sweeps."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from statsmerging.errors import UserError
from statsmerging.report.drawings import DETAILED, drawings
from statsmerging.report.figures.charts import chart
from statsmerging.report.figures.style import spec_of
from statsmerging.report.files import (
    INTERACTIVE_PAGE,
    PAGE,
    file_list,
    markdown_page,
    report_tables,
    run_page_names,
    write_figures,
    write_tables,
)
from statsmerging.report.groups import overruled_runs, runs_by_setting
from statsmerging.report.index import sweeps
from statsmerging.report.page.html import report_page
from statsmerging.report.page.overview import index_page
from statsmerging.report.page.run import run_page
from statsmerging.report.runs import name_runs, run_name, unfinished_runs
from statsmerging.report.tables.terminal import print_table
from statsmerging.store.written_files import WrittenFiles

if TYPE_CHECKING:
    from statsmerging.app.run import Run


log = logging.getLogger(__name__)

#: Names the files of a report, and the page of all sweeps, with their hashes.
RECORD, INDEX_RECORD = ".report.json", ".index.json"

#: The page of all sweeps.
INDEX = "index.html"


def report(run: Run) -> None:
    """Print the tables; write them to ``tables/``, the figures to ``figures/``, and all as a page.

    The page is ``report.html``, to explore in a browser, and ``report.md``, to read as text.
    A sweep has one table for each of its settings, and one that compares them. Files that no
    earlier report wrote are not touched. Without ``job.runs``, a page of all sweeps is written.
    """
    folder = run.config.job.runs
    if folder is None:
        _index(run)
        return
    groups = runs_by_setting(folder)
    name_runs("unfinished run(s) left out", unfinished_runs(folder))
    overruled = [str(path.relative_to(folder)) for path in overruled_runs(groups)]
    name_runs(
        "run(s) repeat another's setting, zoo and seed with other numbers, not shown", overruled
    )
    tables = report_tables(groups)
    planned = list(drawings(groups))
    pages = run_page_names(groups, folder)
    listed = file_list(tables, planned, pages.values())
    files = WrittenFiles(run.directory.path, RECORD, listed)
    for contents in tables.values():
        for content in contents:
            print_table(content, str(run.directory.path / PAGE))
    write_tables(tables, files)
    if len(groups) > DETAILED:
        log.info("of %d settings, figures compare them; job.runs=RUN draws one run's", len(groups))
    figures = write_figures(planned, files)
    files.write_text(PAGE, markdown_page(tables, groups, figures))
    charts = {drawing.title: spec_of(chart(drawing)) for drawing in planned}
    files.write_text(INTERACTIVE_PAGE, report_page(groups, folder, charts, pages))
    default = run.default_config()
    for member in (member for group in groups for member in group.members):
        name = run_name(member, folder)
        files.write_text(pages[name], run_page(member, name, f"../{INTERACTIVE_PAGE}", default))
    files.remove_earlier()
    log.info("tables and figures: %s", run.directory.path / INTERACTIVE_PAGE)


def _index(run: Run) -> None:
    """Write the page of all sweeps below ``job.index``."""
    folder = run.config.job.index
    if not folder.is_dir():
        raise UserError(
            f"job.index={folder}: no such folder; job.runs=DIR reports on the runs in DIR"
        )
    files = WrittenFiles(run.directory.path, INDEX_RECORD, [INDEX])
    found = sweeps(folder, RECORD, INTERACTIVE_PAGE)
    files.write_text(INDEX, index_page(found, folder, run.directory.path, INTERACTIVE_PAGE))
    log.info("%d folders with runs: %s", len(found), run.directory.path / INDEX)
