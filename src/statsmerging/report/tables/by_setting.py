"""Tables of sweeps: one row per setting and method, for ablations."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence, Set
from dataclasses import dataclass, replace
from itertools import groupby

from statsmerging.report.groups import (
    QUESTION,
    RunGroup,
    concerns,
    problem_of,
    setting_text,
)
from statsmerging.report.repetitions import Repetition, rows_by_method, seeds_by_zoo, span
from statsmerging.report.tables.accuracy import (
    AGREEMENT,
    AVERAGE,
    NORMALISED,
    ORACLE,
    UNSEEN_AVERAGE,
    caption,
    group_facts,
    method_numbers,
    row_facts,
    sections_of,
)
from statsmerging.report.tables.content import (
    Row,
    Section,
    Table,
    with_places,
)
from statsmerging.runs.results import BOUNDS, MethodRow, method_title

#: Columns of a sweep; columns without any number are left out.
COLUMNS = (AVERAGE, NORMALISED, AGREEMENT, ORACLE, UNSEEN_AVERAGE)

#: The last labels: the number of zoos, and of seeds of each.
REPEATED = ("zoos", "seeds")


@dataclass(frozen=True)
class _Candidate:
    """A method in one setting.

    Attributes:
        method: its name.
        result: its row of the results in one of the repetitions.
        repetitions: its zoos and seeds.
        problem: images, experts, zoos and stamps; equal among rows that are ranked together.
        row: the row of the table, with all labels and columns.
    """

    method: str
    result: MethodRow
    repetitions: Set[Repetition]
    problem: Hashable
    row: Row


def sweep_tables(groups: Sequence[RunGroup]) -> list[Table]:
    """One table for each suite, backbone and family of experts with several settings.

    The labels of a row are the keys in which the settings differ, the method, and the numbers of
    zoos and of seeds of a zoo if they vary. A method that scores the same in all settings has one
    row without a setting. Best and second best are marked among rows with equal images, experts and
    stamps.
    """

    def question(group: RunGroup) -> tuple[str, ...]:
        # Two families of experts differ even if they were fine-tuned on the same images.
        return tuple(str(group.settings.get(key)) for key in (*QUESTION, "zoo.kind"))

    families = [list(members) for _, members in groupby(sorted(groups, key=question), key=question)]
    return [_table(family) for family in families if len(family) > 1]


def _table(groups: Sequence[RunGroup]) -> Table:
    # Only keys that differ within this family; the rows name the methods.
    keys = dict.fromkeys(key for group in groups for key in group.differences if key != "method")
    varied = [key for key in keys if len({_text(group, key) for group in groups}) > 1]

    def by_values(group: RunGroup) -> list[tuple[bool, float, str]]:
        """Numbers by size, before texts."""
        values = [group.differences.get(key) for key in varied]
        sizes = [float(v) if isinstance(v, int | float) else None for v in values]
        return [(s is None, s or 0.0, str(v)) for s, v in zip(sizes, values, strict=True)]

    groups = sorted(groups, key=by_values)
    candidates = [candidate for group in groups for candidate in _candidates(group, varied)]
    candidates = list(_without_repetition(candidates, len(groups), len(varied)))
    results = {candidate.method: candidate.result for candidate in candidates}
    sections = []
    for heading, names in sections_of(results):
        found = [each for each in candidates if each.method in names]
        contests = [None if each.method in BOUNDS else each.problem for each in found]
        sections.append(Section(heading, with_places([each.row for each in found], contests)))
    runs = [run for group in groups for run in group.results]
    return _without_empty_columns(
        Table(
            title=" · ".join([runs[0].suite, runs[0].backbone, *_stamps(groups)]),
            caption=caption(runs, sections, groups[0].config.get("zoo", {}).get("kind")),
            labels=(*varied, "method", *REPEATED),
            columns=tuple(column.heading for column in COLUMNS),
            sections=sections,
        )
    )


def _stamps(groups: Sequence[RunGroup]) -> list[str]:
    """Stamps of all settings; if only some settings have a stamp, they are named or counted.

    They are named by the difference that all of them share and no other setting has, for example
    ``labels.kind=ground_truth``.
    """
    texts = []
    for stamp in dict.fromkeys(stamp for group in groups for stamp in group.stamps):
        having = [group for group in groups if stamp in group.stamps]
        lacking = [group for group in groups if stamp not in group.stamps]
        names = [
            item
            for item in having[0].setting
            if all(item in group.setting for group in having)
            and not any(item in group.setting for group in lacking)
        ]
        which = names[0] if names else f"{len(having)} of {len(groups)} settings"
        texts.append(f"{stamp} ({which})" if lacking else stamp)
    return texts


def _candidates(group: RunGroup, keys: Sequence[str]) -> Iterator[_Candidate]:
    images_and_stamps = problem_of(group.settings, group.stamps)
    for method, rows in rows_by_method(group.repeated).items():
        first = next(iter(rows.values()))
        seeds = seeds_by_zoo(rows)
        texts = [_text(group, key) if concerns(key, method) else "" for key in keys]
        title = method_title(method, first.title)
        labels = (*texts, title, str(len(seeds)), span(seeds.values()))
        facts = row_facts(group_facts(group), method, first, group.differences)
        row = Row(labels, method_numbers(rows, COLUMNS), facts)
        yield _Candidate(method, first, rows.keys(), (*images_and_stamps, *seeds), row)


def _text(group: RunGroup, key: str) -> str:
    return setting_text(group.differences[key]) if key in group.differences else ""


def _without_repetition(
    candidates: Sequence[_Candidate], settings: int, keys: int
) -> Iterator[_Candidate]:
    """Replace candidates with equal labels, or with equal numbers in all settings, by one.

    The one with the most zoos and seeds stays; if all settings have the same numbers, without a
    setting.
    """

    def printed(row: Row) -> tuple[str, ...]:
        return tuple("" if number is None else number.text for number in row.numbers)

    def times(candidate: _Candidate) -> tuple[int, int]:
        """Number of its zoos, and of all repetitions."""
        return len(seeds_by_zoo(candidate.repetitions)), len(candidate.repetitions)

    def told(candidate: _Candidate) -> tuple[str, ...]:
        return candidate.row.labels[: -len(REPEATED)]

    for candidate in candidates:
        twins = [other for other in candidates if other.method == candidate.method]
        alike = [twin for twin in twins if told(twin) == told(candidate)]
        everywhere = len(twins) >= settings and len({printed(twin.row) for twin in twins}) == 1
        if everywhere and candidate is twins[0]:
            most = max(twins, key=times)
            row = most.row
            facts = {
                key: value
                for key, value in row.facts.items()
                if all(twin.row.facts.get(key) == value for twin in twins)
            }
            labels = ("",) * keys + row.labels[keys:]
            yield replace(most, row=Row(labels, row.numbers, facts))
        elif not everywhere and candidate is alike[0]:
            yield max(alike, key=times)


def _without_empty_columns(table: Table) -> Table:
    """The table without labels that are empty or equally often repeated in all rows, and gaps."""
    rows = table.rows
    texts = [
        place
        for place, heading in enumerate(table.labels)
        if any(row.labels[place] for row in rows)
        and (heading not in REPEATED or len({row.labels[place] for row in rows}) > 1)
    ]
    return table.narrowed(texts, range(len(table.columns))).without_empty_columns()
