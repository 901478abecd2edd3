"""The accuracy table of a run, or of several that differ in their seed alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from rich import box
from rich.table import Table

#: Names of the bounds; a method's row brings its own title.
BOUND_TITLES = {
    "pretrained": "Pre-trained",
    "individual": "Individual",
    "joint": "Jointly trained",
}

#: Short forms of what a method needs besides the weights.
NEEDS = {
    None: "",
    "nothing": "–",
    "unlabeled images": "images",
    "activations": "activations",
    "gradients": "gradients",
}

#: Rows that are bounds, not merged models: never the best of a column.
BOUNDS = ("pretrained", "individual", "joint")

CAPTION = (
    "top-1 accuracy on test images, %; agreement: with the teachers, on unlabeled validation images"
)

#: What results of clean images say of their corruption; a title does not.
CLEAN = "none"

Results = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """Percentage of one method in one column: text, and whether no merged model is better."""

    text: str
    best: bool


@dataclass(frozen=True)
class Row:
    """One method: its title, what it needs besides the weights, and its cells."""

    title: str
    needs: str
    cells: list[Cell]


def accuracy_table(runs: Sequence[Results], setting: Sequence[str] = ()) -> Table:
    """Rows of methods, columns of tasks, average and normalised average, for the terminal.

    The best merged model of each column is bold. Unseen tasks stand right of the averages.

    Args:
        runs: contents of ``results.json``; several give mean ± standard deviation.
        setting: ``key=value`` of what tells these runs from others; part of the title.
    """
    table = Table(
        title=_title(runs, setting),
        caption=_caption(runs),
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("method", no_wrap=True)
    table.add_column("needs")
    for heading, _ in _columns(runs[0]):
        table.add_column(heading.replace("_", " "), justify="right", overflow="fold")
    for title, rows in _sections(runs):
        if title:
            table.add_row(f"[italic]{title}[/italic]")
        for row in rows:
            texts = [f"[bold]{cell.text}[/bold]" if cell.best else cell.text for cell in row.cells]
            table.add_row(row.title, row.needs, *texts)
        table.add_section()
    return table


def markdown_table(runs: Sequence[Results], setting: Sequence[str] = ()) -> str:
    """The same table in Markdown, with its title and caption."""
    headings = ["method", "needs", *(name.replace("_", " ") for name, _ in _columns(runs[0]))]
    lines = [
        f"**{_title(runs, setting)}** · {_caption(runs)}",
        "",
        _markdown_row(headings),
        _markdown_row(["---", "---", *["---:"] * (len(headings) - 2)]),
    ]
    for title, rows in _sections(runs):
        if title:
            lines.append(_markdown_row([f"*{title}*", *[""] * (len(headings) - 1)]))
        for row in rows:
            texts = [f"**{cell.text}**" if cell.best else cell.text for cell in row.cells]
            lines.append(_markdown_row([row.title, row.needs, *texts]))
    return "\n".join(lines) + "\n"


def _sections(runs: Sequence[Results]) -> list[tuple[str, list[Row]]]:
    """Bounds, static models, and, apart, what is more than one static model; with headings."""
    entries = _common_rows(runs)
    merged = {name: row for name, row in entries.items() if name not in BOUNDS}
    static = [name for name, row in merged.items() if _is_static(row)]
    others = [name for name in merged if name not in static]
    groups = [
        ("", [name for name in entries if name in BOUNDS]),
        ("One static model" if others else "", static),
        ("Not one static model", others),
    ]
    return [(heading, _rows(runs, group)) for heading, group in groups if group]


def _rows(runs: Sequence[Results], methods: Sequence[str]) -> list[Row]:
    """Rows of one section; the best of each column is that of the section."""
    columns = [path for _, path in _columns(runs[0])]
    values = {
        method: [[_value(run["methods"][method], path) for run in runs] for path in columns]
        for method in methods
    }
    means = {method: [_mean(cell) for cell in cells] for method, cells in values.items()}
    top = [max(means[method][i] for method in methods) for i in range(len(columns))]
    return [
        Row(
            title=_row_title(method, runs[0]["methods"][method]),
            needs=NEEDS[runs[0]["methods"][method].get("needs")],
            cells=[
                Cell(text, text != "" and method not in BOUNDS and means[method][i] == top[i])
                for i, text in enumerate(_texts(cells))
            ],
        )
        for method, cells in values.items()
    ]


def _row_title(method: str, row: Results) -> str:
    return str(BOUND_TITLES.get(method, row.get("title", method)))


def _is_static(row: Results) -> bool:
    return bool(row.get("returns", "state dict") == "state dict")


def _common_rows(runs: Sequence[Results]) -> dict[str, Results]:
    """Rows that all runs have, in the order of the first; a method may have failed in one."""
    return {
        name: row
        for name, row in runs[0]["methods"].items()
        if all(name in run["methods"] for run in runs)
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
        value = None if value is None else value.get(key)
    return math.nan if value is None else 100 * float(value)


def _title(runs: Sequence[Results], setting: Sequence[str]) -> str:
    first = runs[0]
    facts = [
        first[key]
        for key in ("suite", "corruption", "backbone", "granularity", "learner", "labels")
        if first.get(key, CLEAN) != CLEAN
    ]
    seeds = ", ".join(str(seed) for seed in sorted(run["seed"] for run in runs))
    return " · ".join([*facts, *setting, f"seed {seeds}", *first["stamps"]])


def _caption(runs: Sequence[Results]) -> str:
    """What the numbers are, and how good the teachers' labels were where something was learned."""
    shares = [
        teacher["label_agreement"] for run in runs for teacher in run.get("teachers", {}).values()
    ]
    if not shares:
        return CAPTION
    return (
        f"{CAPTION}; the teachers' labels are right on {fmean(shares):.1%} of the learning images"
    )


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
