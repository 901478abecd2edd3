"""The files of a report: tables (LaTeX, CSV), figures (PDF, PNG), and all of them in Markdown."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from statsmerging.progress import track
from statsmerging.report.bundles import whose_runs
from statsmerging.report.drawings import Drawing
from statsmerging.report.figures.charts import SHOWN, chart
from statsmerging.report.figures.style import FORMATS, printed
from statsmerging.report.groups import RunGroup
from statsmerging.report.runs import run_name
from statsmerging.report.tables.accuracy import group_content
from statsmerging.report.tables.by_setting import sweep_tables
from statsmerging.report.tables.content import Table
from statsmerging.report.tables.cost import cost_tables
from statsmerging.report.tables.latex import latex
from statsmerging.report.tables.movement import movement_tables
from statsmerging.report.tables.text import (
    escape,
    markdown,
    markdown_row,
    spreadsheet_safe,
    tidy,
)
from statsmerging.report.words import title_words
from statsmerging.store.written_files import WrittenFiles

log = logging.getLogger(__name__)

#: The report as text, and the report for a browser.
PAGE, INTERACTIVE_PAGE = "report.md", "report.html"

#: Characters of the name of a file; some systems allow 255 at most, suffixes included.
LONGEST_NAME = 120

#: Columns of the table of distilled experts.
_DISTILLED = ("setting", "task", "architecture", "teacher, %", "student, %", "test images")


def report_tables(groups: Sequence[RunGroup]) -> dict[str, list[Table]]:
    """Kind → tables of a report, in its order."""
    return {
        "accuracy": [group_content(group) for group in groups],
        "sweep": sweep_tables(groups),
        "movement": movement_tables(groups),
        "cost": cost_tables(groups),
    }


def run_page_names(groups: Sequence[RunGroup], folder: Path) -> dict[str, str]:
    """Name of each run, as seen from the folder of all runs → the file of its page."""
    names = [run_name(run, folder) for group in groups for run in group.members]
    return {name: f"runs/{file}.html" for name, file in zip(names, file_names(names), strict=True)}


def file_list(
    tables: Mapping[str, Sequence[Table]], planned: Sequence[Drawing], pages: Iterable[str]
) -> list[str]:
    """Relative paths of all files of a report.

    Args:
        pages: those of its runs.
    """
    texts = [f"{name}.tex" for names in _table_names(tables).values() for name in names]
    numbers = [f"{kind}.csv" for kind in _table_names(tables)]
    pictures = [f"{name}.{kind}" for name in _figure_names(planned) for kind in FORMATS]
    return [
        PAGE,
        INTERACTIVE_PAGE,
        *pages,
        *(f"tables/{name}" for name in [*texts, *numbers]),
        *(f"figures/{name}" for name in pictures),
    ]


def write_tables(tables: Mapping[str, Sequence[Table]], files: WrittenFiles) -> None:
    """One LaTeX file per table, and one tidy CSV file per kind of table.

    Args:
        tables: kind → tables; the kind begins the names of the files.
        files: the files of the report.
    """
    for kind, names in _table_names(tables).items():
        for name, content in zip(names, tables[kind], strict=True):
            files.write_text(f"tables/{name}.tex", latex(content, name))
        with files.writing(f"tables/{kind}.csv") as partial:
            spreadsheet_safe(tidy(tables[kind])).to_csv(partial, index=False)


def write_figures(planned: Sequence[Drawing], files: WrittenFiles) -> dict[str, str]:
    """Write every figure in all formats; returns title → name of the file without its suffix."""
    names = _figure_names(planned)
    pairs = list(zip(names, planned, strict=True))
    for name, drawing in track(pairs, "drawing figures"):
        for kind, content in printed(chart(drawing, SHOWN), title_words(drawing.title)).items():
            with files.writing(f"figures/{name}.{kind}") as partial:
                partial.write_bytes(content)
    log.info("figures: %d in %s", len(planned), files.folder / "figures")
    return {drawing.title: name for name, drawing in pairs}


def _table_names(tables: Mapping[str, Sequence[Table]]) -> dict[str, list[str]]:
    """Kind → names of the LaTeX files, for the kinds that have tables."""
    return {
        kind: file_names([f"{kind} {content.title}" for content in contents])
        for kind, contents in tables.items()
        if contents
    }


def _figure_names(planned: Sequence[Drawing]) -> list[str]:
    return file_names([drawing.title for drawing in planned])


def markdown_page(
    tables: Mapping[str, Sequence[Table]], groups: Sequence[RunGroup], figures: Mapping[str, str]
) -> str:
    """``report.md``: senders of runs, tables, warnings, distilled experts, and figures."""
    parts = sender_lines(groups)
    parts += [markdown(content) for contents in tables.values() for content in contents]
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
        widths = (
            "Text is legible at the width that they are drawn at: a column, or, of several panels "
            "side by side, a page (`figure*`)."
        )
        pictures = [f"![{escape(title)}](figures/{name}.png)" for title, name in figures.items()]
        parts.append("\n\n".join(["## Figures", widths, *pictures]) + "\n")
    return "\n".join(parts)


def sender_lines(groups: Sequence[RunGroup]) -> list[str]:
    """A list in Markdown of whose runs these are; none if no run came in a bundle."""
    lines = whose_runs([run for group in groups for run in group.members])
    return ["".join(f"- {escape(line)}\n" for line in lines)] if lines else []


def file_names(titles: Sequence[str]) -> list[str]:
    """Distinct names of files, without characters that are special in a shell or in LaTeX."""
    names: list[str] = []
    for title in titles:
        words = re.sub(r"[^a-z0-9.]+", "_", title.lower().replace("+", "p")).strip("_")
        slug = words.replace(".", "-")[:LONGEST_NAME]
        count = sum(re.fullmatch(rf"{re.escape(slug)}(_\d+)?", name) is not None for name in names)
        names.append(f"{slug}_{count + 1}" if count else slug)
    return names


def _warnings(groups: Sequence[RunGroup]) -> Iterator[str]:
    """The warnings of all runs, each once, with the settings it concerns if not all."""
    settings: dict[str, list[str]] = {}
    for group in groups:
        lines = dict.fromkeys(line for results in group.results for line in results.warnings)
        for line in lines:
            settings.setdefault(line, []).append(group.label)
    for line, labels in settings.items():
        among = f"{len(labels)} of {len(groups)} settings" if len(labels) > 3 else "; ".join(labels)
        text = line if len(labels) == len(groups) else f"{line} ({among})"
        yield f"- {escape(text)}"


def _distilled(groups: Sequence[RunGroup]) -> Iterator[str]:
    """One row per expert of another architecture; runs that share an expert give one row."""
    rows: dict[str, None] = {}
    for group in groups:
        for results, zoo in group.repeated:
            setting = f"{group.problem} · zoo {zoo}" if zoo else group.problem
            for task, expert in results.distilled.items():
                shares = [f"{100 * share:.1f}" for share in (expert.teacher, expert.student)]
                cells = [setting, task, expert.architecture, *shares, str(expert.images)]
                rows[markdown_row(map(escape, cells))] = None
    yield from rows
