"""What the rows of a report cost: the quantities that tables and figures show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, get_args

import pandas as pd

from statsmerging.report.groups import RunGroup, rows_by_method
from statsmerging.report.tables.content import Unit
from statsmerging.runs.cost import Cost, Measured, Phase
from statsmerging.runs.results import MethodRow, method_title

SECONDS, MEBIBYTES, COUNT = Unit("s", 1, 2), Unit("MiB", 2**-20, 1), Unit("1", 1, 0)

#: Phases that all rows have alike, and that are no part of a method.
APART = ("bank", "scoring")


class CostedRow(NamedTuple):
    """A row of the results, and what was measured when it was made."""

    row: MethodRow
    cost: Cost
    measured: Measured


class Quantity(NamedTuple):
    """Heading of a column, its unit, and how its number is read."""

    heading: str
    unit: Unit
    number: Callable[[CostedRow], float | None]


def _of_phase(phase: str) -> Quantity:
    return Quantity(f"{phase}, s", SECONDS, lambda each: each.measured.seconds.get(phase))


def _total(each: CostedRow) -> float | None:
    seconds = each.measured.seconds
    return sum(seconds[phase] for phase in seconds if phase not in APART) if seconds else None


def _highest(each: CostedRow) -> float | None:
    memory = each.measured.memory
    return max((memory[phase] for phase in memory if phase not in APART), default=None)


TOTAL = Quantity("total, s", SECONDS, _total)
MEMORY = Quantity("memory, MiB", MEBIBYTES, _highest)
IMAGES = Quantity("images", COUNT, lambda each: each.cost.images)
FORWARD = Quantity("forward passes", COUNT, lambda each: each.cost.forward_passes)
BACKWARD = Quantity("backward passes", COUNT, lambda each: each.cost.backward_passes)
PARAMETERS = Quantity("parameters", COUNT, lambda each: each.cost.parameters)

QUANTITIES = (
    TOTAL,
    *map(_of_phase, get_args(Phase)),
    MEMORY,
    IMAGES,
    FORWARD,
    BACKWARD,
    PARAMETERS,
)

#: Those that accuracy is drawn against.
DRAWN = (TOTAL, MEMORY, FORWARD, PARAMETERS)


def costed_rows(group: RunGroup) -> dict[str, list[CostedRow]]:
    """Method → its rows that tables count; those without a cost are left out."""
    counted = {id(row) for rows in rows_by_method(group.results).values() for row in rows.values()}
    found: dict[str, list[CostedRow]] = {}
    for results in group.results:
        for method, row in results.methods.items():
            if row.cost is not None and id(row) in counted:
                measured = results.measured.get(method, Measured())
                found.setdefault(method, []).append(CostedRow(row, row.cost, measured))
    return found


def accuracies_and_costs(groups: Sequence[RunGroup]) -> pd.DataFrame:
    """Average accuracies on the seen tasks, in percent, with the costs of ``DRAWN``.

    Columns: ``setting``, ``method``, ``title``, ``quantity``, ``cost``, ``accuracy``; one row for
    each run and quantity.
    """
    rows = [
        (group.label, method, method_title(method, each.row.title), quantity.heading, cost, average)
        for group in groups
        for method, costed in costed_rows(group).items()
        for each in costed
        for quantity in DRAWN
        for cost, average in [(quantity.number(each), 100 * each.row.average)]
        if cost is not None
    ]
    columns = ["setting", "method", "title", "quantity", "cost", "accuracy"]
    frame = pd.DataFrame(rows, columns=columns)
    factors = {quantity.heading: quantity.unit.factor for quantity in DRAWN}
    return frame.assign(cost=frame["cost"] * frame["quantity"].map(factors).astype(float))
