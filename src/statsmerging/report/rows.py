"""Rows of ``results.json``: which methods there are, what they are called, what they make."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

#: Names of the bounds; a method's row brings its own title.
BOUND_TITLES = {
    "pretrained": "Pre-trained",
    "individual": "Individual",
    "before_distillation": "Before distillation",
    "joint": "Jointly trained",
}

#: Rows that are bounds, not merged models: never the best of a column.
BOUNDS = tuple(BOUND_TITLES)

Results = dict[str, Any]


def rows_by_method(runs: Iterable[Results]) -> dict[str, dict[int, Results]]:
    """Method → seed → row, in the order of the first run; not every run has every method."""
    rows: dict[str, dict[int, Results]] = {}
    for run in runs:
        for name, row in run["methods"].items():
            rows.setdefault(name, {}).setdefault(run["seed"], row)
    return rows


def method_title(method: str, row: Results) -> str:
    """As tables and figures name it."""
    return str(BOUND_TITLES.get(method, row.get("title", method)))


def is_static(row: Results) -> bool:
    """Whether one model with fixed weights comes out."""
    return bool(row.get("returns", "state dict") == "state dict")


def percentage(row: Results, path: tuple[str, ...]) -> float:
    """The number at these keys of a row, in percent; NaN where the row has none."""
    value: Any = row
    for key in path:
        value = None if value is None else value.get(key)
    return math.nan if value is None else 100 * float(value)
