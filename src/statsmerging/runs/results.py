"""``results.json``: every number of a run's table, with units and counts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from statsmerging.runs.directory import RESULTS
from statsmerging.store.files import read_json
from statsmerging.store.received import check_record

UNIT = "fraction of test images whose top-1 class is right"

#: Ends the name of a row whose coefficients were learned anew for the unseen experts, beside the
#: row of the same name without it, for which they were predicted.
ANEW = "_anew"


@dataclass(frozen=True)
class TaskAccuracy:
    """Top-1 accuracy on one task's test split.

    Attributes:
        accuracy: fraction between 0 and 1.
        images: number of test images n.
    """

    accuracy: float
    images: int


@dataclass(frozen=True)
class MethodResult:
    """One row of the table.

    Attributes:
        seen: accuracies on the seen tasks.
        unseen: accuracies on the unseen tasks.
        teacher_agreement: share of unlabeled images on which the model predicts its teachers'
            classes, averaged over seen tasks: what hyper-parameters are chosen by.
        about: further entries of the row: title, needs, returns, parameters.
    """

    seen: Mapping[str, TaskAccuracy]
    unseen: Mapping[str, TaskAccuracy] = field(default_factory=dict)
    teacher_agreement: float | None = None
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def accuracies(self) -> dict[str, TaskAccuracy]:
        """Of all tasks, seen and unseen."""
        return {**self.seen, **self.unseen}

    def as_json(self, individual: MethodResult) -> dict[str, Any]:
        """The row as ``results.json`` holds it."""
        row = {**self.about, **_numbers(self.seen, individual.seen)}
        if self.teacher_agreement is not None:
            row["teacher_agreement"] = self.teacher_agreement
        if self.unseen:
            row["unseen"] = _numbers(self.unseen, individual.unseen)
        return row


def results_json(methods: Mapping[str, MethodResult], **facts: Any) -> dict[str, Any]:
    """The content of ``results.json``; ``facts`` are further entries before the table.

    Args:
        methods: rows by method name; ``individual`` must be among them.
    """
    individual = methods["individual"]
    return {
        **facts,
        "unit": UNIT,
        "methods": {name: row.as_json(individual) for name, row in methods.items()},
    }


def check_results(results: dict[str, Any], folder: Path) -> None:
    """Check the content of a received ``results.json``: the rest of the software relies on it.

    Raises:
        ReceivedError: names the first wrong entry.
    """
    check_record(_Results, results, folder / RESULTS)


def objective_of(path: Path) -> float | None:
    """Teacher agreement of the last method in ``results.json``: what a sweep may maximise.

    Never an accuracy: those are on test images.
    """
    if not path.exists():
        return None
    *_, last = read_json(path)["methods"].values()
    agreement = last.get("teacher_agreement")
    return None if agreement is None else float(agreement)


def normalised_average(
    tasks: Mapping[str, TaskAccuracy], individual: Mapping[str, TaskAccuracy]
) -> float | None:
    """Mean over tasks of accuracy / accuracy of the individual model.

    A task whose individual model is never right has no such ratio and is left out; ``None`` where
    no task is left.
    """
    ratios = [
        result.accuracy / individual[task].accuracy
        for task, result in tasks.items()
        if individual[task].accuracy > 0
    ]
    return _mean(ratios)


Fraction = Annotated[float, Field(ge=0, le=1)]


class _Record(BaseModel):
    """Entries that are used; there may be more."""

    model_config = ConfigDict(strict=True, extra="allow")


class _Unseen(_Record):
    accuracy: dict[str, Fraction] = {}
    average: Fraction | None = None
    normalised_average: FiniteFloat | None = None


class _Row(_Record):
    accuracy: dict[str, Fraction] = Field(min_length=1)
    average: Fraction
    normalised_average: FiniteFloat | None
    teacher_agreement: Fraction | None = None
    unseen: _Unseen = _Unseen()
    title: str = ""
    needs: str | None = None
    returns: str = ""
    parameters: dict[str, Any] = {}


class _Expert(_Record):
    architecture: str
    teacher: Fraction
    student: Fraction
    images: int


class _Teacher(_Record):
    label_agreement: Fraction


class _Results(_Record):
    suite: str
    backbone: str
    seed: int
    stamps: list[str]
    methods: dict[str, _Row] = Field(min_length=1)
    run_hash: str = ""
    corruption: str = ""
    granularity: str = ""
    learner: str = ""
    labels: str = ""
    warnings: list[str] = []
    teachers: dict[str, _Teacher] = {}
    distilled: dict[str, _Expert] = {}
    task_vector_cosines: dict[str, dict[str, FiniteFloat]] = {}


def _numbers(
    tasks: Mapping[str, TaskAccuracy], individual: Mapping[str, TaskAccuracy]
) -> dict[str, Any]:
    return {
        "accuracy": {task: result.accuracy for task, result in tasks.items()},
        "average": _mean([result.accuracy for result in tasks.values()]),
        "normalised_average": normalised_average(tasks, individual),
        "n": {task: result.images for task, result in tasks.items()},
    }


def _mean(values: list[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None
