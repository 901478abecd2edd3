"""The accuracy table of runs that differ in their seed alone, in the formats that jobs show."""

from __future__ import annotations

from collections.abc import Sequence

import rich.table

from statsmerging.report.rows import Results
from statsmerging.report.tables.accuracy import accuracy_content
from statsmerging.report.tables.markdown import markdown
from statsmerging.report.tables.terminal import terminal_table


def accuracy_table(runs: Sequence[Results], setting: Sequence[str] = ()) -> rich.table.Table:
    """For the terminal; arguments as for ``accuracy_content``."""
    return terminal_table(accuracy_content(runs, setting))


def markdown_table(runs: Sequence[Results], setting: Sequence[str] = ()) -> str:
    """The same table in Markdown."""
    return markdown(accuracy_content(runs, setting))


def plain_table(results: Results) -> tuple[list[str], list[list[str | float | None]]]:
    """Headings, and a row of title, needs and percentages for every method of one run.

    A method that has no number in a column has ``None`` there.
    """
    content = accuracy_content([results])
    rows = {row.facts["method"]: row for row in content.rows}
    return [*content.labels, *content.columns], [
        [*row.labels, *(None if number is None else number.mean for number in row.numbers)]
        for row in (rows[method] for method in results["methods"])
    ]
