"""How far learned coefficients move the weights: one small table per suite and backbone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import get_args

from statsmerging.report.groups import RunGroup
from statsmerging.report.repetitions import rows_by_method
from statsmerging.report.tables.accuracy import Column, group_facts, method_numbers, row_facts
from statsmerging.report.tables.by_problem import sections_by_problem, with_deviations
from statsmerging.report.tables.content import RATIO, Row, Table
from statsmerging.runs.results import LayerKind, LayerMovement, method_title

CAPTION = (
    "movement of the weights by learned coefficients; max |λ|: the coefficient furthest from zero; "
    "moved: ‖θ − θ₀‖ / ‖θ₀‖ over all layers of the kind; vectors: biases, norms and tokens"
)


def movement_tables(groups: Sequence[RunGroup]) -> list[Table]:
    """One table per suite and backbone, with a section per setting and a row per learned method.

    Runs of earlier versions recorded no movement, and have no rows.
    """
    headings = tuple(column.heading for column in COLUMNS)
    return [
        Table(problem, with_deviations(CAPTION, sections), ("method",), headings, sections)
        for problem, _, sections in sections_by_problem(groups, _rows)
    ]


def _rows(group: RunGroup) -> Iterator[Row]:
    for method, rows in rows_by_method(group.repeated).items():
        numbers = method_numbers(rows, COLUMNS, RATIO)
        if any(numbers):
            first = next(iter(rows.values()))
            facts = row_facts(group_facts(group), method, first, group.differences)
            yield Row((method_title(method, first.title),), numbers, facts)


def _column(kind: LayerKind, heading: str, of: Callable[[LayerMovement], float | None]) -> Column:
    return Column(
        f"{kind}: {heading}",
        lambda row: of(row.movement[kind]) if kind in row.movement else None,
    )


COLUMNS = [
    column
    for kind in get_args(LayerKind)
    for column in (
        _column(kind, "max |λ|", lambda layers: layers.largest_coefficient),
        _column(kind, "moved", lambda layers: layers.relative),
    )
]
