"""The accuracy table of a run, or of several that differ in their seed alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from rich import box
from rich.table import Table

#: Row names as a reader knows them.
METHOD_TITLES = {
    "pretrained": "Pre-trained",
    "individual": "Individual",
    "simple_average": "Simple average",
    "task_arithmetic": "Task arithmetic",
    "task_arithmetic_tuned": "Task arithmetic, tuned λ",
    "stats_merging": "StatsMerging",
}

#: Rows that are bounds, not merged models: never the best of a column.
BOUNDS = ("pretrained", "individual")

CAPTION = (
    "top-1 accuracy on test images, %; agreement: with the teachers, on unlabeled validation images"
)

Results = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """Percentage of one method in one column: text, and whether no merged model is better."""

    text: str
    best: bool


def accuracy_table(runs: Sequence[Results], setting: Sequence[str] = ()) -> Table:
    """Rows of methods, columns of tasks, average and normalised average, for the terminal.

    The best merged model of each column is bold. Unseen tasks stand right of the averages.

    Args:
        runs: contents of ``results.json``; several give mean ± standard deviation.
        setting: ``key=value`` of what tells these runs from others; part of the title.
    """
    table = Table(
        title=_title(runs, setting), caption=CAPTION, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    table.add_column("method", no_wrap=True)
    for heading, _ in _columns(runs[0]):
        table.add_column(heading.replace("_", " "), justify="right", overflow="fold")
    for method, cells in _rows(runs).items():
        texts = [f"[bold]{cell.text}[/bold]" if cell.best else cell.text for cell in cells]
        table.add_row(METHOD_TITLES.get(method, method), *texts, end_section=method == "individual")
    return table


def markdown_table(runs: Sequence[Results], setting: Sequence[str] = ()) -> str:
    """The same table in Markdown, with its title and caption."""
    headings = ["method", *(heading.replace("_", " ") for heading, _ in _columns(runs[0]))]
    lines = [
        f"**{_title(runs, setting)}** · {CAPTION}",
        "",
        _markdown_row(headings),
        _markdown_row(["---", *["---:"] * (len(headings) - 1)]),
    ]
    for method, cells in _rows(runs).items():
        texts = [f"**{cell.text}**" if cell.best else cell.text for cell in cells]
        lines.append(_markdown_row([METHOD_TITLES.get(method, method), *texts]))
    return "\n".join(lines) + "\n"


def _rows(runs: Sequence[Results]) -> dict[str, list[Cell]]:
    columns = [path for _, path in _columns(runs[0])]
    values = {
        method: [[_value(run["methods"][method], path) for run in runs] for path in columns]
        for method in runs[0]["methods"]
    }
    merged = [method for method in values if method not in BOUNDS]
    means = {method: [_mean(cell) for cell in cells] for method, cells in values.items()}
    top = [
        max((means[method][i] for method in merged), default=-math.inf) for i in range(len(columns))
    ]
    return {
        method: [
            Cell(text, method in merged and means[method][i] == top[i])
            for i, text in enumerate(_texts(cells))
        ]
        for method, cells in values.items()
    }


def _texts(cells: Sequence[Sequence[float]]) -> list[str]:
    """``71.3``, or ``71.3 ± 0.4`` for a method whose runs differ in any cell."""
    varies = any(len(set(cell)) > 1 for cell in cells if not math.isnan(cell[0]))

    def text(cell: Sequence[float]) -> str:
        if math.isnan(cell[0]):
            return ""
        return f"{fmean(cell):.1f} ± {stdev(cell):.1f}" if varies else f"{fmean(cell):.1f}"

    return [text(cell) for cell in cells]


def _mean(cell: Sequence[float]) -> float:
    return -math.inf if math.isnan(cell[0]) else fmean(cell)


def _columns(results: Results) -> list[tuple[str, tuple[str, ...]]]:
    """Heading and path in a row of ``results.json``, for every column."""
    row = next(iter(results["methods"].values()))
    columns: list[tuple[str, tuple[str, ...]]] = [
        (task, ("accuracy", task)) for task in row["accuracy"]
    ]
    columns += [("average", ("average",)), ("normalised", ("normalised_average",))]
    if any("teacher_agreement" in other for other in results["methods"].values()):
        columns.append(("agreement", ("teacher_agreement",)))
    if "unseen" in row:
        columns += [
            (f"unseen: {task}", ("unseen", "accuracy", task)) for task in row["unseen"]["accuracy"]
        ]
    return columns


def _value(row: Results, path: tuple[str, ...]) -> float:
    """The number in percent; NaN where the row has none."""
    value: Any = row
    for key in path:
        value = value.get(key)
    return math.nan if value is None else 100 * float(value)


def _title(runs: Sequence[Results], setting: Sequence[str]) -> str:
    first = runs[0]
    facts = [
        first[key]
        for key in ("suite", "backbone", "granularity", "learner", "labels")
        if key in first
    ]
    seeds = ", ".join(str(seed) for seed in sorted(run["seed"] for run in runs))
    return " · ".join([*facts, *setting, f"seed {seeds}", *first["stamps"]])


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
