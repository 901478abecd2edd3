"""A table in LaTeX, with the lines of the package ``booktabs``."""

from __future__ import annotations

from collections.abc import Iterable

from statsmerging.report.tables.content import BEST, SECOND, Number, Table

#: A table of more columns is shrunk to the width of the page.
WIDE = 7

#: Characters that mean something to LaTeX, or that its fonts may lack.
_ESCAPES = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "&": r"\&",
        "%": r"\%",
        "$": r"\$",
        "#": r"\#",
        "_": r"\_",
        "{": r"\{",
        "}": r"\}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "–": "--",
        "·": r"$\cdot$",
        "±": r"$\pm$",
        "×": r"$\times$",
        "−": "$-$",
    }
)

_MARKS = {BEST: r"\textbf{%s}", SECOND: r"\underline{%s}", 0: "%s"}


def latex(content: Table, label: str) -> str:
    """A ``table`` environment; the caption holds title, units, checkpoints and stamps.

    Args:
        content: the table.
        label: its name for ``\\ref``, after ``tab:``.
    """
    width = len(content.labels) + len(content.columns)
    headings = [*content.labels, *(name.replace("_", " ") for name in content.columns)]
    lines = [
        r"% \usepackage{booktabs}, for wide tables also \usepackage{graphicx}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape(content.title)}: {escape(content.caption)}; "
        r"best \textbf{bold}, second best \underline{underlined}.}",
        rf"\label{{tab:{label}}}",
        *([r"\resizebox{\linewidth}{!}{%"] if width > WIDE else []),
        rf"\begin{{tabular}}{{{'l' * len(content.labels)}{'r' * len(content.columns)}}}",
        r"\toprule",
        _row(map(escape, headings)),
        *_body(content, width),
        r"\bottomrule",
        r"\end{tabular}" + ("}" if width > WIDE else ""),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """Text as LaTeX prints it."""
    return text.translate(_ESCAPES)


def _body(content: Table, width: int) -> list[str]:
    lines = []
    for section in content.sections:
        lines.append(r"\midrule")
        if section.heading:
            lines.append(
                rf"\multicolumn{{{width}}}{{l}}{{\textit{{{escape(section.heading)}}}}} \\"
            )
        for row in section.rows:
            lines.append(_row([*map(escape, row.labels), *map(_cell, row.numbers)]))
    return lines


def _row(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


def _cell(number: Number | None) -> str:
    if number is None:
        return ""
    mean = _MARKS[number.place] % f"{number.mean:.1f}"
    return mean if number.std is None else rf"{mean} $\pm$ {number.std:.1f}"
