"""The files of a report: tables as LaTeX and CSV, figures as PDF and PNG, and a page of all."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence

from statsmerging.progress import track
from statsmerging.report.drawings import Drawing
from statsmerging.report.figures.charts import SHOWN, chart
from statsmerging.report.figures.style import FORMATS, printed
from statsmerging.report.runs import RunGroup
from statsmerging.report.tables.content import Table
from statsmerging.report.tables.latex import latex
from statsmerging.report.tables.markdown import escape, markdown, markdown_row
from statsmerging.report.tables.tidy import spreadsheet_safe, tidy
from statsmerging.store.written_files import WrittenFiles

log = logging.getLogger(__name__)

#: The report to read as text, and the one to explore in a browser.
PAGE, INTERACTIVE_PAGE = "report.md", "report.html"

#: Characters of a file's name; some systems take no more than 255 with all endings.
LONGEST = 120

#: Columns of the table of experts; teacher and student are scored on the test images.
_DISTILLED = ("setting", "task", "architecture", "teacher, %", "student, %", "test images")


def file_list(tables: Mapping[str, Sequence[Table]], planned: Sequence[Drawing]) -> list[str]:
    """Names of all files of a report, from its folder."""
    texts = [f"{name}.tex" for names in _table_names(tables).values() for name in names]
    numbers = [f"{kind}.csv" for kind in _table_names(tables)]
    pictures = [f"{name}.{kind}" for name in _figure_names(planned) for kind in FORMATS]
    return [
        PAGE,
        INTERACTIVE_PAGE,
        *(f"tables/{name}" for name in [*texts, *numbers]),
        *(f"figures/{name}" for name in pictures),
    ]


def write_tables(tables: Mapping[str, Sequence[Table]], files: WrittenFiles) -> None:
    """One LaTeX file for each table, and one tidy CSV file for each kind.

    Args:
        tables: kind, the beginning of the files' names → tables.
        files: those of the report.
    """
    for kind, names in _table_names(tables).items():
        for name, content in zip(names, tables[kind], strict=True):
            files.write_text(f"tables/{name}.tex", latex(content, name))
        with files.writing(f"tables/{kind}.csv") as partial:
            spreadsheet_safe(tidy(tables[kind])).to_csv(partial, index=False)


def write_figures(planned: Sequence[Drawing], files: WrittenFiles) -> dict[str, str]:
    """``NAME.pdf`` and ``NAME.png`` of every figure; gives title → name."""
    names = _figure_names(planned)
    pairs = list(zip(names, planned, strict=True))
    for name, drawing in track(pairs, "drawing figures"):
        for kind, content in printed(chart(drawing, SHOWN), drawing.title).items():
            with files.writing(f"figures/{name}.{kind}") as partial:
                partial.write_bytes(content)
    log.info("figures: %d in %s", len(planned), files.folder / "figures")
    return {drawing.title: name for name, drawing in pairs}


def _table_names(tables: Mapping[str, Sequence[Table]]) -> dict[str, list[str]]:
    """Kind → names of the LaTeX files; a kind without a table has no files."""
    return {
        kind: file_names([f"{kind} {content.title}" for content in contents])
        for kind, contents in tables.items()
        if contents
    }


def _figure_names(planned: Sequence[Drawing]) -> list[str]:
    return file_names([drawing.title for drawing in planned])


def page(
    tables: Mapping[str, Sequence[Table]], groups: Sequence[RunGroup], figures: Mapping[str, str]
) -> str:
    """Tables, warnings of the runs, experts of other architectures, and figures, as Markdown."""
    parts = [markdown(content) for contents in tables.values() for content in contents]
    warnings = list(_warnings(groups))
    if warnings:
        parts.append("\n".join(["## Warnings", "", *warnings]) + "\n")
    distilled = list(_distilled(groups))
    if distilled:
        head = [markdown_row(_DISTILLED), markdown_row(["---"] * 3 + ["---:"] * 3)]
        parts.append(
            "\n".join(["## Experts distilled into the backbone", "", *head, *distilled, ""])
        )
    if figures:
        pictures = [f"![{escape(title)}](figures/{name}.png)" for title, name in figures.items()]
        parts.append("\n\n".join(["## Figures", *pictures]) + "\n")
    return "\n".join(parts)


def file_names(titles: Sequence[str]) -> list[str]:
    """Names of files, all different, with nothing that a shell or LaTeX would mind."""
    names: list[str] = []
    for slug in map(_slug, titles):
        count = sum(re.fullmatch(rf"{re.escape(slug)}(_\d+)?", name) is not None for name in names)
        names.append(f"{slug}_{count + 1}" if count else slug)
    return names


def _slug(title: str) -> str:
    words = re.sub(r"[^a-z0-9.]+", "_", title.lower().replace("+", "p")).strip("_")
    return words.replace(".", "-")[:LONGEST]


def _warnings(groups: Sequence[RunGroup]) -> Iterator[str]:
    """What the runs' own checks said, each once, with the settings whose runs said it."""
    settings: dict[str, list[str]] = {}
    for group in groups:
        lines = dict.fromkeys(line for run in group.runs for line in run.get("warnings", []))
        for line in lines:
            settings.setdefault(line, []).append(group.label)
    for line, labels in settings.items():
        among = f"{len(labels)} of {len(groups)} settings" if len(labels) > 3 else "; ".join(labels)
        told = line if len(labels) == len(groups) else f"{line} ({among})"
        yield f"- {escape(told)}"


def _distilled(groups: Sequence[RunGroup]) -> Iterator[str]:
    """One row for each expert of another architecture; runs that share it give one."""
    rows: dict[str, None] = {}
    for group in groups:
        for run in group.runs:
            for task, expert in run.get("distilled", {}).items():
                shares = [f"{100 * expert[name]:.1f}" for name in ("teacher", "student")]
                setting = f"{run['suite']} · {run['backbone']}"
                cells = [setting, task, expert["architecture"], *shares, str(expert["images"])]
                rows[markdown_row(map(escape, cells))] = None
    yield from rows
