"""Published numbers for the tasks of a run, as rows below ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from statsmerging.report.tables.content import Number, Row
from statsmerging.runs.published import (
    PublishedRow,
    published_ablation,
    published_rows,
    published_tasks,
)
from statsmerging.runs.results import RunResults, method_title

#: Name of no corruption.
CLEAN = "none"


def published_for(results: RunResults, facts: Mapping[str, Any]) -> list[PublishedRow]:
    """What was published for the same tasks and checkpoints on clean images."""
    if results.corruption not in ("", CLEAN):
        return []
    family, backbone = str(facts.get("checkpoints")), results.backbone
    row = next(iter(results.methods.values()))
    seen, unseen = set(row.accuracy), set(row.unseen.accuracy)
    if seen | unseen == published_tasks():
        return published_rows(family, backbone, unseen)
    labels = published_ablation(family, backbone, "labels")
    return [other for other in labels if other.accuracy.keys() == seen and not unseen]


def published_table_rows(
    results: RunResults,
    published: Sequence[PublishedRow],
    headings: Sequence[str],
    facts: Mapping[str, Any],
) -> list[Row]:
    """Published rows as rows of our table, with averages of their cells; never ranked."""
    first = next(iter(results.methods.values()))
    seen, unseen = list(first.accuracy), list(first.unseen.accuracy)
    family = facts["checkpoints"]
    # Sources do not agree on the individual models, so each is normalised by its own.
    individual = {row.source: row.accuracy for row in published if row.method == "individual"}
    rows = []
    for row in published:
        cells = {task: row.accuracy[task] for task in seen if task in row.accuracy}
        cells |= {f"unseen: {task}": row.accuracy[task] for task in unseen if task in row.accuracy}
        average = row.mean(seen)
        if average is not None:
            cells["average"] = average
        bound = individual.get(row.source, individual.get(family, {}))
        if cells.keys() & bound.keys() >= set(seen):
            cells["normalised"] = fmean(100 * cells[task] / bound[task] for task in seen)
        # A row of another source is named with it: the family's own may have the same method.
        title, method = f"{method_title(row.method)}, published", row.method
        if row.source != family:
            title, method = f"{title} by {row.source}", f"{method}, {row.source}"
        numbers = [Number(cells[name], seeds=()) if name in cells else None for name in headings]
        identity = {**facts, "method": method, "source": "published"}
        rows.append(Row((title, ""), tuple(numbers), identity))
    return rows
