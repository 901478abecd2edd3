"""The figures that a folder of runs gives; a figure is made only if its data exist."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from statsmerging.report import frames, series
from statsmerging.report.costs import accuracies_and_costs
from statsmerging.report.frames import split
from statsmerging.report.groups import RunGroup
from statsmerging.report.ranks import average_ranks

Kind = Literal[
    "dots",
    "ranks",
    "cost",
    "severity",
    "tasks",
    "images",
    "heatmap",
    "depth",
    "directions",
    "positions",
    "learning_curves",
    "statistics",
    "cosines",
]

#: Most settings of a folder whose single settings have figures of their own.
DETAILED = 6

#: Fewest settings that one figure compares.
COMPARED = 3


@dataclass(frozen=True)
class Drawing:
    """A figure that can be drawn.

    Attributes:
        kind: of the figure; each has its function in ``figures.charts``.
        title: unique among the figures of a folder.
        frame: tidy table of its data alone.
    """

    kind: Kind
    title: str
    frame: pd.DataFrame


def drawings(groups: Sequence[RunGroup]) -> Iterator[Drawing]:
    """All figures of these runs, comparisons first.

    If there are more than ``DETAILED`` settings, only comparisons are drawn; a report on a part of
    the folder gives the figures of single settings.
    """
    compared = list(_series(groups))
    if not compared:
        compared = list(_settings(groups))
    yield from compared
    if len(groups) <= DETAILED:
        yield from _single_settings(groups)


def _single_settings(groups: Sequence[RunGroup]) -> Iterator[Drawing]:
    for name, frame in split(frames.accuracies(groups), "setting"):
        yield Drawing("dots", f"Accuracy on every task · {name}", frame)
    for name, frame in split(average_ranks(groups), "setting"):
        yield Drawing("ranks", f"Average ranks with critical difference · {name}", frame)
    for name, frame in split(accuracies_and_costs(groups), "setting"):
        if frame["method"].nunique() > 1:
            yield Drawing("cost", f"Accuracy against cost · {name}", frame)
    # Coefficients and what they are learned from belong to the experts of one zoo.
    groups = [group.of_first_zoo for group in groups]
    directions = dict(split(frames.directions(groups), "title", "setting"))
    for name, frame in split(frames.coefficients(groups), "title", "setting"):
        shown = "Mean coefficients of directions" if name in directions else "Coefficients"
        yield Drawing("heatmap", f"{shown} · {name}", frame)
        if frame["block"][frame["block"] != ""].nunique() > 1:
            yield Drawing("depth", f"{shown} against depth · {name}", frame)
        if name in directions:
            title = f"Coefficients of singular directions · {name}"
            yield Drawing("directions", title, directions[name])
            title = f"Coefficients against position of the direction · {name}"
            yield Drawing("positions", title, directions[name])
    for name, frame in split(frames.statistics(groups), "title", "setting"):
        yield Drawing("statistics", f"Statistics against coefficients · {name}", frame)
    for name, frame in split(frames.learning_curves(groups), "quantity", "setting"):
        yield Drawing("learning_curves", f"Learning curves, {name}", frame)
    for name, frame in split(frames.cosines(groups), "setting"):
        yield Drawing("cosines", f"Cosines of task vectors · {name}", frame)


def _settings(groups: Sequence[RunGroup]) -> Iterator[Drawing]:
    for name, frame in split(frames.averages(groups), "setting"):
        if frame["task"].nunique() >= COMPARED:
            yield Drawing("dots", f"Average accuracy by setting · {name}", frame)


def _series(groups: Sequence[RunGroup]) -> Iterator[Drawing]:
    for name, frame in split(series.by_severity(groups), "problem"):
        yield Drawing("severity", f"Accuracy against severity of corruption · {name}", frame)
    for name, frame in split(series.by_tasks(groups), "problem"):
        yield Drawing("tasks", f"Accuracy against number of tasks · {name}", frame)
    for name, frame in split(series.by_images(groups), "problem"):
        yield Drawing("images", f"Accuracy against number of learning images · {name}", frame)
