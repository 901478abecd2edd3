"""Published accuracies of the same checkpoints, and the cells in which ours deviate."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from statistics import fmean
from typing import Literal

#: Percentage points from which on a deviation is reported.
TOLERANCE = 1.0

#: Where the numbers stand: those of a checkpoint family, and of rows that name another source.
SOURCES = {
    "fusion_bench": "tanganke/fusion_bench, docs/modelpool/clip_vit.md",
    "task_vectors": "nathanielyvo/WUDI-Merging, README",
    "StatsMerging v1": "StatsMerging v1, the NeurIPS 2025 submission and first arXiv version",
    "StatsMerging v2": "StatsMerging v2, the later arXiv and ICLR 2026 text, whose StatsMerging++ "
    "learns from more validation data",
    "StatsMerging": "StatsMerging, a table whose version is not recorded",
}

#: Tables of the StatsMerging paper that vary one choice.
Ablation = Literal["labels", "statistics", "heterogeneous"]

#: Columns of published.csv and published_unseen.csv that are no task.
NO_TASKS = ("zoo", "backbone", "source", "unseen", "method", "average")


@dataclass(frozen=True)
class PublishedRow:
    """A row of a published table.

    Attributes:
        method: as in its table; bounds have our names for them.
        source: a key of ``SOURCES``.
        accuracy: column, mostly a task → percent; empty where only an average is known.
        average: over the merged tasks in percent, as printed, which some rows' own cells
            contradict; ``None`` where none is.
    """

    method: str
    source: str
    accuracy: Mapping[str, float]
    average: float | None

    def mean(self, tasks: Collection[str]) -> float | None:
        """Over these tasks' cells; the printed average where a cell is missing."""
        if any(task not in self.accuracy for task in tasks):
            return self.average
        return fmean(self.accuracy[task] for task in tasks)


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
    return frozenset(next(csv.reader(_lines("published.csv")))) - set(NO_TASKS)


def published_rows(zoo: str, backbone: str, unseen: Collection[str] = ()) -> list[PublishedRow]:
    """What was published for these checkpoints.

    Args:
        zoo: the checkpoint family; two families never share a table.
        backbone: label of the backbone, e.g. ``vit_b_32``.
        unseen: those of the eight tasks that were not merged; the others were.

    Returns:
        No rows where nothing was published for them.
    """
    return [
        PublishedRow(
            method=line["method"],
            source=line["source"] or zoo,
            accuracy={
                task: float(cell) for task, cell in line.items() if cell and task not in NO_TASKS
            },
            average=float(line["average"]),
        )
        for line in _table("published_unseen.csv" if unseen else "published.csv", zoo, backbone)
        if set(line.get("unseen", "").split()) == set(unseen)
    ]


def published_ablation(zoo: str, backbone: str, table: Ablation) -> list[PublishedRow]:
    """A table of the StatsMerging paper that varies labels, statistics or architectures.

    Columns of ``statistics`` are two settings, those of the others tasks.
    """
    rows: dict[tuple[str, str], dict[str, float]] = {}
    for line in _table("published_ablations.csv", zoo, backbone):
        if line["table"] == table:
            cells = rows.setdefault((line["method"], line["source"]), {})
            cells[line["column"]] = float(line["accuracy"])
    return [
        PublishedRow(method, source, cells, cells.pop("average", None))
        for (method, source), cells in rows.items()
    ]


def deviations(
    ours: Mapping[str, Mapping[str, float]], published: Sequence[PublishedRow]
) -> list[Deviation]:
    """All cells that are more than a point from every number published for them.

    Sources disagree by more than that on one individual model, so any of them will do; the nearest
    is named.

    Args:
        ours: method → task → accuracy as a fraction.
        published: rows for the same checkpoints.
    """
    found = []
    for method, row in ours.items():
        same = [other.accuracy for other in published if other.method == method]
        for task, accuracy in row.items():
            cells = [cells[task] for cells in same if task in cells]
            if cells:
                nearest = min(cells, key=lambda cell: abs(100 * accuracy - cell))
                if abs(100 * accuracy - nearest) > TOLERANCE:
                    found.append(Deviation(method, task, 100 * accuracy, nearest))
    return found


def _table(name: str, zoo: str, backbone: str) -> Iterator[dict[str, str]]:
    """Lines of a checkpoint family and a backbone."""
    for row in csv.DictReader(_lines(name)):
        if (row["zoo"], row["backbone"]) == (zoo, backbone):
            yield row


def _lines(name: str) -> Iterator[str]:
    text = (files("statsmerging.runs") / name).read_text(encoding="utf-8")
    return (line for line in text.splitlines() if not line.startswith("#"))
