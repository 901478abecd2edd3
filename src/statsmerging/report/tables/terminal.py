"""A table for the terminal."""

from __future__ import annotations

import rich.table
from rich import box
from rich.markup import escape

from statsmerging.errors import printable
from statsmerging.report.tables.content import BEST, SECOND, Number, Table

_STYLES = {BEST: "bold", SECOND: "underline"}


def terminal_table(content: Table) -> rich.table.Table:
    """Best bold, second best underlined."""
    table = rich.table.Table(
        title=cell_text(content.title),
        caption=cell_text(content.caption),
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for heading in content.labels:
        table.add_column(cell_text(heading), no_wrap=heading == "method")
    for heading in content.headings:
        table.add_column(cell_text(heading), justify="right", overflow="fold")
    for section in content.sections:
        if section.heading:
            table.add_row(f"[italic]{cell_text(section.heading)}[/italic]")
        for row in section.rows:
            table.add_row(*map(cell_text, row.labels), *map(_cell, row.numbers))
        table.add_section()
    return table


def cell_text(text: str) -> str:
    """Text of any origin, which is no markup to rich and moves no cursor."""
    return escape(printable(text))


def _cell(number: Number | None) -> str:
    if number is None:
        return ""
    style = _STYLES.get(number.place)
    return number.text if style is None else f"[{style}]{number.text}[/{style}]"
