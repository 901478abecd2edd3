"""A table in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from statsmerging.report.tables.content import BEST, SECOND, Number, Table

#: GitHub underlines ``ins`` and strips ``u``.
_MARKS = {BEST: "**{}**", SECOND: "<ins>{}</ins>", 0: "{}"}


def markdown(content: Table) -> str:
    """Title and caption above, best bold, second best underlined."""
    headings = [*content.labels, *(name.replace("_", " ") for name in content.columns)]
    lines = [
        f"**{content.title}** · {content.caption}",
        "",
        markdown_row(headings),
        markdown_row(["---"] * len(content.labels) + ["---:"] * len(content.columns)),
    ]
    for section in content.sections:
        if section.heading:
            lines.append(markdown_row([f"*{section.heading}*", *[""] * (len(headings) - 1)]))
        for row in section.rows:
            lines.append(markdown_row([*row.labels, *map(_cell, row.numbers)]))
    return "\n".join(lines) + "\n"


def markdown_row(cells: Sequence[str]) -> str:
    """One line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def _cell(number: Number | None) -> str:
    return "" if number is None else _MARKS[number.place].format(number.text)
