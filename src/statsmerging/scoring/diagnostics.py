"""Known failure signatures of a comparison, as warnings for log and results."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from itertools import combinations
from statistics import fmean

from torch import Tensor

from statsmerging.merging.bank import ALL_LAYERS, Coefficient
from statsmerging.runs.results import LayerKind, MethodResult, TaskAccuracy, normalised_average
from statsmerging.scoring.scores import TeacherQuality

#: A difference of two accuracies counts from this many standard errors on.
SIGNIFICANT = 3.0

#: Coefficients within this range of each other are one coefficient.
UNIFORM = 1e-3

#: A coefficient further from zero is no share of a task vector any more.
EXTREME = 5.0

#: A gradient this small moves no coefficient.
VANISHED = 1e-6

#: Task vectors with a larger cosine are nearly those of one expert.
NEAR_IDENTICAL = 0.98

#: The confidence of a network is usually above its accuracy. Below this share of it, the images are
#: of another kind than those it was trained on.
UNSURE = 0.8

#: A task below this normalised accuracy is sacrificed.
SACRIFICED = 0.5

#: Difference of normalised averages between seen and unseen tasks from which on it is reported.
GAP = 0.25


def experts_at_chance(individual: MethodResult, classes: Mapping[str, int]) -> Iterator[str]:
    """Experts that are not better than guessing, where the images can tell.

    With few images, guessing may be right on most of them. An expert is named only if it is also
    nearer to guessing than to a perfect one, and only if the images can tell these two apart.

    Args:
        classes: task → number of its classes.
    """
    for task, expert in individual.accuracies.items():
        chance = 1 / classes[task]
        bound = chance + SIGNIFICANT * math.sqrt(chance * (1 - chance) / expert.images)
        if bound < 1 and expert.accuracy < min(bound, (1 + chance) / 2):
            yield (
                f"the expert of {task} is right on {expert.accuracy:.1%} of the test images, "
                f"guessing on {chance:.1%}: usually the order of the classes, or a head of another "
                "model; job=check tells more"
            )


def weak_experts(pretrained: MethodResult, individual: MethodResult) -> Iterator[str]:
    """Experts that are worse than the model they were fine-tuned from."""
    start = pretrained.accuracies
    for task, expert in individual.accuracies.items():
        if _excess(start[task], expert) > SIGNIFICANT:
            yield (
                f"the expert of {task} is right on {expert.accuracy:.1%} of the test images, the "
                f"pre-trained model on {start[task].accuracy:.1%}: usually another "
                "preprocessing or another base model; job=check tells more"
            )


def weak_students(
    bounds: Mapping[str, MethodResult], architectures: Mapping[str, str]
) -> Iterator[str]:
    """Distilled students that are worse than their teachers.

    Args:
        bounds: rows ``individual``, with the students, and ``before_distillation``, with the
            teachers, where anything was distilled.
        architectures: distilled task → architecture of its teacher.
    """
    for task, architecture in architectures.items():
        teacher, student = bounds["before_distillation"].seen[task], bounds["individual"].seen[task]
        if _excess(teacher, student) > SIGNIFICANT:
            yield (
                f"the distilled student of {task} is right on {student.accuracy:.1%} of the test "
                f"images, its teacher ({architecture}) on {teacher.accuracy:.1%}: the backbone is "
                "too small for it, or it needs more images or steps (heterogeneous.distillation)"
            )


def trained_on_learning_images(
    teachers: Mapping[str, TeacherQuality], individual: MethodResult
) -> Iterator[str]:
    """Teachers that know the learning images' labels better than they know those of test images."""
    for task, teacher in teachers.items():
        if teacher.label_agreement is None:
            continue
        test = individual.seen[task]
        learning = TaskAccuracy(teacher.label_agreement, teacher.images)
        if _excess(learning, test) > SIGNIFICANT:
            yield (
                f"the teacher of {task} is right on {learning.accuracy:.1%} of the learning images "
                f"and {test.accuracy:.1%} of the test images: it was trained on the former, or "
                "they are easier; its labels are better than on images it never saw, so say so "
                "beside the numbers"
            )


def unsure_teachers(
    teachers: Mapping[str, TeacherQuality], individual: MethodResult
) -> Iterator[str]:
    """Teachers whose confidence on the learning images does not fit their accuracy."""
    for task, teacher in teachers.items():
        accuracy = individual.seen[task].accuracy
        if teacher.confidence < UNSURE * accuracy:
            yield (
                f"the teacher of {task} gives its class {teacher.confidence:.1%} on the learning "
                f"images, and is right on {accuracy:.1%} of the test images: the learning images "
                "are of another kind than those it knows; give it such ones (suite, corruption)"
            )


def near_identical_experts(tasks: Sequence[str], cosines: Tensor) -> Iterator[str]:
    """Experts whose statistics cannot tell them apart.

    Args:
        cosines: of their task vectors, K × K.
    """
    for (i, first), (j, second) in combinations(enumerate(tasks), 2):
        if cosines[i, j] > NEAR_IDENTICAL:
            yield (
                f"the task vectors of {first} and {second} have a cosine of {cosines[i, j]:.3f}: "
                "statistics hardly tell these experts apart; learner=free needs none"
            )


def averaged_running_statistics(experts: Sequence[str]) -> Iterator[str]:
    """Running statistics that are averaged, and fit no merged model.

    Args:
        experts: those whose running statistics are not the pre-trained ones.
    """
    if experts:
        yield (
            f"running statistics of batch normalisation differ from the pre-trained ones in "
            f"{', '.join(experts)}, and merged models have their averages, which may fit none of "
            "them: merge.running_statistics=auto measures them where that agrees more with the "
            "teachers"
        )


def uniform_coefficients(
    method: str, coefficients: Sequence[Coefficient], *, of: LayerKind | None, per_layer: bool
) -> Iterator[str]:
    """A network that ignores its input.

    Args:
        coefficients: those that the network gives, from one start.
        of: the kind of layers they belong to; ``None``: all layers.
        per_layer: every layer has its own bias, so layers differ without any input.
    """
    compared: dict[str, list[float]] = {}
    for each in coefficients:
        compared.setdefault(each.layer if per_layer else "", []).append(each.value)
    several = [values for values in compared.values() if len(values) > 1]
    if not several or max(max(values) - min(values) for values in several) >= UNIFORM:
        return
    which = f" of {of}" if of else ""
    value = "the same in each layer" if per_layer else f"{fmean(several[0]):.3f}"
    yield (
        f"{method}: all coefficients{which} are {value}: the learner ignores its input; learning "
        "rate, steps or link (link=…) may be the cause"
    )


def extreme_coefficients(
    method: str, coefficients: Sequence[Coefficient], vectors: Set[str]
) -> Iterator[str]:
    """Coefficients that no one would call merging.

    Args:
        vectors: names of the layers that are no matrices.
    """
    extreme = [each for each in coefficients if abs(each.value) > EXTREME]
    if not extreme:
        return

    def kind(layer: str) -> str:
        if layer == ALL_LAYERS:
            return "all layers"
        return "vectors" if layer in vectors else "matrices"

    counts = Counter(kind(each.layer) for each in extreme)
    kinds = " and ".join(f"{count} of {name}" for name, count in counts.items())
    largest = max(extreme, key=lambda each: abs(each.value))
    yield (
        f"{method}: {len(extreme)} of {len(coefficients)} coefficients are beyond ±{EXTREME:g} "
        f"({kinds}), the largest is {largest.value:.1f} ({largest.task}, {largest.layer}): these "
        "layers are trained rather than merged; learning rate, scale or link (link=…) may be the "
        "cause"
    )


def vanishing_gradient(method: str, norm: float) -> Iterator[str]:
    """A learner whose gradient has vanished."""
    if norm < VANISHED:
        yield (
            f"{method}: the learner's gradient is {norm:.1e} in the last step: nothing is learned; "
            "a saturated link (link=…) or empty task vectors may be the cause"
        )


def edge_of_the_grid(name: str, row: MethodResult) -> Iterator[str]:
    """A tuned value at the end of its grid: a better one may lie beyond."""
    choice = row.choice
    if choice is not None and choice.at_edge:
        values = ", ".join(f"{each.value:g}" for each in choice.tried)
        yield (
            f"{name}: the chosen {choice.parameter}={choice.value:g} lies at the edge of the grid "
            f"({values}); a `tune` with values beyond it may have a better one"
        )


def sacrificed_tasks(method: str, row: MethodResult, individual: MethodResult) -> Iterator[str]:
    """Seen tasks that the merged model gave up for the others."""
    lost = [
        f"{task} ({100 * cell.accuracy / individual.seen[task].accuracy:.0f} %)"
        for task, cell in row.seen.items()
        if cell.accuracy < SACRIFICED * individual.seen[task].accuracy
    ]
    if lost:
        yield (
            f"{method} sacrifices {', '.join(lost)}: share of the individual model's accuracy; "
            "look at the single tasks, not at the average alone"
        )


def generalisation_gap(method: str, row: MethodResult, individual: MethodResult) -> Iterator[str]:
    """A merged model that is much better on seen than on unseen tasks."""
    seen, unseen = (
        normalised_average(part, reference)
        for part, reference in ((row.seen, individual.seen), (row.unseen, individual.unseen))
    )
    if seen is not None and unseen is not None and seen - unseen > GAP:
        yield (
            f"{method} keeps {seen:.1%} of the individual models' accuracy on seen tasks and "
            f"{unseen:.1%} on unseen ones; report both, the first says little of new tasks"
        )


def _excess(first: TaskAccuracy, second: TaskAccuracy) -> float:
    """How far the first accuracy is above the second, in standard errors of their difference."""
    images = first.images + second.images
    pooled = (first.accuracy * first.images + second.accuracy * second.images) / images
    error = math.sqrt(pooled * (1 - pooled) * (1 / first.images + 1 / second.images))
    return (first.accuracy - second.accuracy) / error if error else 0.0
