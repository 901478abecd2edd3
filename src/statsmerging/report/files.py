"""The files of a report: tables as LaTeX and CSV, figures as PDF and PNG, and a page of all."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd

from statsmerging.records.files import atomic_path, remove_partials, write_text
from statsmerging.report.drawings import DETAILED, drawings
from statsmerging.report.figures.gallery import printed
from statsmerging.report.figures.style import save
from statsmerging.report.runs import RunGroup
from statsmerging.report.tables.content import Table
from statsmerging.report.tables.latex import latex
from statsmerging.report.tables.markdown import markdown, markdown_row
from statsmerging.report.tables.tidy import tidy

log = logging.getLogger(__name__)

#: Characters of a file's name; some systems take no more than 255 with all endings.
LONGEST = 120

#: Columns of the table of experts; teacher and student are scored on the test images.
_DISTILLED = ("setting", "task", "architecture", "teacher, %", "student, %", "test images")


def write_tables(tables: Mapping[str, Sequence[Table]], folder: Path) -> None:
    """One LaTeX file for each table, and one tidy CSV file for each kind.

    Args:
        tables: kind, the beginning of the files' names → tables.
        folder: for the files.
    """
    remove_partials(folder)
    for kind, contents in tables.items():
        names = file_names([f"{kind} {content.title}" for content in contents])
        for name, content in zip(names, contents, strict=True):
            write_text(folder / f"{name}.tex", latex(content, name))
        if contents:
            _write_csv(tidy(contents), folder / f"{kind}.csv")


def write_figures(groups: Sequence[RunGroup], folder: Path) -> dict[str, str]:
    """``NAME.pdf`` and ``NAME.png`` of every figure there are data for; gives title → name."""
    remove_partials(folder)
    planned = list(drawings(groups))
    if len(groups) > DETAILED:
        log.info("of %d settings, figures compare them; job.runs=RUN draws one run's", len(groups))
    names = file_names([drawing.title for drawing in planned])
    for number, (name, drawing) in enumerate(zip(names, planned, strict=True), start=1):
        log.info("figure %d of %d: %s", number, len(planned), drawing.title)
        save(printed(drawing), folder / name)
    return {drawing.title: name for name, drawing in zip(names, planned, strict=True)}


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
        pictures = [f"![{title}](figures/{name}.png)" for title, name in figures.items()]
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
    """What the runs' own checks said; once for all seeds that agree."""
    for group in groups:
        lines = dict.fromkeys(line for run in group.runs for line in run.get("warnings", []))
        for line in lines:
            yield f"- {group.label}: {line}"


def _distilled(groups: Sequence[RunGroup]) -> Iterator[str]:
    """One row for each expert of another architecture; runs that share it give one."""
    rows: dict[str, None] = {}
    for group in groups:
        for run in group.runs:
            for task, expert in run.get("distilled", {}).items():
                shares = [f"{100 * expert[name]:.1f}" for name in ("teacher", "student")]
                setting = f"{run['suite']} · {run['backbone']}"
                cells = [setting, task, expert["architecture"], *shares, str(expert["images"])]
                rows[markdown_row(cells)] = None
    yield from rows


def _write_csv(frame: pd.DataFrame, path: Path) -> None:
    with atomic_path(path) as partial:
        frame.to_csv(partial, index=False)
