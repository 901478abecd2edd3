"""A table for the terminal, which breaks no number and no word, however narrow it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import rich.markup
import rich.table
from rich import box
from rich.cells import cell_len

from statsmerging.errors import printable
from statsmerging.progress import wide_console
from statsmerging.report.tables.content import BEST, SECOND, Table
from statsmerging.report.tables.text import marked

_MARKS = {BEST: "[bold]{}[/bold]", SECOND: "[underline]{}[/underline]", 0: "{}"}


def print_table(table: Table, whole: str) -> None:
    """Print the table to standard output, with as much of it as the terminal is wide.

    Where single tasks do not fit, the worst one stands for all. Other columns that do not fit are
    left out if they are extras, and otherwise printed below. A line says what is left out.

    Args:
        whole: what shows all columns.
    """
    console = wide_console()
    without_extras = table.without(table.extras)
    forms = [table, without_extras, *([without_extras.folded()] if table.tasks else [])]
    fitting = (form for form in forms if _widths(form, console.width) is not None)
    shown = next(fitting, forms[-1])
    parts = list(_parts(shown, console.width))
    for part in parts:
        console.print(terminal_table(part, console.width))
    if len(parts) > 1:
        console.print(cell_text(table.caption), style="table.caption")
    if shown is not table:
        missing = {*table.labels, *table.columns} - {*shown.labels, *shown.columns}
        line = f"no room for {len(missing)} columns; all of them: {whole}"
        console.print(cell_text(line), soft_wrap=True, highlight=False)


def terminal_table(table: Table, width: int) -> rich.table.Table:
    """The table in so many columns of a terminal: best bold, second best underlined."""
    shown = rich.table.Table(
        title=cell_text(table.title),
        caption=cell_text(table.caption),
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    columns = _columns(table)
    widths = _widths(table, width) or [column.least for column in columns]
    for place, (column, own) in enumerate(zip(columns, widths, strict=True)):
        is_label = place < len(table.labels)
        shown.add_column(
            cell_text(column.heading), width=own, justify="left" if is_label else "right"
        )
    for section in table.sections:
        if section.heading:
            shown.add_row(f"[italic]{cell_text(section.heading)}[/italic]")
        for row in section.rows:
            numbers = [marked(number, _MARKS) for number in row.numbers]
            shown.add_row(*map(cell_text, row.labels), *numbers)
        shown.add_section()
    return shown


def cell_text(text: str) -> str:
    """Text of any origin for the terminal: markup of rich and control characters are escaped."""
    return rich.markup.escape(printable(text))


class _Column(NamedTuple):
    """Heading and texts of a column, and its widths: with nothing wrapped, and with every word
    of its own line."""

    heading: str
    natural: int
    least: int


def _columns(table: Table) -> list[_Column]:
    sections = [section.heading for section in table.sections]
    columns = []
    for place, heading in enumerate(table.labels):
        texts = [heading, *(row.labels[place] for row in table.rows)]
        texts += sections if place == 0 else []
        columns.append(_Column(heading, _widest(texts), _widest(" ".join(texts).split())))
    for place, heading in enumerate(table.headings):
        numbers = [number.text for row in table.rows if (number := row.numbers[place]) is not None]
        natural, least = _widest([heading, *numbers]), _widest([*heading.split(), *numbers])
        columns.append(_Column(heading, natural, least))
    return columns


def _widest(texts: Sequence[str]) -> int:
    return max((cell_len(printable(text)) for text in texts), default=0)


def _widths(table: Table, width: int) -> list[int] | None:
    """Widths that put all columns beside each other; ``None`` if there is no room for them.

    Headings of numbers are wrapped before labels are, and first those with most to spare.
    """
    columns = _columns(table)
    widths = [column.natural for column in columns]
    excess = sum(widths) + 2 * len(columns) + 1 - width  # two blanks behind each, one in front
    labels, numbers = range(len(table.labels)), range(len(table.labels), len(columns))
    for places in (numbers, labels):
        while places and excess > 0:
            place = max(places, key=lambda place: widths[place] - columns[place].least)
            if widths[place] == columns[place].least:
                break
            widths[place] -= 1
            excess -= 1
    return widths if excess <= 0 else None


def _parts(table: Table, width: int) -> Iterator[Table]:
    """The table, or tables below each other that share its labels, with columns that fit."""
    labels, parts = range(len(table.labels)), [[0]] if table.columns else [[]]
    for place in range(1, len(table.columns)):
        wider = [*parts[-1], place]
        if _widths(table.narrowed(labels, wider), width) is None:
            parts.append([place])
        else:
            parts[-1] = wider
    if len(parts) == 1:
        yield table
        return
    for part in parts:
        title = table.title if part is parts[0] else ""
        yield replace(table.narrowed(labels, part), title=title, caption="")
