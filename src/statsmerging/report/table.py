"""The accuracy table of one run, for the terminal."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.table import Table

#: Row names as a reader knows them.
METHOD_TITLES = {
    "pretrained": "Pre-trained",
    "individual": "Individual",
    "simple_average": "Simple average",
    "task_arithmetic": "Task arithmetic",
    "task_arithmetic_tuned": "  with tuned λ",
    "stats_merging": "StatsMerging",
}

#: Rows that are bounds, not merged models: never the best of a column.
BOUNDS = ("pretrained", "individual")


def accuracy_table(results: dict[str, Any]) -> Table:
    """Rows of methods, columns of tasks, average and normalised average, in percent.

    The best merged model of each column is bold. Unseen tasks stand right of the averages.

    Args:
        results: the content of ``results.json``.
    """
    methods = results["methods"]
    columns = _columns(next(iter(methods.values())))
    table = Table(
        title=_title(results),
        caption="top-1 accuracy on test images, %",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("method", no_wrap=True)
    for heading, _ in columns:
        table.add_column(heading.replace("_", " "), justify="right", overflow="fold")
    best = [
        max(
            (_value(row, path) for name, row in methods.items() if name not in BOUNDS),
            default=None,
        )
        for _, path in columns
    ]
    for name, row in methods.items():
        cells = []
        for (_, path), top in zip(columns, best, strict=True):
            value = _value(row, path)
            text = f"{100 * value:.1f}"
            cells.append(f"[bold]{text}[/bold]" if name not in BOUNDS and value == top else text)
        table.add_row(METHOD_TITLES.get(name, name), *cells, end_section=name == "individual")
    return table


def _columns(row: dict[str, Any]) -> list[tuple[str, tuple[str, ...]]]:
    """Heading and path in a row of ``results.json``, for every column."""
    columns: list[tuple[str, tuple[str, ...]]] = [
        (task, ("accuracy", task)) for task in row["accuracy"]
    ]
    columns += [("average", ("average",)), ("normalised", ("normalised_average",))]
    if "unseen" in row:
        columns += [
            (f"unseen: {task}", ("unseen", "accuracy", task)) for task in row["unseen"]["accuracy"]
        ]
    return columns


def _value(row: dict[str, Any], path: tuple[str, ...]) -> float:
    for key in path:
        row = row[key]
    return float(row)  # type: ignore[arg-type]


def _title(results: dict[str, Any]) -> str:
    facts = [results[key] for key in ("suite", "backbone", "granularity")]
    return " · ".join([*facts, f"seed {results['seed']}", *results["stamps"]])
