"""A table in Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable

from statsmerging.errors import printable
from statsmerging.report.tables.content import BEST, SECOND, Number, Table

#: GitHub underlines ``ins`` and strips ``u``.
_MARKS = {BEST: "**{}**", SECOND: "<ins>{}</ins>", 0: "{}"}


#: What means something anywhere in a line, an underscore outside of words, and what begins a
#: heading, an item or a rule.
_SPECIAL = re.compile(r"[\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_])|^[#+=-]|^\d+(?=[.)](?:\s|$))")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def escape(text: str) -> str:
    """Text of any origin, which no reader of Markdown takes for markup."""
    marked = _SPECIAL.sub(_escaped, printable(text))
    return re.sub("[&<>]", lambda found: _ENTITIES[found[0]], marked)


def _escaped(found: re.Match[str]) -> str:
    return f"{found[0]}\\" if found[0].isdigit() else f"\\{found[0]}"


def markdown(content: Table) -> str:
    """Title and caption above, best bold, second best underlined."""
    headings = [*map(escape, [*content.labels, *content.headings])]
    lines = [
        f"**{escape(content.title)}** · {escape(content.caption)}",
        "",
        markdown_row(headings),
        markdown_row(["---"] * len(content.labels) + ["---:"] * len(content.columns)),
    ]
    for section in content.sections:
        if section.heading:
            lines.append(
                markdown_row([f"*{escape(section.heading)}*", *[""] * (len(headings) - 1)])
            )
        for row in section.rows:
            lines.append(markdown_row([*map(escape, row.labels), *map(_cell, row.numbers)]))
    return "\n".join(lines) + "\n"


def markdown_row(cells: Iterable[str]) -> str:
    """One line of a Markdown table; the cells are Markdown."""
    return f"| {' | '.join(cells)} |"


def _cell(number: Number | None) -> str:
    return "" if number is None else _MARKS[number.place].format(number.text)
