"""A table as Markdown, and as a tidy frame for other programs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import pandas as pd

from statsmerging.errors import printable
from statsmerging.report.tables.content import BEST, SECOND, Number, Table

#: GitHub underlines ``ins`` and strips ``u``.
_MARKDOWN_MARKS = {BEST: "**{}**", SECOND: "<ins>{}</ins>", 0: "{}"}

#: Markdown's special characters: those that count anywhere in a line, an underscore outside of
#: words, and those that begin a heading, an item or a rule.
_SPECIAL = re.compile(r"[\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_])|^[#+=-]|^\d+(?=[.)](?:\s|$))")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def markdown(table: Table) -> str:
    """The table in Markdown: title and caption above, best bold, second best underlined."""
    headings = [*map(escape, [*table.label_headings, *table.headings])]
    lines = [
        f"**{escape(table.title)}** · {escape(table.caption)}",
        "",
        markdown_row(headings),
        markdown_row(["---"] * len(table.labels) + ["---:"] * len(table.columns)),
    ]
    for section in table.sections:
        if section.heading:
            gaps = [""] * (len(headings) - 1)
            lines.append(markdown_row([f"*{escape(section.heading)}*", *gaps]))
        for row in section.rows:
            numbers = [marked(number, _MARKDOWN_MARKS) for number in row.numbers]
            lines.append(markdown_row([*map(escape, row.labels), *numbers]))
    return "\n".join(lines) + "\n"


def markdown_row(cells: Iterable[str]) -> str:
    """One line of a Markdown table; the cells are Markdown."""
    return f"| {' | '.join(cells)} |"


def escape(text: str) -> str:
    """Text of any origin as Markdown that shows it literally."""

    def escaped(found: re.Match[str]) -> str:
        return f"{found[0]}\\" if found[0].isdigit() else f"\\{found[0]}"

    marked = _SPECIAL.sub(escaped, printable(text))
    return re.sub("[&<>]", lambda found: _ENTITIES[found[0]], marked)


def plain_table(table: Table, order: Iterable[str]) -> list[list[str | float | None]]:
    """The rows of some methods in this order: labels and means; ``None`` for a missing number."""
    rows = {row.facts["method"]: row for row in table.rows}
    return [
        [*row.labels, *(None if number is None else number.mean for number in row.numbers)]
        for row in (rows[method] for method in order)
    ]


def tidy(tables: Iterable[Table]) -> pd.DataFrame:
    """All numbers of all tables, one per row.

    Columns: the settings, ``method``, ``source`` (ours or published), ``column``, ``mean``,
    ``std``, ``std_over`` (``zoos``, or ``seeds`` of the merging step; empty without a deviation),
    ``zoos`` and ``n`` (numbers of zoos, and of their seeds together; missing for published
    numbers), ``unit``.
    """
    rows = [
        {
            **row.facts,
            "column": heading,
            "mean": number.mean,
            "std": number.std,
            "std_over": None
            if number.std is None
            else "zoos"
            if len(number.seeds) > 1
            else "seeds",
            "zoos": len(number.seeds) or None,
            "n": sum(number.seeds) or None,
            "unit": number.unit.name,
        }
        for table in tables
        for row in table.rows
        for heading, number in zip(table.columns, row.numbers, strict=True)
        if number is not None
    ]
    frame = pd.DataFrame(rows).astype({"zoos": "Int64", "n": "Int64"})
    last = ["method", "source", "column", "mean", "std", "std_over", "zoos", "n", "unit"]
    return frame[[*(name for name in frame.columns if name not in last), *last]]


def spreadsheet_safe(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with a quote before each text that a spreadsheet would evaluate as a formula."""

    def safe(text: str) -> str:
        shown = printable(text)
        try:
            float(shown)
        except ValueError:
            return f"'{shown}" if shown.startswith(("=", "+", "-", "@")) else shown
        return shown

    texts = frame.map(lambda cell: safe(cell) if isinstance(cell, str) else cell)
    return texts.rename(columns=safe)


def _std_over(number: Number) -> str | None:
    if number.std is None:
        return None
    return "zoos" if len(number.seeds) > 1 else "seeds"


def marked(number: Number | None, marks: Mapping[int, str]) -> str:
    """The text of a cell, in the mark of its place."""
    return "" if number is None else marks[number.place].format(number.text)
