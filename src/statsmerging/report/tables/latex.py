"""A table in LaTeX, with the rules of ``booktabs``; its first line lists the packages it needs.

A table that is wider than a column of a two-column paper stands across the page (``table*``, which
is the same as ``table`` in a paper of one column). One that is wider than the text is shrunk; if it
would become too small to read, it is turned sideways; if it is longer than a page, it becomes a
``longtable``, for which a two-column paper changes to one column. Text is printed by pdfLaTeX in
its own fonts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from statsmerging.report.tables.content import BEST, SECOND, Number, Table
from statsmerging.report.words import title_words

#: Text width, text height and mean width of a character of ``article``, in points.
WIDTH, HEIGHT, CHARACTER = 345.0, 550.0, 5.0

#: Width of a column of a two-column ``article``, the narrowest of the common papers.
COLUMN = 225.0

#: Gaps between columns in points: LaTeX's own, and a narrow one.
GAP, NARROW_GAP = 12.0, 6.0

#: A table wider than this many text widths is turned sideways instead of shrunk.
SHRUNK = 1.4

#: Lines of a page, and of a page that is turned sideways.
LINES, SIDEWAYS_LINES = 40, 22

#: A sideways table with more columns of numbers has its headings rotated.
UPRIGHT = 6

#: A text of up to ``ONE_LINE`` characters is not broken; longer ones are, at ``SEVERAL_LINES``.
ONE_LINE, SEVERAL_LINES = 36, 30

#: Font sizes, and the width of a character relative to the normal size.
_SIZES = {"normalsize": 1.0, "small": 0.93, "footnotesize": 0.85, "scriptsize": 0.8}

_MARKS = {BEST: r"\textbf{%s}", SECOND: r"\underline{%s}", 0: "%s"}

#: Special characters of LaTeX, and those that its fonts lack.
_SPECIAL = {
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
    "|": r"\textbar{}",
    # The usual font encoding has no command for it, and some languages of babel use the sign.
    '"': r"\texttt{\char34}",
    # At the beginning of a row these two would be read as arguments of ``\\``.
    "[": "{[}",
    "*": "{*}",
    "–": "--",
    "—": "---",
    "…": r"\ldots{}",
    "“": "``",
    "”": "''",
    "’": "'",
}

#: Characters that exist in mathematics alone.
_SYMBOLS = {
    "·": r"\cdot",
    "±": r"\pm",
    "×": r"\times",
    "−": "-",
    "≥": r"\geq",
    "≤": r"\leq",
    "≠": r"\neq",
    "≈": r"\approx",
    "→": r"\rightarrow",
    "√": r"\surd",
    "‖": r"\|",
    "∞": r"\infty",
    "°": r"^{\circ}",
    "₀": "_{0}",
    "²": "^{2}",
    "α": r"\alpha",
    "β": r"\beta",
    "γ": r"\gamma",
    "δ": r"\delta",
    "ε": r"\varepsilon",
    "η": r"\eta",
    "θ": r"\theta",
    "λ": r"\lambda",
    "μ": r"\mu",
    "µ": r"\mu",
    "π": r"\pi",
    "ρ": r"\rho",
    "σ": r"\sigma",
    "τ": r"\tau",
    "Δ": r"\Delta",
    "Σ": r"\Sigma",
}

#: The last character of Latin Extended-A; pdfLaTeX knows the letters up to here.
_LAST_LETTER = "\u017f"

_ESCAPES = _SPECIAL | {character: f"${name}$" for character, name in _SYMBOLS.items()}


@dataclass(frozen=True)
class _Form:
    """How a table is fitted to the page.

    Attributes:
        across: whether it stands across the columns of a two-column paper.
        shrunk: whether it is scaled down to the width of the text, if it is wider.
        sideways: whether it is turned by 90 degrees.
        long: whether it continues over several pages.
        size: font size; a long table cannot be scaled.
    """

    across: bool = False
    shrunk: bool = False
    sideways: bool = False
    long: bool = False
    size: str = "normalsize"

    @property
    def packages(self) -> list[str]:
        """Packages that the document must load."""
        turned = "lscape" if self.long else "rotating"
        wanted = {"graphicx": self.shrunk, turned: self.sideways, "longtable": self.long}
        return ["booktabs", *(name for name, needed in wanted.items() if needed)]


def latex(content: Table, label: str) -> str:
    """The table as a float, or as a ``longtable``; title and caption become its caption.

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
    return _Form(across=width > COLUMN, shrunk=width > WIDTH, sideways=sideways)


def _long_form(characters: Sequence[int]) -> _Form:
    """The largest font size that fits, upright if possible."""
    for room, sideways in ((WIDTH, False), (HEIGHT, True)):
        for size, part in _SIZES.items():
            width = part * CHARACTER * sum(characters) + NARROW_GAP * len(characters)
            if width <= room:
                return _Form(long=True, sideways=sideways, size=size)
    return _Form(long=True, sideways=True, size="tiny")


def _characters(content: Table) -> list[int]:
    """Number of characters of the widest cell of every column."""
    texts = [
        [heading, *(row.labels[place] for row in content.rows)]
        for place, heading in enumerate(content.label_headings)
    ]
    numbers = [
        [heading, *(number.text for row in content.rows if (number := row.numbers[place]))]
        for place, heading in enumerate(content.columns)
    ]
    widest = [max(map(len, column)) for column in [*texts, *numbers]]
    return [count if count <= ONE_LINE else SEVERAL_LINES for count in widest]


def _lines(content: Table) -> int:
    """Number of lines of all rows; a long text takes several."""
    longest = [max(map(len, row.labels)) for row in content.rows]
    return sum(1 if count <= ONE_LINE else -(-count // SEVERAL_LINES) for count in longest)


def _caption(content: Table) -> str:
    places = {number.place for row in content.rows for number in row.numbers if number}
    marks = {BEST: r"best \textbf{bold}", SECOND: r"second best \underline{underlined}"}
    legend = ", ".join(text for place, text in marks.items() if place in places)
    parts = [escape(content.caption), *([legend] if legend and content.ranked else [])]
    return f"{escape(title_words(content.title))}: {'; '.join(parts)}."


def _float(content: Table, form: _Form, title: str) -> Iterator[str]:
    environment = "sidewaystable" if form.sideways else "table"
    environment += "*" if form.across else ""
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
    _, *body = _body(content)  # its first rule is part of the headings
    # A longtable is an error where there are two columns.
    yield r"\makeatletter\if@twocolumn\onecolumn\let\aftertable\twocolumn\else"
    yield r"\let\aftertable\relax\fi\makeatother"
    yield rf"\{around[0]}"
    yield rf"\{form.size}\setlength{{\tabcolsep}}{{{NARROW_GAP / 2:g}pt}}"
    yield r"\setlength{\LTcapwidth}{\linewidth}"
    yield rf"\begin{{longtable}}{{{_columns(content)}}}"
    yield rf"{title} \\"
    yield from [*headings, r"\endfirsthead", *headings, r"\endhead", r"\bottomrule", r"\endfoot"]
    yield from body
    yield r"\end{longtable}"
    yield rf"\{around[1]}"
    yield r"\aftertable"


def _columns(content: Table) -> str:
    """The column specification; columns with long texts have a fixed width."""
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
    return _row([*map(escape, content.label_headings), *numbers])


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
    if number.signed or number.interval is not None:
        return _MARKS[number.place] % escape(number.text)
    mean, *deviation = number.parts
    return r" $\pm$ ".join([_MARKS[number.place] % mean, *deviation])


def escape(text: str) -> str:
    """Text as LaTeX prints it; a character that it cannot print becomes its code, ``U+4E2D``.

    A list of values may be broken after its commas.
    """

    def escaped(character: str) -> str:
        if character in _ESCAPES:
            return _ESCAPES[character]
        known = character.isprintable() and character <= _LAST_LETTER
        return character if known else rf"\texttt{{U+{ord(character):04X}}}"

    return re.sub(r",(?=\S)", r",\\allowbreak{}", "".join(map(escaped, text)))
