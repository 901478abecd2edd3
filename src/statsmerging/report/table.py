"""The accuracy table of a run, or of several that differ in their seed alone."""

from __future__ import annotations

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

CAPTION = "top-1 accuracy on test images, %"

Results = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """Percentage of one method in one column: text, and whether no merged model is better."""

    text: str
    best: bool


def accuracy_table(runs: Sequence[Results]) -> Table:
    """Rows of methods, columns of tasks, average and normalised average, for the terminal.

    The best merged model of each column is bold. Unseen tasks stand right of the averages.

    Args:
        runs: contents of ``results.json``; several give mean ± standard deviation.
    """
    table = Table(title=_title(runs), caption=CAPTION, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("method", no_wrap=True)
    for heading, _ in _columns(runs[0]):
        table.add_column(heading.replace("_", " "), justify="right", overflow="fold")
    for method, cells in _rows(runs).items():
        texts = [f"[bold]{cell.text}[/bold]" if cell.best else cell.text for cell in cells]
        table.add_row(METHOD_TITLES.get(method, method), *texts, end_section=method == "individual")
    return table


def markdown_table(runs: Sequence[Results]) -> str:
    """The same table in Markdown, with its title and caption."""
    headings = ["method", *(heading.replace("_", " ") for heading, _ in _columns(runs[0]))]
    lines = [
        f"**{_title(runs)}** · {CAPTION}",
        "",
        _markdown_row(headings),
        _markdown_row(["---", *["---:"] * (len(headings) - 1)]),
    ]
    for method, cells in _rows(runs).items():
        texts = [f"**{cell.text}**" if cell.best else cell.text for cell in cells]
        lines.append(_markdown_row([METHOD_TITLES.get(method, method), *texts]))
    return "\n".join(lines) + "\n"


def _rows(runs: Sequence[Results]) -> dict[str, list[Cell]]:
    methods = list(runs[0]["methods"])
    rows: dict[str, list[Cell]] = {method: [] for method in methods}
    for _, path in _columns(runs[0]):
        values = {
            method: [100 * _value(run["methods"][method], path) for run in runs]
            for method in methods
        }
        means = {method: fmean(values[method]) for method in methods}
        top = max((means[method] for method in methods if method not in BOUNDS), default=None)
        for method in methods:
            best = method not in BOUNDS and means[method] == top
            rows[method].append(Cell(_text(values[method]), best))
    return rows


def _text(values: list[float]) -> str:
    """``71.3``, or ``71.3 ± 0.4`` where the runs differ."""
    mean = f"{fmean(values):.1f}"
    return mean if len(set(values)) == 1 else f"{mean} ± {stdev(values):.1f}"


def _columns(results: Results) -> list[tuple[str, tuple[str, ...]]]:
    """Heading and path in a row of ``results.json``, for every column."""
    row = next(iter(results["methods"].values()))
    columns: list[tuple[str, tuple[str, ...]]] = [
        (task, ("accuracy", task)) for task in row["accuracy"]
    ]
    columns += [("average", ("average",)), ("normalised", ("normalised_average",))]
    if "unseen" in row:
        columns += [
            (f"unseen: {task}", ("unseen", "accuracy", task)) for task in row["unseen"]["accuracy"]
        ]
    return columns


def _value(row: Results, path: tuple[str, ...]) -> float:
    value: Any = row
    for key in path:
        value = value[key]
    return float(value)


def _title(runs: Sequence[Results]) -> str:
    facts = [runs[0][key] for key in ("suite", "backbone", "granularity", "learner", "labels")]
    seeds = ", ".join(str(seed) for seed in sorted(run["seed"] for run in runs))
    return " · ".join([*facts, f"seed {seeds}", *runs[0]["stamps"]])


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
