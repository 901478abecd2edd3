"""The table of one method beside all others: accuracy, its lead with an interval, and cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from statsmerging.report.costs import BACKWARD, FORWARD, IMAGES, PARAMETERS, TOTAL, costed_rows
from statsmerging.report.pairs import PairedMethods
from statsmerging.report.repetitions import rows_by_method
from statsmerging.report.significance import DRAWS, LEVEL
from statsmerging.report.tables.accuracy import (
    AGREEMENT,
    AVERAGE,
    NEEDS,
    ORACLE,
    ORACLE_IS,
    method_numbers,
    sections_of,
)
from statsmerging.report.tables.content import BEST, Number, Row, Section, Table, deviation_caption
from statsmerging.report.tables.cost import cached_caption, cost_number
from statsmerging.report.tables.pairs import ComparedSetting, what_varies
from statsmerging.runs.results import BOUNDS, method_title

SHARES = (AVERAGE, AGREEMENT, ORACLE)
COSTS = (IMAGES, FORWARD, BACKWARD, PARAMETERS, TOTAL)

CAPTION = (
    "average: top-1 accuracy over the tasks, %; bold: not significantly below the best static "
    "model, or the best that is not static; lead: of {title} over the row, in points, with the "
    "{level:.0%} interval of a paired bootstrap ({draws:,} draws); what varies: {varies}; "
    "agreement: with the teachers, on unlabeled images; images: learning images, as often as they "
    "are seen; passes: of a backbone, in images; total: seconds of all but the bank of task "
    "vectors and the scoring"
)


def beside_table(setting: ComparedSetting, method: str) -> Table:
    """A method and its tuned row, which leads or not, and below them all others, best first.

    Args:
        setting: its methods, paired on the same test images.
        method: one of them.
    """
    methods = setting.methods
    own = [name for name in (method, f"{method}_tuned") if name in methods.rows]
    leading = own[-1]
    sections = [Section("This method", _rows(setting, own, leading))]
    for heading, names in sections_of(methods.rows):
        others = [name for name in names if name not in own]
        bounds = names[0] in BOUNDS
        if not bounds:
            others.sort(key=methods.average, reverse=True)
        heading = heading or ("Bounds" if bounds else "Others")
        sections.append(Section(heading, _rows(setting, others, leading)))
    rows = [row for section in sections for row in section.rows]
    title = _title(methods, leading)
    parts = [
        CAPTION.format(title=title, level=LEVEL, draws=DRAWS, varies=what_varies(methods)),
        *cached_caption(
            each for costed in costed_rows(setting.group).values() for each in costed.values()
        ),
        deviation_caption(rows),
        ORACLE_IS if any(row.numbers[3] is not None for row in rows) else "",
    ]
    columns = ("average", "lead", *(each.heading for each in (*SHARES[1:], *COSTS)))
    return Table(
        title=" · ".join([f"{title} beside others", setting.title, *setting.group.stamps]),
        caption="; ".join(filter(None, parts)),
        labels=("method", "needs"),
        columns=columns,
        sections=[section for section in sections if section.rows],
        ranked=False,
    ).without_empty_columns()


def _rows(setting: ComparedSetting, names: Sequence[str], leading: str) -> list[Row]:
    methods, group = setting.methods, setting.group
    level = {
        name
        for _, rivals in sections_of(methods.rows)
        if rivals[0] not in BOUNDS and len(rivals) > 1
        for name in methods.level(rivals)
    }
    shares, costs = rows_by_method(group.repeated), costed_rows(group)
    rows = []
    for name in names:
        average, *others = method_numbers(shares[name], SHARES)
        if average is not None and name in level:
            average = replace(average, place=BEST)
        spent = [cost_number(costs[name], each) if name in costs else None for each in COSTS]
        needs = methods.rows[name].needs
        labels = (_title(methods, name), NEEDS.get(needs, str(needs)))
        rows.append(Row(labels, (average, _lead(methods, leading, name), *others, *spent)))
    return rows


def _lead(methods: PairedMethods, leading: str, name: str) -> Number | None:
    """How far one method is above another; ``None`` of itself, and without common experts."""
    pair = methods.pair(leading, name) if name != leading else None
    if pair is None:
        return None
    low, high = pair.interval
    return Number(100 * pair.difference, interval=(100 * low, 100 * high))


def _title(methods: PairedMethods, name: str) -> str:
    return method_title(name, methods.rows[name].title)
