"""The files of a report: tables as LaTeX and CSV, figures as PDF and PNG, and a page of all."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from statsmerging.records.files import (
    atomic_path,
    read_json,
    remove_partials,
    write_json,
    write_text,
)
from statsmerging.records.progress import track
from statsmerging.report.drawings import Drawing
from statsmerging.report.figures.gallery import printed
from statsmerging.report.figures.style import FORMATS, save
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
    named = {
        kind: file_names([f"{kind} {content.title}" for content in contents])
        for kind, contents in tables.items()
        if contents
    }
    files = {f"{name}.tex" for names in named.values() for name in names}
    with replacing(folder, files | {f"{kind}.csv" for kind in named}):
        for kind, names in named.items():
            for name, content in zip(names, tables[kind], strict=True):
                write_text(folder / f"{name}.tex", latex(content, name))
            _write_csv(tidy(tables[kind]), folder / f"{kind}.csv")


def write_figures(planned: Sequence[Drawing], folder: Path) -> dict[str, str]:
    """``NAME.pdf`` and ``NAME.png`` of every figure; gives title → name."""
    names = file_names([drawing.title for drawing in planned])
    with replacing(folder, {f"{name}.{kind}" for name in names for kind in FORMATS}):
        pairs = list(zip(names, planned, strict=True))
        for name, drawing in track(pairs, "drawing figures"):
            save(printed(drawing), folder / name)
    log.info("figures: %d in %s", len(planned), folder)
    return {drawing.title: name for name, drawing in zip(names, planned, strict=True)}


@contextmanager
def replacing(folder: Path, names: Set[str]) -> Iterator[None]:
    """While the block writes these files of a report; an earlier one's others are removed then.

    A list of the report's own files lies beside the folder, so those of anybody else stay.
    """
    remove_partials(folder)
    record = folder.with_name(f".{folder.name}.json")
    earlier = set(read_json(record)) if record.exists() else set()
    write_json(record, sorted(earlier | names))  # before the files: the block may be killed
    yield
    for name in earlier - names:
        (folder / name).unlink(missing_ok=True)
    write_json(record, sorted(names))


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
    """What the runs' own checks said, each once, with the settings whose runs said it."""
    settings: dict[str, list[str]] = {}
    for group in groups:
        lines = dict.fromkeys(line for run in group.runs for line in run.get("warnings", []))
        for line in lines:
            settings.setdefault(line, []).append(group.label)
    for line, labels in settings.items():
        among = f"{len(labels)} of {len(groups)} settings" if len(labels) > 3 else "; ".join(labels)
        yield f"- {line}" if len(labels) == len(groups) else f"- {line} ({among})"


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
