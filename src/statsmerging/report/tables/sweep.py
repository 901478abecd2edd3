"""Tables of sweeps: one row per setting and method, so that an ablation can be read off."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from statsmerging.report.rows import BOUNDS, Results, method_title, percentage, rows_by_method
from statsmerging.report.runs import RunGroup
from statsmerging.report.settings import QUESTION, concerns, problem_of, setting_text
from statsmerging.report.tables.accuracy import Column, caption, group_facts, sections_of
from statsmerging.report.tables.content import (
    Row,
    Section,
    Table,
    numbers_over_seeds,
    with_places,
)

#: Columns of a sweep; those that no run has numbers for are left out.
COLUMNS: tuple[Column, ...] = (
    ("average", ("average",)),
    ("normalised", ("normalised_average",)),
    ("agreement", ("teacher_agreement",)),
    ("unseen average", ("unseen", "average")),
)


@dataclass(frozen=True)
class _Entry:
    """A row with what it is judged among.

    Attributes:
        method: its name.
        result: its row of ``results.json`` with one of the seeds.
        problem: images and experts, equal among rivals.
        row: with all text columns and all columns.
    """

    method: str
    result: Results
    problem: Hashable
    row: Row


def sweep_tables(groups: Sequence[RunGroup]) -> list[Table]:
    """One table for each suite, backbone and family of experts with several settings.

    Text columns are the keys in which the settings differ, the method if there are several, and
    the number of seeds if it is not the same everywhere. A method that scores the same in all
    settings has one row without a setting. The best is the best on its images and experts.
    """
    ordered = sorted(groups, key=_question)
    families = [list(members) for _, members in groupby(ordered, key=_question)]
    return [_table(family) for family in families if len(family) > 1]


def _question(group: RunGroup) -> tuple[str, ...]:
    # Experts of another family are others, although they are fine-tuned on the same images.
    return tuple(str(group.settings.get(key)) for key in (*QUESTION, "zoo.kind"))


def _table(groups: Sequence[RunGroup]) -> Table:
    # Which methods a run had is told by its rows.
    keys = [key for key in _keys(groups) if key != "method"]
    groups = sorted(groups, key=lambda group: [_order(group.differences.get(key)) for key in keys])
    entries = [entry for group in groups for entry in _entries(group, keys)]
    entries = list(_without_repetition(entries, len(groups), len(keys)))
    results = {entry.method: entry.result for entry in entries}
    sections = [
        Section(heading, _ranked([entry for entry in entries if entry.method in names]))
        for heading, names in sections_of(results)
    ]
    runs = [run for group in groups for run in group.runs]
    return _without_empty_columns(
        Table(
            title=" · ".join([runs[0]["suite"], runs[0]["backbone"], *_stamps(groups)]),
            caption=caption(runs, groups[0].config.get("zoo", {}).get("kind")),
            labels=(*keys, "method", "seeds"),
            columns=tuple(heading for heading, _ in COLUMNS),
            sections=sections,
        )
    )


def _stamps(groups: Sequence[RunGroup]) -> list[str]:
    """Of all settings; one that only some of them bear tells which, where a word does."""
    bearers: dict[str, list[RunGroup]] = {}
    for group in groups:
        for stamp in group.stamps:
            bearers.setdefault(stamp, []).append(group)
    return [
        stamp if len(bearing) == len(groups) else f"{stamp} ({_which(bearing, groups)})"
        for stamp, bearing in bearers.items()
    ]


def _which(bearing: Sequence[RunGroup], groups: Sequence[RunGroup]) -> str:
    """``labels.kind=ground_truth`` if that tells just these settings, else their number."""
    others = [group for group in groups if group not in bearing]
    for item in bearing[0].setting:
        shared = all(item in group.setting for group in bearing)
        if shared and not any(item in group.setting for group in others):
            return item
    return f"{len(bearing)} of {len(groups)} settings"


def _keys(groups: Sequence[RunGroup]) -> list[str]:
    """Those in which the settings of this table differ, not only those of all."""
    keys = dict.fromkeys(key for group in groups for key in group.differences)
    return [key for key in keys if len({_text(group, key) for group in groups}) > 1]


def _order(value: Any) -> tuple[bool, float, str]:
    """Numbers by size, before texts."""
    is_number = isinstance(value, int | float)
    return (not is_number, float(value) if is_number else 0.0, str(value))


def _entries(group: RunGroup, keys: Sequence[str]) -> Iterator[_Entry]:
    problem = problem_of(group.settings, group.stamps)
    for method, by_seed in rows_by_method(group.runs).items():
        rows = list(by_seed.values())
        texts = [_text(group, key) if concerns(key, method) else "" for key in keys]
        cells = [[percentage(row, path) for row in rows] for _, path in COLUMNS]
        labels = (*texts, method_title(method, rows[0]), str(len(rows)))
        facts = {**group_facts(group), "method": method, "source": "ours"}
        yield _Entry(method, rows[0], problem, Row(labels, numbers_over_seeds(cells), facts))


def _text(group: RunGroup, key: str) -> str:
    return setting_text(group.differences[key]) if key in group.differences else ""


def _without_repetition(entries: Sequence[_Entry], settings: int, keys: int) -> Iterator[_Entry]:
    """One entry where several say the same.

    A bound has one for all settings with its images and experts; a method that scores the same in
    all settings has one without a setting.
    """
    for entry in entries:
        twins = [other for other in entries if other.method == entry.method]
        alike = [twin for twin in twins if twin.row.labels[:-1] == entry.row.labels[:-1]]
        everywhere = len(twins) >= settings and len({_printed(twin.row) for twin in twins}) == 1
        if everywhere and entry is twins[0]:
            row = _most_seeds(twins)
            facts = {
                key: value
                for key, value in row.facts.items()
                if all(twin.row.facts.get(key) == value for twin in twins)
            }
            labels = ("",) * keys + row.labels[keys:]
            yield replace(entry, row=Row(labels, row.numbers, facts))
        elif not everywhere and entry is alike[0]:
            yield replace(entry, row=_most_seeds(alike))


def _most_seeds(twins: Sequence[_Entry]) -> Row:
    return max((twin.row for twin in twins), key=lambda row: int(row.labels[-1]))


def _printed(row: Row) -> tuple[str, ...]:
    return tuple("" if number is None else number.text for number in row.numbers)


def _ranked(entries: Sequence[_Entry]) -> list[Row]:
    """Rows in their order, places given among merged models of the same problem."""
    places: dict[int, Row] = {}
    for problem in {entry.problem for entry in entries}:
        rivals = [
            number
            for number, entry in enumerate(entries)
            if entry.problem == problem and entry.method not in BOUNDS
        ]
        places |= dict(zip(rivals, with_places([entries[n].row for n in rivals]), strict=True))
    return [places.get(number, entry.row) for number, entry in enumerate(entries)]


def _without_empty_columns(table: Table) -> Table:
    """Leave out keys without a value, columns without a number, and equal numbers of seeds."""
    rows = table.rows
    texts = [
        place
        for place, heading in enumerate(table.labels)
        if any(row.labels[place] for row in rows)
        and (heading != "seeds" or len({row.labels[place] for row in rows}) > 1)
    ]
    numbers = [
        place for place in range(len(table.columns)) if any(row.numbers[place] for row in rows)
    ]

    def narrowed(row: Row) -> Row:
        labels = tuple(row.labels[place] for place in texts)
        return replace(row, labels=labels, numbers=tuple(row.numbers[place] for place in numbers))

    return replace(
        table,
        labels=tuple(table.labels[place] for place in texts),
        columns=tuple(table.columns[place] for place in numbers),
        sections=[
            Section(section.heading, [narrowed(row) for row in section.rows])
            for section in table.sections
        ],
    )
