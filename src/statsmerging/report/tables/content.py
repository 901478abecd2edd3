"""The content of a table of numbers, independent of the format it is written in."""

from __future__ import annotations

from collections.abc import Container, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from statsmerging.report.repetitions import Repetition, span, spread
from statsmerging.report.words import key_words


@dataclass(frozen=True)
class Unit:
    """How a number of the results is printed.

    Attributes:
        name: as the CSV files have it.
        factor: of the printed number.
        digits: after the point.
    """

    name: str
    factor: float
    digits: int


PERCENT, RATIO = Unit("%", 100, 1), Unit("1", 1, 3)

#: Places of a number in its column that are marked.
BEST, SECOND = 1, 2


@dataclass(frozen=True)
class Number:
    """A number in its unit.

    Attributes:
        mean: mean over the zoos of the means over the seeds.
        std: sample standard deviation (with n − 1) over the zoos, with one zoo over the seeds;
            ``None`` if nothing varies.
        seeds: number of seeds of each zoo; empty for a published number.
        place: ``BEST``, ``SECOND`` or 0.
        unit: of mean and deviation.
        signed: whether it is a difference, shown with its sign.
        interval: low and high end of the interval of a difference.
    """

    mean: float
    std: float | None = None
    seeds: tuple[int, ...] = (1,)
    place: int = 0
    unit: Unit = PERCENT
    signed: bool = False
    interval: tuple[float, float] | None = None

    @property
    def parts(self) -> list[str]:
        """Mean and, if there is one, deviation, as they are printed."""
        known = [self.mean] if self.std is None else [self.mean, self.std]
        return [f"{value:.{self.unit.digits}f}" for value in known]

    @property
    def text(self) -> str:
        """``71.3``, ``71.3 ± 0.4``, ``−1.25`` or ``−1.25 [−2.10, −0.41]``."""
        if self.interval is not None:
            low, high = map(_signed, self.interval)
            return f"{_signed(self.mean)} [{low}, {high}]"
        return _signed(self.mean) if self.signed else " ± ".join(self.parts)


def _signed(difference: float) -> str:
    """Two decimals, because an end of an interval may lie close to zero."""
    text = f"{difference:+.2f}".replace("-", "−")
    return text if text.strip("+−") != "0.00" else "0.00"


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        labels: texts before the numbers.
        numbers: one per column; ``None`` leaves the cell empty.
        facts: setting, method and source, which identify the row among the rows of all tables.
    """

    labels: tuple[str, ...]
    numbers: tuple[Number | None, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Section:
    """Consecutive rows under a heading, which may be empty."""

    heading: str
    rows: Sequence[Row]


@dataclass(frozen=True)
class Table:
    """A table of numbers.

    Attributes:
        title: suite, backbone and setting.
        caption: what the numbers mean.
        labels: headings of the texts.
        columns: names of the numbers.
        sections: the rows.
        ranked: whether the marks are best and second best; else the caption tells their meaning.
        tasks: those of the columns that are single tasks; a narrow terminal shows the worst alone.
        extras: labels and further columns that a narrow terminal leaves out before.
    """

    title: str
    caption: str
    labels: tuple[str, ...]
    columns: tuple[str, ...]
    sections: Sequence[Section]
    ranked: bool = True
    tasks: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()

    @property
    def headings(self) -> list[str]:
        """Headings of the numbers: underscores become blanks, unless two would become equal."""
        return _distinct([name.replace("_", " ") for name in self.columns], self.columns)

    @property
    def label_headings(self) -> list[str]:
        """Headings of the texts: keys of the config in words, unless two would become equal."""
        return _distinct(list(map(key_words, self.labels)), self.labels)

    @property
    def rows(self) -> list[Row]:
        """Rows of all sections."""
        return [row for section in self.sections for row in section.rows]

    def without_empty_columns(self) -> Table:
        """The table without the columns in which no row has a number."""
        places = [
            place
            for place in range(len(self.columns))
            if any(row.numbers[place] is not None for row in self.rows)
        ]
        return self.narrowed(range(len(self.labels)), places)

    def folded(self) -> Table:
        """The table with a label that tells the worst task, in place of all tasks."""
        tasks = [place for place, name in enumerate(self.columns) if name in self.tasks]

        def worst_of(row: Row) -> str:
            numbers = [(number.mean, place) for place in tasks if (number := row.numbers[place])]
            if not numbers:
                return ""
            place = min(numbers)[1]
            return f"{self.headings[place]} {row.numbers[place].text}"  # type: ignore[union-attr]

        sections = [
            replace(
                section,
                rows=[replace(row, labels=(*row.labels, worst_of(row))) for row in section.rows],
            )
            for section in self.sections
        ]
        table = replace(self, labels=(*self.labels, "worst task"), sections=sections)
        return table.without(self.tasks)

    def without(self, names: Container[str]) -> Table:
        """The table without these labels and columns."""
        return self.narrowed(
            [place for place, name in enumerate(self.labels) if name not in names],
            [place for place, name in enumerate(self.columns) if name not in names],
        )

    def narrowed(self, labels: Sequence[int], columns: Sequence[int]) -> Table:
        """The table with the labels and columns of these places alone."""

        def row(whole: Row) -> Row:
            return replace(
                whole,
                labels=tuple(whole.labels[place] for place in labels),
                numbers=tuple(whole.numbers[place] for place in columns),
            )

        return replace(
            self,
            labels=tuple(self.labels[place] for place in labels),
            columns=tuple(self.columns[place] for place in columns),
            sections=[
                Section(section.heading, list(map(row, section.rows))) for section in self.sections
            ],
        )


def _distinct(words: Sequence[str], names: Sequence[str]) -> list[str]:
    """The words, or the name where two would have the same."""
    return [
        word if words.count(word) == 1 else name for word, name in zip(words, names, strict=True)
    ]


def numbers_over_repetitions(
    cells: Sequence[Mapping[Repetition, float | None]], unit: Unit = PERCENT
) -> tuple[Number | None, ...]:
    """One number per column of a row; if repetitions differ in any column, all have a deviation.

    Args:
        cells: for each column the numbers as the results have them; ``None`` if a repetition has
            none.
        unit: of all columns.
    """
    known = [
        {each: unit.factor * value for each, value in cell.items() if value is not None}
        for cell in cells
    ]
    varies = any(len(set(values.values())) > 1 for values in known)

    def number(values: Mapping[Repetition, float]) -> Number | None:
        if not values:
            return None
        mean, std, seeds = spread(values)
        return Number(mean, std if varies else None, seeds, unit=unit)

    return tuple(number(values) for values in known)


def deviation_caption(rows: Iterable[Row]) -> str:
    """What ± is over in these rows, and what its lack says; empty if nothing was repeated."""
    ours = [[number for number in row.numbers if number and number.seeds] for row in rows]
    if all(sum(number.seeds) == 1 for numbers in ours for number in numbers):
        return ""
    varied = [number.seeds for numbers in ours for number in numbers if number.std is not None]
    of_zoos = [seeds for seeds in varied if len(seeds) > 1]
    of_seeds = [seeds[0] for seeds in varied if len(seeds) == 1]
    over = []
    if of_zoos:
        counts = {count for seeds in of_zoos for count in seeds}
        each = "one seed" if counts == {1} else f"the mean of {span(counts)} seeds"
        zoos = f"{span(map(len, of_zoos))} zoos (sets of experts of different seeds)"
        over.append(f"over {zoos}, each {each} of the merging step")
    if of_seeds:
        seeds = f"over {span(of_seeds)} seeds of the merging step"
        over.append(f"in rows of one zoo {seeds}" if of_zoos else seeds)
    parts = [f"± sample standard deviation {', '.join(over)}"] if over else []
    if any(numbers and all(number.std is None for number in numbers) for numbers in ours):
        lone = "one zoo and seed" if of_zoos else "one seed"
        parts.append(f"a row without ± ran with {lone} or draws nothing at random")
    return "; ".join(parts)


def with_places(rows: Sequence[Row], contests: Sequence[Hashable] | None = None) -> list[Row]:
    """The rows with the best and the second best number of each column marked.

    Means are compared as they are printed, so that equal prints share a place. The only number of
    a column is not marked, and of two only the best.

    Args:
        rows: of a table.
        contests: for each row what it shares with its rivals, ``None`` if it has none; by default
            all are rivals.
    """
    contests = [True] * len(rows) if contests is None else contests
    ranked = list(rows)
    for contest in {each for each in contests if each is not None}:
        places = [place for place, own in enumerate(contests) if own == contest]
        columns = zip(*(rows[place].numbers for place in places), strict=True)
        marked = zip(*map(_places, columns), strict=True)
        for place, numbers in zip(places, marked, strict=True):
            ranked[place] = replace(rows[place], numbers=numbers)
    return ranked


def _places(column: Sequence[Number | None]) -> list[Number | None]:
    means = [round(number.mean, 1) for number in column if number is not None]
    ranking = sorted(set(means), reverse=True)
    marked = {}
    if len(means) > 1:
        marked[ranking[0]] = BEST
    if len(means) > 2 and len(ranking) > 1 and means.count(ranking[0]) == 1:
        marked[ranking[1]] = SECOND
    return [
        None if number is None else replace(number, place=marked.get(round(number.mean, 1), 0))
        for number in column
    ]
