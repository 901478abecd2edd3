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
    "before_distillation": "Before distillation",
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
BOUNDS = ("pretrained", "individual", "before_distillation", "joint")

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
        markdown_row(headings),
        markdown_row(["---", "---", *["---:"] * (len(headings) - 2)]),
    ]
    for title, rows in _sections(runs):
        if title:
            lines.append(markdown_row([f"*{title}*", *[""] * (len(headings) - 1)]))
        for row in rows:
            texts = [f"**{cell.text}**" if cell.best else cell.text for cell in row.cells]
            lines.append(markdown_row([row.title, row.needs, *texts]))
    return "\n".join(lines) + "\n"


def plain_table(results: Results) -> tuple[list[str], list[list[str | float | None]]]:
    """Headings, and a row of title, needs and percentages for every method of one run.

    A method that has no number in a column has ``None`` there.
    """
    columns = _columns(results)
    rows: list[list[str | float | None]] = []
    for name, row in results["methods"].items():
        values = [_value(row, path) for _, path in columns]
        cells = [None if math.isnan(value) else value for value in values]
        rows.append([_row_title(name, [row], 1), NEEDS[row.get("needs")], *cells])
    return ["method", "needs", *(heading for heading, _ in columns)], rows


def _sections(runs: Sequence[Results]) -> list[tuple[str, list[Row]]]:
    """Bounds, static models, and, apart, what is more than one static model; with headings."""
    entries = _all_rows(runs)
    merged = {name: rows for name, rows in entries.items() if name not in BOUNDS}
    static = [name for name, rows in merged.items() if _is_static(rows[0])]
    others = [name for name in merged if name not in static]
    groups = [
        ("", [name for name in entries if name in BOUNDS]),
        ("One static model" if others else "", static),
        ("Not one static model", others),
    ]
    columns = [path for _, path in _columns(runs[0])]
    return [
        (heading, _rows({name: entries[name] for name in group}, columns, len(_seeds(runs))))
        for heading, group in groups
        if group
    ]


def _rows(
    methods: dict[str, list[Results]], columns: Sequence[tuple[str, ...]], seeds: int
) -> list[Row]:
    """Rows of one section; the best of each column is that of the section, among several."""
    values = {
        method: [[_value(row, path) for row in rows] for path in columns]
        for method, rows in methods.items()
    }
    means = {method: [_mean(cell) for cell in cells] for method, cells in values.items()}

    def is_best(method: str, column: int) -> bool:
        rivals = [means[other][column] for other in methods]
        filled = sum(rival > -math.inf for rival in rivals)
        return method not in BOUNDS and filled > 1 and means[method][column] == max(rivals)

    return [
        Row(
            title=_row_title(method, methods[method], seeds),
            needs=NEEDS[methods[method][0].get("needs")],
            cells=[
                Cell(text, text != "" and is_best(method, column))
                for column, text in enumerate(_texts(cells))
            ],
        )
        for method, cells in values.items()
    ]


def _row_title(method: str, rows: Sequence[Results], seeds: int) -> str:
    """The method's title, with the number of seeds where ± stands for some of them only."""
    title = str(BOUND_TITLES.get(method, rows[0].get("title", method)))
    return f"{title} ({len(rows)} of {seeds} seeds)" if 1 < len(rows) < seeds else title


def _is_static(row: Results) -> bool:
    return bool(row.get("returns", "state dict") == "state dict")


def _all_rows(runs: Sequence[Results]) -> dict[str, list[Results]]:
    """Rows by method, one a seed, in the order of the first run; not every run has every method."""
    rows: dict[str, dict[int, Results]] = {}
    for run in runs:
        for name, row in run["methods"].items():
            rows.setdefault(name, {}).setdefault(run["seed"], row)
    return {name: list(by_seed.values()) for name, by_seed in rows.items()}


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
    seeds = ", ".join(map(str, _seeds(runs)))
    return " · ".join([*facts, *setting, f"seed {seeds}", *first["stamps"]])


def _caption(runs: Sequence[Results]) -> str:
    """What the numbers are, and how good the teachers' labels were where something was learned."""
    parts = [CAPTION]
    if len(_seeds(runs)) > 1:
        parts.append("a row without ± ran with one seed or draws nothing at random")
    shares = [
        teacher["label_agreement"] for run in runs for teacher in run.get("teachers", {}).values()
    ]
    if shares:
        parts.append(
            f"the teachers' labels are right on {fmean(shares):.1%} of the learning images"
        )
    return "; ".join(parts)


def _seeds(runs: Sequence[Results]) -> list[int]:
    return sorted({run["seed"] for run in runs})


def markdown_row(cells: Sequence[str]) -> str:
    """One line of a Markdown table."""
    return f"| {' | '.join(cells)} |"
