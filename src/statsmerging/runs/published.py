"""Published accuracies of the same checkpoints, and the cells in which ours deviate."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

#: Percentage points from which on a deviation is reported.
TOLERANCE = 1.0

#: Source of the numbers of a checkpoint family; published.csv has the exceptions.
SOURCES = {
    "fusion_bench": "tanganke/fusion_bench, docs/modelpool/clip_vit.md",
    "task_vectors": "nathanielyvo/WUDI-Merging, README",
}


@dataclass(frozen=True)
class Deviation:
    """A cell whose accuracy is not the published one.

    Attributes:
        method: row of the table.
        task: column of the table.
        ours: top-1 accuracy in percent.
        published: top-1 accuracy in percent.
    """

    method: str
    task: str
    ours: float
    published: float

    def __str__(self) -> str:
        return (
            f"{self.method} on {self.task}: {self.ours:.1f}, published {self.published:.1f} "
            f"({self.ours - self.published:+.1f})"
        )


def published_tasks() -> frozenset[str]:
    """The eight tasks of all published tables; a merge of other tasks is not comparable."""
    return frozenset(next(csv.reader(_lines("published.csv")))) - {
        "zoo",
        "backbone",
        "method",
        "average",
    }


def published_rows(zoo: str, backbone: str) -> dict[str, dict[str, float]]:
    """Method → task → top-1 accuracy in percent, as published for these checkpoints.

    Args:
        zoo: the checkpoint family; two families never share a table.
        backbone: label of the backbone, e.g. ``vit_b_32``.

    Returns:
        No rows where nothing was published for this pair.
    """
    rows: dict[str, dict[str, float]] = {}
    for row in _table("published.csv", zoo, backbone):
        method = row.pop("method")
        rows[method] = {task: float(value) for task, value in row.items() if value}
    return rows


def published_unseen(
    zoo: str, backbone: str, unseen: Sequence[str]
) -> dict[str, tuple[float, dict[str, float]]]:
    """Method → average over the seen tasks, and unseen task → accuracy, both in percent.

    Args:
        zoo: the checkpoint family.
        backbone: label of the backbone.
        unseen: those of the eight tasks that were not merged; the other six were.
    """
    rows = {}
    for row in _table("published_unseen.csv", zoo, backbone):
        tasks = row["unseen"].split()
        if set(tasks) == set(unseen):
            accuracies = dict(zip(tasks, (float(row["first"]), float(row["second"])), strict=True))
            rows[row["method"]] = (float(row["average"]), accuracies)
    return rows


def _table(name: str, zoo: str, backbone: str) -> Iterator[dict[str, str]]:
    """Lines of a checkpoint family and a backbone."""
    for row in csv.DictReader(_lines(name)):
        if (row.pop("zoo"), row.pop("backbone")) == (zoo, backbone):
            yield row


def _lines(name: str) -> Iterator[str]:
    text = (files("statsmerging.runs") / name).read_text(encoding="utf-8")
    return (line for line in text.splitlines() if not line.startswith("#"))


def deviations(
    ours: Mapping[str, Mapping[str, float]], published: Mapping[str, Mapping[str, float]]
) -> list[Deviation]:
    """All cells of both tables that are more than a point apart.

    Args:
        ours: method → task → accuracy as a fraction.
        published: method → task → accuracy in percent.
    """
    return [
        Deviation(method, task, 100 * accuracy, published[method][task])
        for method, row in ours.items()
        for task, accuracy in row.items()
        if task in published.get(method, {})
        and abs(100 * accuracy - published[method][task]) > TOLERANCE
    ]
