"""Tables in LaTeX: every text is printed as it is, and every table fits its page."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from statsmerging.report.tables.content import BEST, SECOND, Number, Row, Section, Table
from statsmerging.report.tables.latex import escape, latex

#: All that LaTeX could take for something else, and what its fonts lack.
HOSTILE = r"\a_b {100 %} #1 & $x$ ~^<|>* “λ ≥ 0” → ‖θ₀‖ ± 2² … é"


def table(text: str, columns: int, rows: int) -> Table:
    numbers = tuple(Number(70.0 + place, 1.0, (3,), place) for place in (0, SECOND, BEST))
    cells = (*numbers, *[None] * columns)[:columns]
    named = [Row((f"[mean,{text}]", text), cells) for _ in range(rows)]
    sections = [Section("", named[:1]), Section(text, named[1:])]
    headings = tuple(f"{text} {place}" for place in range(columns))
    return Table(text, text, ("setting", "method"), headings, sections)


TABLES = {
    "slim": table("a_b", columns=1, rows=4),
    "narrow": table("a_b", columns=3, rows=4),
    "hostile": table(HOSTILE, columns=3, rows=4),
    "wide": table("the_task", columns=16, rows=4),
    "wide and high": table("the_task", columns=16, rows=30),
    "long": table("a", columns=3, rows=120),
    "long and wide": table("corruption", columns=6, rows=120),
}


def test_a_backslash_stays_a_backslash() -> None:
    assert escape(r"a\b{c}~") == r"a\textbackslash{}b\{c\}\textasciitilde{}"


def test_no_character_is_left_that_latex_would_misread() -> None:
    text = escape(HOSTILE)
    plain = re.sub(r"\\[a-zA-Z]+(\{\})?|\\[_%&#${}]|\$[^$]*\$", "", text)
    assert not re.search(r"[\\_%&#$~^<>|]", plain)
    assert r"$\lambda$ $\geq$ 0" in text
    assert "é" in text
    assert escape("中") == r"\texttt{U+4E2D}"


def test_a_row_that_begins_with_a_bracket_gives_the_last_one_no_argument() -> None:
    rows = [line for line in latex(TABLES["narrow"], "x").splitlines() if "mean" in line]
    assert rows
    assert all(row.startswith("{[}mean,") for row in rows)


def test_a_list_may_be_broken_after_its_commas() -> None:
    assert escape("mean,kind, all") == r"mean,\allowbreak{}kind, all"


@pytest.mark.parametrize(
    ("name", "environment", "packages"),
    [
        ("slim", "table", "booktabs"),
        ("narrow", "table*", "booktabs"),
        ("wide", "sidewaystable*", "booktabs,graphicx,rotating"),
        ("wide and high", "table*", "booktabs,graphicx"),
        ("long", "longtable", "booktabs,longtable"),
        ("long and wide", "longtable", "booktabs,lscape,longtable"),
    ],
)
def test_a_table_takes_the_form_that_fits_a_page(
    name: str, environment: str, packages: str
) -> None:
    first, *lines = latex(TABLES[name], "x").splitlines()
    assert first == rf"% needs \usepackage{{{packages}}}"
    assert any(rf"\begin{{{environment}}}" in line for line in lines)


def test_marks_are_explained_where_there_are_some() -> None:
    assert r"best \textbf{bold}, second best \underline{underlined}" in latex(TABLES["wide"], "x")
    assert r"\textbf" not in latex(table("a", columns=1, rows=3), "x")


@pytest.mark.parametrize("columns", ["onecolumn", "twocolumn"])
@pytest.mark.parametrize("name", list(TABLES))
def test_latex_compiles_every_table_and_each_fits_its_page(
    name: str, columns: str, tmp_path: Path
) -> None:
    program = shutil.which("pdflatex")
    if program is None:
        pytest.skip("needs pdflatex (Debian: texlive-latex-recommended)")
    text = latex(TABLES[name], "the_table")
    packages = text.splitlines()[0].removeprefix("% needs ")
    begin = rf"\documentclass[{columns}]{{article}}"
    document = [begin, packages, r"\begin{document}", text, r"\end{document}"]
    (tmp_path / "page.tex").write_text("\n".join(document), encoding="utf-8")
    command = [program, "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    log = done.stdout.decode(errors="replace")
    assert done.returncode == 0, log
    assert "Overfull" not in log
    assert "Float too large" not in log


def test_captions_and_headings_are_words() -> None:
    title = "toy · vit · labels.kind=soft · statistics.features=[mean,variance]"
    rows = [Row(("soft", "TIES"), (Number(70.0),))]
    text = latex(
        Table(title, "accuracy", ("labels.kind", "method"), ("average",), [Section("", rows)]), "x"
    )
    assert r"labels: soft $\cdot$ statistics: mean, variance" in text
    assert "labels & method & average" in text
    assert "kind" not in text
