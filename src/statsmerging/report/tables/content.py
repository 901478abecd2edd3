"""What any table of results holds, whatever it is written as."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean, stdev
from typing import Any

#: What all numbers are.
UNIT = "%"

#: Places of a number in its column that are marked.
BEST, SECOND = 1, 2


@dataclass(frozen=True)
class Number:
    """A percentage.

    Attributes:
        mean: over the seeds.
        std: sample standard deviation over the seeds, with n − 1; ``None`` where nothing varies.
        seeds: how many; 0 for a number that others published.
        place: ``BEST``, ``SECOND`` or 0.
    """

    mean: float
    std: float | None = None
    seeds: int = 1
    place: int = 0

    @property
    def text(self) -> str:
        """``71.3`` or ``71.3 ± 0.4``."""
        return f"{self.mean:.1f}" if self.std is None else f"{self.mean:.1f} ± {self.std:.1f}"


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        labels: texts before the numbers.
        numbers: one for each column; ``None`` leaves a gap.
        facts: what tells the row from all rows of all tables: its setting, method and source.
    """

    labels: tuple[str, ...]
    numbers: tuple[Number | None, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Section:
    """Rows that stand together; the first section needs no heading."""

    heading: str
    rows: Sequence[Row]


@dataclass(frozen=True)
class Table:
    """A table of percentages.

    Attributes:
        title: what tells it from other tables.
        caption: what the numbers are.
        labels: headings of the texts.
        columns: names of the numbers.
        sections: the rows.
    """

    title: str
    caption: str
    labels: tuple[str, ...]
    columns: tuple[str, ...]
    sections: Sequence[Section]

    @property
    def headings(self) -> list[str]:
        """Of the numbers, with blanks for underscores where the columns stay different."""
        spaced = [name.replace("_", " ") for name in self.columns]
        return [
            blank if spaced.count(blank) == 1 else name
            for blank, name in zip(spaced, self.columns, strict=True)
        ]

    @property
    def rows(self) -> list[Row]:
        """Of all sections."""
        return [row for section in self.sections for row in section.rows]


def numbers_over_seeds(cells: Sequence[Sequence[float]]) -> tuple[Number | None, ...]:
    """One number for each column of a row; deviations everywhere if the seeds differ anywhere.

    Args:
        cells: for each column the values of the seeds; NaN where a seed has none.
    """
    known = [[value for value in cell if not math.isnan(value)] for cell in cells]
    varies = any(len(set(values)) > 1 for values in known)

    def number(values: Sequence[float]) -> Number | None:
        if not values:
            return None
        deviation = stdev(values) if varies and len(values) > 1 else None
        return Number(fmean(values), deviation, len(values))

    return tuple(number(values) for values in known)


def with_places(rows: Sequence[Row]) -> list[Row]:
    """Rivals with the best and the second best of each column marked; equals share a place.

    Means are compared as they are printed, so that no reader sees two equal numbers of which one is
    the better.
    A column with one rival has no best, one with two has no second best.
    """
    if not rows:
        return []
    columns = [_places(column) for column in zip(*(row.numbers for row in rows), strict=True)]
    return [
        replace(row, numbers=numbers)
        for row, numbers in zip(rows, zip(*columns, strict=True), strict=True)
    ]


def _places(column: Sequence[Number | None]) -> list[Number | None]:
    means = [_printed(number) for number in column if number is not None]
    ranking = sorted(set(means), reverse=True)
    marked = {}
    if len(means) > 1:
        marked[ranking[0]] = BEST
    if len(means) > 2 and len(ranking) > 1 and means.count(ranking[0]) == 1:
        marked[ranking[1]] = SECOND
    return [
        None if number is None else replace(number, place=marked.get(_printed(number), 0))
        for number in column
    ]


def _printed(number: Number) -> float:
    return round(number.mean, 1)
