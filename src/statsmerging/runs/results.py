"""``results.json``: all numbers of a run, as the typed objects that it is written from and read as.

A job scores its models as ``MethodResult``; ``run_results`` makes of them a ``RunResults``, which
``as_json`` turns into the content of the file. ``read_results`` checks a file of any
source and version, and returns the same ``RunResults`` again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from statsmerging.runs.cost import Cost, Measured
from statsmerging.runs.directory import RESULTS
from statsmerging.store.received import check_record, received_json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

UNIT = "fraction of test images whose top-1 class is right"

#: Titles of the rows that are bounds, not merged models; every other row has a title of its own.
BOUND_TITLES = {
    "pretrained": "Pre-trained",
    "individual": "Individual",
    "before_distillation": "Before distillation",
    "joint": "Jointly trained",
}

BOUNDS = tuple(BOUND_TITLES)

#: Suffix of a method's name if its coefficients were learned anew for the unseen experts. The row
#: without the suffix has the coefficients that were predicted for them.
ANEW = "_anew"


#: Layers as matrices, with convolutions as out × rest; ``vectors`` have a side of 1: biases, norms,
#: tokens.
LayerKind = Literal["matrices", "vectors"]


@dataclass(frozen=True)
class TaskAccuracy:
    """Top-1 accuracy on the test split of one task.

    Attributes:
        accuracy: fraction between 0 and 1.
        images: number of test images n.
        right: whether the class of each image is right, n truth values; ``None``: not known. They
            stand in ``outcomes.safetensors``, not in the results.
    """

    accuracy: float
    images: int
    right: NDArray[np.bool_] | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class MethodResult:
    """Scores of one model, before they are compared with the individual models.

    Attributes:
        seen: accuracies on the seen tasks.
        unseen: accuracies on the unseen tasks.
        teacher_agreement: share of unlabeled images on which the model predicts the class of their
            teacher, averaged over the seen tasks; hyper-parameters are selected by it.
        about: title, needs, returns and parameters of the row.
        choice: of the tuned parameter; ``None``: the row is as configured.
        movement: how far learned coefficients move the weights; empty if none were learned.
        cost: images, passes and parameters; ``None`` for bounds and for models from elsewhere.
        measured: seconds and memory of the same.
    """

    seen: Mapping[str, TaskAccuracy]
    unseen: Mapping[str, TaskAccuracy] = field(default_factory=dict)
    teacher_agreement: float | None = None
    about: Mapping[str, Any] = field(default_factory=dict)
    choice: GridChoice | None = None
    movement: Mapping[LayerKind, LayerMovement] = field(default_factory=dict)
    cost: Cost | None = None
    measured: Measured | None = None

    @property
    def accuracies(self) -> dict[str, TaskAccuracy]:
        """Accuracies on all tasks, seen and unseen."""
        return {**self.seen, **self.unseen}


Fraction = Annotated[float, Field(ge=0, le=1)]
NonNegativeNumber = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Record(BaseModel):
    """Strict types; entries of a later version are kept, so that no record loses any."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)


class UnseenScores(_Record):
    """Scores on the unseen tasks; the fields are those of ``MethodRow``."""

    accuracy: dict[str, Fraction] = {}
    average: Fraction | None = None
    normalised_average: FiniteFloat | None = None
    n: dict[str, int] = {}


class LayerMovement(_Record):
    """How far learned coefficients move the layers of one kind.

    Attributes:
        largest_coefficient: max |λ|.
        relative: ‖θ − θ₀‖ / ‖θ₀‖ over all layers of the kind, where θ − θ₀ is Σ λ T if θ₀ is the
            anchor; ``None`` where θ₀ is zero.
    """

    largest_coefficient: NonNegativeNumber
    relative: NonNegativeNumber | None = None


class TriedValue(_Record):
    """One value of a grid.

    Attributes:
        value: of the parameter.
        agreement: task → share of unlabeled images on which model and teacher agree; empty if the
            model diverged.
        average: of the accuracies on the test images; known only where the oracle is asked.
    """

    value: FiniteFloat
    agreement: dict[str, Fraction] = {}
    average: Fraction | None = None


class GridChoice(_Record):
    """How the value of a tuned row was chosen.

    Attributes:
        parameter: its name.
        rule: by which it was chosen.
        value: the chosen one.
        at_edge: it is the lowest or the highest of the grid, and values beyond it are valid.
        tried: all values, in their order.
    """

    parameter: str
    rule: str
    value: FiniteFloat
    at_edge: bool
    tried: list[TriedValue] = Field(min_length=1)

    @property
    def oracle(self) -> float | None:
        """The highest test average of the grid, which no rule without test labels can promise."""
        return max((each.average for each in self.tried if each.average is not None), default=None)


class MethodRow(_Record):
    """One row of the table.

    Attributes:
        title: name of the method in tables; empty for bounds.
        needs: what the method needs besides the weights.
        returns: what comes out, e.g. ``state dict``.
        running_statistics: of batch normalisation: ``averaged`` over the experts, measured on the
            learning images of all tasks (``pooled``) or of each one (``per_task``); ``None`` if the
            first is all that was asked for, and for networks without it.
        parameters: parameters of the method.
        accuracy: task → top-1 accuracy on its test images, a fraction.
        average: mean of these.
        normalised_average: mean over tasks of accuracy / accuracy of the individual model; ``None``
            if no individual model is ever right.
        n: task → number of test images.
        teacher_agreement: as in ``MethodResult``.
        choice: as in ``MethodResult``; records of earlier versions have none.
        movement: as in ``MethodResult``; records of earlier versions have none.
        cost: as in ``MethodResult``; records of earlier versions have none.
        unseen: scores on the unseen tasks.
    """

    title: str = ""
    needs: str | None = None
    returns: str = "state dict"
    running_statistics: str | None = None
    parameters: dict[str, Any] = {}
    accuracy: dict[str, Fraction] = Field(min_length=1)
    average: Fraction
    normalised_average: FiniteFloat | None = None
    n: dict[str, int] = {}
    teacher_agreement: Fraction | None = None
    choice: GridChoice | None = None
    movement: dict[str, LayerMovement] = {}
    cost: Cost | None = None
    unseen: UnseenScores = UnseenScores()

    @property
    def is_static(self) -> bool:
        """Whether one model with fixed weights comes out."""
        return self.returns == "state dict"


class DistilledExpert(_Record):
    """An expert of another architecture that was distilled into the backbone.

    Attributes:
        architecture: of the teacher.
        teacher: accuracy of the teacher on the test images, a fraction.
        student: accuracy of the distilled expert on them.
        images: number of test images.
        unlabeled_images: number of images it was distilled on.
    """

    architecture: str
    teacher: Fraction
    student: Fraction
    images: int
    unlabeled_images: int | None = None


class LearningTeacher(_Record):
    """A teacher on the learning images of its task.

    Attributes:
        label_agreement: share of images whose label it predicts; ``None`` without labels.
        confidence: mean of its highest class probability.
        images: number of images.
    """

    label_agreement: Fraction | None = None
    confidence: FiniteFloat | None = None
    images: int | None = None


class RunResults(_Record):
    """All numbers of a run. The order of the fields is the order of the entries in the file.

    Attributes:
        run_hash: hash of the config; empty in records of the first version.
        suite: name of the suite.
        backbone: label of the backbone.
        corruption: e.g. ``contrast 2``; ``none`` for clean images.
        seed: of the run.
        stamps: departures from the label-free protocol.
        distilled: task → its expert, if it was distilled.
        granularity: of the coefficients, unless the parameters of a method have another one.
        learner: kind of the learner, with the same exception.
        labels: kind of the teachers' labels.
        counts: differences of the numbers of images from the catalogue (``job=check``).
        off_published: differences of the scores from published ones (``job=check``).
        checkpoint_sha256: of the checkpoint (``job=evaluate``).
        merged: name of the method whose model is ``merged.safetensors``.
        failed: method → error message.
        held_out: task → number of unlabeled images that tell the agreement, and from which nothing
            is learned; empty: it is told by those that are learned from.
        teachers: task → quality of its teacher.
        task_vector_cosines: task → task → cosine between their task vectors.
        warnings: one line each.
        unit: of the accuracies.
        methods: rows by the method's name, in the order of the table.
        measured: method → seconds and memory, the only numbers that change from run to run;
            records of earlier versions have none.
    """

    run_hash: str = ""
    suite: str
    backbone: str
    corruption: str = ""
    seed: int
    stamps: list[str]
    distilled: dict[str, DistilledExpert] = {}
    granularity: str = ""
    learner: str = ""
    labels: str = ""
    counts: list[str] = []
    off_published: list[str] = []
    checkpoint_sha256: str = ""
    merged: str | None = None
    failed: dict[str, str] = {}
    held_out: dict[str, int] = {}
    teachers: dict[str, LearningTeacher] = {}
    task_vector_cosines: dict[str, dict[str, FiniteFloat]] = {}
    warnings: list[str] = []
    unit: str = UNIT
    methods: dict[str, MethodRow] = Field(min_length=1)
    measured: dict[str, Measured] = {}

    def as_json(self) -> dict[str, Any]:
        """The content of ``results.json``: the entries that were given, in their order."""
        return self.model_dump(exclude_unset=True)


def run_results(methods: Mapping[str, MethodResult], **facts: Any) -> RunResults:
    """The results of a run that ends.

    Args:
        methods: rows by method name; ``individual`` must be among them.
        facts: all fields of ``RunResults`` besides ``methods``, ``measured`` and ``unit``.
    """
    individual = methods["individual"]
    rows: dict[str, Any] = {}
    for name, result in methods.items():
        row = {**result.about, **_scores(result.seen, individual.seen)}
        if result.teacher_agreement is not None:
            row["teacher_agreement"] = result.teacher_agreement
        if result.choice is not None:
            row["choice"] = result.choice
        if result.movement:
            row["movement"] = result.movement
        if result.cost is not None:
            row["cost"] = result.cost
        if result.unseen:
            row["unseen"] = _scores(result.unseen, individual.unseen)
        rows[name] = row
    measured = {
        name: result.measured for name, result in methods.items() if result.measured is not None
    }
    if measured:
        facts["measured"] = measured
    return RunResults(**facts, unit=UNIT, methods=rows)


def read_results(folder: Path) -> RunResults:
    """Read ``results.json`` of a run directory.

    Raises:
        ReceivedError: names the file and its first wrong entry.
    """
    return check_record(RunResults, received_json(folder, RESULTS), folder / RESULTS)


def objective_of(folder: Path) -> float | None:
    """Teacher agreement of the last method of a run, which a sweep may maximise.

    An accuracy would not do: accuracies are on test images. ``None`` if the run has no results, or
    its last method no agreement.
    """
    if not (folder / RESULTS).exists():
        return None
    *_, last = read_results(folder).methods.values()
    return last.teacher_agreement


def normalised_average(
    tasks: Mapping[str, TaskAccuracy], individual: Mapping[str, TaskAccuracy]
) -> float | None:
    """Mean over tasks of accuracy / accuracy of the individual model.

    A task whose individual model is never right has no such ratio and is left out; ``None`` if no
    task is left.
    """
    ratios = [
        result.accuracy / individual[task].accuracy
        for task, result in tasks.items()
        if individual[task].accuracy > 0
    ]
    return _mean(ratios)


def method_title(method: str, title: str = "") -> str:
    """The name of a method in tables and figures: that of the bound, its own title, or its name."""
    return BOUND_TITLES.get(method) or title or method


def _scores(
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
