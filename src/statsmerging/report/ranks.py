"""Ranks of methods over the tasks of one or several suites, and when two of them differ.

Demšar, Statistical Comparisons of Classifiers over Multiple Data Sets, JMLR 2006.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import pandas as pd
from scipy import stats

from statsmerging.report.frames import accuracies, over_repetitions
from statsmerging.report.groups import RunGroup
from statsmerging.report.pairs import merged_methods
from statsmerging.report.significance import LEVEL

#: Over fewer tasks, or of fewer methods, ranks tell nothing.
FEWEST_TASKS, FEWEST_METHODS = 5, 3

#: Columns of a table of average ranks.
COLUMNS = ["setting", "title", "rank", "tasks", "critical", "p"]


def average_ranks(groups: Sequence[RunGroup]) -> pd.DataFrame:
    """Average ranks of the static models, best first, in each setting.

    A setting that several suites or backbones have is one: its tasks are those of all of them, and
    its methods those that all have on each task and with every set of experts.

    Columns: ``setting``, ``title`` (of the method), ``rank`` (average over the tasks, 1 for the
    highest accuracy), ``tasks`` (their number), ``critical`` (difference of two ranks from which on
    they differ, Nemenyi's test), ``p`` (Friedman's test that no method differs from another).
    """
    settings: dict[tuple[str, ...], list[RunGroup]] = {}
    for group in groups:
        settings.setdefault(group.setting, []).append(group)
    found = [row for setting, members in settings.items() for row in _ranked(setting, members)]
    return pd.DataFrame(found, columns=COLUMNS)


def critical_difference(methods: int, tasks: int) -> float:
    """Of two average ranks: Nemenyi's test at ``1 − LEVEL`` for all pairs (Demšar, section 3.2.2).

    Args:
        methods: number of ranked methods.
        tasks: number of tasks that their ranks are averaged over.
    """
    quantile = stats.studentized_range.ppf(LEVEL, methods, math.inf) / math.sqrt(2)
    return float(quantile * math.sqrt(methods * (methods + 1) / (6 * tasks)))


def _ranked(setting: Sequence[str], groups: Sequence[RunGroup]) -> Iterator[tuple[object, ...]]:
    table = pd.concat([_static(group) for group in groups], axis=1, join="inner").dropna()
    methods, tasks = table.shape
    if methods < FEWEST_METHODS or tasks < FEWEST_TASKS:
        return
    # Means over seeds that differ by rounding alone share a rank.
    ranks = table.round(9).rank(ascending=False).mean(axis=1).sort_values(kind="stable")
    p = float(stats.friedmanchisquare(*table.round(9).to_numpy()).pvalue)
    problems = " + ".join(dict.fromkeys(group.problem for group in groups))
    name = " · ".join([problems, *setting])
    critical = critical_difference(methods, tasks)
    titles = ranks.index.get_level_values("title")
    for title, rank in zip(titles, ranks, strict=True):
        yield name, title, float(rank), tasks, critical, p


def _static(group: RunGroup) -> pd.DataFrame:
    """Mean accuracy over zoos and seeds: static models × seen tasks of the group's problem."""
    rows = {name: row for run in group.results for name, row in run.methods.items()}
    static = [name for name in merged_methods(rows) if rows[name].is_static]
    frame = accuracies([group])
    frame = frame[frame["seen"].astype(bool) & frame["method"].isin(static)]
    zoos = frame.groupby("method")["zoo"].nunique()
    frame = frame[frame["method"].isin(zoos.index[zoos == zoos.max()])]
    means = over_repetitions(frame, ["method", "title", "task"], "accuracy")
    wide = means.pivot(index=["method", "title"], columns="task", values="mean")
    return wide.rename(columns=lambda task: (group.problem, task))
