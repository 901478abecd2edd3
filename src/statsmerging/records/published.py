"""Published accuracies of the same checkpoints, and where ours are off."""

from __future__ import annotations

import csv
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib.resources import files

#: A cell that is further away than this many percentage points is pointed out.
TOLERANCE = 1.0

#: Where the numbers of a checkpoint family stand; published.csv has the exceptions.
SOURCES = {
    "fusion_bench": "tanganke/fusion_bench, docs/modelpool/clip_vit.md",
    "task_vectors": "nathanielyvo/WUDI-Merging, README",
}


@dataclass(frozen=True)
class Difference:
    """A cell that is not what was published.

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


def published_rows(
    zoo: str, backbone: str, tasks: Collection[str] | None = None
) -> dict[str, dict[str, float]]:
    """Method → task → top-1 accuracy in percent, as published for these checkpoints.

    Args:
        zoo: the checkpoint family; two families never share a table.
        backbone: label of the backbone, e.g. ``vit_b_32``.
        tasks: that were merged; a merge of others is another problem. ``None`` does not ask.

    Returns:
        No rows where nothing was published for this combination.
    """
    text = (files("statsmerging.records") / "published.csv").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    rows: dict[str, dict[str, float]] = {}
    for row in csv.DictReader(lines):
        if (row.pop("zoo"), row.pop("backbone")) == (zoo, backbone):
            method = row.pop("method")
            if tasks is not None and set(tasks) != row.keys() - {"average"}:
                return {}
            rows[method] = {task: float(value) for task, value in row.items() if value}
    return rows


def differences(
    ours: Mapping[str, Mapping[str, float]], published: Mapping[str, Mapping[str, float]]
) -> list[Difference]:
    """All cells of both tables that are more than a point apart.

    Args:
        ours: method → task → accuracy as a fraction.
        published: method → task → accuracy in percent.
    """
    return [
        Difference(method, task, 100 * accuracy, published[method][task])
        for method, row in ours.items()
        for task, accuracy in row.items()
        if task in published.get(method, {})
        and abs(100 * accuracy - published[method][task]) > TOLERANCE
    ]
