"""Small tables about methods: one per suite and backbone, with a section per setting."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby

from statsmerging.report.groups import RunGroup
from statsmerging.report.tables.content import Row, Section, deviation_caption


def sections_by_problem(
    groups: Sequence[RunGroup], rows_of: Callable[[RunGroup], Iterable[Row]]
) -> Iterator[tuple[str, list[RunGroup], list[Section]]]:
    """Suite and backbone, its groups, and a section for each group that has rows.

    The only group of a suite and backbone has no heading.
    """
    for problem, members in groupby(groups, key=lambda group: group.problem):
        of_groups = [(group, list(rows_of(group))) for group in members]
        sections = [
            Section(", ".join(group.setting) if len(of_groups) > 1 else "", rows)
            for group, rows in of_groups
            if rows
        ]
        if sections:
            yield problem, [group for group, _ in of_groups], sections


def with_deviations(caption: str, sections: Iterable[Section]) -> str:
    """The caption, and what ± is over in these sections."""
    deviations = deviation_caption(row for section in sections for row in section.rows)
    return "; ".join(filter(None, [caption, deviations]))
