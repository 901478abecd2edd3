"""What each method costs: one table per suite and backbone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from statsmerging.report.costs import QUANTITIES, CostedRow, Quantity, costed_rows
from statsmerging.report.groups import RunGroup
from statsmerging.report.repetitions import Repetition
from statsmerging.report.tables.accuracy import group_facts, row_facts
from statsmerging.report.tables.by_problem import sections_by_problem, with_deviations
from statsmerging.report.tables.content import Number, Row, Table, numbers_over_repetitions
from statsmerging.runs.results import method_title

CAPTION = (
    "cost of a method: wall-clock seconds of its phases; total: all but bank and scoring; bank, "
    "statistics and evidence were done once in a run and stand in every row that needs them; "
    "images: learning images, as often as they are seen; passes: of a backbone, in images, the "
    "teachers' among them; parameters: learned ones"
)

MEMORIES = {
    "host": "memory: highest resident memory of the process above that at the beginning of a phase",
    "cuda": "memory: highest memory of CUDA's allocator above that at the beginning of a phase",
}


def cost_tables(groups: Sequence[RunGroup]) -> list[Table]:
    """One table per suite and backbone, with a section per setting and a row per method.

    Runs of earlier versions recorded no cost, and have no rows; nor have bounds.
    """
    headings = tuple(quantity.heading for quantity in QUANTITIES)
    return [
        Table(
            problem, with_deviations(_caption(members), sections), ("method",), headings, sections
        ).without_empty_columns()
        for problem, members, sections in sections_by_problem(groups, _rows)
    ]


def _rows(group: RunGroup) -> Iterator[Row]:
    for method, rows in costed_rows(group).items():
        first = next(iter(rows.values())).row
        numbers = [cost_number(rows, quantity) for quantity in QUANTITIES]
        facts = row_facts(group_facts(group), method, first, group.differences)
        yield Row((method_title(method, first.title),), tuple(numbers), facts)


def cost_number(rows: Mapping[Repetition, CostedRow], quantity: Quantity) -> Number | None:
    """A number by itself: what is counted has no deviation where seconds have one."""
    cells = {repetition: quantity.number(each) for repetition, each in rows.items()}
    return numbers_over_repetitions([cells], quantity.unit)[0]


def _caption(groups: Sequence[RunGroup]) -> str:
    """The meaning of the numbers, and where seconds do not tell all."""
    rows = [
        (method, each)
        for group in groups
        for method, costed in costed_rows(group).items()
        for each in costed.values()
    ]
    of = dict.fromkeys(each.measured.memory_of for _, each in rows)
    parts = [CAPTION, *(MEMORIES[memory] for memory in of if memory is not None)]
    parts += cached_caption(each for _, each in rows)
    resumed = dict.fromkeys(_title(method, each) for method, each in rows if each.measured.resumed)
    if resumed:
        parts.append(
            "continued after a kill, without the seconds between the last checkpoint and the kill: "
            f"{', '.join(resumed)}"
        )
    return "; ".join(parts)


def cached_caption(rows: Iterable[CostedRow]) -> list[str]:
    """A line on the phases whose seconds are in part those of reading a cache; none if none are."""
    cached = list(dict.fromkeys(phase for each in rows for phase in each.measured.cached))
    return [f"in part read from the cache of earlier runs: {', '.join(cached)}"] if cached else []


def _title(method: str, each: CostedRow) -> str:
    return method_title(method, each.row.title)
