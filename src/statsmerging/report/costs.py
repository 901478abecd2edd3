"""What the rows of a report cost: the quantities that tables and figures show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, get_args

import pandas as pd

from statsmerging.report.groups import RunGroup
from statsmerging.report.repetitions import Repetition
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


def costed_rows(group: RunGroup) -> dict[str, dict[Repetition, CostedRow]]:
    """Method → repetition → row with a cost; of runs of one repetition the first counts."""
    found: dict[str, dict[Repetition, CostedRow]] = {}
    for run in group.repeated:
        for method, row in run.results.methods.items():
            if row.cost is not None:
                measured = run.results.measured.get(method, Measured())
                costed = CostedRow(row, row.cost, measured)
                found.setdefault(method, {}).setdefault(run.repetition, costed)
    return found


def accuracies_and_costs(groups: Sequence[RunGroup]) -> pd.DataFrame:
    """Average accuracies on the seen tasks, in percent, with the costs of ``DRAWN``.

    Columns: ``setting``, ``method``, ``title``, ``zoo``, ``seed``, ``quantity``, ``cost``,
    ``accuracy``; one row for each repetition and quantity.
    """
    rows = []
    for group in groups:
        for method, costed in costed_rows(group).items():
            for repetition, each in costed.items():
                about = (group.label, method, method_title(method, each.row.title), *repetition)
                for quantity in DRAWN:
                    cost = quantity.number(each)
                    if cost is not None:
                        shown = quantity.unit.factor * cost
                        rows.append((*about, quantity.heading, shown, 100 * each.row.average))
    columns = ["setting", "method", "title", "zoo", "seed", "quantity", "cost", "accuracy"]
    return pd.DataFrame(rows, columns=columns)
