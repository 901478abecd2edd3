"""A table in LaTeX, with the lines of the package ``booktabs``; its first line tells what it needs.

A table that is wider than the text is shrunk; one that would be too small to read then lies on its
side; one that is longer than a page runs over several.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from statsmerging.report.tables.content import BEST, SECOND, Number, Table
from statsmerging.report.tables.latex_text import escape

#: The text of ``article``, across and upwards, and a character of its font, in points.
WIDTH, HEIGHT, CHARACTER = 345.0, 550.0, 5.0

#: Between columns, in points: as LaTeX has it, and where room is scarce.
GAP, NARROW_GAP = 12.0, 6.0

#: A table that is wider than this many widths of the text lies on its side.
SHRUNK = 1.4

#: Lines of a page, and of one that lies on its side.
LINES, SIDEWAYS_LINES = 40, 22

#: Of more columns of numbers than this, the headings of a table on its side stand upright.
UPRIGHT = 6

#: Characters of a text that stands in one line of its cell, and of a line of one that does not.
ONE_LINE, SEVERAL_LINES = 36, 30

#: Sizes of type, and the width of a character as part of the usual one.
_SIZES = {"normalsize": 1.0, "small": 0.93, "footnotesize": 0.85, "scriptsize": 0.8}

_MARKS = {BEST: r"\textbf{%s}", SECOND: r"\underline{%s}", 0: "%s"}


@dataclass(frozen=True)
class _Form:
    """How a table comes onto its page.

    Attributes:
        shrunk: to the width of the text.
        sideways: turned by a right angle.
        long: over several pages.
        size: of the type of a long table, which cannot be shrunk.
    """

    shrunk: bool = False
    sideways: bool = False
    long: bool = False
    size: str = "normalsize"

    @property
    def packages(self) -> list[str]:
        """All that must be loaded."""
        turned = "lscape" if self.long else "rotating"
        wanted = {"graphicx": self.shrunk, turned: self.sideways, "longtable": self.long}
        return ["booktabs", *(name for name, needed in wanted.items() if needed)]


def latex(content: Table, label: str) -> str:
    """A float; the caption holds title, units, checkpoints and stamps.

    Args:
        content: the table.
        label: its name for ``\\ref``, after ``tab:``.
    """
    form = _form(content)
    title = rf"\caption{{{_caption(content)}}}\label{{tab:{label}}}"
    lines = _long(content, form, title) if form.long else _float(content, form, title)
    first = rf"% needs \usepackage{{{','.join(form.packages)}}}"
    return "\n".join([first, *lines]) + "\n"


def _form(content: Table) -> _Form:
    characters, lines = _characters(content), _lines(content)
    if lines > LINES:
        return _long_form(characters)
    width = CHARACTER * sum(characters) + GAP * len(characters)
    sideways = width > SHRUNK * WIDTH and lines <= SIDEWAYS_LINES
    return _Form(shrunk=width > WIDTH, sideways=sideways)


def _long_form(characters: Sequence[int]) -> _Form:
    """The largest type that fits, rather upright."""
    for room, sideways in ((WIDTH, False), (HEIGHT, True)):
        for size, part in _SIZES.items():
            width = part * CHARACTER * sum(characters) + NARROW_GAP * len(characters)
            if width <= room:
                return _Form(long=True, sideways=sideways, size=size)
    return _Form(long=True, sideways=True, size="tiny")


def _characters(content: Table) -> list[int]:
    """Of the widest cell of every column."""
    texts = [
        [heading, *(row.labels[place] for row in content.rows)]
        for place, heading in enumerate(content.labels)
    ]
    numbers = [
        [heading, *(number.text for row in content.rows if (number := row.numbers[place]))]
        for place, heading in enumerate(content.columns)
    ]
    widest = [max(map(len, column)) for column in [*texts, *numbers]]
    return [count if count <= ONE_LINE else SEVERAL_LINES for count in widest]


def _lines(content: Table) -> int:
    """Of all rows; a long text takes several."""
    longest = [max(map(len, row.labels)) for row in content.rows]
    return sum(1 if count <= ONE_LINE else -(-count // SEVERAL_LINES) for count in longest)


def _caption(content: Table) -> str:
    places = {number.place for row in content.rows for number in row.numbers if number}
    marks = {BEST: r"best \textbf{bold}", SECOND: r"second best \underline{underlined}"}
    legend = ", ".join(text for place, text in marks.items() if place in places)
    parts = [escape(content.caption), *([legend] if legend else [])]
    return f"{escape(content.title)}: {'; '.join(parts)}."


def _float(content: Table, form: _Form, title: str) -> Iterator[str]:
    environment = "sidewaystable" if form.sideways else "table"
    yield rf"\begin{{{environment}}}"
    yield r"\centering"
    yield r"\setlength{\belowcaptionskip}{6pt}"
    yield title
    if form.shrunk:
        yield rf"\setlength{{\tabcolsep}}{{{NARROW_GAP / 2:g}pt}}"
        # Never enlarged: the width was only estimated.
        yield r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"
    yield rf"\begin{{tabular}}{{{_columns(content)}}}"
    yield r"\toprule"
    yield _headings(content, upright=form.sideways and len(content.columns) > UPRIGHT)
    yield from _body(content)
    yield r"\bottomrule"
    yield r"\end{tabular}" + ("}" if form.shrunk else "")
    yield rf"\end{{{environment}}}"


def _long(content: Table, form: _Form, title: str) -> Iterator[str]:
    around = ["begingroup", "endgroup"]
    if form.sideways:
        around = ["begin{landscape}", "end{landscape}"]
    headings = [r"\toprule", _headings(content, upright=False), r"\midrule"]
    _, *body = _body(content)  # the first line stands below the headings already
    yield rf"\{around[0]}"
    yield rf"\{form.size}\setlength{{\tabcolsep}}{{{NARROW_GAP / 2:g}pt}}"
    yield r"\setlength{\LTcapwidth}{\linewidth}"
    yield rf"\begin{{longtable}}{{{_columns(content)}}}"
    yield rf"{title} \\"
    yield from [*headings, r"\endfirsthead", *headings, r"\endhead", r"\bottomrule", r"\endfoot"]
    yield from body
    yield r"\end{longtable}"
    yield rf"\{around[1]}"


def _columns(content: Table) -> str:
    """One letter a column; texts that are too long for one line have a width."""
    longest = [
        max((len(row.labels[place]) for row in content.rows), default=0)
        for place in range(len(content.labels))
    ]
    several = rf"p{{{CHARACTER * SEVERAL_LINES:g}pt}}"
    texts = ["l" if length <= ONE_LINE else several for length in longest]
    return "".join([*texts, "r" * len(content.columns)])


def _headings(content: Table, *, upright: bool) -> str:
    shape = r"\rotatebox{90}{%s}" if upright else "%s"
    numbers = [shape % escape(name) for name in content.headings]
    return _row([*map(escape, content.labels), *numbers])


def _body(content: Table) -> Iterator[str]:
    width = len(content.labels) + len(content.columns)
    for section in content.sections:
        yield r"\midrule"
        if section.heading:
            yield rf"\multicolumn{{{width}}}{{l}}{{\textit{{{escape(section.heading)}}}}} \\"
        for row in section.rows:
            yield _row([*map(_text, row.labels), *map(_cell, row.numbers)])


def _row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _text(text: str) -> str:
    return rf"\raggedright {escape(text)}" if len(text) > ONE_LINE else escape(text)


def _cell(number: Number | None) -> str:
    if number is None:
        return ""
    mean = _MARKS[number.place] % f"{number.mean:.1f}"
    return mean if number.std is None else rf"{mean} $\pm$ {number.std:.1f}"
