"""Methods of one setting, compared in pairs on the same test images.

Three things vary, and each has its place: test images are resampled, sets of experts (zoos) too
where there are several, seeds of the merging step are averaged for each image.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from statsmerging.choices import ComparedTasks
from statsmerging.report.runs import ReportedRun
from statsmerging.report.significance import (
    Values,
    bootstrap_interval,
    holm,
    mcnemar,
    wilcoxon,
)
from statsmerging.runs.results import BOUNDS, MethodRow
from statsmerging.store.hashing import json_sha256

#: With fewer zoos, a caption warns that a bootstrap over them is too narrow.
FEW_ZOOS = 6

NARROW = "intervals over few zoos are too narrow"


@dataclass(frozen=True)
class TaskPair:
    """Two methods on one task.

    Attributes:
        difference: of their accuracies, a fraction.
        images: number of test images.
        better: images on which the first method is right more often.
        worse: images on which the second one is.
        p: of McNemar's exact test.
        corrected: the same after Holm's correction over the tasks.
    """

    difference: float
    images: int
    better: int
    worse: int
    p: float
    corrected: float


@dataclass(frozen=True)
class Pair:
    """A method against another one.

    Attributes:
        method: the first.
        against: the second.
        difference: first minus second average accuracy over the tasks, a fraction.
        interval: low and high end of its bootstrap interval.
        p: of Wilcoxon's signed-rank test over the tasks.
        tasks: task → the comparison on it.
        seeds: most seeds that either method has with one zoo: of the first, of the second.
        zoos: number of sets of experts that both were run with.
    """

    method: str
    against: str
    difference: float
    interval: tuple[float, float]
    p: float
    tasks: Mapping[str, TaskPair]
    seeds: tuple[int, int]
    zoos: int

    def turned(self) -> Pair:
        """The second method against the first."""
        low, high = self.interval
        return replace(
            self,
            method=self.against,
            against=self.method,
            difference=-self.difference,
            interval=(-high, -low),
            tasks={
                name: replace(
                    task, difference=-task.difference, better=task.worse, worse=task.better
                )
                for name, task in self.tasks.items()
            },
            seeds=(self.seeds[1], self.seeds[0]),
        )

    @property
    def below(self) -> bool:
        """Whether the first method is significantly below the second one."""
        return self.interval[1] < 0


class PairedMethods:
    """All methods of runs of one setting that were tested on the same images.

    Args:
        members: runs with outcomes; of those that repeat experts and seed, the first counts.
        of: the tasks that are compared, seen or unseen ones.
    """

    def __init__(self, members: Sequence[ReportedRun], of: ComparedTasks = "seen") -> None:
        self.members = members
        self.of = of
        self._pairs: dict[tuple[str, str], Pair | None] = {}
        self._runs: dict[str, dict[str, dict[int, ReportedRun]]] = {}
        for run in members:
            for method in _methods_of(run, of):
                zoos = self._runs.setdefault(method, {})
                zoos.setdefault(_zoo_of(run), {}).setdefault(run.results.seed, run)

    @cached_property
    def rows(self) -> dict[str, MethodRow]:
        """Method → its row in the first run that has it."""
        rows: dict[str, MethodRow] = {}
        for run in self.members:
            for method, row in run.results.methods.items():
                if method in self._runs:
                    rows.setdefault(method, row)
        return rows

    @property
    def tasks(self) -> dict[str, int]:
        """Task → number of its test images."""
        return _tasks_of(self.members[0], self.of)

    @property
    def zoos(self) -> int:
        """Number of sets of experts."""
        return len({zoo for zoos in self._runs.values() for zoo in zoos})

    @property
    def seeds(self) -> int:
        """Number of seeds of the merging step."""
        return len({run.results.seed for run in self.members})

    def average(self, method: str) -> float:
        """Average accuracy over tasks, seeds and zoos, a fraction."""
        shares = [
            self._share(method, zoo, task).mean()
            for zoo in self._runs[method]
            for task in self.tasks
        ]
        return float(np.mean(shares))

    def interval(self, method: str) -> tuple[float, float]:
        """The bootstrap interval of its average, over the same draws as that of a difference."""
        zoos = list(self._runs[method])
        shares = [np.stack([self._share(method, zoo, task) for zoo in zoos]) for task in self.tasks]
        return bootstrap_interval(shares)

    def best(self, methods: Iterable[str]) -> str:
        """The method of the highest average; of equal ones the first."""
        return max(methods, key=self.average)

    def pair(self, method: str, against: str) -> Pair | None:
        """Compare two methods; ``None`` if no experts were merged by both."""
        key = (method, against)
        if key not in self._pairs:
            # The same draws for both directions, so that one is the other with its sign turned.
            pair = self._compared(*sorted(key))
            first, second = sorted(key)
            self._pairs[second, first] = None if pair is None else pair.turned()
            self._pairs[first, second] = pair
        return self._pairs[key]

    def level(self, methods: Sequence[str]) -> set[str]:
        """The best of the methods, and all that are not significantly below it."""
        if not methods:
            return set()
        first = self.best(methods)
        pairs = {method: self.pair(method, first) for method in methods if method != first}
        return {first, *(name for name, pair in pairs.items() if pair and not pair.below)}

    def _compared(self, method: str, against: str) -> Pair | None:
        first, second = self._runs[method], self._runs[against]
        zoos = [zoo for zoo in first if zoo in second]
        if not zoos:
            return None
        differences = {task: self._differences(method, against, zoos, task) for task in self.tasks}
        means = {task: float(values.mean()) for task, values in differences.items()}
        votes = {task: mcnemar(values.mean(axis=0)) for task, values in differences.items()}
        corrected = holm([vote.p for vote in votes.values()])
        return Pair(
            method,
            against,
            difference=float(np.mean(list(means.values()))),
            interval=bootstrap_interval(list(differences.values())),
            p=wilcoxon(list(means.values())),
            tasks={
                task: TaskPair(means[task], self.tasks[task], *vote, value)
                for (task, vote), value in zip(votes.items(), corrected, strict=True)
            },
            seeds=(
                max(len(first[zoo]) for zoo in zoos),
                max(len(second[zoo]) for zoo in zoos),
            ),
            zoos=len(zoos),
        )

    def _differences(self, method: str, against: str, zoos: Sequence[str], task: str) -> Values:
        """First minus second method, zoos × images."""
        pairs = [(self._share(method, zoo, task), self._share(against, zoo, task)) for zoo in zoos]
        return np.stack([first - second for first, second in pairs])

    def _share(self, method: str, zoo: str, task: str) -> Values:
        """For each test image of a task the share of the method's seeds that have it right."""
        outcomes = [run.outcomes for run in self._runs[method][zoo].values()]
        rows = np.stack([each.of(method, task) for each in outcomes if each is not None])
        shares: Values = rows.mean(axis=0, dtype=np.float64)
        return shares


def merged_methods(rows: Mapping[str, MethodRow]) -> list[str]:
    """Methods that are no bounds."""
    return [name for name in rows if name not in BOUNDS]


def by_test_images(
    members: Iterable[ReportedRun], of: ComparedTasks = "seen"
) -> list[PairedMethods]:
    """The runs with outcomes, those with the same test images together.

    The manifest's fingerprints tell the images of a task; a run with other ones is never paired.

    Args:
        of: the tasks that are compared.
    """
    alike: dict[str, list[ReportedRun]] = {}
    for run in members:
        if _methods_of(run, of):
            alike.setdefault(json_sha256(_test_images(run, of)), []).append(run)
    return [PairedMethods(runs, of) for runs in alike.values()]


def _methods_of(run: ReportedRun, of: ComparedTasks) -> list[str]:
    """Methods whose outcomes are known on all of these tasks, of which there are some."""
    tasks = _tasks_of(run, of).keys()
    if run.outcomes is None or not tasks:
        return []
    return [method for method in run.outcomes.methods if tasks <= run.outcomes.tasks_of(method)]


def _tasks_of(run: ReportedRun, of: ComparedTasks) -> dict[str, int]:
    """Task → number of its test images, 0 if no outcomes are known."""
    row = next(iter(run.results.methods.values()))
    tasks = row.accuracy if of == "seen" else row.unseen.accuracy
    images = {} if run.outcomes is None else run.outcomes.images
    return {task: images.get(task, 0) for task in tasks}


def _test_images(run: ReportedRun, of: ComparedTasks) -> list[dict[str, Any]]:
    """Number and fingerprint of the test images of every task."""
    data, tasks = run.manifest.get("data", {}), _tasks_of(run, of)
    return [tasks, {task: data.get(f"{task}/test") for task in tasks}]


def _zoo_of(run: ReportedRun) -> str:
    """What tells the experts of a run from others: their hashes, or else the seed of the zoo."""
    weights = run.manifest.get("weights")
    return json_sha256(weights or run.config.get("zoo", {}).get("seed"))
